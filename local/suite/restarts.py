"""`concerto restart`: replaces processes of the running suite one at a time, so that replicas lose no request."""

import contextlib
import time
from pathlib import Path

import psutil

from local.console import Console
from local.settings import Settings, SettingsError
from local.suite.processes import EMBEDDED, PARTS, WHOLE, part_of
from local.suite.state import ProcessState, State, read_state
from local.suite.supervisor import READY_SECONDS, StartError

POLL_SECONDS = 0.05
SETTLE_SECONDS = 1.0
"""How long a new process is left alone before the next one goes: clients that lost its predecessor come back."""


def run(settings: Settings, name: str | None, console: Console) -> None:
    """Ask each chosen process to end, and wait until it has and its successor is ready, before the next.

    name: a part (all its replicas), a process, or None for everything of ours.
    Raises SettingsError for a name that is not there, StartError when the suite does not run or a successor does not
    become ready; the processes that were to follow are then left as they are.
    """
    state = _running(settings.home)
    chosen = choose(state, name)
    alone = [each for each in chosen if _is_alone(state, each)]
    if alone:
        console.line(f"  {', '.join(alone)}: no replica takes over, so there is a pause. Avoid it with")
        console.line("  `concerto up --processes --replicas 2`.")
    for place, each in enumerate(chosen):
        if place:
            time.sleep(SETTLE_SECONDS)
        with console.step(f"{each} replaced"):
            _replace(settings, each)


def choose(state: State, name: str | None) -> list[str]:
    """Return the processes that are meant, in the order of starting. Raises SettingsError when there are none."""
    ours = [each for each in state.processes if part_of(each) not in EMBEDDED]
    if name is None:
        return ours
    if name in PARTS and WHOLE in ours:
        return [WHOLE]
    chosen = [each for each in ours if name in (each, part_of(each)) or name == f"{each}-1"]
    if not chosen:
        raise SettingsError(f"There is no process named {name} to restart. Choose from {', '.join(ours)}.")
    return chosen


def _is_alone(state: State, name: str) -> bool:
    return sum(part_of(each) == part_of(name) for each in state.processes) == 1


def _replace(settings: Settings, name: str) -> None:
    old = _running(settings.home).processes.get(name)
    process = old.find() if old is not None else None
    if process is not None:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended by itself
            process.terminate()
    seconds = settings.stop_seconds + READY_SECONDS
    give_up_at = time.monotonic() + seconds
    while not _is_new(_running(settings.home).processes.get(name), old):
        if time.monotonic() > give_up_at:
            raise StartError(
                f"{name} is not ready again after {seconds:.0f} s; what was to follow was left alone. "
                f"See `concerto logs {name}`."
            )
        time.sleep(POLL_SECONDS)


def _is_new(found: ProcessState | None, old: ProcessState | None) -> bool:
    if found is None or not found.ready:
        return False
    return old is None or (found.pid, found.create_time) != (old.pid, old.create_time)


def _running(home: Path) -> State:
    state = read_state(home)
    if state is None or state.supervisor is None:
        raise StartError("Concerto does not run. Start it with `make up`.")
    if not state.ready:
        raise StartError("Concerto is starting or stopping. Wait a moment and try again.")
    return state
