"""A second orchestrator beside a running suite's own, on the same sessions service."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator

import grpc
from concerto.orchestrator.v1 import orchestrator_pb2

from local.settings import ROOT
from servicekit.rpc import channel
from tests.support.certificates import certificates_of
from tests.support.suites import RunningStack

ORCHESTRATOR = orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"]
START_SECONDS = 240


@contextlib.asynccontextmanager
async def second_orchestrator(stack: RunningStack, *, model_url: str) -> AsyncIterator[grpc.aio.Channel]:
    """Run another orchestrator on a free port while the block runs, and yield a channel to it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {"ORCHESTRATOR_PORT": str(port), "OPENAI_BASE_URL": model_url, "CONCERTO_MODEL": "test-model"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.orchestrator"),
        cwd=ROOT,
        env={**stack.env, **own, "CONCERTO_ENV_FILE": "/dev/null"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with channel.connect(f"127.0.0.1:{port}", ORCHESTRATOR, tls=certificates_of(stack.env)) as connection:
            await asyncio.wait_for(connection.channel_ready(), START_SECONDS)
            yield connection
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
