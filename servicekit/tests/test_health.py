import asyncio
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.rpc import health
from servicekit.rpc.channel import ACCEPTING
from servicekit.rpc.health import NOT_SERVING, SERVING, Health
from servicekit.rpc.inprocess import transport
from tests.support.waiting import until

NAME = "concerto.sessions.v1.SessionsService"


async def state_of(servicer: Health, name: str) -> int:
    answer: Any = await servicer.Check(health_pb2.HealthCheckRequest(service=name), None)
    return int(answer.status)


async def test_a_server_takes_calls_before_it_is_ready() -> None:
    servicer = Health([NAME])
    await servicer.begin()
    assert await state_of(servicer, ACCEPTING) == SERVING
    assert await state_of(servicer, "") == NOT_SERVING


async def test_probes_hear_of_the_end_before_clients_do() -> None:
    servicer = Health([NAME])
    await servicer.begin()
    for name in ("", NAME):
        await servicer.set(name, SERVING)
    leaving = asyncio.create_task(servicer.leave(0.2))

    async def is_leaving() -> bool:
        return await state_of(servicer, "") == NOT_SERVING

    await until(is_leaving)
    assert [await state_of(servicer, name) for name in ("", NAME, ACCEPTING)] == [NOT_SERVING, NOT_SERVING, SERVING]
    await leaving
    assert await state_of(servicer, ACCEPTING) == NOT_SERVING
    await servicer.set(NAME, SERVING)
    assert await state_of(servicer, NAME) == NOT_SERVING


async def test_a_server_waits_for_last_calls_only_while_clients_watch_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LAST_CALLS_SECONDS", 3600.0)
    servicer = Health([NAME])
    server = transport.Server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.start()
    await servicer.begin()
    stub: Any = health_pb2_grpc.HealthStub(transport.Channel("grpc.health.v1.Health"))
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=ACCEPTING))
    other = stub.Watch(health_pb2.HealthCheckRequest(service=NAME))
    assert (await watch.read()).status == SERVING
    assert (await other.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    leaving = asyncio.create_task(servicer.leave(0.0))
    assert (await watch.read()).status == NOT_SERVING
    assert not leaving.done()
    watch.cancel()
    await leaving
    other.cancel()
    await server.stop(0)
