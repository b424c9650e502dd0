"""gRPC without a wire: servers and channels that pass messages within one process, as grpc.aio's do between processes.

A channel finds the server of its service in the process-wide registry, call by call. Each call's handler runs in a task
of its own, in a copy of the context in which its server was started, so nothing of the caller's leaks into it or back.
Messages are copied on the way. Sizes of messages are not limited here.
"""

import asyncio
import contextlib
import contextvars
import functools
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self

import grpc
import structlog

from servicekit.rpc.inprocess.calls import (
    CANCELLED,
    NO_CLIENT_STREAMS,
    Call,
    Rpc,
    Transfer,
    UnaryStreamCall,
    UnaryUnaryCall,
)
from servicekit.rpc.inprocess.context import Context, answer_with_stream

_LOG = structlog.stdlib.get_logger(__name__)

TARGET = "inprocess:"
"""The target of a neighbour in the same process, in place of `host:port`."""
_LAST_STEPS_SECONDS = 1.0


class _Details(NamedTuple):
    method: str
    invocation_metadata: Any


class HandlerCallDetails(_Details, grpc.HandlerCallDetails):
    """What an interceptor is told of a call."""


class Registry:
    """Who serves what in this process."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        self._awaited: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)

    def find(self, service: str) -> "Server | None":
        """Return the server of a service, by the service's full name."""
        return self._servers.get(service)

    def add(self, server: "Server", services: Iterable[str]) -> None:
        """Make the server the one that serves these."""
        for service in services:
            self._servers[service] = server
            for waiting in self._awaited.pop(service, ()):
                if not waiting.done():
                    waiting.set_result(None)

    def remove(self, server: "Server") -> None:
        """Forget the server."""
        for service in [name for name, known in self._servers.items() if known is server]:
            del self._servers[service]

    async def arrival(self, service: str) -> None:
        """Return when the service is served."""
        while service not in self._servers:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited[service].append(waiting)
            await waiting


REGISTRY = Registry()


class Server:
    """Takes servicers as grpc.aio's server does, and serves the calls of channels of this process."""

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._generic: list[grpc.GenericRpcHandler] = []
        self._services: list[str] = []
        self._active: dict[asyncio.Task[None], Rpc] = {}
        self._context: contextvars.Context | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle: asyncio.Event | None = None
        self._find: Callable[[Any], Awaitable[Any]] | None = None
        for interceptor in reversed(interceptors):
            self._find = functools.partial(interceptor.intercept_service, self._find or self._look_up_soon)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Take handlers that say by themselves what they serve."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: "Mapping[str, grpc.RpcMethodHandler[Any, Any]]"
    ) -> None:
        """Take the handlers of a service."""
        self._services.append(service_name)
        for name, handler in method_handlers.items():
            self._methods[f"/{service_name}/{name}"] = handler

    def start(self) -> None:
        """Take calls from now on; their handlers see the context variables of this moment."""
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        REGISTRY.add(self, self._services)

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls; those that run get the time, then they are cancelled. May be called again to hurry."""
        self._context = None
        REGISTRY.remove(self)
        if self._active and self._idle is not None and grace_seconds > 0:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_seconds)
        ending = dict(self._active)
        for task, rpc in ending.items():
            rpc.settle(rpc.attempt, CANCELLED, "The server stops.")
            task.cancel()
        if ending:
            await asyncio.wait(ending, timeout=_LAST_STEPS_SECONDS)

    def attend(self, rpc: Rpc) -> "asyncio.Task[None] | None":
        """Begin to serve a call; None when the server stops."""
        context = self._context
        if context is None:
            return None
        if rpc.loop is not self._loop:
            raise RuntimeError(f"{rpc.path} is served on another event loop; reach it by its address.")
        task = rpc.loop.create_task(self._serve(rpc), context=context.copy())
        self._active[task] = rpc
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: "asyncio.Task[None]") -> None:
        del self._active[task]
        if not self._active and self._idle is not None:
            self._idle.set()

    async def _serve(self, rpc: Rpc) -> None:
        context = Context(rpc)
        try:
            if self._find is None:
                handler = self._look_up(rpc.path, rpc.metadata)
            else:
                handler = await self._find(HandlerCallDetails(rpc.path, rpc.metadata))
            if handler is None or handler.request_streaming:
                context.settle(grpc.StatusCode.UNIMPLEMENTED, NO_CLIENT_STREAMS if handler else "Method not found!")
                return
            context.request_deserializer = handler.request_deserializer
            context.response_serializer = handler.response_serializer
            if handler.response_streaming:
                await answer_with_stream(handler.unary_stream(context.request(), context), context)
                context.finish_stream()
            else:
                context.finish(await handler.unary_unary(context.request(), context))
        except grpc.aio.AbortError:
            context.fail("Aborted.")  # unless its status has been sent, as abort() does
        except asyncio.CancelledError:
            context.settle(CANCELLED, "The handler was cancelled.")
        except Exception as error:  # noqa: BLE001 (as grpc.aio: whatever a handler raises is a status)
            # Only its type, as an exception's text may quote what a user wrote.
            _LOG.error("rpc.crashed", rpc=rpc.path, error=type(error).__name__)
            context.fail(f"Unexpected {type(error).__name__} raised by the servicer.")

    def _look_up(self, path: str, metadata: Any) -> Any:
        handler = self._methods.get(path)
        if handler is None:
            for generic in self._generic:
                handler = generic.service(HandlerCallDetails(path, metadata))
                if handler is not None:
                    break
        return handler

    async def _look_up_soon(self, details: grpc.HandlerCallDetails) -> Any:
        return self._look_up(details.method, details.invocation_metadata)


class Channel(grpc.aio.Channel):
    """A channel to a service of this process, which need not be served yet.

    repeatable: paths of the rpcs that are tried again while the service is unavailable.
    """

    def __init__(self, service: str, *, repeatable: Collection[str] = ()) -> None:
        self._service = service
        self._repeatable = frozenset(repeatable)
        self._open: set[Rpc] = set()
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Take no more calls; those that run get `grace` seconds, then they are cancelled."""
        self._is_closed = True
        deadline = time.monotonic() + (grace or 0.0)
        for rpc in list(self._open):
            left_seconds = deadline - time.monotonic()
            if rpc.code is None and left_seconds > 0:
                await asyncio.wait({rpc.change()}, timeout=left_seconds)
            rpc.cancel("Channel closed!")

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002 (grpc's)
        """Return READY while the service is served, IDLE otherwise, SHUTDOWN after `close`."""
        if self._is_closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        served = REGISTRY.find(self._service) is not None
        return grpc.ChannelConnectivity.READY if served else grpc.ChannelConnectivity.IDLE

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Return when a service that was not served is; a service that goes away is not announced."""
        if self.get_state() is last_observed_state:
            await REGISTRY.arrival(self._service)

    async def channel_ready(self) -> None:
        """Return when the service is served."""
        await REGISTRY.arrival(self._service)

    def unary_unary(
        self,
        method: str,
        request_serializer: Transfer | None = None,
        response_deserializer: Transfer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """Return the callable of an rpc with one request and one response."""
        return UnaryUnary(self, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Transfer | None = None,
        response_deserializer: Transfer | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """Return the callable of an rpc that answers with a stream."""
        return UnaryStream(self, method, request_serializer, response_deserializer)

    def stream_unary(self, method: str, *_: Any, **__: Any) -> NoReturn:
        """Refuse: a client sends no stream within the process."""
        raise NotImplementedError(f"{method}: {NO_CLIENT_STREAMS}")

    stream_stream = stream_unary

    def begin(self, method: "_Method", request: Any, timeout: float | None, metadata: Any) -> Rpc:
        """Make a call's shared part, which ends with the channel at the latest."""
        if self._is_closed:
            raise grpc.aio.UsageError("Channel is closed.")
        rpc = Rpc(
            self._host,
            asyncio.get_running_loop(),
            method.path,
            request,
            serializer=method.serializer,
            response_deserializer=method.deserializer,
            timeout=timeout,
            metadata=metadata,
            is_repeatable=method.path in self._repeatable,
        )
        self._open.add(rpc)
        rpc.when_ended(functools.partial(self._open.discard, rpc))
        return rpc

    def _host(self) -> Server | None:
        return REGISTRY.find(self._service)


class _Method:
    """An rpc of a channel, to be called."""

    _call_type: type[Call]

    def __init__(
        self, channel: Channel, method: str, serializer: Transfer | None, deserializer: Transfer | None
    ) -> None:
        self._channel = channel
        self._method = method.encode()  # where grpc.aio has it, as bytes
        self.path = method
        self.serializer = serializer
        self.deserializer = deserializer

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,  # noqa: ARG002 (there is no connection to prove anything on)
        wait_for_ready: bool | None = None,  # noqa: ARG002
        compression: grpc.Compression | None = None,  # noqa: ARG002 (no byte is sent)
    ) -> Any:
        """Begin a call. `wait_for_ready` is as good as the retries of idempotent rpcs."""
        return self._call_type(self._channel.begin(self, request, timeout, metadata))


class UnaryUnary(_Method, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """An rpc with one request and one response."""

    _call_type = UnaryUnaryCall


class UnaryStream(_Method, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """An rpc that answers with a stream."""

    _call_type = UnaryStreamCall
