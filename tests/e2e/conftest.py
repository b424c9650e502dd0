import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.suite.processes import Mode
from tests.support.model_server import ModelServer
from tests.support.suites import PreparedStarts, RunningStack, stop_stack
from tests.support.waiting import until

PATIENCE_SECONDS = 240


@pytest.fixture
async def api(stack: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running suite's gateway."""
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=30) as client:
        yield client


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    """An OpenAI-compatible server that records what it is asked."""
    async with ModelServer.running() as server:
        yield server


def settings_of(model: ModelServer) -> dict[str, str]:
    """With which a suite answers by this model, and asks it for answers only."""
    return {"OPENAI_BASE_URL": model.base_url, "CONCERTO_MODEL": "test-model", "CONCERTO_TITLE_MODEL": "off"}


Start = Callable[..., Awaitable[RunningStack]]


@pytest.fixture
async def start(
    model: ModelServer,
    tmp_path: Path,
    mode: Mode,
    replica_count: int,
    tls_variables: dict[str, str],
    hosted_project: dict[str, str],
    prepared: PreparedStarts,
) -> AsyncIterator[Start]:
    """Starts suites of this test's own, all on one data folder and one after the other, with the recording model.

    In the test run's mode and with its number of replicas, unless the test is about that and says `mode`, `replicas`.
    """
    usual, usual_replicas = mode, replica_count
    folder = tmp_path / "suite"
    folder.mkdir()
    started: list[RunningStack] = []

    async def start_one(
        only: str | None = None, *, mode: Mode | None = None, replicas: int | None = None, **variables: str
    ) -> RunningStack:
        settings: dict[str, Any] = {**settings_of(model), **tls_variables, **variables, "project": hosted_project}
        chosen = mode or usual
        count = replicas or (usual_replicas if chosen == "processes" else 1)
        running = await asyncio.to_thread(prepared.start, folder, only=only, mode=chosen, replicas=count, **settings)
        started.append(running)
        return running

    yield start_one
    for running in started:
        await asyncio.to_thread(stop_stack, running)
    shutil.rmtree(folder, ignore_errors=True)


async def until_ready(client: httpx.AsyncClient) -> None:
    """Return when the gateway and all services say that they are ready."""

    async def ready() -> bool:
        try:
            return (await client.get("/readyz")).is_success
        except httpx.TransportError:  # the gateway itself is being started
            return False

    await until(ready, "readiness")
