from typing import Any

import pytest
from concerto.sessions.v1 import sessions_pb2
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)

from servicekit.messages import converter
from services.orchestrator.models.messages import (
    cleared_mark,
    from_langchain,
    is_cleared_mark,
    to_langchain,
    to_provider,
    to_struct,
)

ROLES = {
    "user": sessions_pb2.ROLE_USER,
    "assistant": sessions_pb2.ROLE_ASSISTANT,
    "system": sessions_pb2.ROLE_SYSTEM,
    "tool": sessions_pb2.ROLE_TOOL,
}


def stored(new: sessions_pb2.NewMessage) -> sessions_pb2.Message:
    return sessions_pb2.Message(id="1", role=new.role, content=new.content, metadata=new.metadata, order=1)


def call(**arguments: Any) -> dict[str, Any]:
    return {"name": "search", "args": arguments, "id": "call_1", "type": "tool_call"}


LANGCHAIN: list[BaseMessage] = [
    HumanMessage("Hello"),
    HumanMessage("Hello", name="ada", id="m-1", additional_kwargs={"locale": "de"}),
    HumanMessage([{"type": "text", "text": "Look: "}, {"type": "image_url", "image_url": {"url": "data:,"}}]),
    AIMessage("Hi", response_metadata={"model_name": "m", "finish_reason": "stop"}),
    AIMessage("Hi", usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}),
    AIMessage("", tool_calls=[call(query="rain", limit=3, deep={"list": [1.5, None, True]})]),
    AIMessage("", tool_calls=[call(id=2**60 + 1)]),
    AIMessage(
        "", invalid_tool_calls=[{"name": "s", "args": "{", "id": "1", "error": "e", "type": "invalid_tool_call"}]
    ),
    SystemMessage("Be brief."),
    ToolMessage("Yes", tool_call_id="call_1"),
    ToolMessage("No", tool_call_id="call_1", name="search", status="error", artifact={"rows": [1, 2]}),
    ChatMessage(content="Hello", role="user"),
]


@pytest.mark.parametrize("message", LANGCHAIN, ids=lambda message: message.type)
def test_langchain_message_survives_the_store(message: BaseMessage) -> None:
    assert to_langchain(stored(from_langchain(message))) == message


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"model": "m", "usage": {"prompt_tokens": 3}, "partial": True, "sources": ["a", None, 1.5]},
        {"langchain": {"name": "ada"}},
    ],
)
def test_stored_message_survives_langchain(role: str, metadata: dict[str, Any]) -> None:
    if role == "tool":
        metadata = {**metadata, "tool_call_id": "call_1"}
    new = sessions_pb2.NewMessage(role=ROLES[role], content="Hello", metadata=to_struct(metadata))
    back = from_langchain(to_langchain(stored(new)))
    assert (back.role, back.content) == (new.role, new.content)
    assert converter.to_json(back.metadata) == metadata


@pytest.mark.parametrize(
    "metadata",
    [
        {"tool_calls": "nonsense"},
        {"langchain": {"content": 7}},
        {"langchain": "not json"},
        {"langchain": {"tool_calls": [1]}},
        {"langchain": {"additional_kwargs": 5}},
        {"langchain": {"type": "human"}},
        {"langchain": [1]},
        {"langchain": {"role": "developer"}},
        {"langchain": {"role": ["system"]}},
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_metadata_that_only_looks_like_ours_does_no_harm(role: str, metadata: dict[str, Any]) -> None:
    new = sessions_pb2.NewMessage(role=ROLES[role], content="Hello", metadata=to_struct(metadata))
    message = to_langchain(stored(new))
    assert message.text == "Hello"
    assert not isinstance(message, ChatMessage)


def test_tool_calls_stand_in_the_metadata_by_name() -> None:
    new = from_langchain(AIMessage("", tool_calls=[call(query="rain")]))
    assert converter.to_json(new.metadata) == {"tool_calls": [call(query="rain")]}


def test_text_of_blocks_is_the_stored_content() -> None:
    assert from_langchain(HumanMessage([{"type": "text", "text": "Look"}])).content == "Look"


def test_chunk_is_stored_as_the_whole_message() -> None:
    chunk = AIMessageChunk(content="Hi", chunk_position="last")
    assert to_langchain(stored(from_langchain(chunk))) == AIMessage("Hi")


def test_message_without_a_role_here_is_refused() -> None:
    for message in (FunctionMessage(content="x", name="f"), ChatMessage(content="x", role="critic")):
        with pytest.raises(ValueError, match="no role"):
            from_langchain(message)


def test_mark_is_known_by_its_role_and_metadata() -> None:
    assert is_cleared_mark(stored(cleared_mark()))
    assert not is_cleared_mark(sessions_pb2.Message(role=sessions_pb2.ROLE_SYSTEM))
    users = sessions_pb2.Message(role=sessions_pb2.ROLE_USER, metadata=to_struct({"history_cleared": True}))
    assert not is_cleared_mark(users)


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage([{"type": "text", "text": "A block"}]),
        AIMessage("With audio", additional_kwargs={"audio": {"id": "a"}}),
        ChatMessage(content="In another role", role="user"),
    ],
)
def test_what_only_langchain_can_tell_a_provider_has_no_short_form(message: BaseMessage) -> None:
    assert to_provider(message, model="gpt-5") is None
