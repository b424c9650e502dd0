"""The event loop of every process of ours: uvloop, one way to be told to stop, and a collector that lets be."""

import asyncio
import gc
import signal
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

import uvloop

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run the process's main coroutine to its end and return what it returns."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


class Serve(Protocol):
    """Serves until `stop` is set, and sets `started` when it has begun to."""

    def __call__(self, *, started: asyncio.Event, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        """Begin."""


async def until_stopped(serve: Serve) -> None:
    """Serve until SIGTERM or SIGINT; the main coroutine of a process that serves one thing."""
    started = asyncio.Event()
    settling = asyncio.create_task(_settle_after(started))
    try:
        await serve(started=started, stop=stop_signal())
    finally:
        settling.cancel()


async def _settle_after(started: asyncio.Event) -> None:
    await started.wait()
    settle()


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT set; they end the process no more by themselves."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return stop


def settle() -> None:
    """Take what is there by now out of the collector's sight, once a process has started and is to stay.

    Without this the collector walks through all of it again and again.
    """
    gc.collect()
    gc.freeze()
    # A page of messages alone makes more objects than the default of 700, and nearly all go without the collector.
    gc.set_threshold(10_000, 10, 10)
