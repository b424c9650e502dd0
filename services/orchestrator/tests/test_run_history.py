from typing import Any

import pytest
from concerto.sessions.v1 import sessions_pb2, turns_pb2
from langchain_core.messages import HumanMessage

from servicekit.testing import acting_as
from services.orchestrator.models.messages import cleared_mark, to_struct
from services.orchestrator.models.window import MAX_AT_START
from services.orchestrator.tests.conftest import MakeSuite, Suite, error_of, kinds, state_of
from tests.support.model_server import Behaviour


def fill(suite: Suite, session_id: str) -> None:
    """Have a conversation with everything that a window treats apart: tools, marks, branches, metadata."""
    new = sessions_pb2.NewMessage
    call = {"tool_calls": [{"name": "search", "args": {"q": "x"}, "id": "one", "type": "tool_call"}]}
    for message in (
        new(role=sessions_pb2.ROLE_USER, content="Before the mark"),
        cleared_mark(),
        new(role=sessions_pb2.ROLE_USER, content="Rain?", metadata=to_struct({"app": 1})),
        new(role=sessions_pb2.ROLE_ASSISTANT, content="", metadata=to_struct(call)),
        new(role=sessions_pb2.ROLE_TOOL, content="Yes", metadata=to_struct({"tool_call_id": "one"})),
        new(role=sessions_pb2.ROLE_ASSISTANT, content="It will."),
        new(role=sessions_pb2.ROLE_USER, content="On another branch"),
        new(role=sessions_pb2.ROLE_ASSISTANT, content="Never seen"),
        new(role=sessions_pb2.ROLE_USER, content="Sure?"),
        new(role=sessions_pb2.ROLE_ASSISTANT, content="Quite."),
    ):
        suite.fake.add(session_id, message)
    for stored in suite.stored(session_id)[6:8]:
        stored.is_active = False


async def asked_with(suite: Suite, *, brings_history: bool, **turn: Any) -> list[dict[str, Any]]:
    suite.fake.runs.brings_history = brings_history
    session_id = suite.add_session(name="Named")
    fill(suite, session_id)
    if turn.pop("regenerate", False):
        turn["regenerate_message_id"] = suite.stored(session_id)[8].id
    suite.fake.calls.clear()
    events = await suite.turn(session_id, **turn)
    assert state_of(events) == "SUCCEEDED"
    assert suite.fake.calls["ListMessages"] == (0 if brings_history else 1)
    messages: list[dict[str, Any]] = suite.model.chats[-1]["messages"]
    return messages


@pytest.mark.parametrize("turn", [{"content": "And now?"}, {"content": "", "regenerate": True}], ids=["new", "again"])
async def test_prompt_is_the_same_whether_the_start_brings_the_history_or_not(
    suite: Suite, turn: dict[str, Any]
) -> None:
    brought = await asked_with(suite, brings_history=True, **turn)
    assert brought == await asked_with(suite, brings_history=False, **turn)
    assert [message["role"] for message in brought[:5]] == ["system", "user", "assistant", "tool", "assistant"]
    assert "Never seen" not in [message["content"] for message in brought]


@pytest.mark.parametrize("history_messages", [0, 5, 20, 100, 150, 10_000])
async def test_window_asks_for_no_more_than_it_wants(make_suite: MakeSuite, history_messages: int) -> None:
    async with make_suite(history_messages=history_messages, context_tokens=8_000) as suite:
        prompts = []
        for brings_history in (True, False):
            suite.fake.runs.brings_history = brings_history
            session_id = suite.add_session(name="Named")
            suite.fake.fill(session_id, [f"Message {index} " + "word " * 30 for index in range(300)])
            suite.fake.calls.clear()
            await suite.turn(session_id, "And now?")
            prompts.append(suite.model.chats[-1]["messages"])
            pages = {0: 0, 5: 1, 20: 1, 100: 1}.get(history_messages, 2)
            if brings_history:  # with the first twenty there, one page is all that fits the model's window
                pages = 0 if history_messages <= MAX_AT_START else 1
            assert suite.fake.calls["ListMessages"] == pages
        assert prompts[0] == prompts[1]


async def test_first_turn_of_a_session_reads_nothing(suite: Suite) -> None:
    suite.fake.runs.brings_history = True
    suite.model.script(Behaviour(text="Hi."))
    assert kinds(await suite.turn(suite.add_session(name="Named"), "Hello"))[-1] == "run_finished"
    assert suite.fake.calls["ListMessages"] == 0


async def test_pages_after_the_brought_one_that_cannot_be_read_are_an_error(make_suite: MakeSuite) -> None:
    async with make_suite(history_messages=200) as suite:
        suite.fake.runs.brings_history = True
        session_id = suite.add_session(name="Named")
        suite.fake.fill(session_id, ["x"] * 150)
        suite.fake.refuse["ListMessages"] = "DATABASE_BUSY"
        events = await suite.turn(session_id, "Hello")
        assert error_of(events).details[0].reason == "DATABASE_BUSY"
        assert not suite.model.requests


async def test_run_that_brings_its_own_prompt_asks_for_no_history(suite: Suite) -> None:
    await suite.turn(suite.add_session(name="Named"), "Hello")
    with acting_as(suite.caller):
        session_id = suite.add_session(name="Named")
        await suite.runs.begin(session_id, turns_pb2.Turn(content="Hello"), prompt=[HumanMessage("Hello")])
    assert [stored.pending.history_messages for stored in suite.fake.runs.runs.values()] == [MAX_AT_START, 0]
