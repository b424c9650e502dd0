"""Stored messages as LangChain messages and back, without loss in either direction.

What a stored message has no field for stands in its metadata: `tool_calls` and `tool_call_id` by name, as other
readers need them too, the rest (name, content blocks, response metadata …) under `langchain`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import orjson
from concerto.sessions.v1 import sessions_pb2
from google.protobuf import struct_pb2
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
    message_chunk_to_message,
)
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from servicekit.messages import converter

CLEARED = "history_cleared"
"""Metadata key of a system message that starts the conversation anew: readers of history stop there."""

_EXTRAS = "langchain"
_NAMED = ("tool_calls", "tool_call_id")
METADATA = "metadata"
"""Key of a LangChain message's additional_kwargs that holds what no provider is told."""
REASONING = "reasoning_content"
"""Key that holds what the model thought, as LangChain's integrations and the providers' own fields call it."""
_TYPES: "Mapping[sessions_pb2.Role.ValueType, type[BaseMessage]]" = {
    sessions_pb2.ROLE_USER: HumanMessage,
    sessions_pb2.ROLE_ASSISTANT: AIMessage,
    sessions_pb2.ROLE_SYSTEM: SystemMessage,
    sessions_pb2.ROLE_TOOL: ToolMessage,
}
_ROLE_NAMES = {
    "user": sessions_pb2.ROLE_USER,
    "assistant": sessions_pb2.ROLE_ASSISTANT,
    "system": sessions_pb2.ROLE_SYSTEM,
    "tool": sessions_pb2.ROLE_TOOL,
}
# Filled in by LangChain itself, or held by the stored message's own fields.
_IMPLIED = frozenset({"type", "content"})


def to_langchain(message: sessions_pb2.Message, *, with_reasoning: bool = False) -> BaseMessage:
    """Return the LangChain message that a stored message stands for.

    with_reasoning: True brings along, as `additional_kwargs["reasoning_content"]`, what the model thought; few models
    want that back, and to the others it would be a part of the conversation.
    Metadata that LangChain has no field for comes as `additional_kwargs["metadata"]`. Metadata in a shape that only
    looks like ours (anybody may append messages) is left there too.
    """
    built = _from_stored(message)
    if with_reasoning and message.reasoning and isinstance(built, AIMessage):
        built.additional_kwargs[REASONING] = message.reasoning
    return built


def _from_stored(message: sessions_pb2.Message) -> BaseMessage:
    if not message.metadata.fields:
        return _build(message, {}, {})
    metadata = converter.to_json(message.metadata)
    fields = _fields(metadata)
    rest = {key: value for key, value in metadata.items() if key not in (_EXTRAS, *_NAMED)}
    try:
        return _build(message, fields, rest)
    except (ValidationError, TypeError, ValueError, AttributeError, KeyError):
        return _build(message, {}, metadata)


def to_provider(message: BaseMessage, *, model: str) -> dict[str, Any] | None:
    """Return a message of text in the provider's fields; None for one that only LangChain's conversion understands.

    model: the one that is asked. OpenAI's reasoning models (o1, o3, …) know the system's role as the developer's.

    That conversion, which would say the same, looks at each character of an answer: a history of long answers takes it
    milliseconds.
    """
    role = _PROVIDER_ROLES.get(type(message))
    if role is None or not isinstance(message.content, str) or not message.additional_kwargs.keys() <= _SENT_OR_OWN:
        return None
    if role == "system" and re.match(r"o\d", model):
        role = "developer"
    fields: dict[str, Any] = {"role": role, "content": message.content}
    if isinstance(message, ToolMessage):
        return {**fields, "tool_call_id": message.tool_call_id}
    if message.name is not None:
        fields["name"] = message.name
    if REASONING in message.additional_kwargs:
        fields[REASONING] = message.additional_kwargs[REASONING]
    if isinstance(message, AIMessage) and (message.tool_calls or message.invalid_tool_calls):
        fields["content"] = message.content or None
        fields["tool_calls"] = [
            *(_provider_call(call, json.dumps(call["args"], ensure_ascii=False)) for call in message.tool_calls),
            *(_provider_call(call, call["args"]) for call in message.invalid_tool_calls),
        ]
    return fields


def _provider_call(call: ToolCall | InvalidToolCall, arguments: str | None) -> dict[str, Any]:
    return {"type": "function", "id": call["id"], "function": {"name": call["name"], "arguments": arguments}}


_SENT_OR_OWN = frozenset({METADATA, REASONING})
_PROVIDER_ROLES: Mapping[type[BaseMessage], str] = {
    SystemMessage: "system",
    HumanMessage: "user",
    AIMessage: "assistant",
    ToolMessage: "tool",
}


def from_langchain(message: BaseMessage) -> sessions_pb2.NewMessage:
    """Return the message to store for a LangChain message.

    Raises ValueError when a part of it has no JSON form, or its kind has no role here.
    """
    if isinstance(message, BaseMessageChunk):
        message = message_chunk_to_message(message)
    role = _role_of(message)
    try:
        dumped = message.model_dump(mode="json", exclude_defaults=True)
    except PydanticSerializationError as error:
        raise ValueError("A part of the message has no JSON form, so it cannot be stored.") from error
    fields = {key: value for key, value in dumped.items() if key not in _IMPLIED and value not in (None, {}, [])}
    if isinstance(message, ToolMessage):
        fields["tool_call_id"] = message.tool_call_id
    additional = dict(fields.pop("additional_kwargs", {}))
    metadata = additional.pop(METADATA, {}) if isinstance(additional.get(METADATA), dict) else {}
    reasoning = additional.get(REASONING) if role == sessions_pb2.ROLE_ASSISTANT else None
    if isinstance(reasoning, str):
        del additional[REASONING]
    if additional:
        fields["additional_kwargs"] = additional
    content = message.content
    if not isinstance(content, str):
        fields["content"] = dumped["content"]
        content = message.text
    return sessions_pb2.NewMessage(
        role=role,
        content=content,
        metadata=to_struct({**metadata, **_extras(fields)}) if metadata or fields else None,
        reasoning=reasoning if isinstance(reasoning, str) else "",
    )


def is_cleared_mark(message: sessions_pb2.Message) -> bool:
    """Say whether the conversation starts anew after this message."""
    if message.role != sessions_pb2.ROLE_SYSTEM:
        return False
    fields = message.metadata.fields
    # Looked up only when it is there: reading a missing key of this kind of map would add it.
    return CLEARED in fields and fields[CLEARED].bool_value


def cleared_mark() -> sessions_pb2.NewMessage:
    """Return the message after which the conversation starts anew; what stands before it is kept and shown."""
    return sessions_pb2.NewMessage(
        role=sessions_pb2.ROLE_SYSTEM, content="The conversation starts anew here.", metadata=to_struct({CLEARED: True})
    )


def to_struct(data: Mapping[str, Any]) -> struct_pb2.Struct:
    """Return JSON data as a Struct."""
    return converter.from_json(struct_pb2.Struct, data)


def _fields(metadata: Mapping[str, Any]) -> dict[str, Any]:
    extras = metadata.get(_EXTRAS)
    if isinstance(extras, str):
        try:
            extras = orjson.loads(extras)
        except orjson.JSONDecodeError:
            extras = None
    fields = dict(extras) if isinstance(extras, dict) else {}
    if not isinstance(fields.get("content", []), list):
        # Only blocks stand there; a text is the message's own.
        del fields["content"]
    return {**fields, **{key: metadata[key] for key in _NAMED if key in metadata}}


def _extras(fields: dict[str, Any]) -> dict[str, Any]:
    if not _is_exact(fields):
        # A Struct knows only doubles, so larger integers (ids in a tool's arguments) travel as text.
        return {_EXTRAS: orjson.dumps(fields).decode()}
    named = {key: fields.pop(key) for key in _NAMED if key in fields}
    return {**named, _EXTRAS: fields} if fields else named


def _build(message: sessions_pb2.Message, fields: Mapping[str, Any], rest: Mapping[str, Any]) -> BaseMessage:
    values: dict[str, Any] = {"content": message.content, **fields}
    if rest:
        values["additional_kwargs"] = {**values.get("additional_kwargs", {}), METADATA: dict(rest)}
    if _ROLE_NAMES.get(values.get("role", "")) == message.role:
        return ChatMessage(**values)
    values.pop("role", None)
    kind = _TYPES.get(message.role, SystemMessage)
    if kind is ToolMessage:
        values.setdefault("tool_call_id", "")
    return kind(**values)


def _role_of(message: BaseMessage) -> "sessions_pb2.Role.ValueType":
    for role, kind in _TYPES.items():
        if isinstance(message, kind):
            return role
    if isinstance(message, ChatMessage) and message.role in _ROLE_NAMES:
        return _ROLE_NAMES[message.role]
    raise ValueError(f"A message of type {message.type} has no role in a session.")


def _is_exact(value: Any) -> bool:
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return abs(value) < 2**53
    if isinstance(value, dict):
        return all(_is_exact(entry) for entry in value.values())
    return not isinstance(value, list) or all(_is_exact(entry) for entry in value)
