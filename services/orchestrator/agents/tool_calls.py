"""Tool calls as a model sends them: put together from parts, checked, and bounded."""

import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import orjson
from langchain_core.messages import ToolCallChunk

from services.orchestrator.steps import ToolCall

MAX_ARGUMENT_BYTES = 24 * 1024
"""Most bytes of arguments of all calls in one message together; they are stored in the message's metadata."""

MAX_CALLS = 32
"""Most calls in one message; the rest is dropped."""

_MAX_NAME_CHARS = 64
_MAX_ID_CHARS = 100
_MAX_DEPTH = 20


class CallParts:
    """The tool calls of one message while it is streamed."""

    def __init__(self) -> None:
        self._calls: list[_Parts] = []
        self._left_bytes = MAX_ARGUMENT_BYTES

    def add(self, chunks: Sequence[ToolCallChunk]) -> int:
        """Take in a chunk's parts; return how many bytes they have."""
        size = 0
        for chunk in chunks:
            text = chunk["args"] or ""
            size += len(text)
            call = self._call_for(chunk)
            if chunk["name"] != call.name:  # some servers send the name with each part
                call.name += chunk["name"] or ""
            call.arguments.append(text)
        return size

    def whole(self) -> list[ToolCall]:
        """Return the calls. One whose arguments are no JSON object, or too large, has the name but no arguments."""
        return [
            ToolCall(
                call_id=call.id[:_MAX_ID_CHARS] or new_call_id(),
                # Providers refuse other characters when they are given the call again.
                name=re.sub(r"[^A-Za-z0-9_-]", "_", call.name[:_MAX_NAME_CHARS]),
                arguments=self._arguments("".join(call.arguments)),
            )
            for call in self._calls[:MAX_CALLS]
            if call.name
        ]

    def _call_for(self, chunk: ToolCallChunk) -> "_Parts":
        index, call_id = chunk["index"], chunk["id"] or ""
        for call in reversed(self._calls):
            # Some servers give all calls of a message the same index, others give none.
            same_index = index is None or call.index == index
            if same_index and (not call_id or call.id == call_id):
                return call
        self._calls.append(_Parts(index, storable(call_id)))
        return self._calls[-1]

    def _arguments(self, text: str) -> Mapping[str, Any]:
        text = storable(text)
        size = len(text.encode())
        if size > self._left_bytes:
            return {}
        self._left_bytes -= size
        try:
            data = orjson.loads(text or "{}")
            return {storable(key): _checked(value, _MAX_DEPTH) for key, value in data.items()}
        except (ValueError, AttributeError):
            return {}


class _Parts:
    def __init__(self, index: int | str | None, call_id: str) -> None:
        self.index = index
        self.id = call_id
        self.name = ""
        self.arguments: list[str] = []


def new_call_id() -> str:
    """Return an id for a call to which the model gave none of its own."""
    return f"call_{uuid4().hex}"


def storable(text: str) -> str:
    """Return the text without what no stored text may hold: NUL and halves of characters."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")


def _checked(value: Any, depth: int) -> Any:
    if depth == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {storable(key): _checked(entry, depth - 1) for key, entry in value.items()}
    if isinstance(value, list):
        return [_checked(entry, depth - 1) for entry in value]
    return value
