"""What growth costs: the same operations in long sessions and short ones, in full tables and empty ones, with row level
security and without. Asked of Postgres directly, one statement per operation as the services send it; a few through the
gateway.

Both sides of a row take turns call by call, so whatever else the machine does meets both alike. Each round has
connections of its own: on which core a connection's process happens to wake up is worth more than what is measured.
"""

import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from benchmarks import tables
from benchmarks.progress import say
from benchmarks.rows import Row
from benchmarks.suites import SENTENCE, Suite
from benchmarks.tables import Addresses
from tests.support.api import ok

PAGE = 50
WARM_UP = 30
MILLISECONDS = 1000
LONGER, LARGER, SECURED = 1.2, 1.2, 1.3
APPENDED = 1.1

Call = Callable[[], Awaitable[float]]
"""Makes one call and returns its seconds."""


@dataclass(frozen=True)
class Sizes:
    """How much is stored, and how often each side is asked."""

    long_session: int = 100_000
    longest_session: int = 1_000_000
    many_sessions: int = 100_000
    users: int = 10_000
    messages_each: int = 50
    """In each of the users' two sessions."""
    rounds: int = 9
    calls: int = 60

    @classmethod
    def quick(cls) -> "Sizes":
        """A tenth of everything."""
        return cls(10_000, 100_000, 10_000, 1_000, rounds=3, calls=40)


SHORT_SESSION, SHORTER_SESSION, FEW_SESSIONS = 1_000, 10, 10


async def measure(suite: Suite, *, quick: bool) -> list[Row]:
    """Return the ratios of growth. Makes two databases beside the suite's own and drops them again."""
    sizes = Sizes.quick() if quick else Sizes()
    async with (
        tables.database(suite.stack, "growth_empty") as empty,
        tables.database(suite.stack, "growth_full") as full,
    ):
        say("growth: filling the tables")
        small, large = await _fill(empty, sizes, alone=True), await _fill(full, sizes, alone=False)
        await tables.settle(empty)
        await tables.settle(full)
        async with Asked.by(empty, small.user) as in_empty, Asked.by(full, large.user) as in_full:
            say("growth: long sessions")
            rows = await _sessions(full, large, sizes)
            say("growth: full tables")
            rows += await _tables(in_empty, small, in_full, large, sizes)
        say("growth: row level security")
        rows += await _security(full, large, sizes)
    say("growth: through the gateway")
    return rows + await _gateway(suite, sizes)


@dataclass(frozen=True)
class Content:
    """What a database holds for the measurements."""

    user: UUID
    """Has ten sessions of 50 messages, in each of the databases."""
    sessions: list[UUID]
    longest: UUID | None = None
    short: UUID | None = None
    long: UUID | None = None
    shorter: tuple[UUID, ...] = ()
    """One for each round of appending."""
    writer: UUID | None = None
    """Owns the sessions above."""
    collector: UUID | None = None
    """Has very many sessions."""
    collected: UUID | None = None
    """One of them, as long as those of `user`."""


async def _fill(addresses: Addresses, sizes: Sizes, *, alone: bool) -> Content:
    async with tables.connected(addresses.owner) as owner:
        user, writer, collector = await tables.add_users(owner, 3)
        sessions = await tables.add_sessions(owner, [user], FEW_SESSIONS, sizes.messages_each)
        wanted = dict.fromkeys(sessions, sizes.messages_each)
        if alone:
            await tables.fill(owner, wanted, rebuild=True)
            return Content(user, sessions)

        people = await tables.add_users(owner, sizes.users)
        lived_in = await tables.add_sessions(owner, people, 2, sizes.messages_each)
        wanted |= dict.fromkeys(lived_in, sizes.messages_each)
        await tables.add_sessions(owner, [collector], sizes.many_sessions)
        [collected] = await tables.add_sessions(owner, [collector], 1, sizes.messages_each)
        wanted[collected] = sizes.messages_each
        own = {}
        for name, length in {
            "longest": sizes.longest_session,
            "long": sizes.long_session,
            "short": SHORT_SESSION,
        }.items():
            [own[name]] = await tables.add_sessions(owner, [writer], 1, length)
            wanted[own[name]] = length
        shorter = await tables.add_sessions(owner, [writer], sizes.rounds + 1, SHORTER_SESSION)
        wanted |= dict.fromkeys(shorter, SHORTER_SESSION)
        await tables.fill(owner, wanted, rebuild=True)
        await tables.add_runs(owner, lived_in, 2)
        return Content(
            user, sessions, **own, shorter=tuple(shorter), writer=writer, collector=collector, collected=collected
        )


class Line:
    """A connection that can be made anew."""

    def __init__(self, url: str, prepare: Callable[[asyncpg.Connection], Awaitable[object]] | None = None) -> None:
        self._url = url
        self._prepare = prepare
        self._connection: asyncpg.Connection | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def to(
        cls, url: str, prepare: Callable[[asyncpg.Connection], Awaitable[object]] | None = None
    ) -> AsyncIterator["Line"]:
        """Connect; `prepare` is run on each connection."""
        line = cls(url, prepare)
        try:
            await line.renew()
            yield line
        finally:
            await line.close()

    async def renew(self) -> None:
        """Take a new connection, whose process the machine places anew."""
        await self.close()
        self._connection = await asyncpg.connect(self._url)
        if self._prepare is not None:
            await self._prepare(self._connection)

    async def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def fetchval(self, statement: str, *args: object) -> Any:
        """Return the first value that the statement answers."""
        assert self._connection is not None
        return await self._connection.fetchval(statement, *args)


class Asked:
    """A connection, and who asks over it."""

    def __init__(self, line: Line, user: UUID) -> None:
        self.line = line
        self._claims = claims(user)

    @classmethod
    @contextlib.asynccontextmanager
    async def by(cls, addresses: Addresses, user: UUID) -> AsyncIterator["Asked"]:
        """Ask as the services do: over their login, with a user's claims."""
        async with Line.to(addresses.login) as line:
            yield cls(line, user)

    def as_user(self, user: UUID) -> "Asked":
        """Ask over the same connection as somebody else."""
        return Asked(self.line, user)

    def call(self, operation: str, **args: Any) -> Call:
        """Return the call of an operation of schema `api`."""
        text = _json(args)

        async def once() -> float:
            began = time.perf_counter()
            await self.line.fetchval(
                "select private.call($1::jsonb, $2, $3::jsonb)::text", self._claims, operation, text
            )
            return time.perf_counter() - began

        return once

    def turn(self, session_ids: Sequence[UUID]) -> Call:
        """Return the call that starts a run and ends it with an answer, in one of the sessions after the other."""
        place = 0

        async def once() -> float:
            nonlocal place
            place += 1
            args = _json({"session_id": session_ids[place % len(session_ids)], "turn": {"content": SENTENCE}})
            began = time.perf_counter()
            started = await self.line.fetchval(
                "select private.call($1::jsonb, 'start_run', $2::jsonb)::text", self._claims, args
            )
            seconds = time.perf_counter() - began
            answer = {"role": "assistant", "content": SENTENCE}
            end = _json({"lease": orjson.loads(started)["lease"], "state": "SUCCEEDED", "messages": [answer]})
            began = time.perf_counter()
            await self.line.fetchval("select private.finish_run($1::jsonb)::text", end)
            return seconds + time.perf_counter() - began

        return once


async def _sessions(full: Addresses, content: Content, sizes: Sizes) -> list[Row]:
    assert content.writer is not None
    assert content.collector is not None
    rows = []
    async with Asked.by(full, content.writer) as writer, Asked.by(full, content.collector) as collector:
        pages: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
            "first page": ({}, {}),
            "middle page": (
                {"after_order": sizes.longest_session // 2},
                {"after_order": SHORT_SESSION // 2},
            ),
            "last page": ({"from_end": True}, {"from_end": True}),
        }
        for name, (far, near) in pages.items():
            values, references = await alternate(
                writer.call("list_messages", session_id=content.longest, page_size=PAGE, **far),
                writer.call("list_messages", session_id=content.short, page_size=PAGE, **near),
                sizes,
                lines=[writer.line],
            )
            rows.append(
                _row(
                    f"{name} of a session of {sizes.longest_session:,} messages",
                    (values, references),
                    at_most=LONGER,
                    beside=f"of {SHORT_SESSION:,}",
                )
            )
        other = collector.as_user(content.user)
        few = {"session_id": content.sessions[2]}
        many = {"session_id": content.collected}
        works: dict[str, tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = {
            # As many rows on both sides.
            f"first {FEW_SESSIONS} sessions": ("list_sessions", {"page_size": FEW_SESSIONS}, {}, {}),
            "list messages of a session": ("list_messages", {"page_size": PAGE}, many, few),
            "append to a session": ("append_messages", {"messages": _MESSAGES}, many, few),
        }
        for name, (operation, args, theirs, others) in works.items():
            sides = await alternate(
                collector.call(operation, **args, **theirs),
                other.call(operation, **args, **others),
                sizes,
                lines=[collector.line],
            )
            rows.append(
                _row(
                    f"{name} of a user with {sizes.many_sessions:,} sessions",
                    sides,
                    at_most=LONGER,
                    beside=f"user with {FEW_SESSIONS}",
                )
            )
        # Each round has a short session of its own, which is no longer short in the end; the long one stays the same.
        values, references = [], []
        for session_id in content.shorter[: sizes.rounds]:
            one_value, one_reference = await alternate(
                writer.call("append_messages", session_id=content.long, messages=_MESSAGES),
                writer.call("append_messages", session_id=session_id, messages=_MESSAGES),
                sizes,
                rounds=1,
                lines=[writer.line],
            )
            values += one_value
            references += one_reference
        rows.append(
            _row(
                f"append to a session of {sizes.long_session:,} messages",
                (values, references),
                at_most=APPENDED,
                beside=f"of {SHORTER_SESSION}",
            )
        )
    return rows


async def _tables(in_empty: Asked, small: Content, in_full: Asked, large: Content, sizes: Sizes) -> list[Row]:
    def both(operation: str, **args: Any) -> tuple[Call, Call]:
        return (
            in_full.call(operation, session_id=large.sessions[0], **args),
            in_empty.call(operation, session_id=small.sessions[0], **args),
        )

    messages = sizes.users * 2 * sizes.messages_each
    works = {
        "append": both("append_messages", messages=_MESSAGES),
        "list messages": both("list_messages", page_size=PAGE),
        "list sessions": (
            in_full.call("list_sessions", page_size=PAGE),
            in_empty.call("list_sessions", page_size=PAGE),
        ),
        "get session": both("get_session"),
        "start_run and finish_run": (in_full.turn(large.sessions), in_empty.turn(small.sessions)),
    }
    return [
        _row(
            f"{name}, {sizes.users:,} users and {messages:,} messages in the tables",
            await alternate(*sides, sizes, lines=[in_full.line, in_empty.line]),
            at_most=LARGER,
            beside="empty tables",
        )
        for name, sides in works.items()
    ]


async def _security(full: Addresses, content: Content, sizes: Sizes) -> list[Row]:
    """Run the same statements with the same claims, as the user's role and as the tables' owner, who passes it by."""
    session_id = content.sessions[1]
    works: dict[str, tuple[str, dict[str, Any]]] = {
        "append": ("append_messages", {"session_id": session_id, "messages": _MESSAGES}),
        "list messages": ("list_messages", {"session_id": session_id, "page_size": PAGE}),
        "list sessions": ("list_sessions", {"page_size": PAGE}),
        "get session": ("get_session", {"session_id": session_id}),
    }

    async def as_user(connection: asyncpg.Connection) -> None:
        await connection.execute("set role authenticated")
        await claim(connection)

    async def claim(connection: asyncpg.Connection) -> None:
        await connection.execute(
            "select set_config('request.jwt.claim.sub', $1, false), set_config('request.jwt.claims', $2, false)",
            str(content.user),
            claims(content.user),
        )

    rows = []
    async with Line.to(full.login, as_user) as user, Line.to(full.owner, claim) as owner:

        def directly(line: Line, operation: str, args: dict[str, Any]) -> Call:
            statement, text = f"select api.{operation}($1::jsonb)::text", _json(args)

            async def once() -> float:
                began = time.perf_counter()
                await line.fetchval(statement, text)
                return time.perf_counter() - began

            return once

        for name, work in works.items():
            sides = await alternate(directly(user, *work), directly(owner, *work), sizes, lines=[user, owner])
            rows.append(_row(f"{name} with row level security", sides, at_most=SECURED, beside="without"))
    return rows


async def _gateway(suite: Suite, sizes: Sizes) -> list[Row]:
    person = await suite.person()
    own = Addresses.of(suite.stack)
    async with tables.connected(own.owner) as owner:
        user = UUID(person.user["id"])
        [long] = await tables.add_sessions(owner, [user], 1, sizes.long_session)
        [shorter] = await tables.add_sessions(owner, [user], 1, SHORTER_SESSION)
        await tables.fill(owner, {long: sizes.long_session, shorter: SHORTER_SESSION}, rebuild=False)
    await tables.settle(own)

    def through(method: str, session_id: UUID, query: str = "", body: object = None) -> Call:
        async def once() -> float:
            began = time.perf_counter()
            ok(await person.call(method, f"/sessions/{session_id}/messages{query}", body))
            return time.perf_counter() - began

        return once

    page = f"?page_size={SHORTER_SESSION}"
    sides = {
        f"append to a session of {sizes.long_session:,} messages, through the gateway": (
            through("POST", long, body={"messages": _MESSAGES}),
            through("POST", shorter, body={"messages": _MESSAGES}),
            APPENDED,
        ),
        f"first {SHORTER_SESSION} messages of a session of {sizes.long_session:,}, through the gateway": (
            through("GET", long, page),
            through("GET", shorter, page),
            LONGER,
        ),
    }
    return [
        _row(name, await alternate(ours, theirs, sizes), at_most=limit, beside=f"of {SHORTER_SESSION}", mode=suite.mode)
        for name, (ours, theirs, limit) in sides.items()
    ]


async def alternate(
    ours: Call, theirs: Call, sizes: Sizes, *, rounds: int | None = None, lines: Sequence[Line] = ()
) -> tuple[list[float], list[float]]:
    """Return the median milliseconds of each round, of both sides; they take turns, and begin in turn.

    lines: connections that each round has anew.
    """
    values, references = [], []
    for _ in range(rounds or sizes.rounds):
        for line in lines:
            await line.renew()
        for _ in range(WARM_UP):
            await ours()
            await theirs()
        taken: tuple[list[float], list[float]] = ([], [])
        for number in range(sizes.calls):
            for side in (0, 1) if number % 2 else (1, 0):
                taken[side].append(await (ours, theirs)[side]())
        values.append(statistics.median(taken[0]) * MILLISECONDS)
        references.append(statistics.median(taken[1]) * MILLISECONDS)
    return values, references


def claims(user: UUID) -> str:
    """Return what a user's access token says, as JSON."""
    return _json({"sub": user, "role": "authenticated", "email": f"{user}@example.net"})


def _row(name: str, sides: tuple[list[float], list[float]], *, at_most: float, beside: str, mode: str = "") -> Row:
    return Row.compared(name, mode, *sides, unit="ms", at_most=at_most, beside=beside)


def _json(value: object) -> str:
    return orjson.dumps(value, default=str).decode()


_MESSAGES = [{"role": "user", "content": SENTENCE}]
