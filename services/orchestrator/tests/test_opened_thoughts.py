"""Thoughts of models whose template opens the tag itself: their text has its end only, `…</think>answer`."""

import asyncio

import pytest

from servicekit.errors import AppError
from services.orchestrator.models.thinking import Thinking
from services.orchestrator.steps import Piece, Thought, TokenUsage
from services.orchestrator.tests.conftest import Event, MakeSuite, Suite, kinds, text_of
from services.orchestrator.tests.test_chat import HELLO, ask
from services.orchestrator.tests.test_thoughts import thoughts_of, transcript_of
from tests.support.model_server import Behaviour, ToolUse
from tests.support.waiting import until

THOUGHT = "Six times two, so twelve."
OPENED = Behaviour(text=f"{THOUGHT} </think> Twelve.")


def shown(events: list[Event]) -> tuple[str, str]:
    return thoughts_of(events).strip(), text_of(events).strip()


def stored(suite: Suite, session_id: str) -> tuple[str, str]:
    answer = suite.stored(session_id)[-1]
    return answer.reasoning.strip(), answer.content.strip()


async def test_the_first_answer_is_stored_right_and_the_next_is_right_from_its_first_word(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.default = OPENED
    events = await suite.turn(session_id, "6 times 2?")
    # What was sent is sent; the message that comes with the end puts it right.
    assert shown(events) == ("", f"{THOUGHT} Twelve.")
    (message,) = [event.message_completed.message for event in events if event.HasField("message_completed")]
    assert (message.reasoning.strip(), message.content) == (THOUGHT, "Twelve.")
    assert stored(suite, session_id) == (THOUGHT, "Twelve.")

    events = await suite.turn(session_id, "Sure?")
    assert (shown(events), stored(suite, session_id)) == ((THOUGHT, "Twelve."), (THOUGHT, "Twelve."))
    assert "think" not in str(suite.model.chats[-1])


async def test_a_model_that_no_longer_thinks_says_what_it_says(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(OPENED, Behaviour(text="Just twelve."), Behaviour(text="Twelve again."))
    await suite.turn(session_id, "6 times 2?")
    events = await suite.turn(session_id, "Sure?")
    assert text_of(events) == "Just twelve."
    assert stored(suite, session_id) == ("", "Just twelve.")
    events = await suite.turn(session_id, "Really?")
    assert (shown(events), stored(suite, session_id)) == (("", "Twelve again."), ("", "Twelve again."))


async def test_a_thought_that_was_cut_at_the_limit_stays_one(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(OPENED, Behaviour(text="Let me see", finish_reason="length"), Behaviour(text="a </think> b"))
    await suite.turn(session_id, "6 times 2?")
    await suite.turn(session_id, "Sure?")
    assert stored(suite, session_id) == ("Let me see", "")
    events = await suite.turn(session_id, "Really?")
    assert shown(events) == ("a", "b")


async def test_an_agent_is_told_none_of_it(make_suite: MakeSuite) -> None:
    async with make_suite(agent="search") as suite:
        session_id = suite.add_session()
        looked_up = Behaviour(text="I look it up. </think> Wait.", tool_calls=(ToolUse(),))
        suite.model.script(looked_up, OPENED)
        events = await suite.turn(session_id, "6 times 2?")
        assert kinds(events)[-3:] == ["message_completed", "usage", "run_finished"]
        asked, answer = suite.stored(session_id)[1], suite.stored(session_id)[-1]
        assert (asked.reasoning.strip(), asked.content) == ("I look it up.", "Wait.")
        assert (answer.reasoning.strip(), answer.content) == (THOUGHT, "Twelve.")
        assert "look it up" not in str(suite.model.chats[-1])


async def test_a_title_holds_none_of_it(make_suite: MakeSuite) -> None:
    async with make_suite(title_model="test-model") as suite:
        suite.model.default = OPENED
        session_id = suite.add_session()
        await suite.turn(session_id, "6 times 2?")
        await until(lambda: suite.fake.sessions[session_id].name == "Twelve")


@pytest.mark.parametrize("wants_stream", [True, False])
async def test_what_openais_api_keeps_and_answers_whole_is_right_at_once(suite: Suite, wants_stream: bool) -> None:
    session_id = suite.add_session()
    suite.model.default = OPENED
    answers = await ask(suite, {**HELLO, "stream": wants_stream}, session_id=session_id)
    assert stored(suite, session_id) == (THOUGHT, "Twelve.")
    assert "think>" not in str(answers)
    assert "turned" not in str(answers)
    if not wants_stream:
        message = answers[0]["choices"][0]["message"]
        assert (message["reasoning_content"].strip(), message["content"]) == (THOUGHT, "Twelve.")


async def test_many_answers_of_one_model_at_once_are_told_apart(suite: Suite) -> None:
    suite.model.default = OPENED
    sessions = [suite.add_session() for _ in range(5)]
    await asyncio.gather(*(suite.turn(session_id, "6 times 2?") for session_id in sessions))
    assert {stored(suite, session_id) for session_id in sessions} == {(THOUGHT, "Twelve.")}


def test_what_is_taken_back_is_counted_once() -> None:
    error = AppError("MODEL_CONNECTION_LOST")
    as_text = transcript_of(Piece("a" * 360)).usage(error)
    as_thought = transcript_of(Piece("a" * 360), Thought("", takes_back=True)).usage(error)
    restored = transcript_of(Thought("a" * 360), Piece("a" * 360, takes_back=True)).usage(error)
    assert as_text == as_thought == restored
    counted = transcript_of(Piece("a"), Thought("", takes_back=True), Piece("b", usage=TokenUsage(5, 2))).usage(None)
    assert counted is not None
    assert (counted.completion_tokens, counted.is_estimated) == (2, False)


@pytest.mark.parametrize(
    ("text", "thought", "answer", "turns"),
    [
        ("a</think>b", "a", "b", True),
        ("a\n</think>\n\nb", "a", "b", True),
        ("</think>b", "", "b", False),
        ("<think>a</think>b</think>c", "a", "b</think>c", False),
        ("say '</think>' or </think>", "", "say '</think>' or </think>", False),
        ("a < b <think> c </think>", "", "a < b <think> c </think>", False),
        ("a </thin", "", "a </thin", False),
    ],
)
def test_a_text_is_split_the_same_wherever_it_is_cut(text: str, thought: str, answer: str, turns: bool) -> None:
    for size in range(1, len(text) + 1):
        thinking, thoughts, texts, has_turned = Thinking(), "", "", False
        pieces = [text[index : index + size] for index in range(0, len(text), size)]
        for piece in [*pieces, None]:
            if piece is None:
                inner, outer = thinking.finish(is_whole=True)
            else:
                inner, outer = thinking.feed(piece) if "<" in piece or not thinking.is_past else ("", piece)
            if thinking.has_turned:
                thinking.has_turned, has_turned, thoughts, texts = False, True, texts, ""
            thoughts, texts = thoughts + inner, texts + outer
        assert (thoughts.rstrip("\n"), texts, has_turned) == (thought, answer, turns), size
