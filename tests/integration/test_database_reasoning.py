"""What models think, in the database: beside what they say, bounded with it, never found by a search."""

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.support.contract import MAX_CONTENT_BYTES
from tests.support.database import acting_as, add_user
from tests.support.runs import RunsWorld, refused

START = "2026-11-01T08:00:00Z"
THOUGHT: dict[str, Any] = {
    "role": "assistant",
    "content": "Zwölf.",
    "reasoning": "6 × 2 五",
    "reasoning_milliseconds": 1_500,
}


async def append(world: RunsWorld, session_id: str, *messages: dict[str, Any], **args: Any) -> list[dict[str, Any]]:
    answer = await world.call(
        "append_messages", session_id=session_id, messages=list(messages), include_contents=True, **args
    )
    return list(answer["messages"])


def shown(message: dict[str, Any]) -> tuple[str, str, int]:
    return message["content"], message["reasoning"], message["reasoning_milliseconds"]


async def listed(world: RunsWorld, session_id: str) -> tuple[list[tuple[str, str, int]], dict[str, Any] | None]:
    answer = await world.call("list_messages", session_id=session_id, include_answer_under_way=True)
    return [shown(message) for message in answer["messages"]], answer["answer_under_way"]


async def test_thoughts_are_stored_and_listed_with_their_message(world: RunsWorld) -> None:
    session_id, request_id = await world.new_session(), str(uuid4())
    first = await append(world, session_id, THOUGHT, request_id=request_id)
    assert [shown(message) for message in first] == [("Zwölf.", "6 × 2 五", 1_500)]
    assert await append(world, session_id, THOUGHT, request_id=request_id) == first
    other = world.call(
        "append_messages", session_id=session_id, messages=[THOUGHT | {"reasoning": "else"}], request_id=request_id
    )
    await refused("PT409", "REQUEST_ID_REUSED", other)
    await append(world, session_id, {"role": "user", "content": "Sicher?"}, THOUGHT)
    messages, _ = await listed(world, session_id)
    assert messages == [("Zwölf.", "6 × 2 五", 1_500), ("Sicher?", "", 0), ("Zwölf.", "6 × 2 五", 1_500)]


@pytest.mark.parametrize("role", ["user", "system", "tool"])
async def test_only_an_assistant_has_thoughts(world: RunsWorld, role: str) -> None:
    session_id = await world.new_session()
    await refused(
        "PT400",
        "INVALID_FIELD",
        world.call("append_messages", session_id=session_id, messages=[THOUGHT | {"role": role}]),
    )


@pytest.mark.parametrize("char", ["a", "🌙"])
async def test_thoughts_and_text_share_one_bound(world: RunsWorld, char: str) -> None:
    session_id = await world.new_session()
    half = char * (MAX_CONTENT_BYTES // 2 // len(char.encode()))
    await append(world, session_id, THOUGHT | {"content": half, "reasoning": half})
    messages = [THOUGHT | {"content": half + "a", "reasoning": half}]
    await refused("PT400", "FIELD_TOO_LARGE", world.call("append_messages", session_id=session_id, messages=messages))


async def test_a_page_ends_before_its_thoughts_pass_two_mebibytes(world: RunsWorld) -> None:
    session_id = await world.new_session()
    for _ in range(3):
        await append(world, session_id, THOUGHT | {"content": "", "reasoning": "a" * (MAX_CONTENT_BYTES - 100)})
    page = await world.call("list_messages", session_id=session_id)
    assert (len(page["messages"]), page["has_more"]) == (2, True)


async def test_no_search_finds_thoughts(world: RunsWorld) -> None:
    session_id = await world.new_session()
    await append(world, session_id, THOUGHT | {"content": "audible", "reasoning": "inaudible 夢想"})
    for query, found in (("audible", 1), ("inaudible", 0), ("夢想", 0)):
        assert len((await world.call("search_messages", query=query))["hits"]) == found


async def test_a_finish_stores_thoughts_and_tells_of_them(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "6 mal 2?")
    ended = await world.system("finish_run", lease=started["lease"], state="SUCCEEDED", messages=[THOUGHT], next_seq=2)
    assert shown(ended["events"][0]["message_completed"]["message"]) == ("Zwölf.", "6 × 2 五", 1_500)
    messages, _ = await listed(world, session_id)
    assert messages == [("6 mal 2?", "", 0), ("Zwölf.", "6 × 2 五", 1_500)]


async def test_the_answer_under_way_tells_what_it_thinks_and_for_how_long(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "x")
    lease = started["lease"]
    await world.think(lease, {"reasoning_delta": "Sechs "}, created_at="2026-11-01T08:00:00Z")
    _, under_way = await listed(world, session_id)
    assert under_way is not None
    # It still thinks, since another day.
    assert (under_way["text"], under_way["reasoning"]) == ("", "Sechs ")
    assert under_way["reasoning_milliseconds"] > 0
    await world.think(lease, {"reasoning_delta": "mal 夢"}, first_seq=3, created_at="2026-11-01T08:00:01.5Z")
    await world.think(lease, {"message_delta": "Zwölf"}, first_seq=4, created_at="2026-11-01T08:00:02Z")
    await world.think(lease, {"reasoning_delta": "?"}, first_seq=5, created_at="2026-11-01T08:00:09Z")
    await world.think(lease, {"message_delta": "."}, first_seq=6, created_at="2026-11-01T08:00:09.25Z")
    _, under_way = await listed(world, session_id)
    assert under_way is not None
    assert (under_way["text"], under_way["reasoning"], under_way["last_seq"]) == ("Zwölf.", "Sechs mal 夢?", 6)
    assert under_way["reasoning_milliseconds"] == 2_250


@pytest.mark.parametrize("text", ["", "Zw"])
async def test_a_death_in_mid_thought_keeps_what_was_thought(world: RunsWorld, text: str) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "x")
    await world.think(started["lease"], {"reasoning_delta": "Sechs "}, created_at=START)
    await world.think(started["lease"], {"reasoning_delta": "mal"}, first_seq=3, created_at="2026-11-01T08:00:01Z")
    if text:
        await world.think(started["lease"], {"message_delta": text}, first_seq=4, created_at="2026-11-01T08:00:03Z")
    await world.interrupt(started["run"]["id"])
    messages, under_way = await listed(world, session_id)
    assert (messages, under_way) == ([("x", "", 0), (text, "Sechs mal", 3_000 if text else 1_000)], None)
    run = await world.run(started["run"]["id"])
    assert run["usage"]["completion_tokens"] == -(-len(f"Sechs mal{text}") // 4)


async def test_what_is_thought_gives_way_to_what_is_said(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "x")
    await world.think(
        started["lease"], {"reasoning_delta": "🌙" * 100}, {"message_delta": "a" * (MAX_CONTENT_BYTES - 40)}
    )
    await world.interrupt(started["run"]["id"])
    messages, _ = await listed(world, session_id)
    assert [(len(content), reasoning) for content, reasoning, _ in messages] == [
        (1, ""), (MAX_CONTENT_BYTES - 40, "🌙" * 10)
    ]  # fmt: skip


async def test_old_thoughts_are_pruned_with_the_other_deltas(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "x")
    await world.think(started["lease"], {"reasoning_delta": "Sechs"}, {"message_delta": "Zwölf"})
    await world.finish(started["lease"])
    run_id = started["run"]["id"]
    await world.admin.execute("update public.runs set finished_at = now() - interval '2 hours' where id = $1", run_id)
    while (await world.system("prune_run_events"))["pruned"]:
        pass
    assert [event["seq"] for event in await world.events(run_id)] == [1, 4, 5]


@pytest.mark.parametrize("change", ["reasoning = 'x'", "reasoning_milliseconds = 1"])
async def test_nobody_changes_what_was_thought_and_no_stranger_reads_it(world: RunsWorld, change: str) -> None:
    session_id = await world.new_session()
    await append(world, session_id, THOUGHT)
    stranger = await add_user(world.admin)
    for user, sees in ((world.user, ["6 × 2 五"]), (stranger, [])):
        async with world.pool.acquire() as login, acting_as(login, user) as person:
            rows = await person.fetch("select reasoning from public.messages where session_id = $1", session_id)
            assert [row["reasoning"] for row in rows] == sees
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with world.pool.acquire() as login, acting_as(login, user) as person:
                await person.execute(f"update public.messages set {change} where session_id = $1", session_id)
    with pytest.raises(asyncpg.PostgresError):
        async with world.pool.acquire() as login, acting_as(login, stranger) as person:
            await person.execute(
                "insert into public.messages (session_id, role, reasoning) values ($1, 'assistant', 'x')", session_id
            )
