"""The one writer of this process: gathers the events of all runs, stores them, and then publishes them."""

import asyncio
import contextlib
import contextvars
import itertools
import time
from collections.abc import Callable, Sequence

import structlog
from concerto.sessions.v1 import runs_pb2

from servicekit import telemetry
from servicekit.errors import AppError
from services.orchestrator.leases import HeldLease
from services.orchestrator.run_log import RunLog
from services.orchestrator.store import MAX_BATCHES, SessionsStore, is_passing

_LOG = structlog.stdlib.get_logger(__name__)

MAX_DELAY_SECONDS = 0.05
"""Longest pause between two writes; events wait no longer than that and a write."""

MAX_WAITING = 64
"""Deltas of one run that are worth a write of their own at once; where more wait, they are joined."""

_MAX_WRITE_BYTES = 2 * 1024 * 1024
_PAUSE_FACTOR = 3.0
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 1.0


class Outbox:
    """One run's events on their way to the store.

    next_seq: seq of the next event that is taken from here; FinishRun goes on from it.
    on_failed: called when an event of the run cannot be stored at all; nothing more of it is then written.
    """

    def __init__(self, held: HeldLease, log: RunLog, *, next_seq: int, on_failed: Callable[[AppError], None]) -> None:
        self.held = held
        self.log = log
        self.next_seq = next_seq
        self.settled = asyncio.Event()
        self.settled.set()
        self._waiting: list[runs_pb2.RunEvent] = []
        self.failure: AppError | None = None
        self._on_failed = on_failed

    def __len__(self) -> int:
        """Return how many events wait."""
        return len(self._waiting)

    def add(self, event: runs_pb2.RunEvent) -> None:
        """Let an event wait, without seq. Dropped when the run's lease is lost."""
        if self.failure is None and not self.held.is_lost:
            self._waiting.append(event)
            self.settled.clear()

    def take(self) -> list[runs_pb2.RunEvent]:
        """Return what waits, numbered."""
        events, self._waiting = self._waiting, []
        if len(events) > MAX_WAITING:
            events = _joined(events)
        for event in events:
            event.seq = self.next_seq
            self.next_seq += 1
        return events

    def stored(self, events: Sequence[runs_pb2.RunEvent]) -> None:
        """Publish events that were taken from here and are stored now."""
        self.log.publish(events)
        if not self._waiting:
            self.settled.set()

    def lose(self) -> None:
        """Drop everything: the run is no longer this process's."""
        self._waiting.clear()
        self.settled.set()
        self.held.lose()

    def fail(self, events: Sequence[runs_pb2.RunEvent], error: AppError) -> None:
        """Drop everything from these events on: they cannot be stored."""
        self.failure = error
        self._waiting.clear()
        self.next_seq = events[0].seq
        self.settled.set()
        self._on_failed(error)


Batch = tuple[Outbox, list[runs_pb2.RunEvent]]


class EventWriter:
    """Stores the events of all runs of the process, one call at a time.

    The first event after a quiet moment is written at once. What comes while a write is under way is gathered for the
    next; between two writes it pauses in proportion to what the last one took, at most MAX_DELAY_SECONDS, so that
    many streams share few writes. A run's first words and a run with many deltas waiting end the pause.
    """

    def __init__(self, store: SessionsStore) -> None:
        self._store = store
        self._outboxes: dict[Outbox, None] = {}
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def put(self, outbox: Outbox, event: runs_pb2.RunEvent, *, urgent: bool = False) -> None:
        """Store the event soon; never waits. It is published once it is stored."""
        outbox.add(event)
        self._outboxes[outbox] = None
        self._some.set()
        if urgent or len(outbox) >= MAX_WAITING:
            self._hurry.set()
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="event writer", context=contextvars.Context())

    async def flush(self, outbox: Outbox) -> None:
        """Wait until everything in the outbox is stored, or cannot be any more."""
        self._hurry.set()
        await outbox.settled.wait()

    async def close(self) -> None:
        """Write nothing any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _work(self) -> None:
        while True:
            await self._some.wait()
            self._hurry.clear()
            started_at = time.monotonic()
            await self._write(self._take())
            took_seconds = time.monotonic() - started_at
            pause_seconds = min(_PAUSE_FACTOR * took_seconds, MAX_DELAY_SECONDS - took_seconds)
            if pause_seconds > 0 and not self._hurry.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), pause_seconds)

    def _take(self) -> list[Batch]:
        batches: list[Batch] = []
        size = 0
        while self._outboxes and len(batches) < MAX_BATCHES and size < _MAX_WRITE_BYTES:
            outbox = next(iter(self._outboxes))
            del self._outboxes[outbox]
            events = outbox.take()
            if events:
                batches.append((outbox, events))
                size += sum(event.ByteSize() for event in events)
        if not self._outboxes:
            self._some.clear()
        return batches

    async def _write(self, batches: list[Batch]) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while batches:
            try:
                lost = await self._store.append_run_events(
                    [runs_pb2.RunEventBatch(lease=outbox.held.lease, events=events) for outbox, events in batches]
                )
            except AppError as error:
                if is_passing(error):
                    batches = [batch for batch in batches if _is_worth_it(batch[0])]
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(pause_seconds * 2, _MAX_PAUSE_SECONDS)
                    continue
                failure = error
            except Exception as error:  # noqa: BLE001 (the writer of all runs outlives what one of them brings)
                failure = AppError("INTERNAL", cause=error)
            else:
                for outbox, events in batches:
                    if outbox.held.lease.run_id in lost:
                        outbox.lose()
                    else:
                        outbox.stored(events)
                return
            if len(batches) == 1:
                outbox, events = batches[0]
                _LOG.error("events.refused", run_id=outbox.held.lease.run_id, cause=telemetry.describe(failure))
                outbox.fail(events, failure)
                return
            # One run's event must not cost the others theirs.
            for batch in batches:
                await self._write([batch])
            return


def _is_worth_it(outbox: Outbox) -> bool:
    if outbox.held.may_be_valid:
        return True
    outbox.lose()
    return False


def _joined(events: Sequence[runs_pb2.RunEvent]) -> list[runs_pb2.RunEvent]:
    """Return the events with neighbouring deltas made one."""
    kept: list[runs_pb2.RunEvent] = []
    for is_delta, neighbours in itertools.groupby(events, key=lambda event: event.HasField("message_delta")):
        if not is_delta:
            kept.extend(neighbours)
            continue
        deltas = list(neighbours)
        deltas[0].message_delta.text = "".join(delta.message_delta.text for delta in deltas)
        kept.append(deltas[0])
    return kept
