"""The sessions service as the orchestrator uses it; the only file that knows its stub."""

import asyncio
import time
from collections.abc import Callable, Sequence

import grpc
from concerto.sessions.v1 import sessions_pb2, sessions_pb2_grpc

from servicekit import channel
from servicekit.errors import AppError

SERVICE = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
MAX_APPEND = 100
MAX_PAGE = 100

# A try that hangs must leave time for another one within the patience of `append`.
_TRY_SECONDS = 3.0
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 1.0
_PASSING_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class SessionsStore:
    """Reads and writes conversations as the caller of the current request; one method per rpc.

    The channel is made at first use and belongs to the event loop that runs then. Every method raises the AppError
    of the sessions service, or SERVICE_UNAVAILABLE.
    """

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel]) -> None:
        self._open_channel = open_channel
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._made_stub: sessions_pb2_grpc.SessionsServiceAsyncStub | None = None

    @classmethod
    def at(cls, target: str) -> "SessionsStore":
        """Return a store that speaks to the sessions service at `target` (`host:port`)."""
        return cls(lambda: channel.connect(target, SERVICE))

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The running event loop that the store belongs to; None before its first use and after that loop's end."""
        return self._loop if self._loop is not None and self._loop.is_running() else None

    async def append(
        self,
        session_id: str,
        messages: Sequence[sessions_pb2.NewMessage],
        *,
        request_id: str = "",
        patience_seconds: float = 0.0,
    ) -> list[sessions_pb2.Message]:
        """Append 1 to 100 messages, all or none, and return them as they are stored.

        request_id: makes the call repeatable; empty means that each call appends.
        patience_seconds: how long to try again while the service cannot be reached; needs a request_id.
        """
        request = sessions_pb2.AppendMessagesRequest(session_id=session_id, messages=messages, request_id=request_id)
        give_up_at = time.monotonic() + patience_seconds
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            timeout_seconds = _TRY_SECONDS if patience_seconds else channel.CALL_TIMEOUT_SECONDS
            try:
                answer = await channel.call(self._stub().AppendMessages, request, timeout_seconds=timeout_seconds)
            except AppError as error:
                if error.code not in _PASSING_CODES or time.monotonic() + pause_seconds > give_up_at:
                    raise
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _MAX_PAUSE_SECONDS)
            else:
                return list(answer.messages)

    async def list_messages(
        self,
        session_id: str,
        *,
        page_size: int = MAX_PAGE,
        page_token: str = "",
        from_end: bool = False,
        after_order: int = 0,
        before_order: int = 0,
    ) -> sessions_pb2.ListMessagesResponse:
        """Return one page of messages, orders rising; see ListMessages in the contract."""
        request = sessions_pb2.ListMessagesRequest(
            session_id=session_id,
            page_size=page_size,
            page_token=page_token,
            from_end=from_end,
            after_order=after_order,
            before_order=before_order,
        )
        return await channel.call(self._stub().ListMessages, request)

    async def get_session(self, session_id: str) -> sessions_pb2.Session:
        """Return the session."""
        request = sessions_pb2.GetSessionRequest(session_id=session_id)
        return (await channel.call(self._stub().GetSession, request)).session

    async def name_session(self, session_id: str, name: str) -> sessions_pb2.Session:
        """Name a session that has no name yet. Raises AppError SESSION_NAME_CHANGED when it has one by now."""
        request = sessions_pb2.UpdateSessionRequest(session_id=session_id, name=name, expected_name="")
        return (await channel.call(self._stub().UpdateSession, request)).session

    async def close(self) -> None:
        """Close the connection; a later use opens another one."""
        connection, self._channel, self._made_stub, self._loop = self._channel, None, None, None
        if connection is not None:
            await connection.close()

    def _stub(self) -> "sessions_pb2_grpc.SessionsServiceAsyncStub":
        loop = asyncio.get_running_loop()
        if self._made_stub is None or self._loop is not loop:
            if self.loop is not None:
                raise RuntimeError("the store belongs to another event loop that is still running")
            self._channel = self._open_channel()
            self._made_stub = sessions_pb2_grpc.SessionsServiceStub(self._channel)
            self._loop = loop
        return self._made_stub
