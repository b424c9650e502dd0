"""The reference for turns: FastAPI and ChatOpenAI.astream in one process, which saves both messages.

DATABASE_URL=… JWT_SECRET=… KEYS_URL=… MODEL_URL=… MODEL=… python -m benchmarks.reference.stream      prints its address

It keeps what was said only once the answer is complete: a client that goes away, or a restart, loses it.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from benchmarks.reference.basics import (
    POOL_SIZE,
    Caller,
    Database,
    Operations,
    Settings,
    SignedIn,
    Tokens,
    add_error_answers,
    serve,
)

SYSTEM_PROMPT = "You are a helpful assistant."
HISTORY_MESSAGES = 100


class Turn(BaseModel):
    """The body of POST /sessions/{session_id}/turns."""

    model_config = ConfigDict(extra="forbid")
    content: str = Field(min_length=1, max_length=1_048_576)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open pool and model, and close the pool at the end."""
    settings = Settings()
    app.state.tokens = Tokens(settings)
    app.state.chat = ChatOpenAI(
        model=settings.model,
        base_url=settings.model_url,
        api_key=SecretStr("not-needed"),
        max_retries=0,
        stream_usage=True,
    )
    async with asyncpg.create_pool(settings.database_url, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        app.state.operations = Operations(pool)
        yield


app = FastAPI(title="Stream", lifespan=lifespan)
add_error_answers(app)


@app.post("/sessions/{session_id}/turns")
async def turn(
    session_id: UUID, body: Turn, request: Request, caller: SignedIn, database: Database
) -> StreamingResponse:
    """Store what the user says, and stream the answer as events."""
    user_message = await append(database, caller, str(session_id), "user", body.content)
    # From the end, so the user's message is the last of them.
    args = {"session_id": str(session_id), "page_size": HISTORY_MESSAGES, "from_end": True}
    stored = orjson.loads(await database.call("list_messages", args, caller))["messages"]
    prompt = [SystemMessage(SYSTEM_PROMPT), *map(to_langchain, stored)]
    events = answer(request.app.state.chat, database, caller, prompt, user_message)
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def answer(
    chat: ChatOpenAI, database: Operations, caller: Caller, prompt: list[BaseMessage], user_message: dict[str, Any]
) -> AsyncIterator[bytes]:
    """Yield the events of one answer, and store it at its end."""
    session_id = user_message["session_id"]
    yield event(1, "run.started", {"session_id": session_id, "user_message": user_message})
    seq, texts, usage = 1, [], None
    async for chunk in chat.astream(prompt):
        usage = getattr(chunk, "usage_metadata", None) or usage
        text = str(chunk.content)
        if text:
            texts.append(text)
            seq += 1
            yield event(seq, "message.delta", {"text": text})
    message = await append(database, caller, session_id, "assistant", "".join(texts), {"usage": usage})
    yield event(seq + 1, "message.completed", {"message": message})
    yield event(seq + 2, "usage", usage)
    yield event(seq + 3, "run.finished", {"state": "SUCCEEDED"})


async def append(
    database: Operations,
    caller: Caller,
    session_id: str,
    role: str,
    content: str,
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Store one message and return it."""
    message = {"role": role, "content": content, "metadata": metadata or {}}
    args = {"session_id": session_id, "messages": [message], "include_contents": True}
    stored: dict[str, Any] = orjson.loads(await database.call("append_messages", args, caller))["messages"][0]
    return stored


def to_langchain(message: dict[str, Any]) -> BaseMessage:
    """Return a stored message as the model is given it."""
    if message["role"] == "assistant":
        return AIMessage(message["content"])
    if message["role"] == "system":
        return SystemMessage(message["content"])
    return HumanMessage(message["content"])


def event(seq: int, kind: str, data: object) -> bytes:
    """Return one Server-Sent Event."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (seq, kind.encode(), orjson.dumps(data))


if __name__ == "__main__":
    serve(app)
