"""The rpcs of the sessions service: check, call, translate."""

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
import orjson
from concerto.sessions.v1 import sessions_pb2 as pb
from concerto.sessions.v1 import sessions_pb2_grpc as pb_grpc

from servicekit import paging
from servicekit.errors import AppError
from servicekit.identity import current_caller
from services.sessions.store import SessionStore

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 100

Context = grpc.aio.ServicerContext[Any, Any]


class SessionsServicer(pb_grpc.SessionsServiceServicer):
    """Answers SessionsService for the current caller; requests have been checked against the contract before."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def CreateSession(self, request: pb.CreateSessionRequest, _: Context) -> pb.CreateSessionResponse:
        """Create an empty session."""
        session = await self._store.create_session(current_caller(), name=request.name, request_id=request.request_id)
        return pb.CreateSessionResponse(session=session)

    async def ListSessions(self, request: pb.ListSessionsRequest, _: Context) -> pb.ListSessionsResponse:
        """List the caller's sessions, newest activity first."""
        filters = _fingerprint("sessions", request.is_archived, request.query)
        before = _session_place(request.page_token, filters) if request.page_token else None
        page = await self._store.list_sessions(
            current_caller(),
            page_size=_page_size(request.page_size),
            is_archived=request.is_archived,
            query=request.query,
            before=before,
        )
        token = ""
        if page.has_more:
            last = page.sessions[-1]
            token = paging.encode(filters, last.updated_at.ToDatetime(UTC).isoformat(), last.id)
        return pb.ListSessionsResponse(sessions=page.sessions, next_page_token=token)

    async def GetSession(self, request: pb.GetSessionRequest, _: Context) -> pb.GetSessionResponse:
        """Return one session."""
        session = await self._store.get_session(current_caller(), request.session_id)
        return pb.GetSessionResponse(session=session)

    async def UpdateSession(self, request: pb.UpdateSessionRequest, _: Context) -> pb.UpdateSessionResponse:
        """Rename, archive or restore a session."""
        session = await self._store.update_session(
            current_caller(),
            request.session_id,
            name=request.name if request.HasField("name") else None,
            is_archived=request.is_archived if request.HasField("is_archived") else None,
            expected_name=request.expected_name if request.HasField("expected_name") else None,
        )
        return pb.UpdateSessionResponse(session=session)

    async def DeleteSession(self, request: pb.DeleteSessionRequest, _: Context) -> pb.DeleteSessionResponse:
        """Delete a session with its messages."""
        await self._store.delete_session(current_caller(), request.session_id)
        return pb.DeleteSessionResponse()

    async def AppendMessages(self, request: pb.AppendMessagesRequest, _: Context) -> pb.AppendMessagesResponse:
        """Append messages at the end of a session."""
        messages = await self._store.append_messages(
            current_caller(), request.session_id, request.messages, request_id=request.request_id
        )
        return pb.AppendMessagesResponse(messages=messages)

    async def ListMessages(self, request: pb.ListMessagesRequest, _: Context) -> pb.ListMessagesResponse:
        """List a session's messages from its beginning or its end."""
        filters = _fingerprint(
            "messages", request.session_id.lower(), request.from_end, request.after_order, request.before_order
        )
        after_order, before_order = request.after_order, request.before_order
        if request.page_token:
            place = _message_place(request.page_token, filters)
            if request.from_end:
                before_order = place
            else:
                after_order = place
        page = await self._store.list_messages(
            current_caller(),
            request.session_id,
            page_size=_page_size(request.page_size),
            from_end=request.from_end,
            after_order=after_order,
            before_order=before_order,
        )
        token = ""
        if page.has_more:
            token = paging.encode(filters, page.messages[0 if request.from_end else -1].order)
        return pb.ListMessagesResponse(messages=page.messages, next_page_token=token)


def _page_size(wanted: int) -> int:
    return min(wanted, MAX_PAGE_SIZE) or DEFAULT_PAGE_SIZE


def _fingerprint(*filters: str | int) -> str:
    # A token is short, while a filter may be long; two lists with one fingerprint would only mix up places.
    return hashlib.blake2b(orjson.dumps(filters), digest_size=8).hexdigest()


def _session_place(token: str, filters: str) -> tuple[str, str]:
    given, updated_at, session_id = paging.decode(token, (str, datetime, UUID))
    if given != filters:
        raise AppError("INVALID_PAGE_TOKEN", cause="token of another list")
    try:
        # Python reads more spellings and offsets than Postgres.
        moment = datetime.fromisoformat(updated_at).astimezone(UTC)
    except OverflowError as error:
        raise AppError("INVALID_PAGE_TOKEN", cause=error) from None
    return moment.isoformat(), session_id


def _message_place(token: str, filters: str) -> int:
    given, order = paging.decode(token, (str, int))
    if given != filters or order < 1:
        raise AppError("INVALID_PAGE_TOKEN", cause="token of another list")
    return int(order)
