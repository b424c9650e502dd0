import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from servicekit.database.pool import Connections
from tests.support.database import add_user, claims_of
from tests.support.suites import RunningStack
from tests.support.waiting import until

OWN_PID = "select pg_backend_pid()"


def opened(stack: RunningStack, **options: Any) -> Connections:
    return Connections(stack.db_url, **{"size": 2, "statement_cache_size": 100, "connect_seconds": 5.0, **options})


@pytest.fixture
async def connections(stack: RunningStack) -> AsyncIterator[Connections]:
    connections = opened(stack)
    yield connections
    await asyncio.wait_for(connections.close(), 10)


@pytest.fixture
async def admin(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    admin = await asyncpg.connect(stack.admin_db_url)
    yield admin
    await admin.close()


async def ask(connections: Connections, statement: str, *args: Any, seconds: float = 10.0) -> Any:
    return await connections.fetchval(statement, *args, timeout=seconds)


async def until_nothing(admin: asyncpg.Connection, condition: str, *args: Any) -> None:
    """Return when no backend of the server meets the condition."""
    query = f"select not exists (select from pg_stat_activity where {condition})"
    await until(lambda: admin.fetchval(query, *args), condition)


async def until_asleep(admin: asyncpg.Connection, statement: str, count: int = 1) -> None:
    """Return when so many backends of the server execute the statement."""
    query = "select count(*) = $2 from pg_stat_activity where query = $1 and state = 'active'"
    await until(lambda: admin.fetchval(query, statement, count), statement)


async def test_one_connection_serves_calls_that_follow_each_other(connections: Connections) -> None:
    assert len({await ask(connections, OWN_PID) for _ in range(5)}) == 1


async def test_calls_at_once_share_the_connections_there_may_be(connections: Connections) -> None:
    # Statements that last a while, so that each finds the other connection busy.
    statement = "select pg_backend_pid() from pg_sleep(0.02)"
    assert len(set(await asyncio.gather(*(ask(connections, statement) for _ in range(12))))) == 2


async def test_a_caller_leaves_nothing_of_itself_to_the_next(connections: Connections, admin: Any) -> None:
    statement = "select private.call($1::jsonb, $2, $3::jsonb)::text"
    user_id = await add_user(admin)
    await ask(connections, statement, json.dumps(claims_of(user_id)), "get_me", "{}")
    for setting in ("request.jwt.claims", "request.jwt.claim.sub"):
        assert await ask(connections, "select current_setting($1, true)", setting) in (None, "")
    assert await ask(connections, "select current_user = session_user and current_user = 'concerto_login'")
    with pytest.raises(asyncpg.PostgresError):
        await ask(connections, statement, json.dumps(claims_of(None)), "get_me", "{}")
    assert await ask(connections, "select current_user = 'concerto_login'")


async def test_a_refused_statement_keeps_its_connection(connections: Connections) -> None:
    before = await ask(connections, OWN_PID)
    with pytest.raises(asyncpg.PostgresError):
        await ask(connections, "select 1 / 0")
    assert await ask(connections, OWN_PID) == before


async def test_a_connection_that_died_while_it_was_idle_is_replaced(connections: Connections, admin: Any) -> None:
    before = await ask(connections, OWN_PID)
    await admin.execute("select pg_terminate_backend($1)", before)
    await until_nothing(admin, "pid = $1", before)
    await asyncio.sleep(0.05)  # the end of the connection reaches this side, which has no event for it
    assert await ask(connections, OWN_PID) != before


async def test_an_abandoned_statement_is_cancelled_and_its_answer_goes_to_nobody(
    connections: Connections, admin: Any
) -> None:
    with pytest.raises(TimeoutError):
        await ask(connections, "select pg_sleep(60)", seconds=0.1)  # a statement that only a cancellation ends
    # Another one of that kind.
    cancelled = asyncio.create_task(ask(connections, "select pg_sleep(61)"))
    await until_asleep(admin, "select pg_sleep(61)")
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await asyncio.gather(*(ask(connections, "select $1::int", number) for number in range(6))) == [*range(6)]
    # The statements above, by their text.
    await until_nothing(admin, "query like 'select pg_sleep(6_)' and state = 'active'")


async def test_whoever_waits_too_long_for_a_connection_is_told_so(connections: Connections, admin: Any) -> None:
    statement = "select pg_sleep(60)"  # held until it is cancelled
    holding = [asyncio.create_task(ask(connections, statement, seconds=60)) for _ in range(2)]
    await until_asleep(admin, statement, 2)
    with pytest.raises(TimeoutError):
        await ask(connections, OWN_PID, seconds=0.05)
    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, return_exceptions=True)
    assert await ask(connections, OWN_PID)


async def test_who_stops_waiting_takes_no_connection_along(connections: Connections, admin: Any) -> None:
    statement = "select pg_sleep(60)"  # held until it is cancelled
    holding = [asyncio.create_task(ask(connections, statement, seconds=60)) for _ in range(2)]
    await until_asleep(admin, statement, 2)
    waiting = [asyncio.create_task(ask(connections, OWN_PID)) for _ in range(4)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    for task in holding:
        task.cancel()
    await asyncio.gather(*holding, *waiting, return_exceptions=True)
    assert all(waiting[index].result() for index in (1, 3))
    # Statements that last a while, so that each finds the other connection busy.
    statement = "select pg_backend_pid() from pg_sleep(0.05)"
    assert len(set(await asyncio.gather(*(ask(connections, statement) for _ in range(6))))) == 2


async def test_places_of_connections_that_could_not_be_opened_are_free_again(stack: RunningStack) -> None:
    unreachable = Connections("postgresql://x:x@127.0.0.1:9/x", size=1, statement_cache_size=0, connect_seconds=1.0)
    for _ in range(3):
        answers = await asyncio.gather(*(ask(unreachable, OWN_PID) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(answer, OSError) for answer in answers)
    await asyncio.wait_for(unreachable.close(), 5)


async def test_unused_connections_are_closed(stack: RunningStack, admin: Any) -> None:
    connections = opened(stack, idle_seconds=0.1)
    pid = await ask(connections, OWN_PID)
    await until_nothing(admin, "pid = $1", pid)
    assert await ask(connections, OWN_PID) != pid
    await asyncio.wait_for(connections.close(), 5)


async def test_closing_waits_for_statements_and_refuses_later_ones(stack: RunningStack, admin: Any) -> None:
    connections = opened(stack, size=1)
    statement = "select 7 from pg_sleep(1)"  # still under way when the connections are closed
    running = asyncio.create_task(ask(connections, statement))
    await until_asleep(admin, statement)
    waiting = asyncio.create_task(ask(connections, OWN_PID))
    await asyncio.sleep(0)
    await asyncio.wait_for(connections.close(), 5)
    assert await running == 7
    with pytest.raises(asyncpg.InterfaceError):
        await waiting
    with pytest.raises(asyncpg.InterfaceError):
        await ask(connections, OWN_PID)


async def test_connections_without_prepared_statements_work_behind_a_pooler(stack: RunningStack) -> None:
    connections = opened(stack, statement_cache_size=0)
    assert [await ask(connections, "select $1::text", text) for text in ("a", "b")] == ["a", "b"]
    await asyncio.wait_for(connections.close(), 5)
