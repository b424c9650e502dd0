"""When the database says that a sign-in has ended, and what it then refuses."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.support.database import add_user
from tests.support.suites import RunningStack

ENDS = {
    "log-out": "delete from auth.sessions where id = $2::text::uuid and user_id = $1::text::uuid",
    "its time": "update auth.sessions set not_after = now() where id = $2::text::uuid and user_id = $1::text::uuid",
    "ban": "update auth.users set banned_until = now() + interval '1 hour' where id = $1::text::uuid and $2 <> ''",
    "soft deletion": "update auth.users set deleted_at = now() where id = $1::text::uuid and $2 <> ''",
    "deletion": "delete from auth.users where id = $1::text::uuid and $2 <> ''",
}


@pytest.fixture(scope="module")
async def admin(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.admin_db_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def login(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.db_url)
    yield connection
    await connection.close()


async def sign_in(admin: asyncpg.Connection, user_id: str) -> dict[str, Any]:
    """Return the claims of a new sign-in of the user."""
    claims = {"sub": user_id, "role": "authenticated", "session_id": str(uuid4())}
    await admin.execute(
        "insert into auth.sessions (id, user_id) values ($1::text::uuid, $2::text::uuid)",
        claims["session_id"],
        user_id,
    )
    return claims


async def check(login: asyncpg.Connection, claims: dict[str, Any]) -> str:
    """Return why the sign-in behind these claims is refused; empty while it stands."""
    try:
        await login.fetchval("select private.call($1::jsonb, 'check_sign_in', '{}')", json.dumps(claims))
    except asyncpg.PostgresError as error:
        return f"{error.sqlstate} {error.message}"
    return ""


@pytest.mark.parametrize("end", ENDS)
async def test_a_sign_in_stands_until_it_is_ended(
    admin: asyncpg.Connection, login: asyncpg.Connection, end: str
) -> None:
    user, other = await add_user(admin), await add_user(admin)
    claims, bystander = await sign_in(admin, user), await sign_in(admin, other)
    assert await check(login, claims) == ""
    await admin.execute(ENDS[end], user, claims["session_id"])
    assert await check(login, claims) == "PT401 SIGN_IN_ENDED"
    assert await check(login, bystander) == ""


async def test_a_ban_that_is_over_ends_nothing(admin: asyncpg.Connection, login: asyncpg.Connection) -> None:
    claims = await sign_in(admin, await add_user(admin))
    statement = "update auth.users set banned_until = now() - interval '1 second' where id = $1::text::uuid"
    await admin.execute(statement, claims["sub"])
    assert await check(login, claims) == ""


async def test_a_sign_in_counts_for_its_own_user_alone(admin: asyncpg.Connection, login: asyncpg.Connection) -> None:
    user, other = await add_user(admin), await add_user(admin)
    claims = await sign_in(admin, user)
    assert await check(login, {**claims, "sub": other}) == "PT401 SIGN_IN_ENDED"
    for wrong in (str(uuid4()), "no id", claims["session_id"] + "0"):
        assert await check(login, {**claims, "session_id": wrong}) == "PT401 SIGN_IN_ENDED"


async def test_of_a_token_that_tells_of_no_sign_in_the_account_is_asked(
    admin: asyncpg.Connection, login: asyncpg.Connection
) -> None:
    claims = {"sub": await add_user(admin), "role": "authenticated"}
    assert [await check(login, {**claims, **more}) for more in ({}, {"session_id": None}, {"session_id": ""})] == [
        ""
    ] * 3
    assert await check(login, {**claims, "sub": str(uuid4())}) == "PT401 SIGN_IN_ENDED"


async def test_nobody_but_the_signed_in_asks(login: asyncpg.Connection) -> None:
    assert (await check(login, {"role": "anon"})).startswith("42501 ")
    for function in ("sign_in_stands", "refuse_ended_sign_in"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await login.execute(f"select private.{function}()")


@pytest.mark.parametrize("key", ["publishable", "secret"])
async def test_the_rest_interface_answers_those_who_are_no_user(stack: RunningStack, key: str) -> None:
    headers = {"apikey": getattr(stack, f"{key}_key")}
    async with httpx.AsyncClient(base_url=stack.supabase_url, headers=headers) as client:
        answer = await client.get("/rest/v1/users?select=id")
    assert "SIGN_IN_ENDED" not in answer.text
