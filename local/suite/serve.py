"""One process for everything of ours: every registered service and the gateway in one event loop.

The parts reach each other through servicekit.rpc.inprocess; each also listens on its own address, as it does alone.
"""

import asyncio
import contextlib
import functools
import importlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from gateway import __main__ as gateway
from gateway.settings import Settings as GatewaySettings
from servicekit import parts
from servicekit.parts import Part
from servicekit.rpc import loop, server
from servicekit.rpc.inprocess.transport import TARGET
from servicekit.telemetry import process, watches

_LOG = structlog.stdlib.get_logger(__name__)

# The gateway calls nobody over a wire here; the services listen as they do alone.
_NO_TLS: dict[str, object] = {
    "CONCERTO_TLS_CERT_FILE": None,
    "CONCERTO_TLS_KEY_FILE": None,
    "CONCERTO_TLS_CA_FILE": None,
    "CONCERTO_TLS_CLIENT_AUTH": False,
}


class StartError(Exception):
    """A part cannot start; the message says what to do. (SystemExit in a task would tear the loop down at once.)"""


@dataclass(frozen=True, slots=True)
class ServedPart:
    """A part of the process, with the name that its log entries carry."""

    name: str
    serve: loop.Serve


class Drain:
    """The time that everything under way has to end once the process is to stop: one time for all parts together."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends_at: float | None = None

    def begin(self) -> None:
        """Let the time run."""
        self._ends_at = time.monotonic() + self._seconds

    def left_seconds(self) -> float:
        """Return what is left of it."""
        return self._seconds if self._ends_at is None else max(0.0, self._ends_at - time.monotonic())


def plan() -> tuple[Sequence[ServedPart], Drain]:
    """Return the parts in the order of starting, each with its own settings, read from the environment.

    A part is stopped before those that stand before it, which it calls.
    """
    # Only the gateway, which stops first, lets balancers forget it; the others would add their delays to its.
    services = [(part, *_load(part, CONCERTO_DRAIN_DELAY_SECONDS=0.0)) for part in parts.SERVICES]
    gateway_settings = GatewaySettings.load(**_targets(parts.GATEWAY), **_NO_TLS)
    process.configure(gateway_settings, service="one-process")
    drain = Drain(gateway_settings.drain_delay_seconds + gateway_settings.drain_seconds)
    served = [
        ServedPart(part.name, functools.partial(server.serve, settings, build, left_seconds=drain.left_seconds))
        for part, settings, build in services
    ]
    return (*served, ServedPart(parts.GATEWAY.name, functools.partial(gateway.serve, gateway_settings))), drain


def _load(part: Part, **values: object) -> tuple[Any, Any]:
    """Return a service's settings and what builds its servicers, both by their agreed names."""
    settings = importlib.import_module(f"{part.module}.settings").Settings.load(**_targets(part), **values)
    return settings, importlib.import_module(f"{part.module}.__main__").build


def _targets(part: Part) -> dict[str, str]:
    return {parts.named(name).target_variable: TARGET for name in part.calls}


@contextlib.asynccontextmanager
async def running(part: ServedPart) -> AsyncIterator["asyncio.Task[None]"]:
    """Serve a part while the block runs; drain it on leaving. Yields its task, which ends only when the part fails."""
    started, stop = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        # A task has its own context: what the part starts has the part's name in logs and traces.
        watches.name_service(part.name)
        try:
            await part.serve(started=started, stop=stop)
        except SystemExit as error:
            raise StartError(str(error)) from None

    serving = asyncio.create_task(serve(), name=part.name)
    starting = asyncio.create_task(started.wait())
    await asyncio.wait({serving, starting}, return_when=asyncio.FIRST_COMPLETED)
    starting.cancel()
    if not started.is_set():
        await serving
    try:
        yield serving
    finally:
        stop.set()
        await serving


async def serve(served: Sequence[ServedPart], drain: Drain) -> None:
    """Start the parts in order, serve until SIGTERM or SIGINT, and drain them the other way round.

    So the gateway's requests and streams end first, then the orchestrator's runs (those that go on too long are stored
    as interrupted), and only then what these need. A part that fails ends the process, with its error.
    """
    stopping = asyncio.create_task(loop.stop_signal().wait())
    async with contextlib.AsyncExitStack() as stack:
        tasks = [await stack.enter_async_context(running(part)) for part in served]
        loop.settle()
        collecting = asyncio.create_task(loop.collect_at_rest())
        await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        collecting.cancel()
        drain.begin()
    stopping.cancel()
    _LOG.info("process.stopped")


def main() -> None:
    """Read all settings and serve. Raises SystemExit with what to do when a part cannot start."""
    try:
        loop.run(serve(*plan()))
    except StartError as error:
        raise SystemExit(str(error)) from None
    finally:
        process.close()


if __name__ == "__main__":
    main()
