"""What one user may do in a minute: the database judges, whichever way a call comes."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from benchmarks import tables
from tests.support.database import acting_as, add_user, call_system
from tests.support.runs import RunsWorld, refused, start_args
from tests.support.suites import RunningStack

MOST = 40
KIBIBYTE = 1024


@pytest.fixture(scope="module")
async def connections(stack: RunningStack) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Pool]]:
    async with tables.database(stack, f"limits_{uuid4().hex}") as addresses:
        admin = await asyncpg.connect(addresses.admin)
        async with asyncpg.create_pool(addresses.login, min_size=1, max_size=8) as pool:
            yield admin, pool
        await admin.close()


@pytest.fixture
async def limited(connections: tuple[asyncpg.Connection, asyncpg.Pool]) -> RunsWorld:
    admin, pool = connections
    await admin.execute("update private.limits set messages_per_minute = $1", MOST)
    return RunsWorld(admin, pool, await add_user(admin))


def messages(count: int, content: str = "x") -> list[dict[str, str]]:
    return [{"role": "user", "content": content}] * count


async def used(world: RunsWorld) -> int:
    found = await world.admin.fetchval(
        "select used from private.message_rates where user_id = $1::text::uuid", world.user
    )
    return int(found or 0)


async def another_minute(world: RunsWorld) -> None:
    """Let the minute in which it was counted be over."""
    await world.admin.execute(
        "update private.message_rates set began_at = began_at - interval '1 minute' where user_id = $1::text::uuid",
        world.user,
    )


async def append(world: RunsWorld, session_id: str, new: list[dict[str, str]]) -> Any:
    return await world.call("append_messages", session_id=session_id, messages=new)


async def too_many(error: asyncpg.PostgresError) -> tuple[str, str]:
    return (error.sqlstate or "", error.message or "")


async def test_messages_are_counted_by_tens_and_refused_past_the_limit(limited: RunsWorld) -> None:
    session_id = await limited.new_session()
    assert await used(limited) == 10
    await append(limited, session_id, messages(9))
    assert await used(limited) == 10
    for _ in range(21):
        await append(limited, session_id, messages(1))
    assert await used(limited) == MOST
    await append(limited, session_id, messages(9))
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await append(limited, session_id, messages(1))
    assert await too_many(refusal.value) == ("PT429", "TOO_MANY_MESSAGES")
    assert f'"limit": "{MOST}"' in str(refusal.value.detail)
    assert '"retry_after_seconds"' in str(refusal.value.detail)
    assert (
        await limited.admin.fetchval("select message_count from public.sessions where id = $1::text::uuid", session_id)
        == 39
    )


async def test_the_next_minute_begins_anew(limited: RunsWorld) -> None:
    session_id = await limited.new_session()
    await append(limited, session_id, messages(30))
    await refused("PT429", "TOO_MANY_MESSAGES", append(limited, session_id, messages(10)))
    await another_minute(limited)
    await append(limited, session_id, messages(10))
    assert await used(limited) == 10


async def test_a_large_message_counts_as_many(limited: RunsWorld) -> None:
    session_id = await limited.new_session()
    await append(limited, session_id, messages(1, "x" * (64 * KIBIBYTE - 1)))
    assert await used(limited) == 10
    await append(limited, session_id, messages(1, "x" * (640 * KIBIBYTE)))
    assert await used(limited) == 20
    await refused("PT429", "TOO_MANY_MESSAGES", append(limited, session_id, messages(3, "x" * (640 * KIBIBYTE))))
    assert await limited.contents(session_id) == ["x" * (64 * KIBIBYTE - 1), "x" * (640 * KIBIBYTE)]


async def test_what_a_model_thought_counts_like_what_it_said(limited: RunsWorld) -> None:
    session_id = await limited.new_session()
    thought = {"role": "assistant", "content": "x", "reasoning": "x" * (640 * KIBIBYTE)}
    await append(limited, session_id, [thought])
    assert await used(limited) == 20


async def test_sessions_count_as_ten_messages_each(limited: RunsWorld) -> None:
    for _ in range(4):
        await limited.new_session()
    await refused("PT429", "TOO_MANY_MESSAGES", limited.new_session())


async def test_turns_are_counted_also_those_that_wait(limited: RunsWorld) -> None:
    session_id = await limited.new_session()
    started = await limited.start(session_id)
    queued = await limited.start(session_id, if_running="queue")
    assert await used(limited) == 11
    for _ in range(29):
        await limited.call("start_run", **start_args(session_id, content="x", if_running="queue"))
    await refused(
        "PT429",
        "TOO_MANY_MESSAGES",
        limited.call("start_run", **start_args(session_id, content="x", if_running="queue")),
    )
    # What the services store for them is not: answers, and questions that were counted when they came.
    await limited.finish(started["lease"])
    await call_system(limited.pool, "promote_run", lease=queued["lease"])
    assert await used(limited) == MOST
    assert await limited.contents(session_id) == ["hello", "answer", "hello"]


async def test_rows_that_are_inserted_past_the_operations_are_counted_too(limited: RunsWorld) -> None:
    session_id = await limited.new_session()
    statement = (
        "insert into public.messages (session_id, role, content)"
        " select $1::text::uuid, 'user', 'x' from generate_series(1, $2::int)"
    )
    async with limited.pool.acquire() as login, acting_as(login, limited.user) as connection:
        await connection.execute(statement, session_id, 30)
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await connection.execute(statement, session_id, 20)
        assert await too_many(refusal.value) == ("PT429", "TOO_MANY_MESSAGES")
    async with limited.pool.acquire() as login, acting_as(login, limited.user) as connection:
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await connection.execute("insert into public.sessions (name) select 'x' from generate_series(1, 5)")
        assert await too_many(refusal.value) == ("PT429", "TOO_MANY_MESSAGES")


async def test_everybody_has_a_limit_of_their_own(limited: RunsWorld) -> None:
    other = RunsWorld(limited.admin, limited.pool, await add_user(limited.admin))
    for _ in range(4):
        await limited.new_session()
    await refused("PT429", "TOO_MANY_MESSAGES", limited.new_session())
    assert await other.new_session()


async def test_what_was_counted_goes_with_the_account(limited: RunsWorld) -> None:
    await limited.new_session()
    await limited.admin.execute("delete from auth.users where id = $1::text::uuid", limited.user)
    assert await used(limited) == 0


@pytest.mark.parametrize("table", ["limits", "message_rates"])
@pytest.mark.parametrize("verb", ["select", "insert", "update", "delete"])
@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", "concerto_login", "public"])
async def test_nobody_reads_or_changes_limits_and_counts(limited: RunsWorld, table: str, verb: str, role: str) -> None:
    may = (
        await limited.admin.fetchval(
            "select has_table_privilege($1, $2::text::regclass, $3)", role, f"private.{table}", verb
        )
        if role != "public"
        else bool(
            await limited.admin.fetchval(
                "select exists (select from pg_class as c, aclexplode(c.relacl) as a where c.oid = $1::text::regclass"
                " and a.grantee = 0)",
                f"private.{table}",
            )
        )
    )
    assert may is False


async def test_there_is_one_row_of_limits(limited: RunsWorld) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        await limited.admin.execute("insert into private.limits default values")
    with pytest.raises(asyncpg.CheckViolationError):
        await limited.admin.execute("insert into private.limits (is_only) values (false)")
