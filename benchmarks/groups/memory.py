"""Memory of an idle suite: all of its Python processes with the supervisor, without Postgres and Node."""

import asyncio
from functools import partial

from benchmarks import suites
from benchmarks.load import model_server
from benchmarks.measures import Processes
from benchmarks.progress import say
from benchmarks.rows import Row
from benchmarks.suites import Program, Suite
from tests.support.api import ok

AT_MOST_MEGABYTES = {"processes": 350.0, "one-process": 170.0}
MEGABYTE = 1_000_000
TIMES = 3


async def measure(suite: Suite, *, quick: bool) -> list[Row]:
    """Return the memory of a suite that has just become ready, and of the same one once every part has worked.

    No reference may run yet, as pages that it shares with the suite's Python would be counted to both.
    """
    mode = suite.mode
    ours = suite.our_processes()
    await asyncio.sleep(1.0 if quick else 10.0)
    say(f"{mode}: memory, idle")
    idle, parts = await _take(ours)
    resident = ours.resident() / MEGABYTE
    await _use(suite)
    await asyncio.sleep(1.0 if quick else 10.0)
    say(f"{mode}: memory, after use")
    used, used_parts = await _take(ours)
    start = partial(
        suites.start_reference,
        "monolith",
        suite.stack,
        model_url=suite.model.url,
        log=suite.folder / "monolith.out",
    )
    program = await asyncio.to_thread(start)
    try:
        monolith = Processes({"monolith": program.pid})
        references, _ = await _take(monolith)
        their_resident = monolith.resident() / MEGABYTE
    finally:
        Program.stop(program)
    return [
        Row.absolute(
            "memory, idle, PSS",
            mode,
            idle,
            unit="MB",
            at_most=AT_MOST_MEGABYTES[mode],
            reference=references[-1],
            beside="monolith.py",
            note=f"in MB: {_told(parts)}.",
        ),
        Row.absolute(
            "memory, idle, resident",
            mode,
            [resident],
            unit="MB",
            reference=their_resident,
            beside="monolith.py",
        ),
        Row.absolute(
            "memory after each part has worked, PSS",
            mode,
            used,
            unit="MB",
            note=f"in MB: {_told(used_parts)}.",
        ),
    ]


async def _take(processes: Processes) -> tuple[list[float], dict[str, int]]:
    totals, parts = [], {}
    for _ in range(TIMES):
        parts = processes.memory()
        totals.append(sum(parts.values()) / MEGABYTE)
        await asyncio.sleep(0.2)
    return totals, parts


async def _use(suite: Suite) -> None:
    """Let each part do its work a few times."""
    person = await suite.person()
    for _ in range(10):
        session = await person.create_session()
        async for _event in person.turn(str(session["id"]), model_server.prompt(tokens=20, milliseconds=1)):
            pass
        ok(await person.call("GET", "/sessions"))
        await person.messages(str(session["id"]))


def _told(parts: dict[str, int]) -> str:
    return ", ".join(f"{name} {held / MEGABYTE:.0f}" for name, held in sorted(parts.items()))
