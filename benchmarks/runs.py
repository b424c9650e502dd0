"""Runs at their edges: 500 open streams, another replica, long sessions. `python -m benchmarks.runs` (about a minute).

Starts a suite with each part in its own process and a model server, on the loopback address, and stops them. Prints
tables; the exit code says whether the two promised limits hold.
"""

import asyncio
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import jwt
import orjson
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from benchmarks.load import model_server
from benchmarks.measures import Phase, Processes, table
from local.settings import ROOT
from servicekit.rpc import channel
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as
from tests.support.api import Person, ok
from tests.support.replica import second_orchestrator
from tests.support.streams import EventStream
from tests.support.suites import RunningStack, start_stack, stop_stack

MILLISECONDS = 20
OPEN_STREAMS, OPEN_TOKENS, OPEN_MILLISECONDS = 500, 20, 1000
FOLLOWS, FOLLOW_LIMIT_SECONDS = 20, 0.3
LONG_SESSION, SHORT_SESSION, STARTS, START_RATIO_LIMIT = 10_000, 10, 40, 1.2
PATIENCE_SECONDS = 60


@dataclass
class Suite:
    """The running suite, its one user, and where its model is."""

    stack: RunningStack
    person: Person
    model_url: str

    async def session(self) -> str:
        """Create a session that needs no title."""
        return str((await self.person.create_session(name="benchmark"))["id"])

    async def turn(self, session_id: str, prompt: str, phase: Phase, seen: Callable[[str], None] | None = None) -> None:
        """Ask, read the whole stream, and note the first token's time. `seen` gets each event's type."""
        url = f"{self.stack.gateway_url}/sessions/{session_id}/turns"
        asked = time.monotonic()
        stream = await EventStream.open(
            url, headers=self.person.headers, body={"content": prompt, "request_id": str(uuid4())}
        )
        first, last = True, b""
        async for _, kind, data in stream.raw_events():
            if kind == "message.delta":
                if first:
                    phase.waits.append(time.monotonic() - asked)
                first = False
                phase.tokens += data.count(b" ")  # each token ends with one, also where several came as one piece
            if seen is not None:
                seen(kind)
            last = data
        if b"SUCCEEDED" not in last:
            raise RuntimeError(f"a run did not succeed: {last!r}")


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Suite]:
    """Start everything, and stop it at the end."""
    folder = Path(tempfile.mkdtemp(prefix="concerto-"))
    model = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load.model_server"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert model.stdout is not None
    model_url = (await model.stdout.readline()).decode().strip()
    try:
        stack = await asyncio.to_thread(
            start_stack,
            folder,
            mode="processes",
            OPENAI_BASE_URL=model_url,
            CONCERTO_MODEL="test-model",
            CONCERTO_MAX_RUNS_PER_USER="2000",
            CONCERTO_MAX_RUNS="2000",
        )
        try:
            async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=PATIENCE_SECONDS) as client:
                yield Suite(stack, await Person.sign_up(client), model_url)
        finally:
            await asyncio.to_thread(stop_stack, stack)
    finally:
        model.terminate()
        await model.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def directly(suite: Suite, *, streams: int, turns: int, tokens: int, milliseconds: int) -> Phase:
    """Put the same load on ChatOpenAI, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load.direct", suite.model_url),
        *(str(number) for number in (streams, turns, tokens, milliseconds)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return Phase(**orjson.loads(output))


async def hold_open(suite: Suite) -> None:
    """Print the memory of each process with many streams open."""
    sessions = [await suite.session() for _ in range(OPEN_STREAMS)]
    processes = Processes.of(suite.stack.state())
    idle = processes.memory()
    peak = dict(idle)
    phase = Phase()
    under_way: set[int] = set()
    most_at_once = 0
    text = model_server.prompt(tokens=OPEN_TOKENS, milliseconds=OPEN_MILLISECONDS)

    async def one(place: int, session_id: str) -> None:
        def seen(kind: str) -> None:
            (under_way.discard if kind == "run.finished" else under_way.add)(place)

        await asyncio.sleep(OPEN_TOKENS * OPEN_MILLISECONDS / 1000 / 4 * place / OPEN_STREAMS)
        await suite.turn(session_id, text, phase, seen)

    async def watch() -> None:
        nonlocal most_at_once
        while True:
            await asyncio.sleep(1)
            most_at_once = max(most_at_once, len(under_way))
            for name, held in (await asyncio.to_thread(processes.memory)).items():
                peak[name] = max(peak[name], held)

    watching = asyncio.create_task(watch())
    began = time.monotonic()
    await asyncio.gather(*(one(place, session_id) for place, session_id in enumerate(sessions)))
    watching.cancel()
    seconds = time.monotonic() - began
    reference = await directly(suite, streams=OPEN_STREAMS, turns=1, tokens=OPEN_TOKENS, milliseconds=OPEN_MILLISECONDS)
    rows = [(f"memory (MiB), {most_at_once} streams open at once", "idle", "peak", "per stream (KiB)")]
    for name in peak:
        more = (peak[name] - idle[name]) / 1024 / max(most_at_once, 1)
        rows.append((name, f"{idle[name] / 2**20:.0f}", f"{peak[name] / 2**20:.0f}", f"{more:.0f}"))
    rows.append(("ChatOpenAI, its program", "", f"{reference.peak_bytes / 2**20:.0f}", ""))
    print(table(rows))
    print(f"{phase.tokens} tokens in {seconds:.0f} s\n")


async def follow(suite: Suite) -> bool:
    """Print how soon another replica shows the first event of a run; True when that is soon enough."""
    token = suite.person.tokens["access_token"]
    waits = []
    with acting_as(Caller(token=token, claims=jwt.decode(token, options={"verify_signature": False}))):
        async with second_orchestrator(suite.stack, model_url=suite.model_url) as connection:
            stub = orchestrator_pb2_grpc.OrchestratorServiceStub(connection)
            for _ in range(FOLLOWS):
                body = {"content": model_server.prompt(tokens=20, milliseconds=MILLISECONDS)}
                run = ok(await suite.person.call("POST", f"/sessions/{await suite.session()}/runs", body))
                began = time.monotonic()
                request = orchestrator_pb2.StreamRunRequest(run_id=run["id"])
                async with contextlib.aclosing(channel.stream(stub.StreamRun, request)) as events:
                    await anext(events)
                    waits.append(time.monotonic() - began)
                    async for _ in events:
                        pass
    rows = [
        (f"another replica's first event (ms), {FOLLOWS} runs", "p50", "max", "limit"),
        (
            "",
            f"{statistics.median(waits) * 1000:.0f}",
            f"{max(waits) * 1000:.0f}",
            f"{FOLLOW_LIMIT_SECONDS * 1000:.0f}",
        ),
    ]
    print(table(rows) + "\n")
    return max(waits) <= FOLLOW_LIMIT_SECONDS


async def start_in_sessions(suite: Suite) -> bool:
    """Print how soon a turn starts in a long session and in a short one; True when the ratio is within its limit."""
    long_session = await suite.session()
    await fill(suite, long_session, LONG_SESSION)
    starts: dict[int, list[float]] = {LONG_SESSION: [], SHORT_SESSION: []}
    firsts: dict[int, list[float]] = {LONG_SESSION: [], SHORT_SESSION: []}
    text = model_server.prompt(tokens=2, milliseconds=MILLISECONDS)
    for turn in range(STARTS + 1):
        short_session = await suite.session()
        await fill(suite, short_session, SHORT_SESSION)
        pair = [(LONG_SESSION, long_session), (SHORT_SESSION, short_session)]
        for size, session_id in pair if turn % 2 else reversed(pair):
            phase, started = Phase(), [0.0]
            asked = time.monotonic()

            def seen(kind: str, started: list[float] = started, asked: float = asked) -> None:
                if kind == "run.started":
                    started[0] = time.monotonic() - asked

            await suite.turn(session_id, text, phase, seen)
            if turn:  # the first ones warm up
                starts[size].append(started[0])
                firsts[size].append(phase.waits[0])
    rows = [("a turn in a session of (ms, p50)", f"{LONG_SESSION}", f"{SHORT_SESSION}", "ratio")]
    ratios = []
    for label, found, less in (
        ("until run.started", starts, 0.0),
        ("until its first token", firsts, 0.0),
        (f"until its first token, minus the model's {MILLISECONDS} ms", firsts, MILLISECONDS / 1000),
    ):
        a, b = (statistics.median(found[size]) - less for size in (LONG_SESSION, SHORT_SESSION))
        ratios.append(a / b)
        rows.append((label, f"{a * 1000:.1f}", f"{b * 1000:.1f}", f"{a / b:.2f}"))
    print(table(rows) + "\n")
    return max(ratios[:2]) <= START_RATIO_LIMIT


async def fill(suite: Suite, session_id: str, count: int) -> None:
    """Append `count` messages of about a sentence."""
    for start in range(0, count, 100):
        places = range(start, min(start + 100, count))
        messages = [
            {"role": "assistant" if place % 2 else "user", "content": f"Message {place} says a few words and no more."}
            for place in places
        ]
        ok(await suite.person.call("POST", f"/sessions/{session_id}/messages", {"messages": messages}))


async def main() -> int:
    """Run all parts; 0 when the limits hold."""
    async with running() as suite:
        soon = await follow(suite)
        short = await start_in_sessions(suite)
        await hold_open(suite)
    print(f"limits: another replica {'holds' if soon else 'FAILS'}, long sessions {'hold' if short else 'FAIL'}")
    return 0 if soon and short else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
