"""Filters on texts, which PostgREST compares with texts whatever they look like."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from supabase import AsyncClient

from local.tests.conftest import close_client, new_member
from tests.support.suites import RunningStack

NAMES = ["true", "null", "1.0", "007", "1e3", "12345678901234567890", "a,b", '"quoted"', "{a}", "plain", "0xff", " 7 "]


@pytest.fixture(scope="module")
async def writer(embedded: RunningStack) -> AsyncIterator[AsyncClient]:
    """Somebody with sessions of odd names and with settings."""
    client = await new_member(embedded)
    await client.table("sessions").insert([{"name": name} for name in NAMES]).execute()
    preferences = {
        "on": True,
        "n": 7,
        "none": None,
        "word": "null",
        "deep": {"x": "1.0", "list": [1]},
    }
    session = await client.auth.get_session()
    assert session is not None
    changed = client.table("user_settings").update({"notification_preferences": preferences})
    await changed.eq("user_id", session.user.id).execute()
    yield client
    await close_client(client)


async def found(query: Any) -> list[str]:
    return [row["name"] for row in (await query.execute()).data]


@pytest.mark.parametrize("name", NAMES)
async def test_a_text_is_found_by_itself(writer: AsyncClient, name: str) -> None:
    asked = writer.table("sessions").select("name")
    assert await found(asked.eq("name", name)) == [name]
    asked = writer.table("sessions").select("name").order("created_at")
    assert await found(asked.in_("name", [name])) == [name]
    assert name not in await found(writer.table("sessions").select("name").neq("name", name))
    assert name not in await found(writer.table("sessions").select("name").not_.eq("name", name))


async def test_texts_are_found_within_alternatives(writer: AsyncClient) -> None:
    asked = writer.table("sessions").select("name").order("name")
    alternatives = 'name.eq.true,name.eq.1.0,and(name.eq.007,name.neq.8),name.in.(1e3,"a,b"),name.not.in.(true)'
    assert await found(asked.or_(alternatives.replace(",name.not.in.(true)", ""))) == [
        "007",
        "1.0",
        "1e3",
        "a,b",
        "true",
    ]
    everything = await found(writer.table("sessions").select("name").or_(alternatives))
    assert sorted(everything) == sorted(NAMES)


@pytest.mark.parametrize(
    ("path", "operator", "value", "count"),
    [
        ("->>on", "eq", "true", 1),
        ("->>on", "eq", "false", 0),
        ("->>on", "neq", "false", 1),
        ("->>n", "eq", "7", 1),
        ("->>n", "eq", "7.0", 0),
        ("->>n", "gt", "5", 1),
        ("->>n", "lt", "50", 0),
        ("->>word", "eq", "null", 1),
        ("->>none", "is", "null", 1),
        ("->deep->>x", "eq", "1.0", 1),
        ("->deep->>x", "eq", "1", 0),
        ("->deep->list->>0", "eq", "1", 1),
        ("->n", "eq", "7", 1),
        ("->deep->list", "eq", "[1]", 1),
    ],
)
async def test_what_is_inside_of_json_is_found_as_text(
    writer: AsyncClient, path: str, operator: str, value: str, count: int
) -> None:
    asked = writer.table("user_settings").select("theme").filter(f"notification_preferences{path}", operator, value)
    assert len((await asked.execute()).data) == count


async def test_other_types_are_compared_as_ever(writer: AsyncClient) -> None:
    sessions = writer.table("sessions")
    assert len(await found(sessions.select("name").eq("is_archived", "false"))) == len(NAMES)
    assert len(await found(sessions.select("name").eq("message_count", 0).lt("message_count", 1))) == len(NAMES)
    assert await found(sessions.select("name").is_("is_archived", "true")) == []
