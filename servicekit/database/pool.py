"""A pool of database connections for single statements: no round trip and no task beside the statement's own.

asyncpg's own pool asks the server to forget the session's state after each use. Our statements leave none behind:
they run outside of transactions and set their caller for themselves only, so that round trip would be for nothing.
"""

import asyncio
from collections import deque
from typing import Any

import asyncpg

from servicekit.telemetry import measures

IDLE_SECONDS = 300.0
CLOSE_SECONDS = 5.0


class Connections:
    """Up to `size` connections, opened when they are needed and closed after some minutes without use.

    connect_seconds: how long opening one may take. statement_cache_size: prepared statements kept per connection.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int,
        statement_cache_size: int,
        connect_seconds: float,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._url = url
        self._size = size
        self._statement_cache_size = statement_cache_size
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._reserved = 0
        self._open: set[asyncpg.Connection] = set()
        self._idle: deque[tuple[asyncpg.Connection, float]] = deque()
        self._waiting: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        self._closings: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._empty: asyncio.Event | None = None

    def counts(self) -> measures.Counts:
        """Return what its connections do now, and how many calls wait for one."""
        opened, idle = len(self._open), len(self._idle)
        return measures.Counts(
            idle=idle,
            busy=max(0, opened - idle),
            opening=max(0, self._reserved - opened),
            waiting=sum(not waiting.done() for waiting in tuple(self._waiting)),
        )

    async def fetchval(
        self,
        statement: str,
        *args: Any,
        timeout: float,  # noqa: ASYNC109 (asyncpg's own form)
        statement_seconds: float | None = None,
    ) -> Any:
        """Run one statement in a transaction of its own; return the first value of its first row.

        timeout: seconds for the statement, and as many for waiting until a connection is free. statement_seconds: after
        which the server itself ends the statement; None for what holds for the role. Takes two round trips more.
        Raises TimeoutError, OSError and asyncpg's errors.
        """
        connection = self._take_idle()
        if connection is None:
            connection = await self._take(timeout)
        try:
            if statement_seconds is None:
                value = await connection.fetchval(statement, *args, timeout=timeout)
            else:
                value = await _fetch_within(statement_seconds, connection, statement, args, timeout)
        except asyncpg.PostgresError:
            self._release(connection)
            raise
        except BaseException:
            # Whoever was cancelled or waited too long has left a statement under way; nobody else gets its answer.
            self._discard(connection)
            raise
        self._release(connection)
        return value

    async def close(self) -> None:
        """Close all connections once they are free; who waits for one is refused."""
        self._empty = asyncio.Event()
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(_closed())
        self._waiting.clear()
        while self._idle:
            self._discard(self._idle.pop()[0])
        if self._reserved == 0:
            self._empty.set()
        await self._empty.wait()
        await asyncio.gather(*self._closings)

    def terminate(self) -> None:
        """Drop all connections at once."""
        for connection in tuple(self._open):
            connection.terminate()

    def _take_idle(self) -> asyncpg.Connection | None:
        while self._idle:
            connection, _ = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._drop(connection)
        return None

    async def _take(self, seconds: float) -> asyncpg.Connection:
        if self._empty is not None:
            raise _closed()
        if self._reserved < self._size:
            self._reserved += 1
            return await self._connect(seconds)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[asyncpg.Connection | None] = loop.create_future()
        self._waiting.append(waiting)
        timer = loop.call_later(seconds, _expire, waiting)
        try:
            connection = await waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._release(waiting.result())
            raise
        finally:
            timer.cancel()
        return connection or await self._connect(seconds)

    async def _connect(self, seconds: float) -> asyncpg.Connection:
        # The place is taken already.
        try:
            if self._empty is not None:
                raise _closed()
            connection = await asyncpg.connect(
                self._url,
                timeout=min(seconds, self._connect_seconds),
                statement_cache_size=self._statement_cache_size,
            )
        except BaseException:
            self._free_slot()
            raise
        self._open.add(connection)
        return connection

    def _release(self, connection: asyncpg.Connection | None) -> None:
        """Take back a connection, or the place of one that was never opened."""
        if connection is None:
            self._free_slot()
        elif connection.is_closed():
            self._drop(connection)
        elif self._empty is not None or connection.is_in_transaction():
            self._discard(connection)
        elif not self._wake_one(connection):
            loop = asyncio.get_running_loop()
            self._idle.append((connection, loop.time()))
            if self._timer is None:
                self._timer = loop.call_later(self._idle_seconds, self._close_idle)

    def _wake_one(self, connection: asyncpg.Connection | None) -> bool:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return True
        return False

    def _discard(self, connection: asyncpg.Connection) -> None:
        self._open.discard(connection)
        task = asyncio.get_running_loop().create_task(_close(connection))
        self._closings.add(task)
        task.add_done_callback(self._closings.discard)
        self._free_slot()

    def _drop(self, connection: asyncpg.Connection) -> None:
        self._open.discard(connection)
        self._free_slot()

    def _free_slot(self) -> None:
        # Whoever waits gets the place and opens a connection of its own.
        if self._wake_one(None):
            return
        self._reserved -= 1
        if self._reserved == 0 and self._empty is not None:
            self._empty.set()

    def _close_idle(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._idle and self._idle[0][1] + self._idle_seconds <= loop.time():
            connection, _ = self._idle.popleft()
            self._discard(connection)
        if self._idle:
            self._timer = loop.call_at(self._idle[0][1] + self._idle_seconds, self._close_idle)


async def _fetch_within(
    statement_seconds: float, connection: asyncpg.Connection, statement: str, args: tuple[Any, ...], seconds: float
) -> Any:
    # Set before the statement begins, which is when the server looks, and for this transaction only: behind a pooler
    # the next one may be somebody else's.
    await connection.execute(f"begin; set local statement_timeout = {round(statement_seconds * 1000)}", timeout=seconds)
    try:
        value = await connection.fetchval(statement, *args, timeout=seconds)
    except asyncpg.PostgresError:
        await connection.execute("rollback", timeout=seconds)
        raise
    await connection.execute("commit", timeout=seconds)
    return value


def _expire(waiting: "asyncio.Future[asyncpg.Connection | None]") -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())


def _closed() -> asyncpg.InterfaceError:
    return asyncpg.InterfaceError("the pool is closed")


async def _close(connection: asyncpg.Connection) -> None:
    # Politely: a statement that is still under way is cancelled at the server first.
    try:
        await connection.close(timeout=CLOSE_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection.terminate()
