"""`make bench`: measures the suite in both of its modes beside its references, and prints one table.

python -m benchmarks                                        everything
python -m benchmarks unary streams --mode processes --quick some groups, in one mode, in shorter phases

Writes benchmarks/results/latest.json, and benchmarks/RESULTS.md after a full run or when asked. The exit code is 0 also
where a target is missed, 1 when a measurement itself failed, 2 when something is missing that it needs.
"""

import argparse
import asyncio
import contextlib
import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from benchmarks import rows, suites
from benchmarks.load import calls, wrk
from benchmarks.progress import say
from benchmarks.rows import MeasurementError, Row
from benchmarks.suites import MODES, Suite
from local.settings import ROOT
from local.suite.processes import Mode

FOLDER = Path(__file__).resolve().parent
LATEST = FOLDER / "results" / "latest.json"
RESULTS = FOLDER / "RESULTS.md"
PROFILES = FOLDER / "PROFILES.md"
"""Written by hand: where the time goes, for the figures that miss their targets above all."""
GROUPS = ("unary", "fairness", "streams", "tokens", "memory", "startup", "growth", "soak", "open_streams", "deaths")
"""In the order of the table."""
ALONE = ("startup",)
"""Groups that start a suite of their own, while no other one runs; they come first."""
BEFORE_REFERENCES = ("memory",)
"""Groups that want the suite as it is at its start, before anything else runs beside it."""
NOT_QUICK = ("soak", "open_streams", "deaths")
"""Those that mostly wait."""
ONCE: Mapping[str, Mode] = {"growth": "one-process", "soak": "processes"}
"""Groups that are about the database or take long: where both modes are measured, these are in one of them."""
PACKAGES = (
    *("asyncpg", "fastapi", "grpcio", "langchain-openai", "orjson", "protobuf", "pydantic", "pyjwt"),
    *("starlette", "uvicorn", "uvloop"),
)


Found = dict[tuple[str, Mode], list[Row]]
"""Rows by group and mode."""


def main() -> int:
    """Run what was asked for; return the exit code."""
    parser = _parser()
    arguments = parser.parse_args()
    for unknown in set(arguments.groups) - set(GROUPS):
        parser.error(f"there is no group {unknown!r}; choose from {', '.join(GROUPS)}")
    chosen = [group for group in GROUPS if group in arguments.groups] if arguments.groups else list(GROUPS)
    if arguments.quick and not arguments.groups:
        chosen = [group for group in chosen if group not in NOT_QUICK]
    if wrk.USERS & set(chosen) and not wrk.is_installed():
        sys.stderr.write(wrk.MISSING + "\n")
        return 2
    is_full = not arguments.groups and not arguments.quick and arguments.mode is None
    modes = MODES if arguments.mode is None else (arguments.mode,)
    head = _head(quick=arguments.quick, groups=chosen)
    found: Found = {}
    others = Others()
    with contextlib.suppress(KeyboardInterrupt):
        failures = asyncio.run(_interruptible(_measure(chosen, modes, found, quick=arguments.quick)))
        head["other_programs_cores"] = round(others.cores(), 2)
        ordered = [row for group in GROUPS for mode in MODES for row in found.get((group, mode), ())]
        _report(head, ordered, failures, write_results=arguments.write_results or (is_full and not failures))
        return 1 if failures else 0
    sys.stderr.write("Interrupted; everything is stopped, nothing is written.\n")
    return 130


class Others:
    """How much of the machine programs that are not ours take, from the making of this object on."""

    def __init__(self) -> None:
        self._began, self._all, self._own = time.monotonic(), _busy_seconds(), _own_seconds()

    def cores(self) -> float:
        """Cores that they used on average. Right once all programs of ours have ended."""
        seconds = time.monotonic() - self._began
        return max(0.0, _busy_seconds() - self._all - (_own_seconds() - self._own)) / seconds


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


def _own_seconds() -> float:
    # Of ended children with all of theirs.
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measures the suite beside its references."
    )
    parser.add_argument("groups", nargs="*", metavar="group", help=f"some of {', '.join(GROUPS)}")
    parser.add_argument("--mode", choices=MODES, help="one mode instead of both")
    parser.add_argument(
        "--quick", action="store_true", help="shorter phases, fewer rounds; what mostly waits only if named"
    )
    parser.add_argument("--write-results", action="store_true", help="write RESULTS.md, as a full run does")
    return parser


async def _interruptible(work: Coroutine[Any, Any, list[str]]) -> list[str]:
    """Do the work; a SIGTERM ends it as Ctrl-C does, so that everything is stopped."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _measure(groups: Sequence[str], modes: Sequence[Mode], found: Found, *, quick: bool) -> list[str]:
    """Add the rows to `found`; return what went wrong. A group that fails does not keep the others from running."""
    with tempfile.TemporaryDirectory(prefix="concerto-bench-", ignore_cleanup_errors=True) as folder:
        return await _measure_in(Path(folder), groups, modes, found, quick=quick)


async def _measure_in(
    folder: Path, groups: Sequence[str], modes: Sequence[Mode], found: Found, *, quick: bool
) -> list[str]:
    failures: list[str] = []

    async def attempt(group: str, mode: Mode, measurement: Callable[[], Awaitable[list[Row]]]) -> None:
        label = f"{mode}: {group}"
        say(label)
        began = time.monotonic()
        try:
            found[group, mode] = await measurement()
            say(f"{label} took {time.monotonic() - began:.0f} s")
        except Exception as error:  # noqa: BLE001 (what the other groups have found is still worth its table)
            if not isinstance(error, MeasurementError):
                traceback.print_exception(error)
            failures.append(f"{label}: {error or type(error).__name__}")
            say(f"{label} FAILED: {error}")

    for mode in modes:
        # The suite that the other groups share starts after these.
        due = [group for group in groups if len(modes) == 1 or ONCE.get(group, mode) == mode]
        beside = [group for group in due if group not in ALONE]
        for group in (group for group in due if group in ALONE):
            await attempt(group, mode, partial(_module(group).measure, mode, quick=quick, folder=folder))
        if beside:
            say(f"{mode}: the suite starts")
            try:
                async with suites.running(mode) as suite:
                    early = [group for group in beside if group in BEFORE_REFERENCES]
                    late = [group for group in beside if group not in early]
                    for group in early:
                        await attempt(group, mode, partial(_in_suite, suite, group, quick=quick))
                    if late:
                        await suite.start_references()
                    for group in late:
                        await attempt(group, mode, partial(_in_suite, suite, group, quick=quick))
            except MeasurementError as error:
                failures.append(f"{mode}: {error}")
    return failures


async def _in_suite(suite: Suite, group: str, *, quick: bool) -> list[Row]:
    measured: list[Row] = await _module(group).measure(suite, quick=quick)
    return measured


def _module(group: str) -> Any:
    # Imported when it is its turn, as some bring half of the suite along.
    return importlib.import_module(f"benchmarks.groups.{group}")


def _report(head: rows.Head, found: Sequence[Row], failures: Sequence[str], *, write_results: bool) -> None:
    if found:
        footnotes = [*rows.footnotes(found), *(f"FAILED {failure}" for failure in failures)]
        print("\n".join([rows.table(found), "", *footnotes, "", *_conditions(head)]))
        rows.write_json(LATEST, {**head, "failures": list(failures)}, found)
        say(f"{LATEST.relative_to(ROOT)} is written")
    for failure in failures:
        sys.stderr.write(f"FAILED {failure}\n")
    if write_results and found:
        RESULTS.write_text(_results(head, found), encoding="utf-8")
        say(f"{RESULTS.relative_to(ROOT)} is written")


def _results(head: rows.Head, found: Sequence[Row]) -> str:
    lines = [
        "# Results",
        "",
        "Written by `make bench`. How each figure is measured stands in [README.md](README.md). A missed target stays",
        "here as it is." + (f" Where the time goes: [{PROFILES.name}]({PROFILES.name})." if PROFILES.exists() else ""),
        "",
        *(f"- {line}" for line in _conditions(head)),
        "",
        rows.markdown(found),
        "",
        *(f"- {line}" for line in rows.footnotes(found)),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _head(*, quick: bool, groups: Sequence[str]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "quick": quick,
        "groups": list(groups),
        "cores": len(psutil.Process().cpu_affinity() or ())
        if hasattr(psutil.Process, "cpu_affinity")
        else os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "connections": calls.CONNECTIONS,
        "versions": {
            "Python": ".".join(map(str, sys.version_info[:3])),
            "Postgres": _version(str(calls.find_pgbench().with_name("postgres")), "--version"),
            "wrk": _version("wrk", "-v"),
            **{name: metadata.version(name) for name in PACKAGES},
        },
    }


def _conditions(head: rows.Head) -> list[str]:
    kind = "quick run" if head["quick"] else "full phases"
    waiting = ", ".join(map(str, head["load_average"]))
    return [
        f"{head['date']}, commit {head['commit']}, {kind} of {', '.join(head['groups'])}",
        f"{head['cores']} cores for everything, the load generator and the model server too; other programs took "
        f"{head['other_programs_cores']:.1f} of them on average; load average before: {waiting}",
        ", ".join(f"{name} {version}" for name, version in head["versions"].items()),
    ]


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S607
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        " with changes" if git("status", "--porcelain") else ""
    )


def _version(program: str, option: str) -> str:
    if shutil.which(program) is None:
        return "none"
    # wrk ends with 1 after it has told its version.
    done = subprocess.run([program, option], capture_output=True, text=True, check=False)
    words = (done.stdout or done.stderr).split()
    return next((word for word in words if any(letter.isdigit() for letter in word)), "unknown")


if __name__ == "__main__":
    sys.exit(main())
