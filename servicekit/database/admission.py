"""Whose call uses a connection next: a share for each caller, a turn at each row, room for the services' own work.

A call waits here and not with a connection in its hand. Calls of one caller follow each other in the order in which
they came, and callers take turns, so that whoever has many calls waiting delays nobody else by more than one of them.
"""

import asyncio
from collections import OrderedDict, deque

from servicekit.errors import AppError

MOST_WAITING = 256
"""Most calls of one caller that wait."""
MOST_WAITING_BYTES = 32 * 1024 * 1024
"""Most bytes of arguments that wait of one caller."""
MOST_WAITING_BYTES_OF_ALL = 256 * 1024 * 1024
"""Most bytes of arguments that wait of all callers."""
QUEUE_SECONDS = 5.0
"""Longest wait of a caller's call."""
RETRY_SECONDS = 2.0
"""How long a caller is asked to wait who has too many calls under way."""
ROOM_FROM = 4
"""From this size of a pool on, one connection is kept free of callers, for the services' own work."""


def share_of(size: int) -> int:
    """Return how many of `size` connections one caller may use at once: a third, and at least one."""
    return max(1, round(size / 3))


class Ticket:
    """One call: where it waits, and what it holds."""

    __slots__ = ("admitted", "bytes", "has_row", "is_active", "line", "row")

    def __init__(self, line: "_Line | None", row: str, size_bytes: int) -> None:
        self.line = line
        self.row = row
        self.bytes = size_bytes
        self.has_row = not row
        self.is_active = False
        self.admitted: asyncio.Future[None] | None = None


class _Line:
    """The calls of one caller."""

    __slots__ = ("active", "caller", "is_listed", "ready", "waiting", "waiting_bytes")

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self.active = 0
        self.waiting = 0
        self.waiting_bytes = 0
        self.ready: OrderedDict[Ticket, None] = OrderedDict()
        """Those that wait for nothing but a connection."""
        self.is_listed = False
        """Whether it stands among the lines that are served in turn."""


class Admission:
    """Admits at most `size` calls at once, of each caller at most a third of that.

    The services' own calls, which have no caller, come first and know no share.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._share = share_of(size)
        self._most_of_callers = size - 1 if size >= ROOM_FROM else size
        self._active = 0
        self._active_of_callers = 0
        self._waiting = 0
        self._waiting_bytes = 0
        self._lines: dict[str, _Line] = {}
        self._turns: deque[_Line] = deque()
        self._own: OrderedDict[Ticket, None] = OrderedDict()
        self._rows: dict[str, OrderedDict[Ticket, None]] = {}

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._waiting

    async def enter(self, caller: str | None, *, row: str = "", size_bytes: int = 0, seconds: float) -> Ticket:
        """Return once the call may use a connection; `leave` must follow.

        caller: the user (UUID); None for a service's own call. row: what only one call can have at a time, such as a
        session; empty for a call that has to wait for no other. size_bytes: what its arguments hold. seconds: how long
        it may wait. Raises AppError TOO_MANY_REQUESTS when this caller has too many calls, DATABASE_BUSY when all have.
        """
        line = None if caller is None else self._lines.get(caller)
        if line is None and caller is not None:
            line = self._lines[caller] = _Line(caller)
        ticket = Ticket(line, row, size_bytes)
        if (not row or row not in self._rows) and self._may_enter(line):
            if row:
                self._rows[row] = OrderedDict()
                ticket.has_row = True
            self._admit(ticket)
            return ticket
        try:
            self._refuse_more(ticket)
            await self._wait(ticket, seconds if line is None else min(seconds, QUEUE_SECONDS))
        except BaseException:
            self.leave(ticket)
            raise
        return ticket

    def pause(self, ticket: Ticket) -> None:
        """Give the connection up for a while, but not the row."""
        self._end(ticket)
        self._dispatch()

    async def resume(self, ticket: Ticket, *, seconds: float) -> None:
        """Return once a call that has paused may use a connection again. Raises like `enter`, then call `leave`."""
        if self._may_enter(ticket.line):
            self._admit(ticket)
        else:
            await self._wait(ticket, seconds)

    def leave(self, ticket: Ticket) -> None:
        """End a call, in whatever state it is."""
        self._end(ticket)
        if ticket.row and ticket.has_row:
            ticket.has_row = False
            self._pass_on(ticket.row)
        self._dispatch()
        line = ticket.line
        if line is not None and not line.active and not line.waiting:
            self._lines.pop(line.caller, None)

    def _may_enter(self, line: _Line | None) -> bool:
        if line is None:
            return self._active < self._size and not self._own
        return (
            line.active < self._share
            and not line.ready
            and not self._turns
            and self._active < self._size
            and self._active_of_callers < self._most_of_callers
        )

    def _admit(self, ticket: Ticket) -> None:
        ticket.is_active = True
        self._active += 1
        if ticket.line is not None:
            ticket.line.active += 1
            self._active_of_callers += 1

    def _end(self, ticket: Ticket) -> None:
        if not ticket.is_active:
            return
        ticket.is_active = False
        self._active -= 1
        if ticket.line is not None:
            ticket.line.active -= 1
            self._active_of_callers -= 1
            self._list(ticket.line)

    def _refuse_more(self, ticket: Ticket) -> None:
        line = ticket.line
        if line is None:
            return
        if line.waiting >= MOST_WAITING or line.waiting_bytes + ticket.bytes > MOST_WAITING_BYTES:
            raise _too_many()
        if self._waiting_bytes + ticket.bytes > MOST_WAITING_BYTES_OF_ALL:
            raise AppError("DATABASE_BUSY", cause="too many bytes of all callers wait")

    async def _wait(self, ticket: Ticket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        admitted = ticket.admitted = loop.create_future()
        line, queue = ticket.line, self._queue_of(ticket)
        queue[ticket] = None
        self._count(ticket, 1)
        if line is not None:
            self._list(line)
        timer = loop.call_later(seconds, _expire, admitted)
        try:
            # What it waits for may be there already: a row, while others of its caller were before it.
            self._dispatch()
            await admitted
        except TimeoutError:
            is_own_fault = line is not None and (not ticket.has_row or line.active >= self._share)
            raise (
                _too_many() if is_own_fault else AppError("DATABASE_BUSY", cause="no connection became free")
            ) from None
        finally:
            timer.cancel()
            self._count(ticket, -1)
            self._remove(ticket)

    def _queue_of(self, ticket: Ticket) -> OrderedDict[Ticket, None]:
        if not ticket.has_row:
            waiting = self._rows.get(ticket.row)
            if waiting is not None:
                return waiting
            self._rows[ticket.row] = OrderedDict()
            ticket.has_row = True
        return self._own if ticket.line is None else ticket.line.ready

    def _count(self, ticket: Ticket, sign: int) -> None:
        self._waiting += sign
        self._waiting_bytes += sign * ticket.bytes
        if ticket.line is not None:
            ticket.line.waiting += sign
            ticket.line.waiting_bytes += sign * ticket.bytes

    def _remove(self, ticket: Ticket) -> None:
        # Of the queue where it still stands, when it was not admitted.
        if not ticket.has_row:
            self._rows.get(ticket.row, _NONE).pop(ticket, None)
        elif ticket.line is None:
            self._own.pop(ticket, None)
        else:
            ticket.line.ready.pop(ticket, None)

    def _pass_on(self, row: str) -> None:
        waiting = self._rows[row]
        if not waiting:
            del self._rows[row]
            return
        ticket, _ = waiting.popitem(last=False)
        ticket.has_row = True
        if ticket.line is None:
            self._own[ticket] = None
        else:
            ticket.line.ready[ticket] = None
            self._list(ticket.line)

    def _list(self, line: _Line) -> None:
        if not line.is_listed and line.ready and line.active < self._share:
            line.is_listed = True
            self._turns.append(line)

    def _dispatch(self) -> None:
        while self._own and self._active < self._size:
            self._call(self._own)
        while self._turns and self._active < self._size and self._active_of_callers < self._most_of_callers:
            line = self._turns.popleft()
            line.is_listed = False
            if line.ready and line.active < self._share:
                self._call(line.ready)
                self._list(line)

    def _call(self, queue: OrderedDict[Ticket, None]) -> None:
        ticket, _ = queue.popitem(last=False)
        # One whose time is over, or who is gone, has not run yet to take itself out.
        if ticket.admitted is not None and not ticket.admitted.done():
            self._admit(ticket)
            ticket.admitted.set_result(None)


_NONE: OrderedDict[Ticket, None] = OrderedDict()


def _expire(admitted: "asyncio.Future[None]") -> None:
    if not admitted.done():
        admitted.set_exception(TimeoutError())


def _too_many() -> AppError:
    return AppError("TOO_MANY_REQUESTS", retry_after_seconds=RETRY_SECONDS)
