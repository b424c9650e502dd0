"""Waiting for a state in tests, in place of pauses: the one place that looks again and again."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import NoReturn

PATIENCE_SECONDS = 240.0
LOOK_SECONDS = 0.02


async def until(
    condition: Callable[[], object], what: str = "it", *, seconds: float = PATIENCE_SECONDS, look: float = LOOK_SECONDS
) -> None:
    """Return when the condition, which may be asynchronous, holds; fail after `seconds` and say what was waited for.

    It asks every `look` seconds, for states that have no event to wait for.
    """
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(look)  # the pause between two looks


def until_in_thread(condition: Callable[[], object], what: str = "it", *, seconds: float = PATIENCE_SECONDS) -> None:
    """Do as `until`, where no event loop runs: in fixtures of whole processes."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(LOOK_SECONDS)  # the pause between two looks


async def forever() -> NoReturn:
    """Wait until the task is cancelled, as what hangs does."""
    await asyncio.Event().wait()
    raise AssertionError("an event that is set by no one was set")
