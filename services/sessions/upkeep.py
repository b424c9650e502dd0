"""What every process of the service does by itself: ends runs whose process died, deletes old deltas."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from servicekit.errors import AppError
from servicekit.telemetry import logs
from services.sessions.runs_store import REAPED_AT_ONCE, RunsStore

_LOG = structlog.stdlib.get_logger(__name__)

REAPER_INTERVAL_SECONDS = 1.0
PRUNER_INTERVAL_SECONDS = 60.0


class Upkeep:
    """Two background tasks. Any number of processes may run them at once; the database keeps them apart."""

    def __init__(self, store: RunsStore, *, kept_seconds: float) -> None:
        """Keep the deltas of runs for `kept_seconds` after their end."""
        self._store = store
        self._kept_seconds = kept_seconds
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(_repeat("reaper", self._reap, REAPER_INTERVAL_SECONDS)),
            asyncio.create_task(
                _repeat("pruner", self._prune, min(PRUNER_INTERVAL_SECONDS, max(self._kept_seconds, 1.0)))
            ),
        ]

    async def close(self) -> None:
        """Stop; what a task is just doing in the database is undone there."""
        for task in reversed(self._tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _reap(self) -> None:
        while run_ids := await self._store.interrupt_expired():
            _LOG.warning("runs.interrupted", count=len(run_ids), run_ids=run_ids[:5])
            if len(run_ids) < REAPED_AT_ONCE:
                return

    async def _prune(self) -> None:
        while pruned := await self._store.prune_events(older_than_seconds=self._kept_seconds):
            _LOG.info("runs.pruned", count=pruned)


async def _repeat(name: str, work: Callable[[], Awaitable[None]], interval_seconds: float) -> None:
    failed = ""
    while True:
        try:
            await work()
            failed = ""
        except AppError as error:
            # Once per kind of failure, and not every second.
            if failed != error.reason:
                failed = error.reason
                cause = logs.describe(error.cause) if error.cause is not None else ""
                _LOG.warning("upkeep.failed", task=name, reason=error.reason, cause=cause)
        await asyncio.sleep(interval_seconds)
