"""The reference for single calls: FastAPI and asyncpg in one process, with the same SQL operations and answers.

DATABASE_URL=… JWT_SECRET=… KEYS_URL=… python -m benchmarks.reference.monolith      prints its address
"""

import base64
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
import orjson
from fastapi import FastAPI, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from benchmarks.reference.basics import (
    POOL_SIZE,
    ApiError,
    Database,
    Operations,
    Settings,
    SignedIn,
    Tokens,
    add_error_answers,
    serve,
)

PageSize = Annotated[int, Query(ge=0)]
PageToken = Annotated[str, Query()]


class NewMessage(BaseModel):
    """A message to append."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant", "system", "tool"]
    content: str = Field("", max_length=1_048_576)
    metadata: dict[str, Any] = {}


class AppendMessages(BaseModel):
    """The body of POST /sessions/{session_id}/messages."""

    model_config = ConfigDict(extra="forbid")
    messages: list[NewMessage] = Field(min_length=1, max_length=100)
    request_id: UUID | None = None
    include_contents: bool = False


Text = Annotated[str, BeforeValidator(lambda value: value or "")]
Count = Annotated[int, BeforeValidator(lambda value: value or 0)]


class Message(BaseModel):
    """A stored message; without content and metadata in the answer to an append."""

    id: str
    session_id: str
    role: Literal["user", "assistant", "system", "tool"]
    content: Text
    timestamp: datetime
    order: int
    metadata: dict[str, Any] | None
    parent_id: Text
    is_active: bool
    reasoning: Text = ""
    reasoning_milliseconds: Count = 0


class Session(BaseModel):
    """A session."""

    id: str
    user_id: str
    name: str
    is_archived: bool
    message_count: int
    created_at: datetime
    updated_at: datetime


class Appended(BaseModel):
    """What was appended."""

    messages: list[Message]


class StoredMessages(Appended):
    """A part of a session's messages, as the database answers."""

    has_more: bool


class StoredSessions(BaseModel):
    """A part of the sessions, as the database answers."""

    sessions: list[Session]
    has_more: bool


class MessagePage(BaseModel):
    """A page of messages."""

    messages: list[Message]
    next_page_token: str
    answer_under_way: None = None
    """It keeps no runs."""


class SessionPage(BaseModel):
    """A page of sessions."""

    sessions: list[Session]
    next_page_token: str


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool, and close it at the end."""
    settings = Settings()
    app.state.tokens = Tokens(settings)
    async with asyncpg.create_pool(settings.database_url, min_size=POOL_SIZE, max_size=POOL_SIZE) as pool:
        app.state.operations = Operations(pool)
        yield


app = FastAPI(title="Monolith", lifespan=lifespan)
add_error_answers(app)


@app.post("/sessions/{session_id}/messages", status_code=201, response_model=Appended)
async def append_messages(session_id: UUID, body: AppendMessages, caller: SignedIn, database: Database) -> Appended:
    """Append messages at the end of a session."""
    args = {"session_id": str(session_id), **body.model_dump(mode="json")}
    return Appended.model_validate_json(await database.call("append_messages", args, caller))


@app.get("/sessions/{session_id}/messages", response_model=MessagePage)
async def list_messages(
    session_id: UUID, caller: SignedIn, database: Database, page_size: PageSize = 50, page_token: PageToken = ""
) -> MessagePage:
    """List a session's messages from its beginning."""
    (after_order,) = decode(page_token, 1)
    args = {"session_id": str(session_id), "page_size": min(page_size, 100) or 50, "after_order": after_order}
    page = StoredMessages.model_validate_json(await database.call("list_messages", args, caller))
    token = encode(page.messages[-1].order) if page.has_more else ""
    return MessagePage(messages=page.messages, next_page_token=token)


@app.get("/sessions", response_model=SessionPage)
async def list_sessions(
    caller: SignedIn, database: Database, page_size: PageSize = 50, page_token: PageToken = ""
) -> SessionPage:
    """List the caller's sessions, newest activity first."""
    before_updated_at, before_id = decode(page_token, 2)
    args = {
        "page_size": min(page_size, 100) or 50,
        "is_archived": False,
        "before_updated_at": before_updated_at,
        "before_id": before_id,
    }
    page = StoredSessions.model_validate_json(await database.call("list_sessions", args, caller))
    token = encode(page.sessions[-1].updated_at, page.sessions[-1].id) if page.has_more else ""
    return SessionPage(sessions=page.sessions, next_page_token=token)


def encode(*position: object) -> str:
    """Return the page token for a place in a list."""
    return base64.urlsafe_b64encode(orjson.dumps(position)).decode()


def decode(token: str, count: int) -> list[Any]:
    """Return the place that a page token holds; as many None for no token. Raises ApiError."""
    if not token:
        return [None] * count
    try:
        position = orjson.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        position = None
    if not isinstance(position, list) or len(position) != count:
        raise ApiError(400, "INVALID_ARGUMENT", "INVALID_PAGE_TOKEN", "page_token does not belong to this list.")
    return position


if __name__ == "__main__":
    serve(app)
