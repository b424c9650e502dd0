import asyncio
import signal
import sys
from pathlib import Path

import asyncpg
import grpc
import pytest
from concerto.sessions.v1 import sessions_pb2 as pb
from concerto.sessions.v1 import sessions_pb2_grpc as pb_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr, ValidationError

from servicekit.errors import AppError
from servicekit.rpc import channel
from servicekit.testing import JWT_SECRET, acting_as, make_caller, served
from services.sessions.__main__ import build
from services.sessions.settings import Settings
from services.sessions.tests.conftest import TRANSPORTS, settings_for
from tests.support.database import add_user
from tests.support.suites import RunningStack

ROOT = Path(__file__).resolve().parents[3]
NAME = pb.DESCRIPTOR.services_by_name["SessionsService"].full_name
UNREACHABLE = "127.0.0.1:9"


def test_settings_are_read_from_the_names_in_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONS_HOST", "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("SESSIONS_PORT", "9004")
    monkeypatch.setenv("SUPABASE_URL", "https://project.example.net/")
    monkeypatch.setenv("SUPABASE_DB_URL", "postgresql://concerto_login@db.example.net/postgres")
    settings = Settings(_env_file=None)
    assert (settings.host, settings.port) == ("0.0.0.0", 9004)  # noqa: S104
    assert settings.supabase_url == "https://project.example.net"
    assert settings.db_url is not None


def test_settings_need_a_way_to_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_DB_URL", "SUPABASE_PUBLISHABLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValidationError, match="SUPABASE_DB_URL"):
        Settings(_env_file=None)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_service_starts_without_its_database_and_says_so(stack: RunningStack, transport: str) -> None:
    settings = settings_for(stack, transport).model_copy(
        update={
            "supabase_url": f"http://{UNREACHABLE}",
            "supabase_jwt_secret": SecretStr(JWT_SECRET),
            "db_url": SecretStr(f"postgresql://concerto_login@{UNREACHABLE}/postgres")
            if transport == "direct"
            else None,
        }
    )
    async with build(settings) as registrations, served(registrations, supabase_url=stack.supabase_url) as connection:
        health = health_pb2_grpc.HealthStub(connection)
        assert await became(health, health_pb2.HealthCheckResponse.NOT_SERVING)
        stub = pb_grpc.SessionsServiceStub(connection)
        with acting_as(make_caller()), pytest.raises(AppError) as error:
            await channel.call(stub.DeleteSession, pb.DeleteSessionRequest(session_id=str(make_caller().user_id)))
        assert (error.value.reason, error.value.http_status) == ("DATABASE_UNAVAILABLE", 503)


async def test_the_service_runs_alone_and_ends_on_sigterm(stack: RunningStack, unused_tcp_port: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.sessions",
        cwd=ROOT,
        env={
            "CONCERTO_ENV_FILE": "/dev/null",
            "SESSIONS_PORT": str(unused_tcp_port),
            "SUPABASE_URL": stack.supabase_url,
            "SUPABASE_DB_URL": stack.db_url,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        admin = await asyncpg.connect(stack.admin_db_url)
        caller = stack.caller(await add_user(admin))
        await admin.close()
        async with channel.connect(f"127.0.0.1:{unused_tcp_port}", channel.find_service(NAME)) as connection:
            assert await became(health_pb2_grpc.HealthStub(connection), health_pb2.HealthCheckResponse.SERVING)
            stub = pb_grpc.SessionsServiceStub(connection)
            with acting_as(caller):
                created = await channel.call(stub.CreateSession, pb.CreateSessionRequest(name="alone"))
        assert created.session.name == "alone"
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert caller.token not in output.decode()


async def became(health: health_pb2_grpc.HealthStub, wanted: "health_pb2.HealthCheckResponse.ServingStatus") -> bool:
    """Whether the service reported the state within a while."""
    for _ in range(200):
        try:
            answer = await health.Check(health_pb2.HealthCheckRequest(service=NAME), wait_for_ready=True, timeout=20)
            if answer.status == wanted:
                return True
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        await asyncio.sleep(0.05)  # the pause between two looks
    return False
