from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from postgrest.exceptions import APIError
from supabase import AsyncClientOptions, acreate_client

from tests.support.database import INSUFFICIENT_PRIVILEGE
from tests.support.expectations import TABLES
from tests.support.suites import RunningStack


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=30) as client:
        yield client


async def client_of(stack: RunningStack, http: httpx.AsyncClient) -> Any:
    """Return supabase-py's client; what it answers is JSON of any shape, on which the tests assert."""
    options = AsyncClientOptions(httpx_client=http, persist_session=False, auto_refresh_token=False)
    return await acreate_client(stack.supabase_url, stack.publishable_key, options)


async def signed_up(stack: RunningStack, http: httpx.AsyncClient) -> Any:
    """A client of somebody who has just signed up, through the auth server itself."""
    client = await client_of(stack, http)
    await client.auth.sign_up(
        {
            "email": f"{uuid4()}@example.net",
            "password": f"pw-{uuid4()}",
            "options": {"data": {"display_name": "Ada"}},
        }
    )
    return client


async def test_a_person_who_signs_up_has_an_account(stack: RunningStack, http: httpx.AsyncClient) -> None:
    client = await signed_up(stack, http)
    [account] = (await client.table("users").select("*, profiles(*), user_settings(*)").execute()).data
    user = (await client.auth.get_user()).user
    assert (account["id"], account["email"], account["display_name"]) == (user.id, user.email, "Ada")
    assert (await client.schema("api").rpc("get_me", {"args": {}}).execute()).data["user"]["id"] == user.id


async def test_signing_in_is_noted(stack: RunningStack, http: httpx.AsyncClient) -> None:
    client, password = await client_of(stack, http), f"pw-{uuid4()}"
    email = f"{uuid4()}@example.net"
    await client.auth.sign_up({"email": email, "password": password})
    before = (await client.table("users").select("last_login_at").execute()).data[0]["last_login_at"]
    await client.auth.sign_in_with_password({"email": email, "password": password})
    after = (await client.table("users").select("last_login_at").execute()).data[0]["last_login_at"]
    assert after
    assert before is None or after > before


async def test_owners_insert_and_read_their_rows_over_rest(stack: RunningStack, http: httpx.AsyncClient) -> None:
    client = await signed_up(stack, http)
    [session] = (await client.table("sessions").insert({"name": "over REST"}).execute()).data
    rows = [
        {"session_id": session["id"], "role": "user", "content": "{}", "metadata": {"a": [1, {"b": "[]"}]}},
        {"session_id": session["id"], "role": "assistant", "content": "b", "metadata": {}},
    ]
    await client.table("messages").insert(rows).execute()
    messages = (
        await client.table("messages").select("*").eq("session_id", session["id"]).order("order").execute()
    ).data
    assert [(message["order"], message["content"]) for message in messages] == [(1, "{}"), (2, "b")]
    assert messages[0]["metadata"] == {"a": [1, {"b": "[]"}]}
    [session] = (await client.table("sessions").update({"name": "renamed"}).eq("id", session["id"]).execute()).data
    assert (session["name"], session["message_count"]) == ("renamed", 2)


async def test_strangers_rows_are_invisible_over_rest(stack: RunningStack, http: httpx.AsyncClient) -> None:
    owner, stranger = await signed_up(stack, http), await signed_up(stack, http)
    [session] = (await owner.table("sessions").insert({"name": "private"}).execute()).data
    await owner.table("messages").insert({"session_id": session["id"], "role": "user", "content": "x"}).execute()
    for table in ("sessions", "messages"):
        assert (await stranger.table(table).select("*").execute()).data == []
    assert (await stranger.table("sessions").update({"name": "x"}).eq("id", session["id"]).execute()).data == []
    assert (await stranger.table("sessions").delete().eq("id", session["id"]).execute()).data == []
    assert len((await stranger.table("users").select("id").execute()).data) == 1
    with pytest.raises(APIError) as refusal:
        await stranger.table("messages").insert({"session_id": session["id"], "role": "user"}).execute()
    assert refusal.value.code == INSUFFICIENT_PRIVILEGE


@pytest.mark.parametrize("table", TABLES)
async def test_nobody_reads_over_rest_without_signing_in(
    stack: RunningStack, http: httpx.AsyncClient, table: str
) -> None:
    client = await client_of(stack, http)
    with pytest.raises(APIError) as refusal:
        await client.table(table).select("*").execute()
    assert refusal.value.code == INSUFFICIENT_PRIVILEGE


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("users", {"role": "admin"}),
        ("users", {"email": "x@example.net"}),
        ("users", {"last_login_at": "2026-01-01T00:00:00Z"}),
        ("sessions", {"message_count": 7}),
        ("sessions", {"user_id": str(uuid4())}),
    ],
)
async def test_a_forged_column_is_refused_over_rest(
    stack: RunningStack, http: httpx.AsyncClient, table: str, change: dict[str, object]
) -> None:
    client = await signed_up(stack, http)
    await client.table("sessions").insert({"name": "x"}).execute()
    with pytest.raises(APIError) as refusal:
        await client.table(table).update(change).neq("created_at", "2000-01-01").execute()
    assert refusal.value.code == INSUFFICIENT_PRIVILEGE


async def test_nothing_of_schema_private_is_reachable_over_rest(stack: RunningStack, http: httpx.AsyncClient) -> None:
    client = await signed_up(stack, http)
    with pytest.raises(APIError) as refusal:
        await client.schema("private").rpc("call", {"claims": {}, "operation": "get_me", "args": {}}).execute()
    assert refusal.value.code == "PGRST106"
