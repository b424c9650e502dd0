from typing import Any

from concerto.sessions.v1 import sessions_pb2
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from servicekit.errors import AppError
from servicekit.messages import converter
from services.orchestrator.limits import MAX_CONTENT_BYTES
from services.orchestrator.models.messages import to_langchain
from services.orchestrator.runs.transcript import MAX_MESSAGES, Transcript, cut
from services.orchestrator.steps import Piece, Step, TokenUsage, ToolCall, ToolResult

CALL = ToolCall("call-1", "search", {"query": "Lisbon", "limit": 3})


def transcript_of(*steps: Step) -> Transcript:
    transcript = Transcript(run_id="run-1", model="m", agent="a")
    transcript.ask([HumanMessage("Hello")])
    for step in steps:
        transcript.add(step)
    return transcript


def read(messages: list[sessions_pb2.NewMessage]) -> list[Any]:
    """The messages as a later turn gets them."""
    return [
        to_langchain(sessions_pb2.Message(role=one.role, content=one.content, metadata=one.metadata))
        for one in messages
    ]


def test_tools_are_kept_before_the_answer_in_the_shape_that_history_reads() -> None:
    transcript = transcript_of(
        Piece(text="Let me look."),
        CALL,
        ToolCall("call-2", "search", {}),
        ToolResult("call-1", "search", "two hits"),
        ToolResult("call-2", "search", "broken", is_error=True),
        Piece(text="Found "),
        Piece(text="it."),
        Piece(finish_reason="stop"),
    )
    stored = transcript.messages(None)
    asking, first, second, answer = read(stored)
    assert isinstance(asking, AIMessage)
    assert asking.content == "Let me look."
    assert [(call["id"], call["name"], call["args"]) for call in asking.tool_calls] == [
        ("call-1", "search", {"query": "Lisbon", "limit": 3}),
        ("call-2", "search", {}),
    ]
    assert isinstance(first, ToolMessage)
    assert isinstance(second, ToolMessage)
    assert (first.content, first.tool_call_id, first.name, first.status) == ("two hits", "call-1", "search", "success")
    assert (second.tool_call_id, second.status) == ("call-2", "error")
    assert answer.content == "Found it."
    metadata = converter.to_json(stored[1].metadata)
    assert (metadata["tool_call_id"], metadata["name"], metadata["run_id"]) == ("call-1", "search", "run-1")
    assert converter.to_json(stored[0].metadata)["tool_calls"][0]["name"] == "search"
    assert converter.to_json(stored[3].metadata)["finish_reason"] == "stop"


def test_run_that_breaks_while_a_tool_works_keeps_the_call_and_an_empty_partial_answer() -> None:
    asking, answer = transcript_of(CALL).messages(AppError("CANCELLED"))
    assert converter.to_json(asking.metadata)["tool_calls"][0]["id"] == "call-1"
    assert answer.content == ""
    assert converter.to_json(answer.metadata)["partial"] is True


def test_nothing_said_keeps_nothing_unless_the_run_succeeds() -> None:
    assert transcript_of().messages(AppError("MODEL_UNAVAILABLE")) == []
    (answer,) = transcript_of().messages(None)
    assert answer.content == ""


def test_usage_of_several_calls_of_the_model_is_summed() -> None:
    usage = transcript_of(
        Piece(text="One", usage=TokenUsage(10, 2, 4)),
        CALL,
        ToolResult("call-1", "search", "x"),
        Piece(text="Two", usage=TokenUsage(20, 3)),
    ).usage(None)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (30, 5, 4)
    assert not usage.is_estimated


def test_what_no_provider_has_counted_is_estimated() -> None:
    usage = transcript_of(Piece(text="One", usage=TokenUsage(10, 2)), Piece(text="cut off here")).usage(
        AppError("CANCELLED")
    )
    assert usage is not None
    assert (usage.prompt_tokens, usage.is_estimated) == (10, True)
    assert usage.completion_tokens > 2
    refused = transcript_of().usage(AppError("MODEL_CREDENTIALS_REJECTED"))
    assert refused is not None
    assert (refused.prompt_tokens, refused.completion_tokens, refused.is_estimated) == (0, 0, False)
    silent = transcript_of().usage(AppError("MODEL_TIMEOUT"))
    assert silent is not None
    assert silent.prompt_tokens > 0
    assert silent.is_estimated


def test_run_that_asked_no_model_has_no_usage() -> None:
    assert Transcript(run_id="run-1", model="m", agent="a").usage(AppError("DATABASE_BUSY")) is None


def test_more_messages_than_a_run_may_store_lose_the_oldest() -> None:
    steps: list[Step] = []
    for index in range(60):
        steps += [ToolCall(f"c{index}", "t"), ToolResult(f"c{index}", "t", str(index))]
    messages = transcript_of(*steps, Piece(text="Done.")).messages(None)
    assert len(messages) == MAX_MESSAGES
    assert messages[-1].content == "Done."


def test_long_text_is_cut_between_characters() -> None:
    assert cut("häuser", 100) == "häuser"
    assert cut("ä" * 10, 5) == "ää"
    assert len(cut("x" * (MAX_CONTENT_BYTES + 5), MAX_CONTENT_BYTES)) == MAX_CONTENT_BYTES
