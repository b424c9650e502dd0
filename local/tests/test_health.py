import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from local.health import is_serving

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def served() -> AsyncIterator[tuple[Any, int]]:
    servicer, server = health.aio.HealthServicer(), grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield servicer, port
    await server.stop(0)


async def test_a_grpc_servers_health_is_read_without_the_grpc_library(served: tuple[Any, int]) -> None:
    servicer, port = served
    for state, expected in ((SERVING, True), (NOT_SERVING, False), (SERVING, True)):
        await servicer.set("", state)
        assert await asyncio.wait_for(is_serving("127.0.0.1", port), 5) is expected


async def test_a_server_without_health_or_without_grpc_is_not_serving() -> None:
    bare = grpc.aio.server()
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    assert not await asyncio.wait_for(is_serving("127.0.0.1", port), 5)
    await bare.stop(0)

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as other:
        assert not await asyncio.wait_for(is_serving("127.0.0.1", other.sockets[0].getsockname()[1]), 5)


async def test_nobody_there_is_an_error(unused_tcp_port: int) -> None:
    with pytest.raises(OSError, match="Connect call failed"):
        await is_serving("127.0.0.1", unused_tcp_port)
