"""Starts the processes of the suite, keeps them running, and stops what it started, in reverse order."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

from local.console import Console
from local.files import make_private_folder
from local.suite.processes import ProcessSpec
from local.suite.state import ProcessState

FIRST_BACKOFF_SECONDS = 0.2
LONGEST_BACKOFF_SECONDS = 10.0
HEALTHY_SECONDS = 30.0
READY_SECONDS = 60.0
POLL_SECONDS = 0.05
STOP_SECONDS = 30.0
LOG_CHECK_SECONDS = 30.0
LOG_LIMIT_BYTES = 20 * 1024 * 1024
TAIL_LINES = 12


class StartError(Exception):
    """A process did not become ready. The message holds the end of its log."""


@dataclass
class _Child:
    spec: ProcessSpec
    log: Path
    is_ready: bool = False
    process_id: str = ""
    process: asyncio.subprocess.Process | None = None
    watcher: asyncio.Task[None] | None = None


class Supervisor:
    """Owns the children. `on_change` is called whenever a process begins or becomes ready.

    stop_seconds: how long a child may take to end when it is asked to.
    """

    def __init__(
        self, logs: Path, console: Console, on_change: Callable[[], None], *, stop_seconds: float = STOP_SECONDS
    ) -> None:
        self._logs = logs
        self._console = console
        self._on_change = on_change
        self._stop_seconds = stop_seconds
        self._children: dict[str, _Child] = {}
        self._stopping = False
        self._quick_stop = asyncio.Event()
        self._reports: set[asyncio.Future[None]] = set()
        self._log_keeper: asyncio.Task[None] | None = None

    def states(self) -> dict[str, ProcessState]:
        """The live children, in the order of starting."""
        states: dict[str, ProcessState] = {}
        for name, child in self._children.items():
            process = child.process
            if process is None or process.returncode is not None:
                continue
            with contextlib.suppress(psutil.NoSuchProcess):
                created = psutil.Process(process.pid).create_time()
                states[name] = ProcessState(
                    pid=process.pid, create_time=created, port=child.spec.port, ready=child.is_ready
                )
        return states

    async def start(self, spec: ProcessSpec) -> None:
        """Start one process and wait until it is ready; from then on it is restarted when it ends.

        Raises StartError when it ends, or is not ready within READY_SECONDS, at this first attempt.
        """
        make_private_folder(self._logs)
        log = self._logs / f"{spec.name}.log"
        if log.exists():
            log.replace(log.with_suffix(".log.1"))
        child = _Child(spec, log)
        self._children[spec.name] = child
        if self._log_keeper is None:
            self._log_keeper = asyncio.create_task(self._keep_logs_small())
        await self._spawn(child)
        await self._wait_until_ready(child)
        child.watcher = asyncio.create_task(self._watch(child))

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a child, if it is running."""
        child = self._children.get(name)
        if child and child.process and child.process.returncode is None:
            child.process.send_signal(number)

    def stop_quickly(self) -> None:
        """Stop waiting for a polite end."""
        self._quick_stop.set()

    async def stop(self) -> None:
        """End all children, last started first. Calling `stop_quickly` meanwhile ends them at once."""
        self._stopping = True
        for child in self._children.values():
            if child.watcher is not None:
                child.watcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await child.watcher
        for task in (*self._reports, *([self._log_keeper] if self._log_keeper is not None else [])):
            task.cancel()
        for child in reversed(self._children.values()):
            await self._end(child)
        self._on_change()

    async def _spawn(self, child: _Child) -> None:
        spec = child.spec
        child.is_ready = False
        child.process_id = str(uuid4())
        if spec.before_start is not None:
            await asyncio.to_thread(spec.before_start)
        descriptor = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            child.process = await asyncio.create_subprocess_exec(
                *spec.command,
                cwd=spec.folder,
                env=spec.environment | ({"CONCERTO_PROCESS_ID": child.process_id} if spec.on_end else {}),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                user=spec.user,
                # A session of its own: Ctrl-C in the terminal reaches the supervisor only.
                start_new_session=True,
                pass_fds=spec.inherits,
            )
        except OSError as error:
            raise StartError(f"{spec.name} could not be started: {error}. Run `make setup`.") from error
        finally:
            os.close(descriptor)
        self._on_change()

    async def _wait_until_ready(self, child: _Child) -> None:
        process = child.process
        if process is None:
            raise StartError(f"{child.spec.name} has not been started.")
        deadline = time.monotonic() + READY_SECONDS
        while not await child.spec.is_ready():
            if process.returncode is not None:
                raise StartError(
                    f"{child.spec.name} {_ending(process.returncode)} while starting.\n{self._tail(child)}"
                )
            if time.monotonic() > deadline:
                raise StartError(f"{child.spec.name} was not ready within {READY_SECONDS:.0f} s.\n{self._tail(child)}")
            await asyncio.sleep(POLL_SECONDS)
        child.is_ready = True
        self._on_change()

    async def _watch(self, child: _Child) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        while child.process is not None:
            running_since = time.monotonic()
            code = await child.process.wait()
            self._report_end(child)
            was_requested = code == 0 and child.is_ready
            if was_requested or time.monotonic() - running_since >= HEALTHY_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            name = child.spec.name
            message = f"{name} {_ending(code)}; it is started again in {backoff:g} s."
            if was_requested:
                self._console.line(f"  {message}")
            else:
                self._console.problem(f"{message}\n{self._tail(child)}")
            # What it left in its group would keep its port taken.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.process.pid, signal.SIGKILL)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
            started = time.monotonic()
            try:
                await self._spawn(child)
                await self._wait_until_ready(child)
            except StartError as error:
                self._console.problem(str(error))
                await self._kill(child)
                continue
            except Exception as error:  # noqa: BLE001 - whatever is wrong, the next attempt may find it fixed
                self._console.problem(f"{name} could not be started again: {error}")
                continue
            self._console.done(f"{name} is back", time.monotonic() - started)

    def _report_end(self, child: _Child) -> None:
        if child.spec.on_end is None:
            return
        report = asyncio.ensure_future(child.spec.on_end(child.process_id))
        self._reports.add(report)
        report.add_done_callback(self._note_reported)

    def _note_reported(self, report: "asyncio.Future[None]") -> None:
        self._reports.discard(report)
        if not report.cancelled() and (error := report.exception()) is not None:
            self._console.line(f"  {error}")

    async def _end(self, child: _Child) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        number = child.spec.quick_stop_signal if self._quick_stop.is_set() else child.spec.stop_signal
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        waiting = asyncio.create_task(process.wait())
        interrupted = asyncio.create_task(self._quick_stop.wait())
        done, _ = await asyncio.wait(
            {waiting, interrupted}, timeout=self._stop_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if waiting not in done:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(child.spec.quick_stop_signal)
            await asyncio.wait({waiting}, timeout=3)
        if process.returncode is None:
            await self._kill(child)
        interrupted.cancel()

    async def _kill(self, child: _Child) -> None:
        process = child.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _tail(self, child: _Child) -> str:
        lines = last_lines(child.log, TAIL_LINES)
        return "\n".join([f"  The end of {child.log}:", *(f"    {line}" for line in lines or ["(empty)"])])

    async def _keep_logs_small(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_SECONDS)
            for child in self._children.values():
                with contextlib.suppress(OSError):
                    if child.log.stat().st_size > LOG_LIMIT_BYTES:
                        shutil.copyfile(child.log, child.log.with_suffix(".log.1"))
                        os.truncate(child.log, 0)  # its writer appends, so it goes on from the start


def last_lines(file: Path, count: int) -> list[str]:
    """The last lines of a text file; empty when there is none."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - 64 * 1024))
            return stream.read().decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"stopped with exit code {code}"
