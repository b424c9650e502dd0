"""What runs at the moment: `run/state.json`, written by the supervisor and read by the other commands."""

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from pydantic import BaseModel, ValidationError

from local.files import make_private_folder, write_private

STOP_SECONDS = 20


class ProcessState(BaseModel):
    """One running process. `create_time` (seconds since the epoch) tells it from a later one with the same id."""

    pid: int
    create_time: float
    port: int
    ready: bool = False

    def find(self) -> psutil.Process | None:
        """The live process, or None when it has ended or its id belongs to another program by now."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < 1
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class State(BaseModel):
    """The suite as the supervisor sees it. `ready` turns true when every process has answered once.

    replicas: processes of each of our parts.
    """

    ready: bool = False
    base_port: int
    address: str
    pid: int
    create_time: float
    replicas: int = 1
    processes: dict[str, ProcessState] = {}

    @property
    def supervisor(self) -> psutil.Process | None:
        """The live `concerto up`, if it is still there."""
        return ProcessState(pid=self.pid, create_time=self.create_time, port=self.base_port).find()


def state_file(home: Path) -> Path:
    """Where the state of this data folder is kept."""
    return home / "run" / "state.json"


def read_state(home: Path) -> State | None:
    """The recorded state; None when nothing has been recorded or it cannot be read."""
    try:
        return State.model_validate(json.loads(state_file(home).read_text()))
    except (OSError, ValueError, ValidationError):
        return None


def write_state(home: Path, state: State) -> None:
    """Record the state in one step."""
    make_private_folder(home / "run")
    write_private(state_file(home), state.model_dump_json(indent=2) + "\n")


def clear_state(home: Path) -> None:
    """Forget the state: nothing of this data folder runs."""
    state_file(home).unlink(missing_ok=True)


@contextmanager
def supervisor_lock(home: Path) -> Iterator[bool]:
    """Hold the data folder for one supervisor; yields False when another one has it. Released even by SIGKILL."""
    make_private_folder(home / "run")
    handle = os.open(home / "run" / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def end_orphans(home: Path) -> list[str]:
    """End what a killed supervisor left running, last started first; returns the names.

    Only call this while holding the lock. A process is ended only when its id and its start time both match.
    """
    state = read_state(home)
    if state is None:
        return []
    ended: list[str] = []
    for name, recorded in reversed(state.processes.items()):
        if recorded.find() is None:
            continue
        _end(recorded, signal.SIGINT if name == "postgres" else signal.SIGTERM)
        ended.append(name)
    clear_state(home)
    return ended


def _end(recorded: ProcessState, polite: signal.Signals) -> None:
    for number in (polite, signal.SIGKILL):
        process = recorded.find()
        if process is None:
            return
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
        deadline = time.monotonic() + STOP_SECONDS
        # Asked anew each time: psutil's own wait would count a process that its parent has not collected as running.
        while recorded.find() is not None and time.monotonic() < deadline:
            time.sleep(0.05)
