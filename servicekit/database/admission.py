"""Whose call uses a connection next: a share for each caller, a turn at each row, room for the services' own work.

A call waits here and not with a connection in its hand. Calls of one caller follow each other in the order in which
they came, and callers take turns, so that whoever has many calls waiting delays nobody else by more than one of them.
"""

import asyncio
import random
from collections import OrderedDict, deque

from servicekit.errors import AppError

MOST_WAITING = 256
"""Most calls of one caller that wait."""
MOST_WAITING_BYTES = 32 * 1024 * 1024
"""Most bytes of arguments that wait of one caller."""
MOST_WAITING_BYTES_OF_ALL = 256 * 1024 * 1024
"""Most bytes of arguments that wait of all callers."""
QUEUE_SECONDS = 5.0
"""Longest wait of a caller's call, give or take a fifth, so that calls which came together do not end together."""
RETRY_SECONDS = 2.0
"""How long a caller is asked to wait who has too many calls under way."""
REFUSAL_SECONDS = 1.0
"""How long a refusal takes, about: a client that repeats at once would keep the process busy with refusals."""
MOST_DELAYED_BYTES = 64 * 1024
"""Largest arguments of a call whose refusal is delayed: larger ones are let go at once."""
ROOM_FROM = 4
"""From this size of a pool on, one connection is kept free of callers, for the services' own work."""
CREDIT_SECONDS = 0.5
"""Long work that a caller may have done at once, such as searches and large pages, in seconds of a core."""
CREDIT_PER_SECOND = 1 / 3
"""What a caller's credit grows by: of a core, too, one caller has a third for long work."""
MOST_DEBT_SECONDS = 0.5
"""Most that a caller is behind by, however long one call took: the next waits for a moment, and is not refused."""


def share_of(size: int) -> int:
    """Return how many of `size` connections one caller may use at once: a third, and at least one."""
    return max(1, round(size / 3))


class Ticket:
    """One call: where it waits, and what it holds. An exclusive one takes the whole share of its caller."""

    __slots__ = ("admitted", "bytes", "has_row", "is_active", "is_exclusive", "line", "row")

    def __init__(self, line: "_Line | None", row: str, size_bytes: int, *, is_exclusive: bool) -> None:
        self.line = line
        self.row = row
        self.bytes = size_bytes
        self.is_exclusive = is_exclusive
        self.has_row = not row
        self.is_active = False
        self.admitted: asyncio.Future[None] | None = None


class _Line:
    """The calls of one caller."""

    __slots__ = (
        *("active", "caller", "credit_seconds", "has_exclusive", "is_listed", "ready"),
        *("reckoned_at", "refused", "timer", "waiting", "waiting_bytes"),
    )

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self.active = 0
        self.has_exclusive = False
        self.credit_seconds = CREDIT_SECONDS
        self.reckoned_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        """Set while the credit is not whole: when it is no debt any more, or whole again."""
        self.waiting = 0
        self.waiting_bytes = 0
        self.refused = 0
        """Calls that are being refused."""
        self.ready: OrderedDict[Ticket, None] = OrderedDict()
        """Those that wait for nothing but a connection."""
        self.is_listed = False
        """Whether it stands among the lines that are served in turn."""

    def may_take(self, ticket: Ticket, share: int) -> bool:
        """Whether the share has room for one more, and nothing has to be paid for before."""
        if self.credit_seconds < 0 or self.has_exclusive:
            return False
        return self.active == 0 if ticket.is_exclusive else self.active < share


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

    async def enter(
        self, caller: str | None, *, row: str = "", is_exclusive: bool = False, size_bytes: int = 0, seconds: float
    ) -> Ticket:
        """Return once the call may use a connection; `leave` must follow.

        caller: the user (UUID); None for a service's own call. row: what only one call can have at a time, such as a
        session; empty for a call that has to wait for no other. is_exclusive: True for long work, beside which its
        caller has none. size_bytes: what its arguments hold. seconds: how long it may wait.
        Raises AppError TOO_MANY_REQUESTS when this caller has too many calls, DATABASE_BUSY when all have.
        """
        line = None if caller is None else self._lines.get(caller)
        if line is None and caller is not None:
            line = self._lines[caller] = _Line(caller)
        ticket = Ticket(line, row, size_bytes, is_exclusive=is_exclusive)
        if (not row or row not in self._rows) and self._may_enter(ticket):
            if row:
                self._rows[row] = OrderedDict()
                ticket.has_row = True
            self._admit(ticket)
            return ticket
        try:
            await self._refuse_more(ticket)
            if line is not None:
                seconds = min(seconds, QUEUE_SECONDS * random.uniform(0.8, 1.2))  # noqa: S311 (nothing secret)
            await self._wait(ticket, seconds)
        except BaseException:
            self.leave(ticket)
            raise
        return ticket

    def charge(self, ticket: Ticket, work_seconds: float) -> None:
        """Note long work that was done for a call's caller; where it was too much, the next call waits for a while."""
        line = ticket.line
        if line is None or work_seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        _reckon(line, loop.time())
        line.credit_seconds = max(line.credit_seconds - work_seconds, -MOST_DEBT_SECONDS)
        if line.timer is not None:
            line.timer.cancel()
        self._watch_credit(line, loop)

    def pause(self, ticket: Ticket) -> None:
        """Give the connection up for a while, but not the row."""
        self._end(ticket)
        self._dispatch()

    async def resume(self, ticket: Ticket, *, seconds: float) -> None:
        """Return once a call that has paused may use a connection again. Raises like `enter`, then call `leave`."""
        if self._may_enter(ticket):
            self._admit(ticket)
        else:
            await self._wait(ticket, seconds)

    def leave(self, ticket: Ticket) -> None:
        """End a call, in whatever state it is."""
        self._end(ticket)
        if ticket.row and ticket.has_row:
            ticket.has_row = False
            self._pass_on(ticket.row)
        if ticket.line is not None:
            self._list(ticket.line)  # what is first in it now may need less
        self._dispatch()
        if ticket.line is not None:
            self._forget(ticket.line)

    def _forget(self, line: _Line) -> None:
        if not (line.active or line.waiting or line.refused) and line.timer is None:
            self._lines.pop(line.caller, None)

    def _watch_credit(self, line: _Line, loop: asyncio.AbstractEventLoop) -> None:
        missing_seconds = (0.0 if line.credit_seconds < 0 else CREDIT_SECONDS) - line.credit_seconds
        line.timer = loop.call_later(missing_seconds / CREDIT_PER_SECOND, self._credited, line, loop)

    def _credited(self, line: _Line, loop: asyncio.AbstractEventLoop) -> None:
        line.timer = None
        was_in_debt = line.credit_seconds < 0
        _reckon(line, loop.time())
        if was_in_debt:
            line.credit_seconds = max(line.credit_seconds, 0.0)  # however the clock rounds
            self._watch_credit(line, loop)
            self._list(line)
            self._dispatch()
        else:
            self._forget(line)

    def _may_enter(self, ticket: Ticket) -> bool:
        line = ticket.line
        if line is None:
            return self._active < self._size and not self._own
        return (
            line.may_take(ticket, self._share)
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
            ticket.line.has_exclusive = ticket.is_exclusive
            self._active_of_callers += 1

    def _end(self, ticket: Ticket) -> None:
        if not ticket.is_active:
            return
        ticket.is_active = False
        self._active -= 1
        if ticket.line is not None:
            ticket.line.active -= 1
            ticket.line.has_exclusive = False
            self._active_of_callers -= 1
            self._list(ticket.line)

    async def _refuse_more(self, ticket: Ticket) -> None:
        line = ticket.line
        if line is None:
            return
        if line.waiting >= MOST_WAITING or line.waiting_bytes + ticket.bytes > MOST_WAITING_BYTES:
            if ticket.bytes <= MOST_DELAYED_BYTES and line.refused < MOST_WAITING:
                line.refused += 1
                try:
                    await asyncio.sleep(REFUSAL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 (nothing secret)
                finally:
                    line.refused -= 1
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
            is_own_fault = line is not None and not (ticket.has_row and line.may_take(ticket, self._share))
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
        if not line.is_listed and line.ready and line.may_take(next(iter(line.ready)), self._share):
            line.is_listed = True
            self._turns.append(line)

    def _dispatch(self) -> None:
        while self._own and self._active < self._size:
            self._call(self._own)
        while self._turns and self._active < self._size and self._active_of_callers < self._most_of_callers:
            line = self._turns.popleft()
            line.is_listed = False
            if line.ready and line.may_take(next(iter(line.ready)), self._share):
                self._call(line.ready)
            self._list(line)

    def _call(self, queue: OrderedDict[Ticket, None]) -> None:
        ticket, _ = queue.popitem(last=False)
        # One whose time is over, or who is gone, has not run yet to take itself out.
        if ticket.admitted is not None and not ticket.admitted.done():
            self._admit(ticket)
            ticket.admitted.set_result(None)


_NONE: OrderedDict[Ticket, None] = OrderedDict()


def _reckon(line: _Line, now: float) -> None:
    grown_seconds = (now - line.reckoned_at) * CREDIT_PER_SECOND
    line.credit_seconds = min(CREDIT_SECONDS, line.credit_seconds + grown_seconds)
    line.reckoned_at = now


def _expire(admitted: "asyncio.Future[None]") -> None:
    if not admitted.done():
        admitted.set_exception(TimeoutError())


def _too_many() -> AppError:
    return AppError("TOO_MANY_REQUESTS", retry_after_seconds=RETRY_SECONDS)
