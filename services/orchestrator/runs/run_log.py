"""The newest events of one run, in memory, for its readers in this process."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from concerto.sessions.v1 import runs_pb2

MAX_EVENTS = 1024
MAX_BATCH = 64
"""Most events that a reader is given at once."""


class RunLog:
    """Stored events of a run: published by its process, followed by any number of readers.

    Nobody waits for a reader, and a reader holds only its place. Between MAX_EVENTS and twice as many events are
    kept; a reader whose place is gone is cut off and finds the rest in the table.
    """

    def __init__(self) -> None:
        self._events: list[runs_pb2.RunEvent] = []
        self._first_seq = 1
        self._closed = False
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Return how many events are held."""
        return len(self._events)

    @property
    def ended(self) -> bool:
        """True when the run's last event is there."""
        return bool(self._events) and self._events[-1].HasField("run_finished")

    def publish(self, events: Sequence[runs_pb2.RunEvent]) -> None:
        """Append events that are stored. Where their seqs do not follow on, the log is closed: the table knows."""
        if events and events[0].seq != self._first_seq + len(self._events):
            self.close()
            return
        self._events.extend(events)
        if len(self._events) > 2 * MAX_EVENTS:
            gone = len(self._events) - MAX_EVENTS
            del self._events[:gone]
            self._first_seq += gone
        self._wake()

    def close(self) -> None:
        """Send the readers to the table; nothing more will be published here."""
        self._closed = True
        self._wake()

    async def follow(self, after_seq: int) -> AsyncGenerator[Sequence[runs_pb2.RunEvent], None]:
        """Yield the events after `after_seq`, then the new ones, each time all that are there, up to MAX_BATCH.

        Ends after run_finished, and earlier when the log is closed or the reader's place is gone.
        """
        next_seq = after_seq + 1
        while True:
            changed = self._changed
            while self._first_seq <= next_seq < self._first_seq + len(self._events):
                offset = next_seq - self._first_seq
                batch = self._events[offset : offset + MAX_BATCH]
                yield batch
                next_seq += len(batch)
            if self.ended or self._closed or next_seq < self._first_seq:
                return
            await changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
