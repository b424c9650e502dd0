import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import runs_pb2, sessions_pb2, sessions_pb2_grpc, turns_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.rpc import channel, identity, request, server
from servicekit.rpc.inprocess import transport
from servicekit.rpc.server import Registration
from servicekit.settings import ServiceSettings
from servicekit.testing import JWT_SECRET, acting_as, make_caller, mint_token, served

ID = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"
SESSIONS = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
ORCHESTRATOR = orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"]


class Sessions(sessions_pb2_grpc.SessionsServiceServicer):
    """Answers, fails and waits as the requested name says."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.calls: list[str] = []
        self.request_ids: list[str] = []
        self.remaining: list[float] = []
        self.failures = 0

    async def CreateSession(self, request: Any, context: Any) -> Any:
        self.calls.append(request.name)
        self.called.set()
        self.request_ids.append(request.request_id)
        match request.name:
            case "crash":
                raise ValueError("the user's own words")
            case "slow":
                await asyncio.sleep(1.0)  # longer than the moment in which clients are told to go elsewhere
            case "flaky":
                self.failures += 1
                if self.failures < 3:
                    raise AppError("DATABASE_UNAVAILABLE")
        answer = sessions_pb2.CreateSessionResponse()
        answer.session.user_id = identity.current_caller().user_id
        return answer

    async def GetSession(self, message: Any, context: Any) -> Any:
        self.request_ids.append(request.current_id())
        self.remaining.append(request.remaining_seconds(1000))
        raise AppError("THING_NOT_FOUND", metadata={"thing_id": message.session_id}, cause="private")


class Orchestrator(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    async def StreamTurn(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for text in ("a", "b"):
            yield orchestrator_pb2.StreamTurnResponse(
                event=runs_pb2.RunEvent(message_delta=runs_pb2.MessageDelta(text=text))
            )
        if request.content == "crash":
            raise ValueError("the user's own words")


def registration(servicer: Sessions, **fields: Any) -> Registration:
    return Registration(SESSIONS, sessions_pb2_grpc.add_SessionsServiceServicer_to_server, servicer, **fields)


@pytest.fixture
async def sessions() -> Sessions:
    return Sessions()


@pytest.fixture(params=[False, True], ids=["wire", "within"])
def within_process(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def stub(sessions: Sessions, within_process: bool) -> AsyncIterator[Any]:
    async with served([registration(sessions)], within_process=within_process) as connection:
        yield sessions_pb2_grpc.SessionsServiceStub(connection)


def create(name: str) -> sessions_pb2.CreateSessionRequest:
    return sessions_pb2.CreateSessionRequest(name=name)


async def test_the_callers_token_travels_and_names_the_user(stub: Any) -> None:
    caller = make_caller()
    with acting_as(caller):
        answer = await channel.call(stub.CreateSession, create("x"))
    assert answer.session.user_id == caller.user_id


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "TOKEN_MISSING"),
        ("Bearer x", "TOKEN_INVALID"),
        ("Basic x", "TOKEN_INVALID"),
        (f"Bearer {mint_token(expires_in=-60)}", "TOKEN_EXPIRED"),
    ],
)
async def test_nobody_gets_in_without_a_valid_token_not_even_to_a_validation_error(
    stub: Any, sessions: Sessions, authorization: str | None, reason: str
) -> None:
    metadata = [("authorization", authorization)] if authorization else []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetSession(sessions_pb2.GetSessionRequest(session_id="no uuid"), metadata=metadata)
    assert channel.from_rpc_error(caught.value, service="sessions").reason == reason
    assert not sessions.request_ids


async def test_a_refusal_keeps_its_reason_and_hides_its_cause(stub: Any) -> None:
    with acting_as(make_caller()), pytest.raises(AppError) as caught:
        await channel.call(stub.GetSession, sessions_pb2.GetSessionRequest(session_id=ID))
    assert caught.value.reason == "THING_NOT_FOUND"
    assert caught.value.metadata == {"thing_id": ID}
    assert "private" not in str(caught.value.cause)


async def test_a_crash_tells_the_client_and_the_log_nothing_of_what_was_said(
    stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with acting_as(make_caller()), pytest.raises(AppError) as caught:
        await channel.call(stub.CreateSession, create("crash"))
    assert caught.value.reason == "INTERNAL"
    assert "own words" not in f"{caught.value} {caught.value.cause!r}"
    assert "own words" not in caplog.text


async def test_a_request_that_breaks_the_contract_never_reaches_the_servicer(stub: Any, sessions: Sessions) -> None:
    with acting_as(make_caller()), pytest.raises(AppError) as caught:
        await channel.call(stub.GetSession, sessions_pb2.GetSessionRequest(session_id="no uuid"))
    assert caught.value.reason == "INVALID_FIELD"
    assert not sessions.request_ids


async def test_an_idempotent_call_is_repeated_with_one_request_id_until_it_succeeds(
    stub: Any, sessions: Sessions
) -> None:
    with acting_as(make_caller()):
        await channel.call(stub.CreateSession, create("flaky"))
    assert sessions.calls == ["flaky"] * 3
    assert len(set(sessions.request_ids)) == 1
    assert sessions.request_ids[0]


async def test_the_deadline_ends_a_slow_call(stub: Any) -> None:
    with acting_as(make_caller()), pytest.raises(AppError, match="DEADLINE_EXCEEDED"):
        await channel.call(stub.CreateSession, create("slow"), timeout_seconds=0.05)


async def test_the_callees_time_is_what_the_caller_has_left(stub: Any, sessions: Sessions) -> None:
    request.begin("outer", 5.0)
    with acting_as(make_caller()), pytest.raises(AppError):
        await channel.call(stub.GetSession, sessions_pb2.GetSessionRequest(session_id=ID), timeout_seconds=60)
    request.begin(None, None)
    assert sessions.request_ids == ["outer"]
    # gRPC rounds a deadline up to three digits on the wire.
    assert 0 < sessions.remaining[0] <= 5.0 * 1.01


async def test_a_stream_that_crashes_keeps_what_it_sent_and_hides_why(within_process: bool) -> None:
    part = Registration(ORCHESTRATOR, orchestrator_pb2_grpc.add_OrchestratorServiceServicer_to_server, Orchestrator())
    async with served([part], within_process=within_process) as connection:
        stub: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(connection)
        got = []
        turn = orchestrator_pb2.StreamTurnRequest(session_id=ID, turn=turns_pb2.Turn(content="crash"))

        async def read() -> None:
            async for answer in channel.stream(stub.StreamTurn, turn):
                got.append(answer.event.message_delta.text)  # noqa: PERF401 (what came before the error counts)

        with acting_as(make_caller()), pytest.raises(AppError, match="INTERNAL"):
            await read()
    assert got == ["a", "b"]


async def test_a_service_that_is_not_there_is_named() -> None:
    stub: Any = sessions_pb2_grpc.SessionsServiceStub(channel.connect("127.0.0.1:9", SESSIONS))
    with pytest.raises(AppError) as caught:
        await channel.call(stub.GetSession, sessions_pb2.GetSessionRequest(session_id=ID))
    assert (caught.value.reason, caught.value.metadata) == ("SERVICE_UNAVAILABLE", {"service": "sessions"})


def settings(**fields: Any) -> ServiceSettings:
    return ServiceSettings(_env_file=None, supabase_jwt_secret=SecretStr(JWT_SECRET), **fields)


def target_of(port: int, *, within_process: bool) -> str:
    return transport.TARGET if within_process else f"127.0.0.1:{port}"


async def test_running_calls_end_before_the_server_does(sessions: Sessions, within_process: bool) -> None:
    async with server.serving(settings(drain_seconds=5.0), [registration(sessions)]) as port:
        connection = channel.connect(target_of(port, within_process=within_process), SESSIONS)
        stub: Any = sessions_pb2_grpc.SessionsServiceStub(connection)
        with acting_as(make_caller()):
            running = asyncio.create_task(channel.call(stub.CreateSession, create("slow")))
            await sessions.called.wait()
    assert (await running).session.user_id
    await connection.close()


async def test_a_call_that_a_stopping_server_cuts_off_says_that_the_service_is_away(
    sessions: Sessions, within_process: bool
) -> None:
    async with server.serving(settings(drain_seconds=0.0), [registration(sessions)]) as port:
        connection = channel.connect(target_of(port, within_process=within_process), SESSIONS)
        stub: Any = sessions_pb2_grpc.SessionsServiceStub(connection)
        with acting_as(make_caller()):
            running = asyncio.create_task(channel.call(stub.CreateSession, create("slow")))
            await sessions.called.wait()
    with pytest.raises(AppError) as caught:
        await running
    assert (caught.value.reason, caught.value.metadata) == ("SERVICE_UNAVAILABLE", {"service": "sessions"})
    await connection.close()


async def test_what_outlives_calls_is_drained_while_calls_that_are_open_stay_open(
    sessions: Sessions, within_process: bool
) -> None:
    seen: list[tuple[float, bool]] = []

    async def drain(seconds: float) -> None:
        await asyncio.sleep(0.1)  # calls would end meanwhile if the server closed them
        seen.append((seconds, running.done()))

    async with server.serving(settings(drain_seconds=0.0), [registration(sessions, drain=drain)]) as port:
        connection = channel.connect(target_of(port, within_process=within_process), SESSIONS)
        stub: Any = sessions_pb2_grpc.SessionsServiceStub(connection)
        with acting_as(make_caller()):
            running = asyncio.create_task(channel.call(stub.CreateSession, create("slow")))
            await sessions.called.wait()
    assert seen == [(0.0, False)]
    assert (await running).session.user_id
    await connection.close()


async def test_a_server_that_is_to_stop_is_not_ready_and_serves_for_a_while_and_then_takes_nothing(
    sessions: Sessions,
) -> None:
    delay_seconds = 1.0
    entered, leave = asyncio.Event(), asyncio.Event()
    ports: list[int] = []

    async def serve() -> None:
        own = settings(drain_seconds=5.0, drain_delay_seconds=delay_seconds)
        async with server.serving(own, [registration(sessions)]) as port:
            ports.append(port)
            entered.set()
            await leave.wait()

    serving = asyncio.create_task(serve())
    await entered.wait()
    async with (
        channel.connect(f"127.0.0.1:{ports[0]}", SESSIONS) as connection,
        grpc.aio.insecure_channel(f"127.0.0.1:{ports[0]}") as probe,
    ):
        stub: Any = sessions_pb2_grpc.SessionsServiceStub(connection)
        health: Any = health_pb2_grpc.HealthStub(probe)

        async def answers() -> bool:
            try:
                await channel.call(stub.CreateSession, create("x"))
            except AppError as error:
                return error.reason != "SERVICE_UNAVAILABLE"
            return True

        with acting_as(make_caller()):
            assert await answers()
            leave.set()
            left_at = time.monotonic()
            for name in ("", SESSIONS.full_name):
                while True:
                    answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
                    if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                        break
                    await asyncio.sleep(0.01)  # the pause between two looks
            while time.monotonic() - left_at < delay_seconds * 0.8:
                assert await answers()
            await serving
            assert not await answers()


async def test_a_taken_port_ends_the_start_with_what_to_do(sessions: Sessions) -> None:
    async with server.serving(settings(), [registration(sessions)]) as port:
        with pytest.raises(SystemExit, match=f"{port} cannot be listened on"):
            async with server.serving(settings(port=port), [registration(sessions)]):
                pass


@pytest.mark.parametrize("asked", ["", SESSIONS.full_name])
async def test_health_follows_what_the_servicer_needs(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, asked: str, within_process: bool
) -> None:
    monkeypatch.setattr(server, "READINESS_INTERVAL_SECONDS", 0.02)
    broken = True

    async def ready() -> None:
        if broken:
            raise AppError("DATABASE_UNAVAILABLE")

    async with served([registration(sessions, ready=ready)], within_process=within_process) as connection:
        stub: Any = health_pb2_grpc.HealthStub(connection)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=asked))
        seen = []
        async for answer in watch:
            if answer.status not in seen:
                seen.append(answer.status)
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                broken = False
            if answer.status == health_pb2.HealthCheckResponse.SERVING:
                break
        watch.cancel()
    assert health_pb2.HealthCheckResponse.NOT_SERVING in seen
    assert seen[-1] == health_pb2.HealthCheckResponse.SERVING
