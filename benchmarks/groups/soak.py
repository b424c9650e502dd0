"""The suite under a steady load for minutes: does its memory grow, does anything fail, do calls become slower?

python -m benchmarks.groups.soak --mode one-process --minutes 10      the soak alone
"""

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

import orjson
import psutil

from benchmarks import suites, tables
from benchmarks.load.soak import Plan, SoakLoad
from benchmarks.load.streams import call_program
from benchmarks.measures import Processes
from benchmarks.progress import say
from benchmarks.rows import Row, foot, table
from benchmarks.suites import MODES, SENTENCE, Suite
from local.suite.processes import Mode

MINUTES, QUICK_MINUTES = 10.0, 0.5
OF_PEAK = 0.7
GREW, SLOWER = 1.05, 1.3
SESSIONS, TURN_SESSIONS = 100, 300
STORED = 100
"""Messages of each session at the beginning, so that pages and histories are as long then as in the end."""
PEAK_SECONDS = 120.0
"""Its second half counts: a suite that has just started reaches for some seconds what it cannot keep up."""
WORKERS = 32
TOKENS, MILLISECONDS = 20, 5
SAMPLE_SECONDS = 3.0
MEGABYTE = 1_000_000


async def measure(suite: Suite, *, quick: bool, minutes: float | None = None) -> list[Row]:
    """Return the rows of one soak; `minutes` is what follows the warm-up, 10 or with `quick` half a one."""
    seconds = 60 * (minutes if minutes is not None else QUICK_MINUTES if quick else MINUTES)
    # What is compared: the beginning and the end of that time.
    window = min(60.0, seconds / 3)
    person = await suite.person()
    sessions = await suite.fill(person, SESSIONS, messages=STORED)
    turn_sessions = await suite.fill(person, TURN_SESSIONS, messages=STORED)
    await tables.settle(tables.Addresses.of(suite.stack))

    def plan(for_seconds: float, rate: float = 0.0) -> bytes:
        token = person.tokens["access_token"]
        return orjson.dumps(
            Plan(suite.url, token, sessions, turn_sessions, SENTENCE, for_seconds, WORKERS, TOKENS, MILLISECONDS, rate)
        )

    say("soak: finding the peak")
    rate = OF_PEAK * _lasting_rate(await _load(plan(5 if quick else PEAK_SECONDS)))
    say(f"soak: {rate:.0f} operations per second for {(window + seconds) / 60:.1f} minutes, the warm-up among them")
    began = time.monotonic()
    working = asyncio.create_task(_load(plan(window + seconds, rate)))
    samples = await _sample(suite, working, began)
    load = await working
    return _rows(suite, load, samples, rate=rate, first=(window, 2 * window), last=(seconds, window + seconds))


def _lasting_rate(load: SoakLoad) -> float:
    """Return the operations per second of the load's second half."""
    half = load.seconds / 2
    began = [due for due, _ in (*load.calls, *load.first_tokens)]
    late = sum(due >= half for due in began)
    say(f"soak: {(len(began) - late) / half:.0f} per second in the first half, {late / half:.0f} in the second")
    return late / half


async def _load(plan: bytes) -> SoakLoad:
    return SoakLoad(**orjson.loads(await call_program("benchmarks.load.soak", plan)))


async def _sample(suite: Suite, working: asyncio.Task[SoakLoad], began: float) -> list[tuple[float, dict[str, int]]]:
    """Return what each process holds, every few seconds while the load is made: seconds since `began`, bytes by name.

    The supervisor is the parent of the others, so it counts without them. Postgres counts without its shared memory,
    which has a fixed size and is counted as soon as a page of it is touched.
    """
    parts = {name: pid for name, pid in suite.pids.items() if name != "postgres"}
    processes = Processes(parts, alone=("supervisor",))
    samples = []
    while not working.done():
        held = processes.memory() | {"postgres": _private_bytes(suite.pids["postgres"])}
        samples.append((time.monotonic() - began, held))
        await asyncio.wait({working}, timeout=SAMPLE_SECONDS)
    return samples


def _private_bytes(pid: int) -> int:
    held = 0
    parent = psutil.Process(pid)
    for process in (parent, *parent.children(recursive=True)):
        try:
            held += process.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return held


def _rows(
    suite: Suite,
    load: SoakLoad,
    samples: Sequence[tuple[float, dict[str, int]]],
    *,
    rate: float,
    first: tuple[float, float],
    last: tuple[float, float],
) -> list[Row]:
    span = f"{first[1] - first[0]:.0f} s"
    beside = f"the first {span} behind the warm-up"
    total = len(load.calls) + len(load.first_tokens) + load.faults
    rows = [
        Row.absolute(
            "soak: operations per second",
            suite.mode,
            [total / load.seconds],
            unit="1/s",
            reference=rate / OF_PEAK,
            beside="the peak, of which it is 70 %",
            note=f"The generator used {load.cpu_seconds / load.seconds:.0%} of a core.",
        ),
        Row.absolute(
            "soak: operations that failed",
            suite.mode,
            [float(load.faults)],
            unit="of all",
            at_most=0,
            note="; ".join(load.first_faults),
        ),
    ]
    for name, found in (("calls", load.calls), ("first tokens", load.first_tokens)):
        for share, at_most in ((0.5, None), (0.99, SLOWER)):
            late, early = (
                _percentile([wait for due, wait in found if low <= due < end], share) for low, end in (last, first)
            )
            rows.append(
                Row.compared(
                    f"soak: p{share * 100:.0f} of {name}, last {span}",
                    suite.mode,
                    [late],
                    [early],
                    unit="ms",
                    at_most=at_most,
                    beside=beside,
                    note=f"Span by span of {span}, in ms: {_course(found, share, first[1] - first[0], last[1])}.",
                )
            )
    for name in samples[0][1]:
        before, after = (
            [held[name] / MEGABYTE for moment, held in samples if low <= moment < end] for low, end in (first, last)
        )
        rows.append(
            Row.compared(
                f"soak: memory of {name}, last {span}",
                suite.mode,
                [statistics.median(after)],
                [statistics.median(before)],
                unit="MB",
                at_most=GREW,
                beside=beside,
                note="Without shared memory." if name == "postgres" else "",
            )
        )
    return rows


def _course(found: Sequence[tuple[float, float]], share: float, span: float, end: float) -> str:
    """Return the percentile of each span from the warm-up's on, which tells a drift from an outlier."""
    starts = [place * span for place in range(round(end / span))]
    values = [_percentile([wait for due, wait in found if low <= due < low + span], share) for low in starts]
    return " ".join(f"{value:.0f}" for value in values)


def _percentile(seconds: Sequence[float], share: float) -> float:
    """Return a percentile in milliseconds; 0 when nothing was measured."""
    ordered = sorted(seconds)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000 if ordered else 0.0


async def _alone(mode: Mode, minutes: float) -> list[Row]:
    async with suites.running(mode) as suite:
        return await measure(suite, quick=minutes < 1, minutes=minutes)


def main() -> int:
    """Soak one suite and print the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.groups.soak", description=__doc__)
    parser.add_argument("--mode", choices=MODES, default="one-process")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="behind the warm-up minute")
    arguments = parser.parse_args()
    found = asyncio.run(_alone(arguments.mode, arguments.minutes))
    print("\n".join([table(found), "", *foot(found)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
