"""Wakes whoever watches a run when the database says that something happened in it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from typing import Any
from uuid import uuid4

import asyncpg
import structlog

from servicekit.errors import AppError

_LOG = structlog.stdlib.get_logger(__name__)

CHANNEL = "concerto_runs"
CONNECT_TIMEOUT_SECONDS = 5.0
CHECK_INTERVAL_SECONDS = 30.0
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0
PROOF_SECONDS = 5.0
UNDELIVERED_DELAY_SECONDS = 300.0
ADVICE = (
    "Set SUPABASE_LISTEN_DB_URL to the database itself or to a pooler in session mode; until then whoever follows a run"
    " of another process looks for its events several times a second."
)

_FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


class Notifications:
    """One connection of its own that listens, whatever the number of watchers.

    A notification is a hint and no more: some are lost while the connection is, so a watcher also looks by itself now
    and then. After each reconnect everybody is woken. A pooler in transaction mode takes the wish to listen and
    delivers nothing, so listening counts only once a notification has arrived.
    """

    def __init__(self, listen_url: str | None, *, notify: Callable[[str, str], Awaitable[None]]) -> None:
        """Listen at `listen_url`; None where notifications cannot arrive, so that watchers look by themselves.

        notify: sends a notification (channel, payload) the way that the operations do.
        """
        self._listen_url = listen_url
        self._notify = notify
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_listening = asyncio.Event()

    @property
    def is_listening(self) -> bool:
        """Whether notifications arrive at present."""
        return self._is_listening.is_set()

    def start(self) -> None:
        """Begin to listen, now or as soon as the database is there."""
        if self._listen_url is None:
            _LOG.warning("notifications.polling", cause="a pooler in transaction mode", advice=ADVICE)
            return
        self._task = asyncio.create_task(self._listen(self._listen_url))

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
        """Yield an event that is set whenever something happened in the run (UUID); the watcher clears it.

        It is told by the hash of its id: every role may listen, and whoever only listens must learn nothing.
        """
        with self._watch(sha256(run_id.lower().encode()).hexdigest()) as wake:
            yield wake

    @contextlib.contextmanager
    def _watch(self, key: str) -> Iterator[asyncio.Event]:
        wake = asyncio.Event()
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

    async def _listen(self, url: str) -> None:
        delay_seconds = FIRST_DELAY_SECONDS
        while True:
            try:
                connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_SECONDS, statement_cache_size=0)
            except _FAILURES as error:
                _LOG.warning("notifications.not_connected", error=type(error).__name__)
            else:
                delay_seconds = await self._serve(connection, delay_seconds)
            await asyncio.sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 2, LONGEST_DELAY_SECONDS)

    async def _serve(self, connection: asyncpg.Connection, delay_seconds: float) -> float:
        """Listen until the connection is lost, or give it up at once when it delivers nothing.

        delay_seconds: the last wait before a new attempt. Returns the next one.
        """
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(CHANNEL, self._notified)
            if not await self._is_delivered():
                _LOG.warning("notifications.not_delivered", advice=ADVICE)
                return UNDELIVERED_DELAY_SECONDS
            self._is_listening.set()
            delay_seconds = FIRST_DELAY_SECONDS
            self.wake_all()
            while not lost.is_set():
                try:
                    await asyncio.wait_for(lost.wait(), CHECK_INTERVAL_SECONDS)
                except TimeoutError:
                    # A network that is gone says nothing by itself.
                    await connection.execute("select 1", timeout=CONNECT_TIMEOUT_SECONDS)
            _LOG.warning("notifications.connection_lost")
        except (*_FAILURES, AppError) as error:
            _LOG.warning("notifications.connection_lost", error=type(error).__name__)
        finally:
            self._is_listening.clear()
            connection.terminate()
        return delay_seconds

    async def _is_delivered(self) -> bool:
        """Send a notification over another connection, and return whether it arrives at the one that listens."""
        token = uuid4().hex
        with self._watch(token) as wake:
            await self._notify(CHANNEL, token)
            try:
                await asyncio.wait_for(wake.wait(), PROOF_SECONDS)
            except TimeoutError:
                return False
        return True

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: Any) -> None:
        _set_all(self._watchers.get(str(payload), set()))


def _set_all(wakes: set[asyncio.Event]) -> None:
    for wake in wakes:
        wake.set()
