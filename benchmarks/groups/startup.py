"""The warm start: the real `make up` in this working copy, on a data folder that has been started before."""

import asyncio
import contextlib
import signal
import subprocess
import time
from pathlib import Path

import httpx

from benchmarks.progress import say
from benchmarks.rows import MeasurementError, Row
from local.settings import ROOT
from local.suite.processes import Mode
from local.suite.state import read_state
from tests.support.suites import free_base_port, stack_environment

AT_MOST_SECONDS = {"processes": 8.0, "one-process": 5.0}
COMMANDS = {
    "one-process": ["make", "up"],
    # What `make up` does, with the one word that it leaves out.
    "processes": ["sh", "-c", "make setup && exec .venv/bin/concerto up --processes"],
}
HOME = "home"
PATIENCE_SECONDS = 120.0
STOP_SECONDS = 60.0


async def measure(mode: Mode, *, quick: bool, folder: Path) -> list[Row]:
    """Return the seconds from the command until the gateway says that it is ready; the data stays in `folder`.

    Nothing else of the suite may run meanwhile. A first start is not counted; a quick run makes none where another mode
    has left its data.
    """
    rounds = 1 if quick else 5
    if not (quick and (folder / HOME).exists()):
        say(f"{mode}: first start")
        await _start_and_stop(folder, mode)
    taken = []
    for number in range(rounds):
        say(f"{mode}: start {number + 1} of {rounds}")
        taken.append(await _start_and_stop(folder, mode))
    return [Row.absolute("warm `make up` to ready", mode, taken, unit="s", at_most=AT_MOST_SECONDS[mode])]


async def _start_and_stop(folder: Path, mode: Mode) -> float:
    home, port = folder / HOME, free_base_port()
    output = folder / "up.out"
    with output.open("wb") as stream:
        began = time.monotonic()
        process = subprocess.Popen(  # noqa: ASYNC220 (the wait below is in steps)
            COMMANDS[mode],
            cwd=ROOT,
            env=stack_environment(home, port),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        async with httpx.AsyncClient() as client:
            while not await _is_ready(client, port):
                if process.poll() is not None or time.monotonic() - began > PATIENCE_SECONDS:
                    raise MeasurementError(f"`{' '.join(COMMANDS[mode])}` did not become ready:\n{_text(output)}")
                await asyncio.sleep(0.02)
        seconds = time.monotonic() - began
        state = read_state(home)
        while state is None or not state.ready:  # the supervisor notes it a moment after the gateway says so
            await asyncio.sleep(0.02)
            state = read_state(home)
        return seconds
    finally:
        await asyncio.to_thread(_stop, process, home)


async def _is_ready(client: httpx.AsyncClient, port: int) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success
    return False


def _stop(process: "subprocess.Popen[bytes]", home: Path) -> None:
    state = read_state(home)
    if state is not None and state.supervisor is not None:
        state.supervisor.send_signal(signal.SIGINT)
    elif process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise MeasurementError("`concerto up` did not stop.") from None


def _text(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:]
