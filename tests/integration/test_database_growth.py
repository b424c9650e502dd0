import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from benchmarks import tables
from tests.support.database import call, claims_of
from tests.support.suites import RunningStack

LONG, SHORT = 20_000, 200
MANY, FEW = 5_000, 10
CROWD = 3_000
# An index of a large table is a level or two deeper, in each of the few indexes that an operation looks into.
DEEPER = 16
MESSAGES = [{"role": "user", "content": "A few words more."}]


@dataclass(frozen=True)
class World:
    """A database with a long and a short session, users with many and few of them, and a crowd of others."""

    admin: asyncpg.Connection
    login: asyncpg.Connection
    user: str
    long: str
    short: str
    collector: str
    """Has MANY sessions."""
    collected: str
    """One of them, with messages."""
    owner: str
    """Has FEW sessions, of SHORT messages together."""
    owned: str
    """One of them."""

    async def buffers(self, user: str, operation: str, **args: Any) -> int:
        """Return how many pages an operation looks at, when plans and catalogue are known."""
        for _ in range(8):
            plan = json.loads(
                await self.login.fetchval(
                    "explain (analyze, buffers, format json) select private.call($1::jsonb, $2, $3::jsonb)",
                    json.dumps(claims_of(user)),
                    operation,
                    json.dumps(args),
                )
            )
        node = plan[0]["Plan"]
        return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])

    async def scans(self, user: str, operation: str, **args: Any) -> tuple[set[str], set[str]]:
        """Return the tables of ours that an operation reads from end to end, and the indexes that it looks into."""
        rows = await self.admin.fetch(
            "select oid, relname, relkind::text = 'r' as is_table from pg_class"
            " where relnamespace = 'public'::regnamespace and relkind in ('r', 'i')"
        )
        await self.login.execute("select pg_stat_force_next_flush()")  # else the counts of earlier calls are in it
        transaction = self.login.transaction()
        await transaction.start()
        try:
            await call(self.login, user, operation, **args)
            # Of a table this counts scans from end to end, of an index those that use it.
            counted = await self.login.fetch(
                "select o as oid from unnest($1::oid[]) as o where pg_stat_get_xact_numscans(o) > 0",
                [row["oid"] for row in rows],
            )
        finally:
            await transaction.rollback()
        used = {row["oid"] for row in counted}
        return (
            {row["relname"] for row in rows if row["oid"] in used and row["is_table"]},
            {row["relname"] for row in rows if row["oid"] in used and not row["is_table"]},
        )


@pytest.fixture(scope="module")
async def world(stack: RunningStack) -> AsyncIterator[World]:
    async with tables.database(stack, f"growth_{uuid4().hex}") as addresses:
        async with tables.connected(addresses.owner) as owner:
            user, collector, other = await tables.add_users(owner, 3)
            [long] = await tables.add_sessions(owner, [user], 1, LONG)
            [short] = await tables.add_sessions(owner, [user], 1, SHORT)
            await tables.add_sessions(owner, [collector], MANY)
            [collected] = await tables.add_sessions(owner, [collector], 1, SHORT // FEW)
            few = await tables.add_sessions(owner, [other], FEW, SHORT // FEW)
            wanted = {long: LONG, short: SHORT, **dict.fromkeys([*few, collected], SHORT // FEW)}
            # With them the planner's average user has few sessions and runs.
            crowd = await tables.add_sessions(owner, await tables.add_users(owner, CROWD), 2)
            await tables.add_runs(owner, crowd, 1)
            await tables.fill(owner, wanted, rebuild=True)
            await tables.add_runs(owner, [collected, few[0]], MANY)
        await tables.settle(addresses)
        async with tables.connected(addresses.admin) as admin, tables.connected(addresses.login) as login:
            people = {"user": user, "collector": collector, "owner": other}
            sessions = {"long": long, "short": short, "collected": collected, "owned": few[0]}
            yield World(admin, login, **{name: str(value) for name, value in (people | sessions).items()})


async def test_filled_sessions_are_as_the_application_would_have_made_them(world: World) -> None:
    made = (await call(world.login, world.user, "create_session"))["session"]["id"]
    contents = [f"Message {n} says a few words, as people do, and then it ends." for n in range(1, SHORT + 1)]
    messages = [{"role": ("assistant", "user")[n % 2], "content": text} for n, text in enumerate(contents, 1)]
    for start in range(0, SHORT, 100):
        await call(world.login, world.user, "append_messages", session_id=made, messages=messages[start : start + 100])

    statement = """
        select
            m."order", m.role, m.content, m.search, m.is_active, m.metadata, m.request_id, m.request_size,
            m.parent_id is not distinct from lag(m.id) over in_order as follows,
            m."timestamp" >= coalesce(lag(m."timestamp") over in_order, s.created_at) as is_later,
            s.updated_at >= m."timestamp" as is_activity,
            s.message_count
        from public.messages as m join public.sessions as s on s.id = m.session_id
        where s.id = $1 window in_order as (order by m."order") order by m."order"
    """
    rows = [tuple(row) for row in await world.admin.fetch(statement, UUID(world.short))]
    assert rows == [tuple(row) for row in await world.admin.fetch(statement, UUID(made))]
    assert len(rows) == SHORT


async def test_the_next_message_follows_a_filled_session(world: World) -> None:
    [last] = (await call(world.login, world.user, "list_messages", session_id=world.long, page_size=1, from_end=True))[
        "messages"
    ]
    [added] = (await call(world.login, world.user, "append_messages", session_id=world.long, messages=MESSAGES))[
        "messages"
    ]
    assert (added["order"], added["parent_id"]) == (last["order"] + 1, last["id"])
    assert added["timestamp"] > last["timestamp"]


@pytest.mark.parametrize(
    ("far", "near"),
    [
        ({}, {}),
        ({"after_order": LONG // 2}, {"after_order": SHORT // 2}),
        ({"from_end": True}, {"from_end": True}),
        ({"from_end": True, "before_order": LONG // 2}, {"from_end": True, "before_order": SHORT // 2}),
        ({"include_inactive": True}, {"include_inactive": True}),
    ],
    ids=["first", "middle", "last", "backward", "every branch"],
)
async def test_a_page_of_a_long_session_reads_no_more_than_one_of_a_short_session(
    world: World, far: dict[str, Any], near: dict[str, Any]
) -> None:
    of_short = await world.buffers(world.user, "list_messages", session_id=world.short, page_size=50, **near)
    of_long = await world.buffers(world.user, "list_messages", session_id=world.long, page_size=50, **far)
    assert of_long <= of_short + DEEPER


async def test_a_page_of_many_sessions_reads_no_more_than_one_of_few(world: World) -> None:
    of_few = await world.buffers(world.owner, "list_sessions", page_size=FEW)
    of_many = await world.buffers(world.collector, "list_sessions", page_size=FEW)
    assert of_many <= of_few + DEEPER


async def test_an_append_to_a_long_session_reads_no_more_than_one_to_a_short_session(world: World) -> None:
    to_short = await world.buffers(world.user, "append_messages", session_id=world.short, messages=MESSAGES)
    to_long = await world.buffers(world.user, "append_messages", session_id=world.long, messages=MESSAGES)
    assert to_long <= to_short + DEEPER


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        ("get_session", {}),
        ("list_messages", {"page_size": 20}),
        ("append_messages", {"messages": MESSAGES}),
        ("append_messages", {"messages": MESSAGES * 20}),
        ("update_session", {"name": "Another name"}),
        ("list_runs", {"page_size": 20}),
        ("start_run", {"turn": {"content": "A question.", "if_running": "queue"}}),
    ],
)
async def test_a_session_of_somebody_with_many_is_found_as_fast_as_one_of_somebody_with_few(
    world: World, operation: str, args: dict[str, Any]
) -> None:
    of_few = await world.buffers(world.owner, operation, session_id=world.owned, **args)
    of_many = await world.buffers(world.collector, operation, session_id=world.collected, **args)
    assert of_many <= of_few + DEEPER


async def test_the_events_of_a_run_are_read_without_the_owners_other_runs(world: World) -> None:
    run_id = await world.admin.fetchval("select id::text from public.runs where session_id = $1", UUID(world.collected))
    read_whole, used = await world.scans(world.collector, "read_run_events", run_id=run_id)
    assert read_whole == set()
    assert used == {"runs_pkey", "run_events_pkey"}
    assert await world.buffers(world.collector, "read_run_events", run_id=run_id) <= 3 * DEEPER


async def test_a_search_among_many_messages_reads_no_more_than_one_among_few(world: World) -> None:
    # A number that each of the two has said once.
    among_few = await world.buffers(world.owner, "search_messages", query=str(SHORT // FEW))
    among_many = await world.buffers(world.user, "search_messages", query=str(LONG))
    assert among_many <= among_few + DEEPER


@pytest.mark.parametrize(
    ("operation", "args", "wanted"),
    [
        ("list_messages", {}, {"messages_active_idx"}),
        ("list_messages", {"from_end": True}, {"messages_active_idx"}),
        ("list_messages", {"after_order": 100, "page_size": 100}, {"messages_active_idx"}),
        ("list_messages", {"include_inactive": True}, {"messages_session_id_order_key"}),
        ("append_messages", {"messages": MESSAGES}, {"messages_active_idx", "messages_session_id_order_key"}),
        ("append_messages", {"messages": MESSAGES * 100}, {"messages_active_idx", "messages_session_id_order_key"}),
        ("get_session", {}, {"sessions_pkey"}),
    ],
)
async def test_an_operation_on_a_session_finds_its_rows_by_index(
    world: World, operation: str, args: dict[str, Any], wanted: set[str]
) -> None:
    for session_id in (world.short, world.long):
        read_whole, used = await world.scans(world.user, operation, session_id=session_id, **args)
        assert read_whole == set()
        assert wanted <= used


async def test_sessions_and_words_are_found_by_their_own_indexes(world: World) -> None:
    for user in (world.owner, world.collector):
        assert await world.scans(user, "list_sessions") == (set(), {"sessions_activity_idx"})
    read_whole, used = await world.scans(world.user, "search_messages", query=str(LONG))
    assert read_whole == set()
    assert "messages_search_idx" in used


async def test_plans_do_not_change_with_what_was_asked_before(world: World) -> None:
    first = await world.buffers(world.user, "list_messages", session_id=world.long, page_size=50)
    for place in range(20):
        await call(world.login, world.user, "list_messages", session_id=world.short, page_size=1 + place, from_end=True)
    assert await world.buffers(world.user, "list_messages", session_id=world.long, page_size=50) == first
