"""The database as the tests use it: users, operations through `private.call`, statements as a role."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg

from local.migrations.apply import migration_files
from local.migrations.baseline import BASELINE, FOLDED
from local.settings import ROOT

INSUFFICIENT_PRIVILEGE = "42501"
# What a hosted project has before our migrations, as far as they touch it.
PLATFORM = """
create schema auth;
create table auth.users (
    id uuid primary key, email varchar(255), raw_user_meta_data jsonb, last_sign_in_at timestamptz,
    banned_until timestamptz, deleted_at timestamptz
);
create table auth.sessions (id uuid primary key, user_id uuid not null references auth.users, not_after timestamptz);
create function auth.uid() returns uuid language sql stable
as $$ select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$;
grant usage on schema auth to postgres, anon, authenticated;
grant all on auth.users, auth.sessions to postgres;
create schema storage;
create table storage.buckets (
    id text primary key, name text not null unique, public boolean default false,
    file_size_limit bigint, allowed_mime_types text[]
);
create table storage.objects (
    id uuid primary key default gen_random_uuid(), bucket_id text references storage.buckets, name text
);
alter table storage.objects enable row level security;
create function storage.foldername(name text) returns text[] language sql immutable
as $$ select (string_to_array(name, '/'))[1:array_length(string_to_array(name, '/'), 1) - 1] $$;
create function storage.protect_delete() returns trigger language plpgsql as $$
begin
    if coalesce(current_setting('storage.allow_delete_query', true), 'false') <> 'true' then
        raise insufficient_privilege using message = 'Use the Storage API.';
    end if;
    return null;
end $$;
create trigger protect_buckets_delete before delete on storage.buckets
for each statement execute function storage.protect_delete();
-- A hosted project lets postgres make policies here without owning the table; no other database has a way to say so.
alter table storage.objects owner to supabase_storage_admin;
grant usage on schema storage to postgres, anon, authenticated, supabase_storage_admin;
grant all on storage.buckets, storage.objects to postgres, anon, authenticated;
"""
# An older hosted project grants whatever postgres makes in public to everybody.
OLD_PLATFORM = """
alter default privileges for role postgres in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role postgres in schema public grant all on functions to anon, authenticated;
"""


async def add_user(
    admin: asyncpg.Connection, *, email: str | None = "", metadata: object = None, metadata_json: str | None = None
) -> str:
    """Sign a user up past the auth server, and return the id.

    email: empty picks one. metadata: becomes raw_user_meta_data; metadata_json: the same, as JSON text.
    """
    user_id = str(uuid4())
    if email == "":
        email = f"{user_id}@example.net"
    await admin.execute(
        "insert into auth.users (id, email, raw_user_meta_data) values ($1, $2, $3::jsonb)",
        user_id,
        email,
        metadata_json if metadata_json is not None else json.dumps(metadata if metadata is not None else {}),
    )
    return user_id


def claims_of(user_id: str | None) -> dict[str, str]:
    """Return the verified claims of a user's token; of nobody's for None."""
    if user_id is None:
        return {"role": "anon"}
    return {"sub": user_id, "role": "authenticated", "email": f"{user_id}@example.net"}


async def call(
    connection: asyncpg.Connection | asyncpg.Pool, user_id: str | None, operation: str, **args: Any
) -> dict[str, Any]:
    """Run an operation as the services do, over a connection of concerto_login."""
    answer = await connection.fetchval(
        "select private.call($1::jsonb, $2, $3::jsonb)::text",
        json.dumps(claims_of(user_id)),
        operation,
        json.dumps(args),
    )
    return dict(json.loads(answer))


async def call_system(connection: asyncpg.Connection | asyncpg.Pool, operation: str, **args: Any) -> dict[str, Any]:
    """Run an operation that acts for no user, over a connection of concerto_login."""
    answer = await connection.fetchval(f"select private.{operation}($1::jsonb)::text", json.dumps(args))
    return dict(json.loads(answer))


@asynccontextmanager
async def acting_as(login: asyncpg.Connection, user_id: str | None) -> AsyncIterator[asyncpg.Connection]:
    """Make statements run as the user (None: anon) as REST would; everything is undone at the end."""
    transaction = login.transaction()
    await transaction.start()
    try:
        claims = claims_of(user_id)
        await login.execute(
            "select set_config('request.jwt.claims', $1, true), set_config('request.jwt.claim.sub', $2, true),"
            " set_config('role', $3, true)",
            json.dumps(claims),
            user_id or "",
            claims["role"],
        )
        yield login
    finally:
        await transaction.rollback()


def with_database(url: str, name: str) -> str:
    """Return the same address for another database of the server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def make_as_before_the_baseline(owner: asyncpg.Connection) -> None:
    """Bring a database to where the last migration before the baseline left it, history included."""
    for version, rollback in reversed(migration_files(ROOT, "rollbacks").items()):
        if version > BASELINE:
            await owner.execute(rollback.read_text())
    await owner.execute("delete from supabase_migrations.schema_migrations")
    await owner.execute(
        "insert into supabase_migrations.schema_migrations (version, name, statements)"
        " select v, 'x', array['select 1'] from unnest($1::text[]) as v",
        list(FOLDED),
    )
