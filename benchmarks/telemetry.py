"""What telemetry costs: processor time and memory of one process with it off, with metrics, traces, or both.

    python -m benchmarks.telemetry [--rounds 5]

Five suites run side by side and take turns, so that whatever else the machine does hits all of them. A figure is the
median of the rounds.
"""

import argparse
import asyncio
import contextlib
import shutil
import statistics
import sys
import tempfile
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.measures import Processes, table
from benchmarks.rows import MeasurementError
from tests.support.api import Person
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import RunningStack, start_stack, stop_stack
from tests.support.telemetry import Collector

REQUESTS, CONNECTIONS = 400, 8
TURNS, TOKENS = 8, 200


@dataclass
class Side:
    """A suite with some telemetry, and what was measured of it."""

    name: str
    stack: RunningStack
    person: Person
    session_id: str
    request_seconds: list[float] = field(default_factory=list)
    turn_seconds: list[float] = field(default_factory=list)
    own_megabytes: float = 0.0
    """Memory that it shares with nobody (USS)."""

    @property
    def processes(self) -> Processes:
        """Our one process."""
        return Processes.of(self.stack.state(), "concerto")


async def measure(rounds: int) -> str:
    """Return the table."""
    async with contextlib.AsyncExitStack() as opened:
        collector = await opened.enter_async_context(Collector.running())
        model = await opened.enter_async_context(ModelServer.running(default=Behaviour(tokens=TOKENS)))
        folder = Path(tempfile.mkdtemp(prefix="concerto-telemetry-"))
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        traces = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        kinds: dict[str, dict[str, str]] = {"off": {}, "metrics": {"CONCERTO_METRICS_PORT": "19464"}, "traces": traces}
        tenth = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
        kinds["traces, a tenth kept"] = {**traces, **tenth}
        kinds["metrics and traces"] = {"CONCERTO_METRICS_PORT": "19474", **traces}
        sides = []
        for name, variables in kinds.items():
            home = folder / name
            home.mkdir()
            given: dict[str, Any] = {"OPENAI_BASE_URL": model.base_url, "CONCERTO_MODEL": "test-model"}
            given |= {"CONCERTO_TITLE_MODEL": "off", **variables}
            stack = await asyncio.to_thread(start_stack, home, **given)
            opened.push_async_callback(asyncio.to_thread, stop_stack, stack)
            limits = httpx.Limits(max_connections=CONNECTIONS)
            client = await opened.enter_async_context(
                httpx.AsyncClient(base_url=stack.gateway_url, timeout=60, limits=limits)
            )
            person = await Person.sign_up(client)
            session = await person.create_session(name="measured")
            sides.append(Side(name, stack, person, session["id"]))
        for side in sides:  # so that everything is loaded
            await requests(side)
            await turns(side)
            side.own_megabytes = psutil.Process(side.stack.process("gateway")).memory_full_info().uss / 1e6
        for _ in range(rounds):
            for side in sides:
                side.request_seconds.append(await used(side, requests(side)) / REQUESTS)
                side.turn_seconds.append(await used(side, turns(side)) / TURNS)
    return report(sides)


async def used(side: Side, load: Awaitable[None]) -> float:
    """Return the seconds of processor time that the side uses for a load and what it leaves behind."""
    processes = side.processes
    before = processes.cpu()
    await load
    await asyncio.sleep(0.3)
    return processes.since(before)["concerto"]


async def requests(side: Side) -> None:
    """Read the list of sessions many times."""

    async def one() -> None:
        for _ in range(REQUESTS // CONNECTIONS):
            answer = await side.person.call("GET", "/sessions")
            if answer.status_code != httpx.codes.OK:
                raise MeasurementError(f"{side.name}: {answer.status_code}")

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


async def turns(side: Side) -> None:
    """Stream some answers, one after the other."""
    for _ in range(TURNS):
        session = await side.person.create_session()
        events = [event async for event in side.person.turn(session["id"], "Count, please.")]
        if events[-1].data != {"state": "SUCCEEDED"}:
            raise MeasurementError(f"{side.name}: {events[-1].data}")


def report(sides: list[Side]) -> str:
    """Return the sides beside each other."""
    rows = [("telemetry", "µs/request", "×", f"ms/turn of {TOKENS} tokens", "×", "own memory, MB")]
    request, turn = (statistics.median(getattr(sides[0], name)) for name in ("request_seconds", "turn_seconds"))
    for side in sides:
        own_request, own_turn = statistics.median(side.request_seconds), statistics.median(side.turn_seconds)
        rows.append(
            (
                side.name,
                f"{own_request * 1e6:.0f}",
                f"{own_request / request:.2f}",
                f"{own_turn * 1e3:.1f}",
                f"{own_turn / turn:.2f}",
                f"{side.own_megabytes:.0f}",
            )
        )
    return table(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    sys.stdout.write(asyncio.run(measure(parser.parse_args().rounds)) + "\n")


if __name__ == "__main__":
    main()
