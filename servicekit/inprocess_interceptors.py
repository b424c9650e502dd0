"""Client interceptors around calls within the process, so that tracing sees them as it sees calls over the wire."""

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any

import grpc


def tracing_clients() -> Sequence[grpc.aio.ClientInterceptor]:
    """Return OpenTelemetry's client interceptors while it instruments grpc.aio, otherwise none."""
    instrumentation = _instrumentation()
    if instrumentation is None or not instrumentation.GrpcAioInstrumentorClient().is_instrumented_by_opentelemetry:
        return ()
    return list(instrumentation.aio_client_interceptors())


def tracing_servers() -> Sequence[grpc.aio.ServerInterceptor]:
    """Return OpenTelemetry's server interceptor while it instruments grpc.aio, otherwise none."""
    instrumentation = _instrumentation()
    if instrumentation is None or not instrumentation.GrpcAioInstrumentorServer().is_instrumented_by_opentelemetry:
        return ()
    return [instrumentation.aio_server_interceptor()]


def _instrumentation() -> Any:
    # Looked at, not imported: servicekit.telemetry loads it only where an endpoint is set.
    return sys.modules.get("opentelemetry.instrumentation.grpc")


async def chain(
    interceptors: Sequence[Any],
    name: str,
    invoke: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
    details: grpc.aio.ClientCallDetails,
    request: Any,
) -> Any:
    """Run the interceptors' method `name` around `invoke`; return the call, response or iterator that comes out."""
    if not interceptors:
        return await invoke(details, request)
    continuation = functools.partial(chain, interceptors[1:], name, invoke)
    return await getattr(interceptors[0], name)(continuation, details, request)


class Intercepted(grpc.aio.Call):
    """A call as its caller sees it while interceptors may still be at work before it."""

    def __init__(self, call: Coroutine[Any, Any, Any]) -> None:
        self._made = asyncio.get_running_loop().create_task(call)
        self._callbacks: list[Callable[[Any], None]] = []
        self._made.add_done_callback(self._on_made)

    def __await__(self) -> Generator[Any, None, Any]:
        call = yield from self._made.__await__()
        if hasattr(call, "__await__"):
            return (yield from call.__await__())
        return call  # an interceptor gave the response itself

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            async for response in await self._made:
                yield response
        finally:
            self.cancel()

    def _call(self) -> Any:
        """Return what the interceptors made; None while they work, or when they failed."""
        if not self._made.done() or self._made.cancelled() or self._made.exception() is not None:
            return None
        return self._made.result()

    def _on_made(self, _: "asyncio.Task[Any]") -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.add_done_callback(callback)

    def cancel(self) -> bool:
        """End the call; False when it has ended already."""
        if not self._made.done():
            return self._made.cancel()
        call = self._call()
        return bool(call.cancel()) if hasattr(call, "cancel") else False

    def cancelled(self) -> bool:
        """Whether the call ended CANCELLED."""
        if self._made.cancelled():
            return True
        call = self._call()
        return bool(call.cancelled()) if hasattr(call, "cancelled") else False

    def done(self) -> bool:
        """Whether the call has ended."""
        if not self._made.done():
            return False
        call = self._call()
        return bool(call.done()) if hasattr(call, "done") else True

    def time_remaining(self) -> float | None:
        """Seconds to the deadline; None without one, or while interceptors work."""
        call = self._call()
        return call.time_remaining() if hasattr(call, "time_remaining") else None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back with this call when it has ended."""
        if not self._made.done():
            self._callbacks.append(callback)
            return
        call = self._call()
        if hasattr(call, "add_done_callback"):
            call.add_done_callback(lambda _: callback(self))
        else:
            callback(self)

    async def initial_metadata(self) -> Any:
        """Return what the handler sent first."""
        return await self._ask("initial_metadata", grpc.aio.Metadata())

    async def trailing_metadata(self) -> Any:
        """Return what came with the status."""
        return await self._ask("trailing_metadata", grpc.aio.Metadata())

    async def code(self) -> grpc.StatusCode:
        """Return the status code."""
        code: grpc.StatusCode = await self._ask("code", grpc.StatusCode.OK)
        return code

    async def details(self) -> str:
        """Return the status's sentence."""
        return str(await self._ask("details", ""))

    async def debug_error_string(self) -> str:
        """Return a line for people who look for a fault."""
        return str(await self._ask("debug_error_string", ""))

    async def wait_for_connection(self) -> None:
        """Return when the interceptors have made the call; raises the error of one that has failed."""
        await (await self._made).wait_for_connection()

    async def read(self) -> Any:
        """Return the next message; grpc.aio.EOF after the last one."""
        call = await self._made
        if hasattr(call, "read"):
            return await call.read()
        return await anext(call, grpc.aio.EOF)

    async def write(self, request: Any) -> None:
        """Send a message."""
        await (await self._made).write(request)

    async def done_writing(self) -> None:
        """Send no more messages."""
        await (await self._made).done_writing()

    async def _ask(self, name: str, otherwise: Any) -> Any:
        """Ask the call, or the error that the interceptors raised in its place."""
        try:
            call = await self._made
        except grpc.aio.AioRpcError as error:
            return getattr(error, name)()
        return await getattr(call, name)() if hasattr(call, name) else otherwise
