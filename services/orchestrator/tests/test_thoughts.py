"""What a model thinks, from its stream to the stored message: apart from what it says."""

import asyncio

import pytest
from concerto.sessions.v1 import sessions_pb2
from langchain_core.messages import AIMessage, HumanMessage

from servicekit.errors import AppError
from services.orchestrator.limits import MAX_CONTENT_BYTES
from services.orchestrator.models.messages import from_langchain, to_langchain
from services.orchestrator.runs import event_writer
from services.orchestrator.runs.transcript import Transcript
from services.orchestrator.steps import Piece, Step, Thought, TokenUsage, ToolCall, ToolResult
from services.orchestrator.tests.conftest import Event, MakeSuite, Suite, kinds, state_of, text_of
from tests.support.model_server import Behaviour, ToolUse
from tests.support.waiting import until

THOUGHTS = "Sechs mal zwei: *zwölf* \u4e94."
THINKS = Behaviour(text="Zwölf.", thoughts=THOUGHTS)


def thoughts_of(events: list[Event]) -> str:
    return "".join(event.reasoning_delta.text for event in events)


def transcript_of(*steps: Step) -> Transcript:
    transcript = Transcript(run_id="run-1", model="m", agent="a")
    transcript.ask([HumanMessage("Hello")])
    for step in steps:
        transcript.add(step)
    return transcript


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_thoughts_come_before_the_answer_and_stand_beside_it(suite: Suite, field: str) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(text="Zwölf.", thoughts=THOUGHTS, thoughts_field=field))
    events = await suite.turn(session_id, "6 mal 2?")

    assert kinds(events) == [
        "run_started", "reasoning_delta", "message_delta", "message_completed", "usage", "run_finished",
    ]  # fmt: skip
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert (thoughts_of(events), text_of(events)) == (THOUGHTS, "Zwölf.")
    _, answer = suite.stored(session_id)
    assert (answer.content, answer.reasoning, state_of(events)) == ("Zwölf.", THOUGHTS, "SUCCEEDED")
    assert answer.reasoning_milliseconds >= 0


async def test_no_later_question_brings_thoughts_along(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(THINKS, Behaviour(text="Ja."))
    await suite.turn(session_id, "6 mal 2?")
    await suite.turn(session_id, "Sicher?")
    assert THOUGHTS not in str(suite.model.chats[-1])
    assert [message["role"] for message in suite.model.chats[-1]["messages"]] == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("agent", ["assistant", "search"])
async def test_a_model_that_is_set_so_gets_back_what_it_thought(make_suite: MakeSuite, agent: str) -> None:
    async with make_suite(agent=agent, models="other", models_given_reasoning="test-model, third") as suite:
        session_id = suite.add_session()
        uses = (ToolUse(),) if agent == "search" else ()
        suite.model.script(*([Behaviour(thoughts="I look it up.", tool_calls=uses)] if uses else []), THINKS)
        await suite.turn(session_id, "6 mal 2?")
        if uses:
            asked = suite.model.chats[-1]["messages"][-2]
            assert (asked["reasoning_content"], bool(asked["tool_calls"])) == ("I look it up.", True)
        await suite.turn(session_id, "Sicher?")
        given = [message.get("reasoning_content") for message in suite.model.chats[-1]["messages"]]
        assert given == [None, None, *(["I look it up.", None] if uses else []), THOUGHTS, None]
        await suite.turn(session_id, "Und du?", model="other")
        assert "reasoning_content" not in str(suite.model.chats[-1])


async def test_thoughts_that_are_given_back_count_against_the_window(make_suite: MakeSuite) -> None:
    async with make_suite(models_given_reasoning="test-model", context_tokens=2_000) as suite:
        session_id = suite.add_session()
        suite.model.script(Behaviour(text="Zwölf.", thoughts="word " * 4_000))
        await suite.turn(session_id, "6 mal 2?")
        await suite.turn(session_id, "Sicher?")
        assert [message["role"] for message in suite.model.chats[-1]["messages"]] == ["system", "user"]


def test_langchains_thoughts_are_stored_as_reasoning_and_not_as_metadata() -> None:
    message = from_langchain(AIMessage("Zwölf.", additional_kwargs={"reasoning_content": THOUGHTS, "kept": 1}))
    assert (message.reasoning, message.content) == (THOUGHTS, "Zwölf.")
    assert THOUGHTS not in str(message.metadata)
    stored = sessions_pb2.Message(
        role=message.role, content=message.content, metadata=message.metadata, reasoning=message.reasoning
    )
    assert to_langchain(stored).additional_kwargs == {"kept": 1}
    assert to_langchain(stored, with_reasoning=True).additional_kwargs == {"kept": 1, "reasoning_content": THOUGHTS}


async def test_a_run_that_is_cancelled_in_mid_thought_keeps_it(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(text="never said", thoughts=THOUGHTS, rest=asyncio.Event(), fault_after=0))
    events: list[Event] = []
    async for event in suite.stream(session_id, "6 mal 2?"):
        events.append(event)
        if thoughts_of(events) == THOUGHTS and not event.HasField("run_finished"):
            await suite.cancel(events[0].run_started.run_id)
    assert state_of(events) == "CANCELLED"
    _, answer = suite.stored(session_id)
    assert (answer.content, answer.reasoning, answer.metadata.fields["partial"].bool_value) == ("", THOUGHTS, True)


async def test_thoughts_that_wait_for_the_store_are_joined_and_keep_their_place(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.fake.hold["AppendRunEvents"] = asyncio.Event()
    many = "".join(f"thought {number} " for number in range(400))
    suite.model.script(Behaviour(text="said", thoughts=many))
    run = await suite.create(session_id, "Hello")
    executed = suite.runs.find(run.id)
    assert executed is not None
    await until(lambda: len(executed.outbox) > 790)
    suite.fake.hold.pop("AppendRunEvents").set()
    events = await suite.events(run.id)
    assert (thoughts_of(events), text_of(events)) == (many, "said")
    assert kinds(events)[1:3] == ["reasoning_delta", "message_delta"]
    assert sum(event.HasField("reasoning_delta") for event in events) <= 2 * event_writer.MAX_WAITING


async def test_an_agents_thoughts_stand_beside_the_call_that_they_led_to(make_suite: MakeSuite) -> None:
    async with make_suite(agent="search") as suite:
        session_id = suite.add_session()
        suite.model.script(Behaviour(thoughts="I look it up.", tool_calls=(ToolUse(),)), THINKS)
        events = await suite.turn(session_id, "6 mal 2?")
        assert kinds(events)[1:7] == [
            "reasoning_delta", "tool_started", "tool_finished", "reasoning_delta", "message_delta", "message_completed",
        ]  # fmt: skip
        stored = suite.stored(session_id)
    assert [(message.role, message.reasoning) for message in stored] == [
        (sessions_pb2.ROLE_USER, ""),
        (sessions_pb2.ROLE_ASSISTANT, "I look it up."),
        (sessions_pb2.ROLE_TOOL, ""),
        (sessions_pb2.ROLE_ASSISTANT, THOUGHTS),
    ]


async def test_a_title_is_written_without_thoughts(make_suite: MakeSuite) -> None:
    async with make_suite(title_model="test-model") as suite:
        suite.model.default = THINKS
        session_id = suite.add_session()
        await suite.turn(session_id, "6 mal 2?")
        await until(lambda: suite.fake.sessions[session_id].name == "Zwölf")


def test_thoughts_are_counted_until_the_provider_counts() -> None:
    error = AppError("MODEL_CONNECTION_LOST")
    usage = transcript_of(Thought("a" * 36)).usage(error)
    assert usage is not None
    assert (usage.completion_tokens >= 10, usage.is_estimated) == (True, True)
    usage = transcript_of(Thought("a" * 36), Piece("b", usage=TokenUsage(5, 2))).usage(None)
    assert usage is not None
    assert (usage.completion_tokens, usage.is_estimated) == (2, False)


def test_thoughts_give_way_to_the_text_where_both_do_not_fit() -> None:
    message = transcript_of(Thought("ä" * MAX_CONTENT_BYTES), Piece("b" * (MAX_CONTENT_BYTES - 3))).answer(None)
    assert (len(message.content), message.reasoning) == (MAX_CONTENT_BYTES - 3, "ä")
    message = transcript_of(Thought("ä"), Piece("b" * MAX_CONTENT_BYTES)).answer(None)
    assert message.reasoning == ""


def test_thoughts_between_words_and_calls_are_told_apart() -> None:
    first, _, answer = transcript_of(
        Thought("one "), Piece("Let me see."), Thought("two"), ToolCall("1", "search"), ToolResult("1", "search", "x"),
        Thought("three"), Piece("Done."),
    ).messages(None)  # fmt: skip
    assert (first.content, first.reasoning) == ("Let me see.", "one two")
    assert (answer.content, answer.reasoning) == ("Done.", "three")
