from typing import Any

import pytest

from tests.support.database import add_user
from tests.support.runs import RunsWorld, refused, start_args, user_message_of

MEBIBYTE = 1024 * 1024


async def listed(world: RunsWorld, session_id: str, message: dict[str, Any], size: int) -> dict[str, Any]:
    """Read what ListMessages would bring before a message."""
    return await world.call(
        "list_messages", session_id=session_id, page_size=size, from_end=True, before_order=message["order"]
    )


@pytest.mark.parametrize("wanted", [1, 3, 4, 100])
async def test_a_start_brings_the_page_that_a_list_would(world: RunsWorld, wanted: int) -> None:
    session_id = await world.new_session()
    for place in range(2):
        await world.answered(session_id, f"question {place}", f"answer {place}")
    started = await world.start(session_id, "now", history_messages=wanted)
    page = await listed(world, session_id, user_message_of(started), wanted)
    assert started["history"] == page["messages"]
    assert started["has_earlier_messages"] == page["has_more"] == (wanted < 4)
    contents = ["question 0", "answer 0", "question 1", "answer 1"]
    assert [message["content"] for message in started["history"]] == contents[-wanted:]


async def test_history_is_of_the_branch_that_ends_with_the_users_message(world: RunsWorld) -> None:
    session_id = await world.new_session()
    first = await world.answered(session_id, "one", "first answer")
    second = await world.answered(session_id, "two", "second answer")
    edited = await world.answered(
        session_id, "two, edited", "third answer", edit_message_id=user_message_of(second)["id"], history_messages=9
    )
    assert [message["content"] for message in edited["history"]] == ["one", "first answer"]
    again = await world.start(session_id, regenerate_message_id=user_message_of(second)["id"], history_messages=9)
    assert [message["content"] for message in again["history"]] == ["one", "first answer"]
    assert all(message["is_active"] for message in again["history"])
    await world.finish(again["lease"])
    root = await world.start(session_id, regenerate_message_id=user_message_of(first)["id"], history_messages=9)
    assert root.get("history", []) == []


async def test_history_stops_before_two_mebibytes(world: RunsWorld) -> None:
    session_id = await world.new_session()
    for place in range(3):
        await world.answered(session_id, f"{place}", "x" * (MEBIBYTE - 10))
    started = await world.start(session_id, "now", history_messages=100)
    page = await listed(world, session_id, user_message_of(started), 100)
    assert started["history"] == page["messages"]
    assert started["has_earlier_messages"] is True
    assert [len(message["content"]) for message in started["history"]][-1] == MEBIBYTE - 10
    assert len(started["history"]) < 6


async def test_nothing_comes_along_unasked_while_queued_or_for_a_repetition(world: RunsWorld) -> None:
    session_id = await world.new_session()
    await world.answered(session_id, "one", "answer")
    assert "history" not in await world.start(session_id, "unasked")
    queued = await world.start(session_id, "queued", if_running="queue", history_messages=9)
    assert queued["run"]["state"] == "QUEUED"
    assert "history" not in queued
    asked = {"request_id": "0e0e7f3c-6b1c-4d8f-8a55-0c2d6f4d6b11", "lease_token": "t" * 40, "history_messages": 9}
    other = await world.new_session()
    await world.answered(other, "one", "answer")
    assert len((await world.start(other, "x", **asked))["history"]) == 2
    assert "history" not in await world.start(other, "x", **asked)


async def test_first_message_brings_nothing(world: RunsWorld) -> None:
    assert "history" not in await world.start(history_messages=100)


async def test_strangers_history_stays_unseen(world: RunsWorld) -> None:
    stranger = RunsWorld(world.admin, world.pool, await add_user(world.admin))
    session_id = await world.new_session()
    await world.answered(session_id, "secret", "answer")
    attempt = stranger.call("start_run", **start_args(session_id, content="x", history_messages=100))
    await refused("PT404", "SESSION_NOT_FOUND", attempt)
