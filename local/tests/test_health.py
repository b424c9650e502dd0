import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from local.suite.health import is_serving
from servicekit.tls.loopback import tls_context
from tests.support.certificates import Mount

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


@pytest.mark.parametrize("client_auth", [False, True], ids=["tls", "mutual"])
async def test_a_server_that_listens_with_tls_is_asked_over_tls(tmp_path: Path, client_auth: bool) -> None:
    mount = Mount(tmp_path, trustme.CA(), "sessions.concerto.svc")
    pair = (mount.key.read_bytes(), mount.certificate.read_bytes())
    servicer, server = health.aio.HealthServicer(), grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    roots = mount.authority.read_bytes() if client_auth else None
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair], roots, client_auth))
    await server.start()
    try:
        tls = tls_context(mount.certificate, mount.key)
        for state, expected in ((SERVING, True), (NOT_SERVING, False)):
            await servicer.set("", state)
            assert await asyncio.wait_for(is_serving("127.0.0.1", port, tls=tls), 5) is expected
        assert not await asyncio.wait_for(is_serving("127.0.0.1", port), 5)
    finally:
        await server.stop(0)
