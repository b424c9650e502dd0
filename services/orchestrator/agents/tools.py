"""The tools of agents: what they do, what their models read about them, and how long their outputs may be.

A tool acts as the caller of the run that asks it (identity.current_caller()). It returns a text; an AppError that it
raises is told to the model, and the run goes on.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from typing import Annotated, Any

import orjson
from concerto.sessions.v1 import sessions_pb2
from langchain_core.tools import BaseTool, StructuredTool

from servicekit.errors import AppError
from services.orchestrator.agents.tool_calls import storable
from services.orchestrator.sessions_client import SessionsClient

MODEL_CHARS = 16_000
"""Most characters of a tool's output that a model is given."""

STORED_BYTES = 60_000
"""Most bytes of a tool's output that are stored."""

HITS_PER_PAGE = 10
MESSAGE_CHARS = 3_000
MAX_CONTEXT_MESSAGES = 10

_ROLES = {
    sessions_pb2.ROLE_USER: "user",
    sessions_pb2.ROLE_ASSISTANT: "assistant",
    sessions_pb2.ROLE_SYSTEM: "system",
    sessions_pb2.ROLE_TOOL: "tool",
}
_GONE = "Nothing can be looked up for the user any more in this run; they can ask again."


def search_messages(store: SessionsClient) -> BaseTool:
    """Return the tool that finds the caller's earlier messages by their words."""

    async def search(
        query: Annotated[str, "One to three words that the message must all contain, at most 200 characters."],
        session_id: Annotated[str, "Search only this conversation, by the session_id of an earlier hit."] = "",
        page_token: Annotated[str, "The next_page_token of the page before, to see further hits."] = "",
    ) -> str:
        answer = await store.search_messages(
            query, session_id=session_id, page_size=HITS_PER_PAGE, page_token=page_token
        )
        hits = [
            {
                "session_id": hit.session_id,
                "conversation": hit.session_name,
                "order": hit.order,
                "role": _ROLES.get(hit.role, "system"),
                "at": _moment(hit),
                "excerpt": hit.excerpt,
            }
            for hit in answer.hits
        ]
        return _json({"hits": hits, "next_page_token": answer.next_page_token})

    return _tool(
        "search_messages",
        search,
        "Finds messages in the user's earlier conversations, best match first, each with an excerpt.",
    )


def read_messages(store: SessionsClient) -> BaseTool:
    """Return the tool that reads the messages around a place in one of the caller's sessions."""

    async def read(
        session_id: Annotated[str, "The session_id of a hit."],
        order: Annotated[int, "The order of the hit, its place in the conversation."],
        before: Annotated[int, "How many messages before it to read, at most 10."] = 2,
        after: Annotated[int, "How many messages after it to read, at most 10."] = 2,
    ) -> str:
        order = min(max(order, 1), 2**30)
        first = max(order - min(max(before, 0), MAX_CONTEXT_MESSAGES), 1)
        last = order + min(max(after, 0), MAX_CONTEXT_MESSAGES)
        answer = await store.list_messages(
            session_id,
            page_size=last - first + 1,
            after_order=first - 1,
            before_order=last + 1,
            include_inactive=True,
        )
        messages = [
            {
                "order": message.order,
                "role": _ROLES.get(message.role, "system"),
                "at": _moment(message),
                "text": _cut(message.content, MESSAGE_CHARS),
            }
            for message in answer.messages
        ]
        return _json({"messages": messages})

    return _tool("read_messages", read, "Reads the messages around a hit of search_messages.")


TOOLS: Mapping[str, Callable[[SessionsClient], BaseTool]] = {
    "search_messages": search_messages,
    "read_messages": read_messages,
}
"""Every tool by its name, made for a store."""


def for_model(output: str) -> str:
    """Return as much of a tool's output as a model is given; it is told when something was left out."""
    return _cut(output, MODEL_CHARS)


def for_store(output: str) -> str:
    """Return as much of a tool's output as is stored, in a form that any text column takes."""
    output = storable(output)
    raw = output.encode()
    return output if len(raw) <= STORED_BYTES else raw[:STORED_BYTES].decode(errors="ignore")


def sentence_of(error: AppError) -> str:
    """Return what a model is told when its tool fails with `error`."""
    sentence = f"{error.reason}: {error.message}"
    return f"{sentence} {_GONE}" if error.reason in ("TOKEN_EXPIRED", "TOKEN_MISSING", "TOKEN_INVALID") else sentence


def _tool(name: str, act: Callable[..., Awaitable[str]], description: str) -> BaseTool:
    return StructuredTool.from_function(coroutine=act, name=name, description=description)


def _moment(entry: "sessions_pb2.MessageHit | sessions_pb2.Message") -> str:
    return entry.timestamp.ToDatetime(tzinfo=UTC).isoformat(timespec="minutes")


def _cut(text: str, max_chars: int) -> str:
    left_out = len(text) - max_chars
    return text if left_out <= 0 else f"{text[:max_chars]}\n[{left_out} more characters were left out]"


def _json(data: Mapping[str, Any]) -> str:
    return orjson.dumps(data).decode()
