"""The sessions service's operations in the database: one method per function of schema `api`."""

from collections.abc import Iterable, Mapping
from datetime import UTC
from typing import Any, NamedTuple, TypeVar

from concerto.sessions.v1 import sessions_pb2 as pb
from google.protobuf.message import Message

from servicekit.database.client import Database
from servicekit.messages import converter
from servicekit.rpc.identity import Caller

M = TypeVar("M", bound=Message)

STATEMENT_SECONDS = 3.0
"""How long the database may work on what reads very many rows of a caller: on a search, and on sums of usage.

The functions' own settings say the same, where Supabase's REST interface finds it.
"""


class SessionPage(NamedTuple):
    """A part of the list of sessions, newest activity first."""

    response: pb.ListSessionsResponse
    """The sessions, still without the token of the next page."""
    next_position: tuple[str, str] | None
    """`updated_at` (RFC 3339) and id of the session behind which the list goes on; None at its end."""


class MessagePage(NamedTuple):
    """A part of a session's messages, orders rising."""

    response: pb.ListMessagesResponse
    """The messages, still without the token of the next page."""
    has_more: bool
    """True when the list goes on in the direction that was asked for."""


class HitPage(NamedTuple):
    """A part of what a search has found, best match first."""

    hits: list[pb.MessageHit]
    last_rank: str
    """How well the last hit matches, as the database writes it; empty without hits."""
    has_more: bool
    """True when the list goes on after the last hit."""
    is_partial: bool
    """True when not every message that holds the words was looked at, only the newest."""


class UsagePage(NamedTuple):
    """A part of the list of what was used, sorted by key."""

    entries: list[pb.UsageEntry]
    total: pb.UsageEntry
    """The sum over the whole time, not only this page."""
    has_more: bool
    """True when the list goes on after the last entry."""
    since: str
    """Start of the time (RFC 3339)."""
    until: str
    """End of the time (RFC 3339, exclusive)."""


class SessionsStore:
    """Keeps sessions and messages; every method acts with the caller's rights.

    Every method raises AppError DATABASE_UNAVAILABLE or DATABASE_BUSY; those that name a session raise
    SESSION_NOT_FOUND when the caller has none with that id.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_session(self, caller: Caller, *, name: str, request_id: str) -> pb.Session:
        """Create a session, or return the one that this request_id (empty: none) has created."""
        args = {"name": name, "request_id": request_id or None}
        answer = await self._database.call("create_session", args, caller, row=request_id)
        return _read(pb.Session, answer["session"])

    async def list_sessions(
        self,
        caller: Caller,
        *,
        page_size: int,
        is_archived: bool,
        query: str,
        before: tuple[str, str] | None,
    ) -> SessionPage:
        """Return up to `page_size` (at most 100) sessions whose name contains `query` (empty: any name).

        Of very many sessions so many are looked at for a query, so a page may be empty and the list go on.
        before: `updated_at` (RFC 3339) and id of the session to continue behind; None begins with the newest.
        """
        before_updated_at, before_id = before or (None, None)
        args = {
            "page_size": page_size,
            "is_archived": is_archived,
            "query": query or None,
            "before_updated_at": before_updated_at,
            "before_id": before_id,
        }
        answer = await self._database.call("list_sessions", args, caller)
        response = _read(pb.ListSessionsResponse, answer)
        if not answer["has_more"]:
            return SessionPage(response, None)
        if answer.get("next_id"):
            return SessionPage(response, (answer["next_updated_at"], answer["next_id"]))
        last = response.sessions[-1]
        return SessionPage(response, (last.updated_at.ToDatetime(UTC).isoformat(), last.id))

    async def get_session(self, caller: Caller, session_id: str) -> pb.Session:
        """Return a session."""
        answer = await self._database.call("get_session", {"session_id": session_id}, caller)
        return _read(pb.Session, answer["session"])

    async def update_session(
        self,
        caller: Caller,
        session_id: str,
        *,
        name: str | None,
        is_archived: bool | None,
        expected_name: str | None,
    ) -> pb.Session:
        """Change what is not None. Raises SESSION_NAME_CHANGED when the name is not the expected one."""
        args = {
            "session_id": session_id,
            "name": name,
            "is_archived": is_archived,
            "expected_name": expected_name,
        }
        answer = await self._database.call("update_session", args, caller, row=session_id)
        return _read(pb.Session, answer["session"])

    async def delete_session(self, caller: Caller, session_id: str) -> None:
        """Delete a session with its messages; a long one in steps, between which others have their turn."""
        args = {"session_id": session_id, "in_steps": True}
        while not (await self._database.call("delete_session", args, caller, row=session_id)).get("is_deleted", True):
            pass

    async def append_messages(
        self,
        caller: Caller,
        session_id: str,
        messages: Iterable[pb.NewMessage],
        *,
        request_id: str,
        include_contents: bool,
    ) -> pb.AppendMessagesResponse:
        """Append 1 to 100 messages, or return what this request_id (empty: none) has appended.

        include_contents: True answers with their contents and metadata too.
        Raises REQUEST_ID_REUSED when the request_id came with other messages.
        """
        args = {
            "session_id": session_id,
            "request_id": request_id or None,
            "messages": [converter.to_json(message) for message in messages],
            "include_contents": include_contents,
        }
        answer = await self._database.call("append_messages", args, caller, row=session_id)
        return _read(pb.AppendMessagesResponse, answer)

    async def list_messages(
        self,
        caller: Caller,
        session_id: str,
        *,
        page_size: int,
        from_end: bool,
        after_order: int,
        before_order: int,
        include_inactive: bool,
        include_answer_under_way: bool,
    ) -> MessagePage:
        """Return up to `page_size` (at most 100) messages with orders between the bounds (0: no bound).

        The page ends before its contents and metadata pass 2 MiB, but holds at least one message.
        include_inactive: True lists all branches, False the active one.
        include_answer_under_way: True brings it along, as of the same moment.
        """
        args = {
            "session_id": session_id,
            "page_size": page_size,
            "from_end": from_end,
            "after_order": after_order or None,
            "before_order": before_order or None,
            "include_inactive": include_inactive,
            "include_answer_under_way": include_answer_under_way,
        }
        answer = await self._database.call("list_messages", args, caller)
        return MessagePage(_read(pb.ListMessagesResponse, answer), answer["has_more"])

    async def select_branch(self, caller: Caller, session_id: str, message_id: str) -> pb.Session:
        """Make the branch that holds a message the active one. Raises MESSAGE_NOT_FOUND, RUN_IN_PROGRESS."""
        args = {"session_id": session_id, "message_id": message_id}
        answer = await self._database.call("select_branch", args, caller, row=session_id)
        return _read(pb.Session, answer["session"])

    async def search_messages(
        self, caller: Caller, query: str, *, page_size: int, session_id: str, before: tuple[str, str, str] | None
    ) -> HitPage:
        """Return up to `page_size` (at most 50) messages of a session (empty: of all) that hold every word.

        Raises SEARCH_TOO_BROAD when the database needs longer than STATEMENT_SECONDS.
        before: rank, `timestamp` (RFC 3339) and id of the hit to continue behind; None begins with the best.
        """
        before_rank, before_timestamp, before_id = before or (None, None, None)
        args = {
            "query": query,
            "page_size": page_size,
            "session_id": session_id or None,
            "before_rank": before_rank,
            "before_timestamp": before_timestamp,
            "before_id": before_id,
        }
        answer = await self._database.call("search_messages", args, caller, statement_seconds=STATEMENT_SECONDS)
        hits = [_read(pb.MessageHit, entry) for entry in answer["hits"]]
        last_rank = str(answer["hits"][-1]["rank"]) if hits else ""
        return HitPage(hits, last_rank, answer["has_more"], answer.get("is_partial", False))

    async def list_usage(
        self,
        caller: Caller,
        *,
        since: str | None,
        until: str | None,
        group_by: str,
        page_size: int,
        after_key: str | None,
    ) -> UsagePage:
        """Return up to `page_size` (at most 366) sums of what was used from `since` until before `until` (RFC 3339).

        None means now for the end, and 30 days before the end for the start. group_by: `day`, `model` or `session`.
        after_key: the entry to continue behind; None begins with the first.
        """
        args = {"from": since, "to": until, "group_by": group_by, "page_size": page_size, "after_key": after_key}
        answer = await self._database.call("list_usage", args, caller, statement_seconds=STATEMENT_SECONDS)
        entries = [_read(pb.UsageEntry, entry) for entry in answer["entries"]]
        return UsagePage(
            entries, _read(pb.UsageEntry, answer["total"]), answer["has_more"], answer["from"], answer["to"]
        )


def _read(message_type: type[M], answer: Mapping[str, Any]) -> M:
    return converter.from_json(message_type, answer, ignore_unknown=True)
