import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from concerto.auth.v1 import auth_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from local.settings import ROOT
from servicekit.errors import AppError
from servicekit.rpc import channel
from services.auth.settings import Settings
from services.auth.tests.support import Client, new_email
from tests.support.waiting import until

PASSWORD = "never-in-a-log-Pässwort"
SERVICE = auth_pb2.DESCRIPTOR.services_by_name["AuthService"]


async def test_process_serves_reports_health_logs_no_secret_and_stops_when_told(stack: Any, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251
        "CONCERTO_ENV_FILE": "/dev/null",
        "CONCERTO_LOG_LEVEL": "DEBUG",
        "AUTH_PORT": str(port),
        "SUPABASE_URL": stack.supabase_url,
        "SUPABASE_PUBLISHABLE_KEY": stack.publishable_key,
        "SUPABASE_DB_URL": stack.db_url,
    }
    secrets = [PASSWORD, stack.publishable_key, stack.db_url]
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "services.auth"]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        async with channel.connect(f"127.0.0.1:{port}", SERVICE) as connection:
            await asyncio.wait_for(_serving(connection), 30)
            client, email = Client(connection), new_email()
            session = (await client.sign_up(email, PASSWORD)).session
            refreshed = (await client.refresh(session.refresh_token)).session
            await client.request_reset(email)
            with pytest.raises(AppError):
                await client.log_in(email, PASSWORD + "!")
            with pytest.raises(AppError):
                await client.update_password(refreshed.access_token, PASSWORD)
            with pytest.raises(AppError):
                await client.refresh("a-token-of-nobody")
            await client.log_out(refreshed.access_token, "GLOBAL")
            secrets += [session.access_token, session.refresh_token, refreshed.access_token, refreshed.refresh_token]
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 20)
    text = (tmp_path / "log").read_text()
    assert code == 0
    assert "SAME_PASSWORD" in text
    assert [secret for secret in (*secrets, "a-token-of-nobody", email) if secret in text] == []
    assert "Traceback" not in text


async def _serving(connection: grpc.aio.Channel) -> None:
    request = health_pb2.HealthCheckRequest(service=SERVICE.full_name)

    async def serves() -> bool:
        try:
            answer = await health_pb2_grpc.HealthStub(connection).Check(request)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    await until(serves, "the service to serve")


def test_settings_name_the_variable_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUPABASE_PUBLISHABLE_KEY", raising=False)
    with pytest.raises(SystemExit) as refusal:
        Settings.load(_env_file=None)
    assert "SUPABASE_PUBLISHABLE_KEY" in str(refusal.value)


@pytest.mark.parametrize("value", ["your-key", "<publishable key>"])
def test_settings_refuse_a_placeholder(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SUPABASE_PUBLISHABLE_KEY", value)
    with pytest.raises(SystemExit) as refusal:
        Settings.load(_env_file=None)
    assert "placeholder" in str(refusal.value)
