"""Wakes whoever watches a run when the database says that something happened in it."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import asyncpg
import structlog

_LOG = structlog.stdlib.get_logger(__name__)

CHANNEL = "concerto_runs"
CONNECT_TIMEOUT_SECONDS = 5.0
CHECK_INTERVAL_SECONDS = 30.0
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0

_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Notifications:
    """One connection of its own that listens, whatever the number of watchers.

    A notification is a hint and no more: some are lost while the connection is, so a watcher also looks by itself now
    and then. After each reconnect everybody is woken.
    """

    def __init__(self, db_url: str) -> None:
        self._db_url = db_url
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_listening = asyncio.Event()

    def start(self) -> None:
        """Begin to listen, now or as soon as the database is there."""
        self._task = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def ready(self) -> None:
        """Return once the database's notifications arrive."""
        await self._is_listening.wait()

    @contextlib.contextmanager
    def watch(self, run_id: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever something happened in the run (UUID); the watcher clears it."""
        key, wake = run_id.lower(), asyncio.Event()
        self._watchers.setdefault(key, set()).add(wake)
        try:
            yield wake
        finally:
            others = self._watchers[key]
            others.discard(wake)
            if not others:
                del self._watchers[key]

    def wake_all(self) -> None:
        """Wake every watcher."""
        for wakes in self._watchers.values():
            _set_all(wakes)

    async def _listen(self) -> None:
        delay_seconds = FIRST_DELAY_SECONDS
        while True:
            try:
                connection = await asyncpg.connect(self._db_url, timeout=CONNECT_TIMEOUT_SECONDS)
            except _FAILURES as error:
                _LOG.warning("notifications.not_connected", error=type(error).__name__)
            else:
                delay_seconds = FIRST_DELAY_SECONDS
                await self._serve(connection)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 2, LONGEST_DELAY_SECONDS)

    async def _serve(self, connection: asyncpg.Connection) -> None:
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(CHANNEL, self._notified)
            self._is_listening.set()
            self.wake_all()
            while not lost.is_set():
                try:
                    await asyncio.wait_for(lost.wait(), CHECK_INTERVAL_SECONDS)
                except TimeoutError:
                    # A network that is gone says nothing by itself.
                    await connection.execute("select 1", timeout=CONNECT_TIMEOUT_SECONDS)
            _LOG.warning("notifications.connection_lost")
        except _FAILURES as error:
            _LOG.warning("notifications.connection_lost", error=type(error).__name__)
        finally:
            self._is_listening.clear()
            connection.terminate()

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        _set_all(self._watchers.get(str(payload), set()))


def _set_all(wakes: set[asyncio.Event]) -> None:
    for wake in wakes:
        wake.set()
