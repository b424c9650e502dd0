"""The one writer of this process: gathers the events of all runs, stores them, and then publishes them."""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Callable, Sequence

import structlog
from concerto.sessions.v1 import runs_pb2
from google.protobuf import timestamp_pb2

from servicekit.errors import AppError
from servicekit.telemetry import logs, observing
from servicekit.telemetry.watches import TraceContext
from services.orchestrator.runs.leases import HeldLease
from services.orchestrator.runs.run_log import RunLog
from services.orchestrator.sessions_client import MAX_BATCHES, SessionsClient, is_retryable

_LOG = structlog.stdlib.get_logger(__name__)

BEAT_SECONDS = 0.1
"""From the beginning of a write to that of the next one; events wait no longer than that and a write."""

MAX_WAITING = 64
"""Pieces of one run that are worth a write at once, and about what one write carries: of more, some are joined."""

_Text = tuple[int, str]
"""A piece of an answer, and when it came in nanoseconds."""

_MAX_WRITE_BYTES = 2 * 1024 * 1024
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
        self.is_urgent = False
        """True when what waits is to be stored at once."""
        self.is_under_way = False
        """True while events that were taken from here are being stored; no others may overtake them."""
        self.failure: AppError | None = None
        self.trace_context: TraceContext | None = None
        """Where in a trace the run is; the writer's task has no trace of its own."""
        self._waiting: list[runs_pb2.RunEvent | _Text] = []
        self._on_failed = on_failed

    def __len__(self) -> int:
        """Return how many events wait, pieces of text counted one by one."""
        return len(self._waiting)

    def add(self, event: "runs_pb2.RunEvent | _Text") -> None:
        """Let an event or a piece of text wait, without seq. Dropped when the run's lease is lost."""
        if self.failure is None and not self.held.is_lost:
            self._waiting.append(event)
            self.settled.clear()

    def take(self, most_deltas: int) -> list[runs_pb2.RunEvent]:
        """Return what waits, numbered; neighbouring pieces are joined so that about `most_deltas` are left."""
        waiting, self._waiting = self._waiting, []
        self.is_urgent = False
        events = _as_events(waiting, most_deltas)
        for seq, event in enumerate(events, self.next_seq):
            event.seq = seq
        self.next_seq += len(events)
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
    """Stores the events of all runs of the process: one call at a time, and one beside it for those that are urgent.

    The first event after a quiet moment is written at once. What comes then is gathered for the next write, which
    begins BEAT_SECONDS after this one: some pieces of a slow stream share a write with its commit, its notification and
    all that wakes for them, and many streams share it too. A run's first words, its last ones and its tools' events do
    not wait for the others', and a run with many deltas waiting ends the pause. A run has one write under way at most.
    """

    def __init__(self, store: SessionsClient) -> None:
        self._store = store
        self._waiting: dict[Outbox, None] = {}
        self._urgent: dict[Outbox, None] = {}
        self._has_waiting = asyncio.Event()
        self._has_urgent = asyncio.Event()
        self._flush_now = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def put(self, outbox: Outbox, event: runs_pb2.RunEvent, *, urgent: bool = False) -> None:
        """Store the event soon; never waits. It is published once it is stored."""
        outbox.add(event)
        self._enqueue(outbox, urgent=urgent)

    def put_text(self, outbox: Outbox, text: str, *, urgent: bool = False) -> None:
        """Store a piece of the answer soon, like an event."""
        outbox.add((time.time_ns(), text))
        self._enqueue(outbox, urgent=urgent)

    def put_thought(self, outbox: Outbox, text: str, *, urgent: bool = False) -> None:
        """Store a piece of what the model thinks soon, like an event."""
        delta = runs_pb2.ReasoningDelta(text=text)
        self.put(outbox, runs_pb2.RunEvent(created_at=now(), reasoning_delta=delta), urgent=urgent)

    async def flush(self, outbox: Outbox) -> None:
        """Wait until everything in the outbox is stored, or cannot be any more."""
        if len(outbox):
            self._enqueue(outbox, urgent=True)
        await outbox.settled.wait()

    async def close(self) -> None:
        """Write nothing any more."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(set(tasks))

    def _enqueue(self, outbox: Outbox, *, urgent: bool = False) -> None:
        outbox.is_urgent = outbox.is_urgent or urgent
        if outbox.is_under_way:
            return  # enlisted again when that is done
        if outbox.is_urgent:
            self._waiting.pop(outbox, None)
            self._urgent[outbox] = None
            self._has_urgent.set()
        else:
            self._waiting[outbox] = None
            self._has_waiting.set()
            if len(outbox) >= MAX_WAITING:
                self._flush_now.set()
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(work, name=name, context=contextvars.Context())
                for name, work in (("event writer", self._work()), ("urgent event writer", self._work_urgently()))
            ]

    async def _work(self) -> None:
        while True:
            await self._has_waiting.wait()
            self._flush_now.clear()
            started_at = time.monotonic()
            await self._write_waiting(self._waiting, self._has_waiting, has_spans=False)
            took_seconds = time.monotonic() - started_at
            pause_seconds = BEAT_SECONDS - took_seconds
            if pause_seconds > 0 and not self._flush_now.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_seconds):
                        await self._flush_now.wait()

    async def _work_urgently(self) -> None:
        while True:
            await self._has_urgent.wait()
            await self._write_waiting(self._urgent, self._has_urgent, has_spans=True)

    async def _write_waiting(
        self, outboxes: dict[Outbox, None], has_waiting: asyncio.Event, *, has_spans: bool
    ) -> None:
        # The usual writes, up to twenty in a second, would bury the rest of a trace.
        batches: list[Batch] = []
        size = 0
        # One run, or some that are slow, keep their pieces as they are; many share what a write can well carry.
        most_deltas = max(1, MAX_WAITING // max(1, len(outboxes)))
        while outboxes and len(batches) < MAX_BATCHES and size < _MAX_WRITE_BYTES:
            outbox = next(iter(outboxes))
            del outboxes[outbox]
            events = outbox.take(most_deltas)
            if events:
                outbox.is_under_way = True
                batches.append((outbox, events))
                size += sum(event.ByteSize() for event in events)
        if not outboxes:
            has_waiting.clear()
        await self._write(batches, has_spans=has_spans)
        for outbox, _ in batches:
            outbox.is_under_way = False
            if len(outbox):
                self._enqueue(outbox)

    async def _write(self, batches: list[Batch], *, has_spans: bool) -> None:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while batches:
            try:
                contexts = (outbox.trace_context for outbox, _ in batches)
                with observing.on_behalf("append run events", contexts) if has_spans else observing.untraced():
                    lost = await self._store.append_run_events(
                        [runs_pb2.RunEventBatch(lease=outbox.held.lease, events=events) for outbox, events in batches]
                    )
            except AppError as error:
                if is_retryable(error):
                    batches = [batch for batch in batches if _may_be_stored(batch[0])]
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
                _LOG.error("events.refused", run_id=outbox.held.lease.run_id, cause=logs.describe(failure))
                outbox.fail(events, failure)
                return
            # One run's event must not cost the others theirs.
            for batch in batches:
                await self._write([batch], has_spans=has_spans)
            return


def _may_be_stored(outbox: Outbox) -> bool:
    if outbox.held.may_be_valid:
        return True
    outbox.lose()
    return False


def _as_events(waiting: Sequence[runs_pb2.RunEvent | _Text], most_deltas: int) -> list[runs_pb2.RunEvent]:
    """Return what waits as events; where it is more than `most_deltas`, neighbouring pieces are joined evenly."""
    events: list[runs_pb2.RunEvent] = []
    texts: list[str] = []
    groups, group = min(most_deltas, len(waiting)), -1
    for index, item in enumerate(waiting):
        if isinstance(item, runs_pb2.RunEvent):
            _close(events, texts)
            own = index * groups // len(waiting)
            if own == group and _is_thought(item) and _is_thought(events[-1]):
                events[-1].reasoning_delta.text += item.reasoning_delta.text
            else:
                events.append(item)
            group = own
            continue
        if (own := index * groups // len(waiting)) != group:
            _close(events, texts)
            group = own
        if not texts:
            events.append(runs_pb2.RunEvent(created_at=_at(item[0])))
        texts.append(item[1])
    _close(events, texts)
    return events


def _is_thought(event: runs_pb2.RunEvent) -> bool:
    return event.HasField("reasoning_delta")


def _close(events: list[runs_pb2.RunEvent], texts: list[str]) -> None:
    if texts:
        events[-1].message_delta.text = "".join(texts)
        texts.clear()


def now() -> timestamp_pb2.Timestamp:
    """Return the present time, to the microsecond, as the database keeps it."""
    return _at(time.time_ns())


def _at(nanoseconds: int) -> timestamp_pb2.Timestamp:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=rest // 1000 * 1000)
