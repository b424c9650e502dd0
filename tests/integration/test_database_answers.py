"""The answer in the making, as the list of messages brings it along."""

import asyncio
from typing import Any

import pytest

from tests.support.contract import MAX_CONTENT_BYTES
from tests.support.database import acting_as, add_user
from tests.support.runs import RunsWorld, refused, user_message_of


async def listed(world: RunsWorld, session_id: str) -> tuple[list[str], dict[str, Any] | None]:
    answer = await world.call("list_messages", session_id=session_id, include_answer_under_way=True)
    return [message["content"] for message in answer["messages"]], answer["answer_under_way"]


async def test_the_answer_under_way_comes_with_the_messages_until_it_is_one_of_them(world: RunsWorld) -> None:
    session_id = await world.new_session()
    assert await listed(world, session_id) == ([], None)
    started = await world.start(session_id, "Träume?", model="m", agent="guide")
    expected = {
        "run_id": started["run"]["id"], "state": "RUNNING", "user_message_id": user_message_of(started)["id"],
        "text": "", "last_seq": 1, "model": "m", "agent": "guide", "reasoning": "", "reasoning_milliseconds": 0
    }  # fmt: skip
    assert await listed(world, session_id) == (["Träume?"], expected)
    await world.append(started["lease"], ["Ja", ", 夢", " 🌙"])
    assert await listed(world, session_id) == (["Träume?"], expected | {"text": "Ja, 夢 🌙", "last_seq": 4})
    assert "answer_under_way" not in await world.call("list_messages", session_id=session_id)
    await world.finish(started["lease"], answer="Ja, 夢 🌙.")
    assert await listed(world, session_id) == (["Träume?", "Ja, 夢 🌙."], None)


async def test_the_answer_of_a_process_that_died_becomes_the_partial_message(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "x")
    await world.append(started["lease"], ["said ", "so far"])
    _, under_way = await listed(world, session_id)
    await world.interrupt(started["run"]["id"])
    assert under_way is not None
    assert await listed(world, session_id) == (["x", under_way["text"]], None)


async def test_a_running_answer_comes_before_those_that_wait(world: RunsWorld) -> None:
    session_id = await world.new_session()
    first, second, _ = [await world.start(session_id, name, if_running="queue") for name in ("one", "two", "three")]
    _, under_way = await listed(world, session_id)
    assert under_way is not None
    assert (under_way["run_id"], under_way["state"]) == (first["run"]["id"], "RUNNING")
    await world.finish(first["lease"])
    _, under_way = await listed(world, session_id)
    assert under_way is not None
    assert (under_way["run_id"], under_way["state"], under_way["user_message_id"], under_way["last_seq"]) == (
        second["run"]["id"], "QUEUED", None, 0
    )  # fmt: skip


async def test_an_answer_is_in_one_place_at_every_moment(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "x")
    await world.append(started["lease"], ["answer"])
    ending = asyncio.create_task(world.finish(started["lease"]))
    while not ending.done():
        contents, under_way = await listed(world, session_id)
        assert (contents, under_way is None) in ((["x"], False), (["x", "answer"], True))
    await ending


@pytest.mark.parametrize("char", ["a", "🌙"])
async def test_the_text_so_far_fits_a_message(world: RunsWorld, char: str) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "x")
    size = len(char.encode())
    await world.append(started["lease"], [char * (MAX_CONTENT_BYTES // size)])
    _, under_way = await listed(world, session_id)
    assert under_way is not None
    assert under_way["text"] == char * (MAX_CONTENT_BYTES // size)
    await world.append(started["lease"], [char], first_seq=3)
    _, under_way = await listed(world, session_id)
    assert under_way is not None
    assert under_way["text"] == char * (MAX_CONTENT_BYTES // 4)


async def test_a_stranger_sees_no_answer_under_way(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "x")
    await world.append(started["lease"], ["secret"])
    stranger = RunsWorld(world.admin, world.pool, await add_user(world.admin))
    attempt = stranger.call("list_messages", session_id=session_id, include_answer_under_way=True)
    await refused("PT404", "SESSION_NOT_FOUND", attempt)
    for user, sees in ((stranger.user, False), (world.user, True)):
        async with world.pool.acquire() as login, acting_as(login, user) as person:
            text = await person.fetchval("select private.answer_under_way($1) ->> 'text'", session_id)
        assert (text == "secret") is sees
    async with world.pool.acquire() as login, acting_as(login, world.user) as person:
        assert not await person.fetchval(
            "select has_function_privilege('private.said_so_far(uuid, timestamptz)', 'execute')"
        )
