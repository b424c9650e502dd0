import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import runs_pb2, turns_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.rpc import channel
from servicekit.testing import JWT_SECRET, SERVICE_KEY, acting_as, make_caller
from services.orchestrator.settings import Settings
from services.orchestrator.tests.fakes import SessionsProcess, sessions_running
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[3]
NAME = "concerto.orchestrator.v1.OrchestratorService"


def test_settings_are_read_from_the_names_in_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "services/orchestrator/README.md").read_text()
    values = {
        "ORCHESTRATOR_HOST": "127.0.0.2",
        "ORCHESTRATOR_PORT": "9005",
        "SESSIONS_TARGET": "sessions:1",
        "OPENAI_API_KEY": "k",
        "OPENAI_BASE_URL": "https://models.example.net/v1",
        "CONCERTO_MODEL": "m",
        "CONCERTO_MODEL_CONTEXT_TOKENS": "4096",
        "CONCERTO_MODEL_MAX_OUTPUT_TOKENS": "512",
        "CONCERTO_MODEL_HISTORY_MESSAGES": "20",
        "CONCERTO_MODEL_TIMEOUT_SECONDS": "2.5",
        "CONCERTO_SYSTEM_PROMPT": "Be brief.",
        "CONCERTO_MAX_RUNS": "7",
        "CONCERTO_MAX_RUNS_PER_USER": "3",
        "CONCERTO_MODEL_PRICES": '{"m": {"prompt": 5, "completion": 6}}',
        "LANGSMITH_TRACING": "true",
    }
    for name, value in values.items():
        assert f"`{name}`" in readme
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert (settings.host, settings.port, settings.sessions_target) == ("127.0.0.2", 9005, "sessions:1")
    assert settings.openai_api_key is not None
    assert settings.openai_api_key.get_secret_value() == "k"
    assert (settings.model, settings.context_tokens, settings.max_output_tokens) == ("m", 4096, 512)
    assert (settings.history_messages, settings.stall_seconds) == (20, 2.5)
    assert (settings.max_runs, settings.max_user_runs) == (7, 3)
    assert settings.prices == {"m": runs_pb2.Prices(prompt=5, completion=6, cached=5)}
    assert (settings.system_prompt, settings.tracing) == ("Be brief.", True)


@contextlib.asynccontextmanager
async def project_served() -> AsyncIterator[str]:
    """Yield the address of a project without public keys, as one whose tokens are signed with a secret is."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{"keys": []}')
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def process_running(sessions: SessionsProcess, project: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.orchestrator",
        cwd=ROOT,
        env={
            "ORCHESTRATOR_PORT": "0",
            "SESSIONS_TARGET": sessions.target,
            "SUPABASE_URL": project,
            "SUPABASE_JWT_SECRET": JWT_SECRET,
            "CONCERTO_SERVICE_KEY": SERVICE_KEY.get_secret_value(),
            "CONCERTO_ENV_FILE": "",
            "CONCERTO_LOG_FORMAT": "json",
            "CONCERTO_DRAIN_SECONDS": "0.2",
        },
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_process_serves_until_sigterm_and_keeps_what_was_being_said() -> None:
    async with (
        sessions_running() as sessions,
        project_served() as project,
        process_running(sessions, project) as process,
    ):
        assert process.stderr is not None
        address = ""
        while not address:
            line = (await process.stderr.readline()).decode()
            assert line, "the process ended before it listened"
            if "server.started" in line:
                address = line.split('"address": "')[1].split('"')[0]
        caller = make_caller()
        session_id = sessions.fake.add_session(caller.user_id)
        async with grpc.aio.insecure_channel(address) as connection:
            health = health_pb2_grpc.HealthStub(connection)

            async def is_serving() -> bool:
                """It has keys to check tokens with a moment after it listens."""
                try:
                    answer = await health.Check(health_pb2.HealthCheckRequest(service=NAME), wait_for_ready=True)
                except grpc.aio.AioRpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            await until(is_serving, "the process to serve")
            stub = orchestrator_pb2_grpc.OrchestratorServiceStub(connection)
            request = orchestrator_pb2.StreamTurnRequest(session_id=session_id, turn=turns_pb2.Turn(content="Hello"))
            received = ""
            with acting_as(caller), contextlib.suppress(Exception):
                async for response in channel.stream(stub.StreamTurn, request):
                    text = response.event.message_delta.text
                    if text and not received:
                        process.send_signal(signal.SIGTERM)
                    received += text
        rest = (await process.stderr.read()).decode()
        assert await process.wait() == 0, rest
    assert "server.stopped" in rest
    assert "Traceback" not in rest
    assert "Hello" not in rest
    assert sessions.fake.messages[session_id][1].content.startswith(received)
