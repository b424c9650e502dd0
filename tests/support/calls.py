"""A server whose handlers a test writes itself, reached over the wire or within the process, by the same stubs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from concerto.sessions.v1 import sessions_pb2, sessions_pb2_grpc

from servicekit.rpc import channel
from servicekit.rpc.inprocess import transport

SESSIONS = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
Text = sessions_pb2.CreateSessionRequest
Code = grpc.StatusCode


def text(name: str) -> Text:
    return Text(name=name)


class World:
    """A server whose handlers a test writes itself, and a channel to it: `play` answers both kinds of rpc."""

    def __init__(self, kind: str, *, server: Any, connection: grpc.aio.Channel, script: "Script") -> None:
        self.kind = kind
        self.server = server
        self.connection = connection
        self.script = script
        codec: dict[str, Any] = {"request_serializer": Text.SerializeToString, "response_deserializer": Text.FromString}
        self.unary: Any = connection.unary_unary("/test.Script/Unary", **codec)
        self.stream: Any = connection.unary_stream("/test.Script/Stream", **codec)
        self.missing: Any = connection.unary_unary("/test.Script/Missing", **codec)
        self.sessions: Any = sessions_pb2_grpc.SessionsServiceStub(connection)

    def play(self, handler: Callable[..., Any]) -> None:
        self.script.handler = handler

    async def stop(self, grace_seconds: float) -> None:
        await self.server.stop(grace_seconds)


class Script(sessions_pb2_grpc.SessionsServiceServicer):
    """Runs the test's handler, whatever is called."""

    def __init__(self) -> None:
        self.handler: Callable[..., Any] = lambda request, context: None
        self.ended = asyncio.Event()

    async def unary(self, request: Any, context: Any) -> Any:
        try:
            return await self.handler(request, context)
        finally:
            self.ended.set()

    async def stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in self.handler(request, context):
                yield response
        finally:
            self.ended.set()

    async def CreateSession(self, request: Any, context: Any) -> Any:
        return await self.unary(request, context)

    GetSession = UpdateSession = CreateSession


def add_script(script: Script, server: Any) -> None:
    codec: dict[str, Any] = {"request_deserializer": Text.FromString, "response_serializer": Text.SerializeToString}
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(script.unary, **codec),
        "Stream": grpc.unary_stream_rpc_method_handler(script.stream, **codec),
        "Collect": grpc.stream_unary_rpc_method_handler(script.unary, **codec),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Script", handlers),))
    sessions_pb2_grpc.add_SessionsServiceServicer_to_server(script, server)


@contextlib.asynccontextmanager
async def opened(kind: str) -> AsyncIterator[World]:
    script = Script()
    server: Any
    if kind == "within":
        server = transport.Server()
        add_script(script, server)
        server.start()
        target = transport.TARGET
    else:
        server = grpc.aio.server()
        add_script(script, server)
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
    connection = channel.connect(target, SESSIONS)
    async with connection:
        try:
            yield World(kind, server=server, connection=connection, script=script)
        finally:
            await server.stop(0)


async def echo(request: Any, context: Any) -> Any:
    return text(request.name * 2)


async def count(request: Any, context: Any) -> AsyncIterator[Any]:
    for place in range(int(request.name)):
        yield text(str(place))


async def names(responses: Any) -> list[str]:
    return [response.name async for response in responses]


async def failed(awaitable: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    return caught.value
