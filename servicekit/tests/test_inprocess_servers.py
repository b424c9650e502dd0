import asyncio
from typing import Any

import grpc
import pytest
from concerto.sessions.v1 import sessions_pb2, sessions_pb2_grpc

from servicekit.errors import AppError, from_rpc_error
from servicekit.rpc import channel
from servicekit.rpc.inprocess import transport
from tests.support.calls import SESSIONS, Code, Text, World, failed, opened, text
from tests.support.waiting import forever


async def test_idempotent_rpcs_are_tried_four_times_and_others_once(world: World) -> None:
    requests: list[str] = []

    async def handler(request: Any, context: Any) -> Any:
        requests.append(request.name if isinstance(request, Text) else request.session_id)
        if isinstance(request, Text):
            request.name = "spoilt"
        await context.abort_with_status(AppError("DATABASE_UNAVAILABLE").to_status())

    world.play(handler)
    assert from_rpc_error(await failed(world.sessions.CreateSession(text("x"))), service="x").code is Code.UNAVAILABLE
    assert requests == ["x"] * 4
    requests.clear()
    assert (await failed(world.unary(text("y")))).code() is Code.UNAVAILABLE
    assert requests == ["y"]


async def test_calls_that_run_may_end_while_a_server_stops_and_new_ones_are_refused(world: World) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        began.set()
        await may_end.wait()
        return request

    world.play(handler)
    running = world.unary(text("in time"))
    await began.wait()
    stopping = asyncio.create_task(world.stop(5))
    await asyncio.sleep(0.05)  # the server's stop begins, which has no event
    assert (await failed(world.unary(text("late")))).code() is Code.UNAVAILABLE
    may_end.set()
    assert (await running).name == "in time"
    await stopping


async def test_calls_that_outlast_the_stop_are_cancelled_also_when_it_is_hurried(world: World) -> None:
    began = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        began.set()
        await forever()

    world.play(handler)
    running = world.unary(text(""))
    await began.wait()
    stopping = asyncio.create_task(world.stop(20))
    await asyncio.sleep(0.05)  # the server's stop begins, which has no event
    await asyncio.wait_for(world.stop(0), 5)
    await asyncio.wait_for(stopping, 5)
    assert (await failed(running)).code() in (Code.CANCELLED, Code.UNAVAILABLE)
    await asyncio.wait_for(world.script.ended.wait(), 60)


async def test_a_closed_channel_cancels_what_runs_and_takes_no_more(world: World) -> None:
    began = asyncio.Event()

    async def handler(request: Any, context: Any) -> Any:
        began.set()
        await forever()

    world.play(handler)
    running = world.unary(text(""))
    await asyncio.wait_for(began.wait(), 60)
    await world.connection.close()
    assert running.cancelled()
    with pytest.raises((grpc.aio.UsageError, asyncio.CancelledError)):
        await world.unary(text(""))


async def test_a_service_that_does_not_run_here_is_unavailable_until_it_does() -> None:
    connection = channel.connect(transport.TARGET, SESSIONS)
    stub: Any = sessions_pb2_grpc.SessionsServiceStub(connection)
    assert connection.get_state() is grpc.ChannelConnectivity.IDLE
    asking = asyncio.create_task(channel.call(stub.CreateSession, text("ab")))
    await asyncio.sleep(0.05)  # the call has been refused once: its retry has no event
    async with opened("within") as world:

        async def handler(request: Any, context: Any) -> Any:
            return sessions_pb2.CreateSessionResponse()

        world.play(handler)
        await connection.channel_ready()
        await asking
        assert connection.get_state() is grpc.ChannelConnectivity.READY
    with pytest.raises(AppError) as caught:
        await channel.call(stub.CreateSession, text("ab"), timeout_seconds=5)
    assert (caught.value.reason, caught.value.metadata) == ("SERVICE_UNAVAILABLE", {"service": "sessions"})
    await connection.close()
    assert connection.get_state() is grpc.ChannelConnectivity.SHUTDOWN
