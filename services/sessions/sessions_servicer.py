"""The rpcs of the sessions service: check, call, translate."""

import math
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import grpc
from concerto.sessions.v1 import sessions_pb2 as pb
from concerto.sessions.v1 import sessions_pb2_grpc as pb_grpc

from servicekit.errors import AppError
from servicekit.messages import paging
from servicekit.rpc import sizes
from servicekit.rpc.identity import current_caller
from services.sessions import pages
from services.sessions.sessions_store import SessionsStore

_USAGE_GROUPS = {
    pb.USAGE_GROUP_UNSPECIFIED: "day",
    pb.USAGE_GROUP_DAY: "day",
    pb.USAGE_GROUP_MODEL: "model",
    pb.USAGE_GROUP_SESSION: "session",
}

Context = grpc.aio.ServicerContext[Any, Any]


class SessionsServicer(pb_grpc.SessionsServiceServicer):
    """Answers SessionsService for the current caller; requests have been checked against the contract before."""

    def __init__(self, store: SessionsStore) -> None:
        self._store = store

    async def CreateSession(self, request: pb.CreateSessionRequest, _: Context) -> pb.CreateSessionResponse:
        """Create an empty session."""
        session = await self._store.create_session(current_caller(), name=request.name, request_id=request.request_id)
        return pb.CreateSessionResponse(session=session)

    async def ListSessions(self, request: pb.ListSessionsRequest, _: Context) -> pb.ListSessionsResponse:
        """List the caller's sessions, newest activity first."""
        filters = pages.fingerprint("sessions", request.is_archived, request.query)
        before = pages.time_position(request.page_token, filters) if request.page_token else None
        page = await self._store.list_sessions(
            current_caller(),
            page_size=pages.size(request.page_size),
            is_archived=request.is_archived,
            query=request.query,
            before=before,
        )
        if page.next_position is not None:
            page.response.next_page_token = paging.encode(filters, *page.next_position)
        return page.response

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
        if request.include_contents and request.ByteSize() > sizes.MAX_CONTENT_BYTES:
            limit = f"{sizes.MAX_CONTENT_BYTES} bytes with include_contents"
            raise AppError("FIELD_TOO_LARGE", metadata={"field": "messages", "limit": limit})
        return await self._store.append_messages(
            current_caller(),
            request.session_id,
            request.messages,
            request_id=request.request_id,
            include_contents=request.include_contents,
        )

    async def ListMessages(self, request: pb.ListMessagesRequest, _: Context) -> pb.ListMessagesResponse:
        """List a session's messages from its beginning or its end."""
        filters = pages.fingerprint(
            "messages",
            request.session_id.lower(),
            request.from_end,
            request.after_order,
            request.before_order,
            request.include_inactive,
        )
        after_order, before_order = request.after_order, request.before_order
        if request.page_token:
            position = _message_position(request.page_token, filters)
            if request.from_end:
                before_order = position
            else:
                after_order = position
        page = await self._store.list_messages(
            current_caller(),
            request.session_id,
            page_size=pages.size(request.page_size),
            from_end=request.from_end,
            after_order=after_order,
            before_order=before_order,
            include_inactive=request.include_inactive,
            include_answer_under_way=request.include_answer_under_way,
        )
        response = page.response
        if page.has_more:
            last = response.messages[0 if request.from_end else -1]
            response.next_page_token = paging.encode(filters, last.order)
        return response

    async def SelectBranch(self, request: pb.SelectBranchRequest, _: Context) -> pb.SelectBranchResponse:
        """Make the branch that holds a message the active one."""
        session = await self._store.select_branch(current_caller(), request.session_id, request.message_id)
        return pb.SelectBranchResponse(session=session)

    async def SearchMessages(self, request: pb.SearchMessagesRequest, _: Context) -> pb.SearchMessagesResponse:
        """Find the caller's messages by their words."""
        filters = pages.fingerprint("hits", request.query, request.session_id.lower())
        page = await self._store.search_messages(
            current_caller(),
            request.query,
            page_size=pages.size(request.page_size, default=20, most=50),
            session_id=request.session_id,
            before=_hit_position(request.page_token, filters) if request.page_token else None,
        )
        token = ""
        if page.has_more:
            last = page.hits[-1]
            token = paging.encode(filters, page.last_rank, last.timestamp.ToDatetime(UTC).isoformat(), last.message_id)
        return pb.SearchMessagesResponse(hits=page.hits, next_page_token=token, is_partial=page.is_partial)

    async def ListUsage(self, request: pb.ListUsageRequest, _: Context) -> pb.ListUsageResponse:
        """Sum up what the caller has used."""
        since, until = _optional_time(request, "from"), _optional_time(request, "to")
        filters = pages.fingerprint("usage", since or "", until or "", request.group_by)
        after_key: str | None = None
        if request.page_token:
            # Bounds that the request leaves open stay where the first page has put them.
            since, until, after_key = pages.position(request.page_token, filters, (datetime, datetime, str))
            since, until = pages.moment(since), pages.moment(until)
        page = await self._store.list_usage(
            current_caller(),
            since=since,
            until=until,
            group_by=_USAGE_GROUPS[request.group_by],
            page_size=pages.size(request.page_size, default=100, most=366),
            after_key=after_key,
        )
        token = paging.encode(filters, page.since, page.until, page.entries[-1].key) if page.has_more else ""
        return pb.ListUsageResponse(entries=page.entries, next_page_token=token, total=page.total)


def _message_position(token: str, filters: str) -> int:
    (order,) = pages.position(token, filters, (int,))
    if order < 1:
        raise AppError("INVALID_PAGE_TOKEN", cause="token of another list")
    return int(order)


def _hit_position(token: str, filters: str) -> tuple[str, str, str]:
    rank, time, message_id = pages.position(token, filters, (str, datetime, UUID))
    try:
        number = float(rank)
    except ValueError as error:
        raise AppError("INVALID_PAGE_TOKEN", cause=error) from None
    if not math.isfinite(number) or abs(number) > 1e30 or (number and abs(number) < 1e-30):
        raise AppError("INVALID_PAGE_TOKEN", cause="no rank")
    return repr(number), pages.moment(time), message_id


def _optional_time(request: pb.ListUsageRequest, field: Literal["from", "to"]) -> str | None:
    return getattr(request, field).ToDatetime(UTC).isoformat() if request.HasField(field) else None
