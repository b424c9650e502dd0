"""Data that would take long to make through the API: chats of other days, long ones, many of them, usage of weeks."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from benchmarks import tables
from tests.support.suites import RunningStack


@asynccontextmanager
async def past_triggers(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection whose changes move no times."""
    connection = await asyncpg.connect(stack.admin_db_url)
    try:
        await connection.execute("set session_replication_role = replica")
        yield connection
    finally:
        await connection.close()


async def backdate(stack: RunningStack, session_id: str, *, days: float) -> None:
    """Make a session, its messages and its runs older by some days."""
    before = timedelta(days=days)
    async with past_triggers(stack) as connection:
        statements = (
            "update public.sessions set created_at = created_at - $2::interval, updated_at = updated_at - $2::interval"
            " where id = $1",
            'update public.messages set "timestamp" = "timestamp" - $2::interval where session_id = $1',
            "update public.api_usage set created_at = created_at - $2::interval where session_id = $1",
        )
        for statement in statements:
            await connection.execute(statement, UUID(session_id), before)


async def many_sessions(stack: RunningStack, user_id: str, count: int) -> None:
    """Give somebody so many empty chats, `Session 1` the oldest."""
    async with tables.connected(stack.migration_db_url) as owner:
        await tables.add_sessions(owner, [UUID(user_id)], count)


async def long_chat(stack: RunningStack, user_id: str, count: int, *, name: str) -> str:
    """Give somebody a chat of so many messages ("Message 57 says …"), of this moment; return its id."""
    async with tables.connected(stack.migration_db_url) as owner:
        (session_id,) = await tables.add_sessions(owner, [UUID(user_id)], 1, count)
        await tables.fill(owner, {session_id: count}, rebuild=False)
    async with past_triggers(stack) as connection:
        await connection.execute(
            "update public.sessions set name = $2, updated_at = now() where id = $1", session_id, name
        )
    return str(session_id)


async def usage_of_weeks(stack: RunningStack, user_id: str, *, days: int = 28) -> None:
    """Enter a plausible use of two models on most of the last days."""
    now = datetime.now(UTC)
    rows = [
        (
            UUID(user_id),
            model,
            900 * (1 + (day * 7 + index) % 5),
            250 * (1 + (day * 3 + index) % 7),
            4000 * (day % 6),
            now - timedelta(days=day, hours=index),
        )
        for day in range(days)
        if day % 7 != 5
        for index, model in enumerate(("test-model", "other-model"))
    ]
    async with past_triggers(stack) as connection:
        await connection.executemany(
            "insert into public.api_usage"
            " (user_id, model, source, prompt_tokens, completion_tokens, cost_micro_usd, created_at)"
            " values ($1, $2, 'turn', $3, $4, $5, $6)",
            rows,
        )
