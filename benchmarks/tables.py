"""Databases of a known size on the suite's own server, filled with what the application would have stored.

Rows are inserted by a few statements and not by a million calls, so what triggers would give is given here: orders
without gaps, message_count, the parent of each message, its search vector by the application's own function, times that
rise within a session. Indexes and foreign keys are dropped meanwhile and made again from their own definitions.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg

from local.settings import ROOT
from tests.support.suites import RunningStack

SETTLE_SECONDS = 60

# What the migrations find on every Supabase project, as far as they touch it.
_PLATFORM = """
create schema auth;
create table auth.users (
    id uuid primary key, email varchar(255), raw_user_meta_data jsonb, last_sign_in_at timestamptz
);
create function auth.uid() returns uuid language sql stable set search_path = ''
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    )::uuid
$$;
grant usage on schema auth to postgres, anon, authenticated;
grant all on auth.users to postgres;
create schema storage;
create table storage.buckets (
    id text primary key, name text not null unique, public boolean default false,
    file_size_limit bigint, allowed_mime_types text[]
);
create table storage.objects (
    id uuid primary key default gen_random_uuid(), bucket_id text references storage.buckets, name text
);
create function storage.foldername(name text) returns text[] language sql immutable
as $$ select (string_to_array(name, '/'))[1:array_length(string_to_array(name, '/'), 1) - 1] $$;
alter table storage.objects owner to postgres;
grant usage on schema storage to postgres;
grant all on storage.buckets, storage.objects to postgres;
"""
_IDS = """
create function pg_temp.message_id(session_id uuid, place integer) returns uuid language sql immutable
as $$
    select overlay(overlay(md5(session_id::text || place) placing '4' from 13) placing '8' from 17)::uuid
$$;
"""
_MESSAGES = """
insert into public.messages (
    id, session_id, "order", role, content, "timestamp", parent_id, search
)
select
    pg_temp.message_id(g.session_id, n),
    g.session_id,
    n,
    case when n % 2 = 1 then 'user' else 'assistant' end,
    t.content,
    s.created_at + n * interval '1 second',
    case when n > 1 then pg_temp.message_id(g.session_id, n - 1) end,
    private.search_vector(s.user_id, t.content)
from unnest($1::uuid[], $2::integer[]) as g (session_id, wanted)
inner join public.sessions as s on g.session_id = s.id
cross join generate_series(1, g.wanted) as n
cross join lateral (select format('Message %s says a few words, as people do, and then it ends.', n) as content) as t
-- As they would have come in: all sessions grow at once, so a session's rows lie apart.
order by n, g.session_id
"""
_RUNS = """
with run as (
    insert into public.runs (
        session_id, user_id, state, model, request_hash, lease_hash, lease_seconds, lease_expires_at, user_message_id,
        answer_message_id, usage_model, prompt_tokens, completion_tokens, cached_tokens, cost_micro_usd,
        is_usage_estimated, created_at, started_at, finished_at, deltas_pruned_at
    )
    select
        s.id, s.user_id, 'SUCCEEDED', 'test-model', sha256(s.id::text::bytea), sha256(n::text::bytea), 10,
        s.created_at + n * interval '1 minute', gen_random_uuid(), gen_random_uuid(), 'test-model', 10, 10, 0, 0, false,
        s.created_at + n * interval '1 minute', s.created_at + n * interval '1 minute',
        s.created_at + n * interval '1 minute', s.updated_at
    from public.sessions as s cross join generate_series(1, $2::integer) as n
    where s.id = any($1::uuid[])
    returning id, session_id, user_id
),

usage as (
    insert into public.api_usage (user_id, session_id, run_id, model, source, prompt_tokens, completion_tokens)
    select r.user_id, r.session_id, r.id, 'test-model', 'turn', 10, 10 from run as r
)

insert into public.run_events (run_id, seq, type, payload)
select r.id, e.seq, e.type, e.payload
from run as r
cross join (
    values
    (1, 'run_started', '{"model": "test-model"}'::jsonb),
    (22, 'message_completed', '{"message": {"content": "An answer of a few words."}}'),
    (23, 'usage', '{"model": "test-model", "prompt_tokens": 10, "completion_tokens": 10}'),
    (24, 'run_finished', '{"state": "SUCCEEDED"}')
) as e (seq, type, payload)
"""
_DEFINITIONS = """
select c.conname as name, pg_get_constraintdef(c.oid) as definition, c.contype::text as kind
from pg_constraint as c
where c.conrelid = 'public.messages'::regclass and c.contype in ('p', 'u', 'f')
union all
select x.indexrelid::regclass::text, pg_get_indexdef(x.indexrelid), 'i'
from pg_index as x
where x.indrelid = 'public.messages'::regclass
  and not exists (select from pg_constraint as c where c.conindid = x.indexrelid and c.conrelid = x.indrelid)
"""


@dataclass(frozen=True)
class Addresses:
    """A database as the superuser, the owner of the tables, and the services see it."""

    admin: str
    owner: str
    login: str

    @classmethod
    def of(cls, stack: RunningStack, name: str | None = None) -> "Addresses":
        """Those of the suite's own database, or of another one on its server."""
        urls = (stack.admin_db_url, stack.migration_db_url, stack.db_url)
        return cls(*(url if name is None else urlunsplit(urlsplit(url)._replace(path=f"/{name}")) for url in urls))


@contextlib.asynccontextmanager
async def database(stack: RunningStack, name: str) -> AsyncIterator[Addresses]:
    """Create a database with the migrations and nothing else in it; drop it at the end."""
    server = await asyncpg.connect(stack.admin_db_url)
    try:
        await server.execute(f"drop database if exists {name} with (force)")
        await server.execute(f"create database {name} owner postgres")
        try:
            addresses = Addresses.of(stack, name)
            async with connected(addresses.admin) as admin:
                await admin.execute(_PLATFORM)
            async with connected(addresses.owner) as owner:
                for migration in sorted((ROOT / "supabase" / "migrations").glob("*.sql")):
                    async with owner.transaction():
                        await owner.execute(migration.read_text())
                # What is measured is not what one user may do in a minute.
                await owner.execute("update private.limits set messages_per_minute = 1000000000")
            yield addresses
        finally:
            await server.execute(f"drop database if exists {name} with (force)")
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection that is closed at the end."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def add_users(owner: asyncpg.Connection, count: int) -> list[UUID]:
    """Sign users up, through the application's own trigger."""
    ids = [uuid4() for _ in range(count)]
    await owner.execute(
        "insert into auth.users (id, email) select n.id, n.id || '@example.net' from unnest($1::uuid[]) as n (id)", ids
    )
    return ids


async def add_sessions(owner: asyncpg.Connection, user_ids: Sequence[UUID], each: int, messages: int = 0) -> list[UUID]:
    """Add so many sessions to each user, ready for so many messages; no two of a user were active at the same time."""
    rows = await owner.fetch(
        """
        insert into public.sessions (user_id, name, message_count, created_at, updated_at)
        select u.id, 'Session ' || n, $3, b.moment, b.moment + $3::integer * interval '1 second'
        from unnest($1::uuid[]) as u (id)
        cross join generate_series(1, $2::integer) as n
        cross join lateral (select now() - interval '60 days' + n * interval '1 second' as moment) as b
        returning id
        """,
        list(user_ids),
        each,
        messages,
    )
    return [row["id"] for row in rows]


async def fill(owner: asyncpg.Connection, wanted: dict[UUID, int], *, rebuild: bool) -> None:
    """Give each of these sessions, which `add_sessions` has made for so many messages, its messages.

    rebuild: drop indexes and foreign keys meanwhile, which is faster for many rows and needs a database of one's own.
    """
    async with owner.transaction():
        await owner.execute("set local work_mem = '128MB'; set local maintenance_work_mem = '256MB'")
        await owner.execute(f"drop function if exists pg_temp.message_id(uuid, integer); {_IDS}")
        await owner.execute("alter table public.messages disable trigger user")
        definitions = await owner.fetch(_DEFINITIONS) if rebuild else []
        for row in definitions:
            await owner.execute(
                f"drop index {row['name']}"
                if row["kind"] == "i"
                else f"alter table public.messages drop constraint {row['name']}"
            )
        await owner.execute(_MESSAGES, list(wanted), list(wanted.values()))
        for row in definitions:
            await owner.execute(
                row["definition"]
                if row["kind"] == "i"
                else f"alter table public.messages add constraint {row['name']} {row['definition']}"
            )
        await owner.execute("alter table public.messages enable trigger user")


async def add_runs(owner: asyncpg.Connection, session_ids: Sequence[UUID], each: int) -> None:
    """Give each session so many runs that have ended, with their last events and rows of the ledger."""
    await owner.execute(_RUNS, list(session_ids), each)


async def settle(addresses: Addresses) -> None:
    """Bring statistics and visibility up to date, write everything out, and wait until no autovacuum is at work."""
    async with connected(addresses.owner) as owner:
        for table in ("users", "sessions", "messages", "runs", "run_events", "api_usage"):
            await owner.execute(f"vacuum (analyze) public.{table}")
    async with connected(addresses.admin) as admin:
        await admin.execute("checkpoint")
        for _ in range(SETTLE_SECONDS):
            if not await admin.fetchval(
                "select count(*) from pg_stat_activity where backend_type = 'autovacuum worker'"
            ):
                return
            await asyncio.sleep(1)
