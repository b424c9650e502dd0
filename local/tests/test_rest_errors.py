"""What the database raises, and addresses that lead nowhere, are answered as by a hosted project."""

import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from local.tests.conftest import close_client, new_member
from tests.support.suites import RunningStack
from tests.support.waiting import until

RAISING = """
    create or replace function api.local_test_raise(args jsonb) returns jsonb
    language plpgsql security invoker set search_path = '' as $$
    begin
      raise exception using errcode = args ->> 'code', message = 'told', detail = 'why', hint = 'what to do';
    end
    $$;
    grant execute on function api.local_test_raise(jsonb) to authenticated;
"""


@pytest.fixture(scope="module")
async def caller(embedded: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who is signed in, where an operation raises what it is told."""
    connection = await asyncpg.connect(embedded.migration_db_url)
    await connection.execute(RAISING)
    os.kill(embedded.process("supabase"), signal.SIGHUP)  # as after a migration: the host learns of the new function
    member = await new_member(embedded)
    session = await member.auth.get_session()
    assert session is not None
    headers = {"apikey": embedded.publishable_key, "authorization": f"Bearer {session.access_token}"}
    async with httpx.AsyncClient(base_url=embedded.supabase_url, headers=headers, timeout=60) as client:

        async def is_known() -> bool:
            return (await raised(client, "P0001")).status_code != httpx.codes.NOT_FOUND

        await until(is_known, "the REST API to read the new function")
        yield client
    await close_client(member)
    await connection.execute("drop function api.local_test_raise(jsonb)")
    await connection.close()


async def raised(client: httpx.AsyncClient, code: str) -> httpx.Response:
    body = {"args": {"code": code}}
    return await client.post("/rest/v1/rpc/local_test_raise", json=body, headers={"content-profile": "api"})


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("P0001", 400),
        ("P0002", 500),
        ("23514", 400),
        ("23505", 409),
        ("22023", 400),
        ("28000", 403),
        ("40001", 500),
        ("53400", 500),
        ("57014", 500),
        ("PT402", 402),
        ("PT418", 418),
        ("PT503", 503),
        ("XX000", 500),
        ("ABCDE", 400),
    ],
)
async def test_what_an_operation_raises_is_told_with_its_code(
    caller: httpx.AsyncClient, code: str, status: int
) -> None:
    answer = await raised(caller, code)
    assert answer.status_code == status
    body = answer.json()
    assert (body["code"], body["message"]) == (code, "told")
    if code != "23505":  # of which Lite tells the details alone
        assert (body["details"], body["hint"]) == ("why", "what to do")


async def test_a_row_that_a_table_does_not_take_is_told_so(caller: httpx.AsyncClient) -> None:
    answer = await caller.post("/rest/v1/sessions", json={"name": "x" * 300})
    assert (answer.status_code, answer.json()["code"]) == (400, "23514")
    assert "sessions_name_length" in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/", {"error": "requested path is invalid"}),
        ("/nothing", {"error": "requested path is invalid"}),
        ("/auth", {"error": "requested path is invalid"}),
        ("/auth/v1/nothing", {"code": 404, "error_code": "not_found", "msg": "There is no such route."}),
        ("/auth/v1/", {"code": 404, "error_code": "not_found", "msg": "There is no such route."}),
    ],
)
async def test_what_is_nowhere_says_so_in_json(caller: httpx.AsyncClient, path: str, body: dict[str, Any]) -> None:
    for method in ("GET", "POST"):
        answer = await caller.request(method, path)
        assert (answer.status_code, answer.json()) == (404, body)
