"""The event loop of every process of ours: uvloop, one way to be told to stop, and a collector that lets be."""

import asyncio
import ctypes
import gc
import signal
import time
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

import uvloop

T = TypeVar("T")

LOOK_SECONDS = 10.0
"""How often a process looks whether it is at rest."""

REST_SHARE = 0.05
"""Share of a core that a process at rest uses at most: nobody notices a pause of some milliseconds then."""

WORK_SECONDS = 1.0
"""Processor time after which it is worth while to collect."""


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
    await collect_at_rest()


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


async def collect_at_rest() -> None:
    """Give back what work has left behind, whenever the process comes to rest after it; never returns.

    The collector comes by after so many objects, so a process that has nothing to do any more would keep the last
    hour's circles of objects, and the C library the memory of those that are gone.
    """
    collected_at = used = time.process_time()
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        before, used = used, time.process_time()
        if used - before <= REST_SHARE * LOOK_SECONDS and used - collected_at >= WORK_SECONDS:
            gc.collect()
            return_free_memory()
            collected_at = used = time.process_time()


def return_free_memory() -> None:
    """Return to the system what the C library keeps of freed memory; does nothing where it is not glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
