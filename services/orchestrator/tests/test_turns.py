import asyncio
import contextlib
import logging
from typing import Any
from uuid import uuid4

import pytest
from concerto.sessions.v1 import sessions_pb2

from servicekit.errors import AppError
from servicekit.messages import converter
from servicekit.testing import make_caller
from services.orchestrator.limits import MAX_QUESTION_BYTES
from services.orchestrator.models.messages import to_struct
from services.orchestrator.tests.conftest import (
    MakeSuite,
    Suite,
    error_of,
    kinds,
    replica,
    state_of,
    text_of,
)
from tests.support.model_server import FAULTS, Behaviour
from tests.support.waiting import until


async def test_turn_streams_the_answer_and_stores_both_messages(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(text="Hello to you too.", cached_tokens=2))
    events = await suite.turn(session_id, "Hello there")

    assert kinds(events) == [
        "run_started", "message_delta", "message_completed", "usage", "run_finished",
    ]  # fmt: skip
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert all(event.created_at.seconds for event in events)
    assert sum(event.HasField("message_delta") for event in events) > 1
    assert text_of(events) == "Hello to you too."
    assert state_of(events) == "SUCCEEDED"

    started = events[0].run_started
    user, answer = suite.stored(session_id)
    assert (started.session_id, started.model, started.user_message) == (session_id, "test-model", user)
    assert (user.role, user.content) == (sessions_pb2.ROLE_USER, "Hello there")
    assert (answer.role, answer.content) == (sessions_pb2.ROLE_ASSISTANT, "Hello to you too.")
    assert converter.to_json(answer.metadata) == {
        "model": "test-model",
        "agent": "assistant",
        "run_id": started.run_id,
        "finish_reason": "stop",
        "usage": {"prompt_tokens": events[-2].usage.prompt_tokens, "completion_tokens": 4, "cached_tokens": 2},
    }
    usage = events[-2].usage
    assert (usage.model, usage.completion_tokens, usage.cached_tokens) == ("test-model", 4, 2)
    assert usage.prompt_tokens > 0
    assert events[-3].message_completed.message == answer


async def test_second_turn_gives_the_model_the_first_exchange(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(text="Nice to meet you, Ada."), Behaviour(text="Ada."))
    await suite.turn(session_id, "My name is Ada")
    await suite.turn(session_id, "What is my name?")

    system, *rest = suite.model.chats[1]["messages"]
    assert system["role"] == "system"
    assert [(message["role"], message["content"]) for message in rest] == [
        ("user", "My name is Ada"),
        ("assistant", "Nice to meet you, Ada."),
        ("user", "What is my name?"),
    ]


async def test_configured_key_and_usage_option_reach_the_provider(make_suite: MakeSuite) -> None:
    async with make_suite(models="another-model") as suite:
        await suite.turn(suite.add_session(), "Hello", model="another-model")
        request = suite.model.requests[0]
    assert request.headers["authorization"] == "Bearer test-key"
    assert request.body["model"] == "another-model"
    assert request.body["stream"] is True
    assert request.body["stream_options"] == {"include_usage": True}
    assert "max_completion_tokens" not in request.body


@pytest.mark.parametrize("offline", [False, True])
async def test_a_model_that_is_not_offered_answers_nobody(make_suite: MakeSuite, offline: bool) -> None:
    none = {"openai_api_key": None, "openai_base_url": None} if offline else {}
    async with make_suite(models="small, small", **none) as suite:
        session_id = suite.add_session()
        for name in ("the-dearest", "SMALL", "small ", "small,small"):
            with pytest.raises(AppError) as refused:
                await suite.turn(session_id, "Hello", model=name)
            assert (refused.value.reason, refused.value.metadata) == ("MODEL_NOT_FOUND", {"model": name})
        assert (suite.stored(session_id), suite.model.chats, suite.fake.runs.runs) == ([], [], {})
        assert state_of(await suite.turn(session_id, "Hello", model="offline" if offline else "small")) == "SUCCEEDED"


async def test_users_metadata_is_kept_with_their_message(suite: Suite) -> None:
    session_id = suite.add_session()
    await suite.turn(session_id, "Hello", metadata=to_struct({"client": "web"}))
    assert converter.to_json(suite.stored(session_id)[0].metadata) == {"client": "web"}


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"content": "x" * (MAX_QUESTION_BYTES + 1)}, "FIELD_TOO_LARGE", "turn.content"),
        ({"session_id": "no-uuid"}, "INVALID_FIELD", "session_id"),
        ({"request_id": "no-uuid"}, "INVALID_FIELD", "turn.request_id"),
        ({"model": "m" * 201}, "FIELD_TOO_LARGE", "turn.model"),
    ],
)
async def test_request_that_breaks_the_contract_is_refused(
    suite: Suite, fields: dict[str, str], reason: str, field: str
) -> None:
    values: dict[str, Any] = {"session_id": suite.add_session(), "content": "Hello", **fields}
    with pytest.raises(AppError) as caught:
        await suite.turn(**values)
    assert (caught.value.reason, caught.value.metadata["field"]) == (reason, field)
    assert not suite.model.requests


async def test_strangers_session_is_not_found(suite: Suite) -> None:
    session_id = suite.add_session()
    with pytest.raises(AppError) as caught:
        await suite.turn(session_id, "Hello", caller=make_caller())
    assert caught.value.reason == "SESSION_NOT_FOUND"
    assert suite.stored(session_id) == []
    assert not suite.model.requests


async def test_repeated_request_id_is_answered_from_the_store(suite: Suite) -> None:
    session_id, request_id = suite.add_session(), str(uuid4())
    first = await suite.turn(session_id, "Hello", request_id=request_id)
    await suite.turn(session_id, "Something else")
    again = await suite.turn(session_id, "Hello", request_id=request_id.upper())

    assert len(suite.model.chats) == 2
    assert len(suite.stored(session_id)) == 4
    assert again == first
    assert state_of(again) == "SUCCEEDED"


async def test_request_id_of_other_content_is_refused(suite: Suite) -> None:
    session_id, request_id = suite.add_session(), str(uuid4())
    await suite.turn(session_id, "Hello", request_id=request_id)
    with pytest.raises(AppError) as caught:
        await suite.turn(session_id, "Other", request_id=request_id)
    assert caught.value.reason == "REQUEST_ID_REUSED"


async def test_same_turn_sent_twice_at_once_asks_the_model_once(suite: Suite) -> None:
    session_id, request_id = suite.add_session(), str(uuid4())
    suite.model.script(Behaviour(tokens=20, delay_seconds=0.01))
    both = await asyncio.gather(*(suite.turn(session_id, "Hello", request_id=request_id) for _ in range(2)))
    assert both[0] == both[1]
    assert len(suite.model.chats) == 1
    assert len(suite.stored(session_id)) == 2


async def test_run_goes_on_while_one_of_its_listeners_stays(suite: Suite) -> None:
    session_id, request_id = suite.add_session(), str(uuid4())
    suite.model.script(Behaviour(tokens=50, delay_seconds=0.02))
    staying = asyncio.create_task(suite.turn(session_id, "Hello", request_id=request_id))
    await until(lambda: suite.model.sent_tokens > 3)
    async with contextlib.aclosing(suite.stream(session_id, "Hello", request_id=request_id)) as events:
        async for event in events:
            if event.seq > 8:
                break
    events_of_staying = await staying
    assert state_of(events_of_staying) == "SUCCEEDED"
    assert suite.texts(session_id)[1] == text_of(events_of_staying)


async def test_same_turn_on_two_replicas_at_once_stores_one_answer(suite: Suite) -> None:
    session_id, request_id = suite.add_session(), str(uuid4())
    async with replica(suite.sessions, suite.model, suite.caller) as other:
        suite.model.script(Behaviour(tokens=10, delay_seconds=0.02), Behaviour(tokens=20, delay_seconds=0.02))
        both = await asyncio.gather(*(one.turn(session_id, "Hello", request_id=request_id) for one in (suite, other)))
    assert [state_of(events) for events in both] == ["SUCCEEDED", "SUCCEEDED"]
    assert len(suite.stored(session_id)) == 2
    assert both[0][-3].message_completed == both[1][-3].message_completed


async def test_turns_of_different_users_do_not_mix(suite: Suite) -> None:
    callers = [make_caller() for _ in range(12)]
    session_ids = [suite.add_session(caller=caller) for caller in callers]
    turns = await asyncio.gather(
        *(
            suite.turn(session_id, f"I am number {index}.", caller=caller)
            for index, (session_id, caller) in enumerate(zip(session_ids, callers, strict=True))
        )
    )
    for index, (session_id, events) in enumerate(zip(session_ids, turns, strict=True)):
        assert text_of(events).startswith(f"You said: I am number {index}. I was given 2 ")
        assert suite.texts(session_id) == [f"I am number {index}.", text_of(events)]


async def test_sessions_service_that_is_away_refuses_the_turn(suite: Suite) -> None:
    session_id = suite.add_session()
    await suite.sessions.stop()
    with pytest.raises(AppError) as caught:
        await suite.turn(session_id, "Hello")
    assert (caught.value.reason, caught.value.metadata) == ("SERVICE_UNAVAILABLE", {"service": "sessions"})
    await suite.sessions.start()
    assert state_of(await suite.turn(session_id, "Hello again")) == "SUCCEEDED"


async def test_history_that_cannot_be_read_is_an_error_event(suite: Suite) -> None:
    session_id = suite.add_session(name="Named")
    suite.fake.fill(session_id, ["One", "Two"])
    suite.fake.refuse["ListMessages"] = "DATABASE_BUSY"
    events = await suite.turn(session_id, "Hello")
    assert kinds(events) == ["run_started", "error", "run_finished"]
    assert error_of(events).details[0].reason == "DATABASE_BUSY"
    assert not suite.model.requests


async def test_session_of_ten_thousand_messages_costs_as_many_reads_as_one_of_ten(suite: Suite) -> None:
    counts = []
    for length in (10, 10_000):
        session_id = suite.add_session(name="Named")
        suite.fake.fill(session_id, [f"Message {index}" for index in range(length)])
        suite.fake.calls.clear()
        await suite.turn(session_id, "And now?")
        # A lease is renewed as often as the turn lasts seconds, whatever it reads.
        counts.append({name: count for name, count in suite.fake.calls.items() if name != "RenewLease"})
    assert counts[0] == counts[1]
    assert counts[1]["ListMessages"] == 1
    asked = suite.model.chats[1]["messages"]
    assert [message["content"] for message in asked[-2:]] == ["Message 9999", "And now?"]
    assert len(asked) == 102


async def test_only_as_many_pages_are_read_as_the_window_needs(make_suite: MakeSuite) -> None:
    async with make_suite(context_tokens=8_000, history_messages=10_000, system_prompt="Be brief.") as suite:
        session_id = suite.add_session(name="Named")
        suite.fake.fill(session_id, [f"Message {index} " + "word " * 30 for index in range(1_000)])
        await suite.turn(session_id, "And now?")
        asked = suite.model.chats[0]["messages"]
        assert suite.fake.calls["ListMessages"] == 2
        assert asked[0]["content"] == "Be brief."
        assert asked[1]["role"] == "user"
        assert asked[-1]["content"] == "And now?"
        assert 80 < len(asked) < 160


async def test_message_larger_than_the_window_is_refused_without_asking_the_model(make_suite: MakeSuite) -> None:
    async with make_suite(context_tokens=1_000) as suite:
        session_id = suite.add_session()
        events = await suite.turn(session_id, "word " * 5_000)
        assert error_of(events).details[0].reason == "PROMPT_TOO_LONG"
        assert state_of(events) == "FAILED"
        assert not suite.model.requests
        assert len(suite.stored(session_id)) == 1


async def test_first_exchange_names_a_session_without_a_name(suite: Suite) -> None:
    session_id = suite.add_session()
    await suite.turn(session_id, "\n  Plan   my trip\tto Lisbon\nin May")
    await until(lambda: suite.fake.sessions[session_id].name == "Plan my trip to Lisbon")


async def test_name_of_the_users_own_wins(suite: Suite) -> None:
    session_id = suite.add_session(name="Mine")
    await suite.turn(session_id, "Hello")
    await suite.turn(session_id, "Hello again")
    assert suite.fake.sessions[session_id].name == "Mine"


async def test_session_whose_naming_failed_is_named_by_a_later_turn_from_its_first_message(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.fake.refuse["UpdateSession"] = "INTERNAL"
    assert state_of(await suite.turn(session_id, "First words")) == "SUCCEEDED"
    del suite.fake.refuse["UpdateSession"]
    await suite.turn(session_id, "Later words")
    await until(lambda: suite.fake.sessions[session_id].name == "First words")


async def test_naming_that_hangs_does_not_hold_the_turn(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.fake.hold["UpdateSession"] = asyncio.Event()
    events = await asyncio.wait_for(suite.turn(session_id, "Hello"), timeout=60)
    assert state_of(events) == "SUCCEEDED"
    assert suite.fake.sessions[session_id].name == ""
    suite.fake.hold["UpdateSession"].set()
    await until(lambda: suite.fake.sessions[session_id].name == "Hello")


async def test_conversation_cleared_by_a_mark_is_not_given_to_the_model(suite: Suite) -> None:
    session_id = suite.add_session()
    await suite.turn(session_id, "A secret")
    mark = sessions_pb2.NewMessage(role=sessions_pb2.ROLE_SYSTEM, metadata=to_struct({"history_cleared": True}))
    suite.fake.add(session_id, mark)
    await suite.turn(session_id, "What did I say?")
    assert [message["content"] for message in suite.model.chats[1]["messages"][1:]] == ["What did I say?"]


async def test_logs_hold_no_text_of_messages_and_no_token(
    suite: Suite, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("openai", "httpx2", "httpcore2"):
        caplog.set_level(logging.WARNING, logger=name)
    session_id = suite.add_session()
    suite.model.script(Behaviour(text="purple-answer"), FAULTS["too_long"], FAULTS["invalid_json"])
    for _ in range(3):
        await suite.turn(session_id, "orange-question")
    captured = capsys.readouterr()
    logged = caplog.text + captured.out + captured.err
    assert "run.finished" in logged
    assert "PROMPT_TOO_LONG" in logged
    for secret in ("orange-question", "purple-answer", "test-key", suite.caller.token):
        assert secret not in logged


async def test_without_a_key_the_offline_model_answers_and_shows_that_it_knows_the_history(
    make_suite: MakeSuite,
) -> None:
    async with make_suite(openai_api_key=None, openai_base_url=None) as suite:
        session_id = suite.add_session()
        first = await suite.turn(session_id, "My name is Ada")
        second = await suite.turn(session_id, "What is my name?")
        assert "offline" in text_of(first)
        assert "OPENAI_API_KEY" in text_of(first)
        assert "My name is Ada" in text_of(first)
        assert "2 earlier messages" in text_of(second)
        assert "My name is Ada" in text_of(second)
        assert first[0].run_started.model == "offline"
        assert first[-2].usage.completion_tokens > 0
        assert len([event for event in first if event.HasField("message_delta")]) > 10
        assert suite.texts(session_id)[1] == text_of(first)
        assert not suite.model.requests


async def test_address_without_a_key_is_asked_with_a_stand_in_key(make_suite: MakeSuite) -> None:
    async with make_suite(openai_api_key=None) as suite:
        assert state_of(await suite.turn(suite.add_session(), "Hello")) == "SUCCEEDED"
        assert suite.model.requests[0].headers["authorization"] == "Bearer not-needed"


async def test_limit_of_the_answer_reaches_the_provider(make_suite: MakeSuite) -> None:
    async with make_suite(max_output_tokens=50) as suite:
        await suite.turn(suite.add_session(), "Hello")
        assert suite.model.chats[0]["max_completion_tokens"] == 50


async def test_answer_with_nul_and_broken_characters_is_stored_readably(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(text="nul \0 here \ud83d"))
    events = await suite.turn(session_id, "Hello")
    assert state_of(events) == "SUCCEEDED"
    assert suite.texts(session_id)[1] == text_of(events) == "nul \ufffd here \ufffd"
