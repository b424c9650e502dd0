"""Where the database admits no new user, people are told why, on the embedded auth server and on a hosted one."""

from collections.abc import AsyncIterator
from typing import Any
from unicodedata import normalize

import asyncpg
import httpx
import pytest

from servicekit.errors import AppError
from servicekit.reasons import REASONS
from services.auth.refusals import REASONS_OF_DATABASE
from services.auth.tests.support import AnsweringServer, Client, new_email, served_without_database

RULES = {
    "closed": "SIGN_UP_CLOSED",
    "domains": "SIGN_UP_DOMAIN_REFUSED",
    "invitations": "SIGN_UP_NOT_INVITED",
}


@pytest.fixture
async def admin(stack: Any) -> AsyncIterator[asyncpg.Connection]:
    """The suite's database, whose rule admits everybody again afterwards."""
    connection = await asyncpg.connect(stack.admin_db_url)
    yield connection
    await connection.execute("update private.sign_up_rule set admits = 'open', domains = '{}'")
    await connection.execute("delete from private.invitations")
    await connection.close()


async def reason_of(client: Client, email: str) -> str:
    with pytest.raises(AppError) as refusal:
        await client.sign_up(email)
    assert refusal.value.code.name == "PERMISSION_DENIED"
    return refusal.value.reason


@pytest.mark.parametrize("rule", RULES)
async def test_a_sign_up_that_is_not_admitted_says_why_and_who_has_an_account_goes_on(
    client: Client, admin: asyncpg.Connection, rule: str
) -> None:
    email = new_email()
    await client.sign_up(email)
    await admin.execute("update private.sign_up_rule set admits = $1, domains = '{elsewhere.example}'", rule)
    assert await reason_of(client, new_email()) == RULES[rule]
    assert (await client.log_in(email)).user.email == email


async def test_an_invited_address_is_taken_as_it_is_typed(client: Client, admin: asyncpg.Connection) -> None:
    await admin.execute("update private.sign_up_rule set admits = 'invitations'")
    email = new_email("jose").replace("example.com", "b\u00fccher.example")
    kept = email.replace("b\u00fccher", "xn--bcher-kva")
    await admin.execute("insert into private.invitations (email) values ($1)", kept)
    assert (await client.sign_up(normalize("NFD", email.upper()))).user.email == kept


@pytest.mark.parametrize("reason", sorted(REASONS_OF_DATABASE))
async def test_a_hosted_auth_server_is_asked_so_that_it_tells_the_reason(http: httpx.AsyncClient, reason: str) -> None:
    """As its source has it: to the version of 2024 it answers 500 whatever the database said."""
    assert REASONS[reason].http_status == 403
    with AnsweringServer().running() as server:

        def answer(method: str, path: str, body: bytes) -> Any:
            version = server.heads[-1].get("x-supabase-api-version", "")
            server.headers = {"X-Supabase-Api-Version": version}
            if version >= "2024-01-01":
                return 500, {"code": "unexpected_failure", "message": "Database error saving new user"}
            return 403, {"code": "PT403", "message": reason, "detail": "{}", "hint": "…"}

        server.answer = answer
        async with served_without_database(server.url, http) as client:
            assert await reason_of(client, "ada@example.com") == reason
        assert len([path for _, path, _ in server.requests if path.startswith("/auth/v1/signup")]) == 1


async def test_a_reason_is_believed_only_of_a_refusal(http: httpx.AsyncClient) -> None:
    with AnsweringServer().running() as server:
        server.answer = lambda *_: (400, {"code": "PT400", "message": "SIGN_UP_CLOSED"})
        async with served_without_database(server.url, http) as client:
            with pytest.raises(AppError) as refusal:
                await client.sign_up("ada@example.com")
    assert refusal.value.reason == "AUTH_SERVER_REFUSED"
