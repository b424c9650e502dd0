"""What ordinary gRPC clients do, with settings that are not ours."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import runs_pb2, turns_pb2
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.rpc import request, server
from servicekit.rpc.server import Registration
from servicekit.settings import ServiceSettings
from servicekit.testing import JWT_SECRET, mint_token

ID = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"
ORCHESTRATOR = orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"]
TURN = orchestrator_pb2.StreamTurnRequest(session_id=ID, turn=turns_pb2.Turn(content="Hello"))


class Orchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Says one word, is silent until it may speak, and says another."""

    def __init__(self, left_seconds: float | None = None, early_seconds: float = 0.0) -> None:
        self.may_speak = asyncio.Event()
        self._left_seconds = left_seconds
        self._early_seconds = early_seconds

    async def StreamTurn(self, message: Any, context: Any) -> AsyncIterator[Any]:
        yield self._word("one")
        await self.may_speak.wait()
        yield self._word("two")

    async def GetRun(self, message: Any, context: Any) -> Any:
        """Wait for something as long as there is time, if there is a time; it does not come."""
        if self._left_seconds is not None:
            request.begin(None, self._left_seconds)
        if (seconds := request.remaining_seconds(60)) < 60:
            await asyncio.sleep(max(0.0, seconds - self._early_seconds))  # the time that the caller gave
        raise AppError("DATABASE_BUSY")

    @staticmethod
    def _word(text: str) -> orchestrator_pb2.StreamTurnResponse:
        return orchestrator_pb2.StreamTurnResponse(
            event=runs_pb2.RunEvent(message_delta=runs_pb2.MessageDelta(text=text))
        )


def serving(servicer: Orchestrator) -> Any:
    settings = ServiceSettings(_env_file=None, supabase_jwt_secret=SecretStr(JWT_SECRET), port=0, drain_seconds=0.1)
    add = orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server
    return server.serving(settings, [Registration(ORCHESTRATOR, add, servicer)])


def bearer() -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {mint_token()}"),)


async def test_a_client_may_ask_often_whether_a_silent_connection_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    # gRPC's clients ask every second at most, and the third time too early ends a connection.
    monkeypatch.setattr(server, "PING_SECONDS", server.PING_SECONDS / 2)
    options = [
        ("grpc.keepalive_time_ms", 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    servicer = Orchestrator()
    async with (
        serving(servicer) as port,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as connection,
        grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as idle,
    ):
        await idle.channel_ready()
        stub: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(connection)
        call = stub.StreamTurn(TURN, metadata=bearer())
        first = await call.read()
        await asyncio.sleep(3.5)  # the silence itself
        servicer.may_speak.set()
        second = await call.read()
        assert [answer.event.message_delta.text for answer in (first, second)] == ["one", "two"]
        assert idle.get_state() == grpc.ChannelConnectivity.READY


def test_clients_of_any_language_may_ask_so_often() -> None:
    assert server.PING_SECONDS * 2 <= 10  # what those of Go and Java are let do, and as much again


@pytest.mark.parametrize(
    ("left_seconds", "early_seconds", "code", "reason"),
    [
        (0.0, 0.0, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (0.2, 0.005, grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (30.0, 30.0, grpc.StatusCode.UNAVAILABLE, "DATABASE_BUSY"),
        (None, 0.0, grpc.StatusCode.UNAVAILABLE, "DATABASE_BUSY"),
    ],
)
async def test_what_does_not_come_in_time_is_a_deadline_and_else_what_it_is(
    left_seconds: float | None, early_seconds: float, code: grpc.StatusCode, reason: str
) -> None:
    servicer = Orchestrator(left_seconds, early_seconds)
    async with serving(servicer) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as connection:
        stub: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(connection)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetRun(orchestrator_pb2.GetRunRequest(run_id=ID), metadata=bearer())
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert (caught.value.code(), info.reason) == (code, reason)


@pytest.mark.parametrize("seconds", [0.001, 0.01])
async def test_a_short_deadline_is_told_as_one_whoever_notices_it_first(seconds: float) -> None:
    async with serving(Orchestrator()) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as connection:
        stub: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(connection)
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetRun(orchestrator_pb2.GetRunRequest(run_id=ID), metadata=bearer(), timeout=seconds)
            assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
async def test_reflection_tells_all_in_both_versions(version: str) -> None:
    name = f"grpc.reflection.{version}.ServerReflection"

    async def ask(connection: grpc.aio.Channel, **question: str) -> reflection_pb2.ServerReflectionResponse:
        call: Any = connection.stream_stream(
            f"/{name}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([reflection_pb2.ServerReflectionRequest(**question)]))
        (answer,) = [answer async for answer in call]
        return answer

    async with serving(Orchestrator()) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as connection:
        listing = await ask(connection, list_services="")
        names = {service.name for service in listing.list_services_response.service}
        both = {f"grpc.reflection.{each}.ServerReflection" for each in ("v1alpha", "v1")}
        assert names == {ORCHESTRATOR.full_name, "grpc.health.v1.Health", *both}
        for each in names:
            described = await ask(connection, file_containing_symbol=each)
            contents = described.file_descriptor_response.file_descriptor_proto
            files = [descriptor_pb2.FileDescriptorProto.FromString(content) for content in contents]
            assert each in {f"{file.package}.{service.name}" for file in files for service in file.service}
        missing = await ask(connection, file_containing_symbol="nothing.Here")
        assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
