"""The handler's side of a call within the process: its context, and what a handler yields on its way to the caller."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

import grpc

from servicekit.rpc.inprocess.calls import CANCELLED, NO_CLIENT_STREAMS, OK, Pairs, Rpc, Transfer, receive, snapshot


class Context(grpc.aio.ServicerContext[Any, Any]):
    """The handler's side of a call (one attempt of it)."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._attempt = rpc.attempt
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Pairs = ()
        self._is_settled = False
        self.request_deserializer: Transfer | None = None
        self.response_serializer: Transfer | None = None

    def request(self) -> Any:
        """Return the call's request, for this attempt alone."""
        rpc = self._rpc
        kept = snapshot(rpc.request, rpc.serializer) if rpc.may_be_repeated else rpc.request
        return receive(kept, rpc.serializer, self.request_deserializer)

    def _out(self, response: Any) -> Any:
        write = self.response_serializer
        return receive(snapshot(response, write), write, self._rpc.response_deserializer)

    def settle(self, code: grpc.StatusCode, details: str = "", response: Any = None) -> None:
        """Send the status, once."""
        if not self._is_settled:
            self._is_settled = True
            self._rpc.settle(self._attempt, code, details, self._trailing, response)

    def finish(self, response: Any) -> None:
        """Send the response of a handler that returned, with its status."""
        code = self._code or OK
        self.settle(code, self._details, self._out(response) if code is OK else None)

    def finish_stream(self) -> None:
        """Send the status of a handler whose responses have been sent."""
        self.settle(self._code or OK, self._details)

    def fail(self, details: str) -> None:
        """Send the status of a handler that raised: the code it had set, or UNKNOWN."""
        code = self._code
        self.settle(grpc.StatusCode.UNKNOWN if code is None or code is OK else code, self._details or details)

    async def read(self) -> NoReturn:
        """Refuse: no client sends a stream."""
        raise NotImplementedError(NO_CLIENT_STREAMS)

    async def write(self, message: Any) -> None:
        """Send a response of a stream; returns when there is room for the next."""
        rpc = self._rpc
        responses = rpc.responses
        if responses is None or responses.is_closed:
            raise asyncio.InvalidStateError("The call has ended.")
        if rpc.initial is None:
            rpc.send_initial(())
        if not responses.put(self._out(message)):
            await responses.drained()

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the initial metadata before the first response."""
        self._rpc.send_initial(tuple(initial_metadata))

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a status; raises grpc.aio.AbortError, which ends the handler."""
        if self._is_settled:
            raise grpc.aio.UsageError("Abort already called!")
        if trailing_metadata:
            self._trailing = tuple(trailing_metadata)
        self.settle(grpc.StatusCode.UNKNOWN if code is OK else code, details)
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status and its details."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Note what goes along with the status."""
        self._trailing = tuple(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """Return what goes along with the status."""
        return self._trailing

    def invocation_metadata(self) -> Any:
        """Return what the caller sent."""
        return self._rpc.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        """Note the code of the status."""
        self._code = code

    def code(self) -> grpc.StatusCode:
        """Return the code that was set."""
        return self._code or OK

    def set_details(self, details: str) -> None:
        """Note the sentence of the status."""
        self._details = details

    def details(self) -> str:
        """Return the sentence that was set."""
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Do nothing: no byte is sent."""

    def disable_next_message_compression(self) -> None:
        """Do nothing: no byte is sent."""

    def peer(self) -> str:
        """Return who calls: somebody on this machine."""
        return "unix:inprocess"

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return None: nobody has shown a certificate."""
        return None

    def peer_identity_key(self) -> str | None:
        """Return None: nobody has shown a certificate."""
        return None

    def auth_context(self) -> dict[str, Sequence[bytes]]:
        """Return nothing: nobody has shown a certificate."""
        return {}

    def time_remaining(self) -> float | None:  # type: ignore[override] # None without a deadline, as grpc.aio has it
        """Seconds to the deadline; None without one."""
        return self._rpc.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back with this context when the call has ended."""
        self._rpc.when_ended(lambda: callback(self))

    def cancelled(self) -> bool:
        """Whether the call ended CANCELLED."""
        return self._rpc.code is CANCELLED

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._rpc.code is not None


async def answer_with_stream(source: Any, context: Context) -> None:
    """Send what a handler yields; one that is a coroutine writes by itself."""
    if not hasattr(source, "__aiter__"):
        await source
        return
    try:
        async for response in source:
            await context.write(response)
    finally:
        # A handler that is at a yield when its call ends is closed now, not when the collector finds it.
        close = getattr(source, "aclose", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):
                await close()
