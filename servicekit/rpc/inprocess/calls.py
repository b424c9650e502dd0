"""Calls within the process: what caller and handler share of one call, and the face of it that the caller sees."""

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable
from typing import Any, NamedTuple, Protocol

import grpc
from google.protobuf.message import Message

OK, CANCELLED, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE
# Messages that a stream may be ahead of its reader.
STREAM_LIMIT = 16
_STREAM_RESUME = STREAM_LIMIT // 2
LOCAL_CANCELLATION = "Locally cancelled by application!"
NO_CLIENT_STREAMS = "Within a process a client sends one request; a stream of them needs the service's address."


class Metadatum(NamedTuple):
    """An entry of the metadata, with the names that grpc's own entries have."""

    key: str
    value: str | bytes


Pairs = tuple[tuple[str, str | bytes], ...]
Transfer = Callable[[Any], Any]


class Retry:
    """How often an idempotent call is tried while its service is unavailable, as in channel.service_config."""

    MOST_ATTEMPTS = 4
    FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 1.0

    @classmethod
    def pause_seconds(cls, attempt: int) -> float:
        """Return the pause after the attempt with this number (1 is the first)."""
        seconds: float = min(cls.FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), cls.LONGEST_PAUSE_SECONDS)
        return seconds * random.uniform(0.8, 1.2)  # noqa: S311 (gRPC's own spread, gRFC A6)


class Host(Protocol):
    """What a call needs of a server."""

    def attend(self, rpc: "Rpc") -> "asyncio.Task[None] | None":
        """Begin to serve the call; None when no more calls are taken."""


def snapshot(message: Any, serialize: Transfer | None) -> Any:
    """Return the message as it is now, for the other side: a copy, or its bytes when it is no protobuf message."""
    if isinstance(message, Message):
        # Half the cost of writing and parsing, for small messages.
        copy = type(message)()
        copy.CopyFrom(message)
        return copy
    return serialize(message) if serialize is not None else message


def receive(taken: Any, serialize: Transfer | None, deserialize: Transfer | None) -> Any:
    """Return a snapshot as the receiver would have parsed it."""
    if deserialize is None or getattr(deserialize, "__self__", None) is type(taken):
        return taken
    if isinstance(taken, Message):
        taken = serialize(taken) if serialize is not None else taken.SerializeToString()
    return deserialize(taken)


class Pipe:
    """Responses on their way from a stream's handler to its caller: one writer, one reader, at most STREAM_LIMIT."""

    __slots__ = ("_loop", "_reader", "_writer", "is_closed", "items")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.items: deque[Any] = deque()
        self.is_closed = False
        self._loop = loop
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    def put(self, item: Any) -> bool:
        """Add a message; False when the pipe is full now, so that the writer should wait for `drained`."""
        self.items.append(item)
        if self._reader is not None:
            _wake(self._reader)
            self._reader = None
        return len(self.items) < STREAM_LIMIT

    async def drained(self) -> None:
        """Return when the reader has caught up, or reads no more."""
        while len(self.items) > _STREAM_RESUME and not self.is_closed:
            self._writer = self._loop.create_future()
            await self._writer

    async def has_item(self) -> bool:
        """Return True when there is a message, False when there will be none."""
        while not self.items:
            if self.is_closed:
                return False
            self._reader = self._loop.create_future()
            await self._reader
        return True

    def take(self) -> Any:
        """Return the next message, which must be there."""
        item = self.items.popleft()
        if self._writer is not None and len(self.items) <= _STREAM_RESUME:
            _wake(self._writer)
            self._writer = None
        return item

    def close(self, *, forget: bool = False) -> None:
        """Take no more messages; `forget` also those that are not read yet."""
        self.is_closed = True
        if forget:
            self.items.clear()
        for waiting in (self._reader, self._writer):
            if waiting is not None:
                _wake(waiting)


def _wake(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


class Rpc:
    """One call: its request, its deadline, its status once it has one. Neither side holds the other, only this."""

    __slots__ = (
        "_callbacks",
        "_find",
        "_retries",
        "_timer",
        "_waiting",
        "attempt",
        "code",
        "deadline",
        "details",
        "initial",
        "is_cancelled_by_caller",
        "loop",
        "metadata",
        "path",
        "request",
        "response",
        "response_deserializer",
        "responses",
        "serializer",
        "task",
        "trailing",
    )

    def __init__(
        self,
        find: Callable[[], Host | None],
        loop: asyncio.AbstractEventLoop,
        path: str,
        request: Any,
        *,
        serializer: Transfer | None,
        response_deserializer: Transfer | None,
        timeout: float | None,
        metadata: Iterable[tuple[str, str | bytes]] | None,
        is_repeatable: bool = False,
    ) -> None:
        self.loop = loop
        self.path = path
        self.request = snapshot(request, serializer)
        self.serializer = serializer
        self.response_deserializer = response_deserializer
        self.metadata: Pairs = tuple(map(Metadatum._make, metadata)) if metadata else ()
        self.deadline = None if timeout is None else loop.time() + timeout
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.initial: Pairs | None = None
        self.trailing: Pairs = ()
        self.response: Any = None
        self.responses: Pipe | None = None
        self.is_cancelled_by_caller = False
        self.task: asyncio.Task[None] | None = None
        self.attempt = 0
        self._find = find
        self._retries = Retry.MOST_ATTEMPTS - 1 if is_repeatable else 0
        self._waiting: list[asyncio.Future[None]] = []
        self._callbacks: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None

    @property
    def may_be_repeated(self) -> bool:
        """Whether a further attempt may need the request."""
        return self._retries > 0

    def begin(self) -> None:
        """Hand the call to its server; without one it ends UNAVAILABLE, or is tried again where that is safe."""
        if self.deadline is not None and self._timer is None:
            seconds = self.deadline - self.loop.time()
            if seconds <= 0:
                self._end_late()
                return
            self._timer = self.loop.call_later(seconds, self._end_late)
        self._try()

    def _try(self) -> None:
        if self.code is not None:
            return
        self.attempt += 1
        host = self._find()
        task = host.attend(self) if host is not None else None
        if task is None:
            self.settle(self.attempt, UNAVAILABLE, "The service does not run in this process now.")
        else:
            self.task = task

    def settle(
        self, attempt: int, code: grpc.StatusCode, details: str = "", trailing: Pairs = (), response: Any = None
    ) -> None:
        """Note how an attempt ended; the first end counts. An idempotent call is tried again when it is UNAVAILABLE."""
        if self.code is not None or attempt != self.attempt:
            return
        if code is UNAVAILABLE and self._retries and self.initial is None:
            self._retries -= 1
            self.loop.call_later(Retry.pause_seconds(attempt), self._try)
            return
        self.response = response
        self._end(code, details, trailing)

    def send_initial(self, metadata: Pairs) -> None:
        """Let the caller see the initial metadata, once."""
        if self.initial is None:
            self.initial = metadata
            self._wake()

    def cancel(self, details: str = LOCAL_CANCELLATION) -> bool:
        """End the call from the caller's side, and with it the handler. False when it has ended already."""
        if self.code is not None:
            return False
        self.is_cancelled_by_caller = True
        self._stop(CANCELLED, details)
        return True

    def _end_late(self) -> None:
        if self.code is None:
            self._stop(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _stop(self, code: grpc.StatusCode, details: str) -> None:
        if self.responses is not None:
            self.responses.close(forget=True)
        self._end(code, details, ())
        if self.task is not None:
            self.task.cancel()

    def _end(self, code: grpc.StatusCode, details: str, trailing: Pairs) -> None:
        self.code, self.details, self.trailing = code, details, trailing
        if self._timer is not None:
            self._timer.cancel()
        if self.responses is not None:
            self.responses.close()
        if self._waiting:
            self._wake()
        if self._callbacks:
            for callback in self._callbacks:
                callback()
            self._callbacks.clear()

    def _wake(self) -> None:
        for waiting in self._waiting:
            _wake(waiting)
        self._waiting.clear()

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call back when the call has ended, now if it has."""
        if self.code is not None:
            callback()
        else:
            self._callbacks.append(callback)

    def time_remaining(self) -> float | None:
        """Return the seconds to the deadline; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - self.loop.time())

    def change(self) -> "asyncio.Future[None]":
        """Return a future that is done when something was learnt: the initial metadata, or the end."""
        waiting: asyncio.Future[None] = self.loop.create_future()
        self._waiting.append(waiting)
        return waiting

    def failure(self) -> BaseException | None:
        """Return what the caller of a call that has ended is to see raised."""
        if self.code is OK or self.code is None:
            return None
        if self.is_cancelled_by_caller:
            return asyncio.CancelledError()
        return grpc.aio.AioRpcError(
            self.code,
            grpc.aio.Metadata(*(self.initial or ())),
            grpc.aio.Metadata(*self.trailing),
            details=self.details,
            debug_error_string=f"{self.path} ended {self.code.name} within the process",
        )


class Call(grpc.aio.Call):
    """The caller's side of a call. Dropping the last reference cancels what has not ended, as grpc.aio does."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        rpc.begin()

    def __del__(self) -> None:
        rpc = self._rpc
        if rpc.code is None and not rpc.loop.is_closed():
            rpc.cancel("Cancelled upon garbage collection!")

    def cancel(self) -> bool:
        """End the call; False when it has ended already."""
        return self._rpc.cancel()

    def cancelled(self) -> bool:
        """Whether the call ended CANCELLED."""
        return self._rpc.code is CANCELLED

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._rpc.code is not None

    def time_remaining(self) -> float | None:
        """Seconds to the deadline; None without one."""
        return self._rpc.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back with this call when it has ended."""
        self._rpc.when_ended(lambda: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Return what the handler sent first."""
        while self._rpc.initial is None and self._rpc.code is None:
            await self._rpc.change()
        return grpc.aio.Metadata(*(self._rpc.initial or ()))

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Return what came with the status."""
        await self._ended()
        return grpc.aio.Metadata(*self._rpc.trailing)

    async def code(self) -> grpc.StatusCode:
        """Return the status code."""
        await self._ended()
        return self._rpc.code or grpc.StatusCode.UNKNOWN

    async def details(self) -> str:
        """Return the status's sentence."""
        await self._ended()
        return self._rpc.details

    async def debug_error_string(self) -> str:
        """Return a line for people who look for a fault."""
        await self._ended()
        return f"{self._rpc.path} ended {self._rpc.code} within the process"

    async def wait_for_connection(self) -> None:
        """Return at once, there is nothing to connect; raises the error of a call that has failed."""
        failure = self._rpc.failure()
        if failure is not None:
            raise failure

    async def _ended(self) -> None:
        while self._rpc.code is None:
            await self._rpc.change()


class UnaryUnaryCall(Call, grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call with one request and one response."""

    def __await__(self) -> Generator[Any, None, Any]:
        rpc = self._rpc
        while rpc.code is None:
            try:
                yield from rpc.change()
            except asyncio.CancelledError:
                rpc.cancel()
                raise
        if rpc.code is not OK:
            failure = rpc.failure()
            if failure is not None:
                raise failure
        return rpc.response


class UnaryStreamCall(Call, grpc.aio.UnaryStreamCall[Any, Any]):
    """A call with one request and a stream of responses."""

    def __init__(self, rpc: Rpc) -> None:
        self._responses = rpc.responses = Pipe(rpc.loop)
        super().__init__(rpc)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        responses = self._responses
        if responses.items or await self._has_next():
            return responses.take()
        raise StopAsyncIteration

    async def read(self) -> Any:
        """Return the next message; grpc.aio.EOF after the last one."""
        if self._responses.items or await self._has_next():
            return self._responses.take()
        return grpc.aio.EOF

    async def _has_next(self) -> bool:
        try:
            if await self._responses.has_item():
                return True
        except asyncio.CancelledError:
            self._rpc.cancel()
            raise
        failure = self._rpc.failure()
        if failure is not None:
            raise failure
        return False
