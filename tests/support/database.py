"""The database as the tests use it: users, operations through `private.call`, statements as a role."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg

INSUFFICIENT_PRIVILEGE = "42501"


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
