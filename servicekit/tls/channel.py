"""A channel whose connections begin with the certificates of the day: gRPC's own keeps the first ones for ever."""

import asyncio
import functools
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from servicekit.tls.credentials import Certificates

Open = Callable[[grpc.ChannelCredentials], grpc.aio.Channel]


class TlsChannel(grpc.aio.Channel):
    """A channel over TLS. Calls that begin after the certificates were renewed use a new connection.

    Those under way end on the one that they began on, which is closed after the last of them.
    open_channel: opens gRPC's own channel with given credentials.
    """

    def __init__(self, certificates: Certificates, open_channel: Open) -> None:
        self._certificates = certificates
        self._open_channel = open_channel
        self._version = certificates.current_version()
        self._current = _Line(open_channel(certificates.channel_credentials()))
        self._retired: set[_Line] = set()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def retired(self) -> int:
        """How many connections with earlier certificates are kept for the calls that they still carry."""
        return len(self._retired)

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls; those that run get `grace` seconds, then they are cancelled."""
        self._is_closed = True
        await asyncio.gather(*(line.close(grace) for line in (self._current, *self._retired)))

    def line(self) -> "_Line":
        """Return the connections that a call which begins now uses."""
        version = self._certificates.current_version()
        if version != self._version and not self._is_closed:
            self._version = version
            before, self._current = self._current, _Line(self._open_channel(self._certificates.channel_credentials()))
            self._retired.add(before)
            before.retire(functools.partial(self._retired.discard, before))
        return self._current

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return the state of the connections that a call would use."""
        return self.line().channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when they are in another state."""
        await self.line().channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Return when there is a connection."""
        await self.line().channel.channel_ready()

    def unary_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """Return the callable of an rpc with one request and one response; arguments as gRPC's."""
        return _Method(self, "unary_unary", method, *args, **options)

    def unary_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """Return the callable of an rpc that answers with a stream."""
        return _Method(self, "unary_stream", method, *args, **options)

    def stream_unary(self, method: str, *args: Any, **options: Any) -> Any:
        """Return the callable of an rpc that takes a stream."""
        return _Method(self, "stream_unary", method, *args, **options)

    def stream_stream(self, method: str, *args: Any, **options: Any) -> Any:
        """Return the callable of an rpc that takes a stream and answers with one."""
        return _Method(self, "stream_stream", method, *args, **options)


class _Line:
    """One channel of gRPC's, with the calls on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self._calls: weakref.WeakSet[Any] = weakref.WeakSet()
        self._when_closed: Callable[[], None] | None = None
        self._closing: asyncio.Task[None] | None = None

    def add(self, call: Any) -> None:
        """Keep the channel open at least as long as this call."""
        self._calls.add(call)
        call.add_done_callback(self._forget)

    def retire(self, when_closed: Callable[[], None]) -> None:
        """Close the channel after the last call."""
        self._when_closed = when_closed
        self._close_when_idle()

    async def close(self, grace_seconds: float | None) -> None:
        """Close it whatever runs, after the grace."""
        await self.channel.close(grace_seconds)

    def _forget(self, call: Any) -> None:
        self._calls.discard(call)
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        if self._when_closed is None or self._calls or self._closing is not None:
            return
        self._closing = asyncio.get_running_loop().create_task(self.channel.close())
        self._closing.add_done_callback(self._closed)

    def _closed(self, _: "asyncio.Task[None]") -> None:
        if self._when_closed is not None:
            self._when_closed()


class _Method:
    """An rpc of the channel, to be called; made anew on each line."""

    def __init__(self, channel: TlsChannel, kind: str, method: str, *args: Any, **options: Any) -> None:
        self._channel = channel
        self._make: Callable[[_Line], Any] = lambda line: getattr(line.channel, kind)(method, *args, **options)
        self._method = method.encode()  # where grpc.aio has it
        self._line = channel.line()
        self._callable = self._make(self._line)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Begin a call."""
        line = self._channel.line()
        if line is not self._line:
            self._line, self._callable = line, self._make(line)
        call = self._callable(*args, **options)
        line.add(call)
        return call
