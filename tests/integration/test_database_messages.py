import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.support.contract import MAX_CONTENT_BYTES
from tests.support.database import acting_as, add_user, call
from tests.support.suites import RunningStack

WRITERS, MESSAGES_EACH = 32, 50
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class World:
    """A user and connections as the services have them."""

    admin: asyncpg.Connection
    pool: asyncpg.Pool
    user: str

    async def call(self, operation: str, **args: Any) -> dict[str, Any]:
        return await call(self.pool, self.user, operation, **args)

    async def new_session(self, name: str = "") -> str:
        return str((await self.call("create_session", name=name))["session"]["id"])

    async def append(self, session_id: str, *contents: str, **args: Any) -> list[dict[str, Any]]:
        messages = [{"role": "user", "content": content} for content in contents]
        args = {"include_contents": True, **args}
        answer = await self.call("append_messages", session_id=session_id, messages=messages, **args)
        return list(answer["messages"])


@pytest.fixture(scope="module")
async def connections(stack: RunningStack) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Pool]]:
    admin = await asyncpg.connect(stack.admin_db_url)
    # Opened beforehand: calls that wait for their connections do not meet in the database.
    async with asyncpg.create_pool(stack.db_url, min_size=WRITERS, max_size=WRITERS) as pool:
        yield admin, pool
    await admin.close()


@pytest.fixture
async def world(connections: tuple[asyncpg.Connection, asyncpg.Pool]) -> World:
    admin, pool = connections
    return World(admin, pool, await add_user(admin))


async def orders_of(world: World, session_id: str) -> list[int]:
    rows = await world.admin.fetch(
        'select "order" from public.messages where session_id = $1 order by "timestamp", "order"', session_id
    )
    return [row["order"] for row in rows]


async def test_thirty_two_writers_leave_orders_without_gaps(world: World) -> None:
    session_id = await world.new_session()

    async def append(content: str) -> list[int]:
        while True:
            # A session is waited for a quarter of a second; who comes directly asks again, as the services do.
            with contextlib.suppress(asyncpg.LockNotAvailableError):
                return [message["order"] for message in await world.append(session_id, content)]

    async def write(writer: int) -> list[int]:
        return [order for number in range(MESSAGES_EACH) for order in await append(f"{writer} {number}")]

    answered = await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    everything = list(range(1, WRITERS * MESSAGES_EACH + 1))
    assert await orders_of(world, session_id) == everything
    assert sorted(order for orders in answered for order in orders) == everything
    assert all(orders == sorted(orders) for orders in answered)
    session = (await world.call("get_session", session_id=session_id))["session"]
    assert session["message_count"] == WRITERS * MESSAGES_EACH


async def test_batches_and_plain_inserts_of_concurrent_writers_leave_no_gaps_either(world: World) -> None:
    session_id = await world.new_session()

    async def append(writer: int) -> None:
        for _ in range(5):
            appended = await world.append(session_id, *(f"{writer} {number}" for number in range(7)))
            first = appended[0]["order"]
            assert [message["order"] for message in appended] == list(range(first, first + 7))

    async def insert() -> None:
        async with world.pool.acquire() as connection:
            for _ in range(5):
                async with connection.transaction():
                    await connection.execute(
                        "select set_config('request.jwt.claim.sub', $1, true),"
                        " set_config('role', 'authenticated', true)",
                        world.user,
                    )
                    await connection.execute(
                        "insert into public.messages (session_id, role, content) values ($1, 'user', 'plain')",
                        session_id,
                    )

    await asyncio.gather(*(append(writer) for writer in range(8)), *(insert() for _ in range(8)))
    assert await orders_of(world, session_id) == list(range(1, 8 * 5 * 7 + 8 * 5 + 1))


async def test_one_request_id_sent_at_once_appends_once_and_answers_the_same(world: World) -> None:
    session_id, request_id = await world.new_session(), str(uuid4())
    answers = await asyncio.gather(*(world.append(session_id, "one", "two", request_id=request_id) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert await orders_of(world, session_id) == [1, 2]


async def test_a_repetition_answers_the_first_result_after_others_have_written(world: World) -> None:
    session_id, request_id = await world.new_session(), str(uuid4())
    first = await world.append(session_id, "one", "two", request_id=request_id)
    await world.append(session_id, "three")
    assert await world.append(session_id, "one", "two", request_id=request_id) == first
    assert await orders_of(world, session_id) == [1, 2, 3]


async def test_contents_are_answered_only_where_they_are_asked_for(world: World) -> None:
    session_id, request_ids = await world.new_session(), [str(uuid4()), str(uuid4())]
    for contents, request_id in zip((("one",), ("two", "three")), request_ids, strict=True):
        args = {"request_id": request_id, "include_contents": False}
        first = await world.append(session_id, *contents, **args)
        assert {(message["content"], message["metadata"]) for message in first} == {(None, None)}
        # A repetition may ask otherwise than the first call.
        again = await world.append(session_id, *contents, request_id=request_id)
        assert [message["content"] for message in again] == list(contents)
        assert [message["id"] for message in again] == [message["id"] for message in first]
        assert await world.append(session_id, *contents, **args) == first
    assert await orders_of(world, session_id) == [1, 2, 3]


async def test_a_repetition_compares_metadata_as_json(world: World) -> None:
    session_id, request_id = await world.new_session(), str(uuid4())

    async def append(metadata: object) -> list[dict[str, Any]]:
        messages = [{"role": "tool", "content": "", "metadata": metadata}]
        args = {"session_id": session_id, "request_id": request_id, "messages": messages}
        return list((await world.call("append_messages", **args))["messages"])

    assert await append({"a": 1, "b": [2.0]}) == await append({"b": [2], "a": 1})
    with pytest.raises(asyncpg.PostgresError, match="REQUEST_ID_REUSED"):
        await append({"a": 1})


@pytest.mark.parametrize(
    "other",
    [
        [{"role": "user", "content": "one"}],
        [{"role": "user", "content": "one"}, {"role": "user", "content": "three"}],
        [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}],
        [{"role": "user", "content": "one"}, {"role": "user", "content": "two", "metadata": {"a": 1}}],
        [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}, {"role": "user", "content": "x"}],
    ],
)
async def test_a_request_id_with_other_messages_is_refused(world: World, other: list[dict[str, Any]]) -> None:
    session_id, request_id = await world.new_session(), str(uuid4())
    await world.append(session_id, "one", "two", request_id=request_id)
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await world.call("append_messages", session_id=session_id, request_id=request_id, messages=other)
    assert (refusal.value.sqlstate, refusal.value.message) == ("PT409", "REQUEST_ID_REUSED")
    assert json.loads(refusal.value.detail)["request_id"] == request_id
    assert await orders_of(world, session_id) == [1, 2]


async def test_a_request_id_is_free_in_another_session(world: World) -> None:
    request_id = str(uuid4())
    for session_id in (await world.new_session(), await world.new_session()):
        assert [message["order"] for message in await world.append(session_id, "x", request_id=request_id)] == [1]


async def test_a_session_created_twice_at_once_with_one_request_id_is_one_session(world: World) -> None:
    request_id = str(uuid4())
    answers = await asyncio.gather(
        *(world.call("create_session", name="once", request_id=request_id) for _ in range(8))
    )
    assert len({answer["session"]["id"] for answer in answers}) == 1
    assert len((await world.call("list_sessions"))["sessions"]) == 1


async def test_appending_touches_no_old_message(world: World) -> None:
    session_id = await world.new_session()
    await world.append(session_id, "one", "two")
    rows = 'select ctid::text, xmin::text, xmax::text from public.messages where session_id = $1 and "order" < 3'
    before = await world.admin.fetch(rows, session_id)
    await world.append(session_id, "three")
    assert await world.admin.fetch(rows, session_id) == before


async def test_appending_moves_a_session_to_the_front(world: World) -> None:
    first, second = await world.new_session("first"), await world.new_session("second")
    await world.append(first, "hello")
    sessions = (await world.call("list_sessions"))["sessions"]
    assert [session["id"] for session in sessions] == [first, second]
    assert sessions[0]["updated_at"] > sessions[1]["updated_at"]


async def test_changing_nothing_leaves_a_session_where_it_is(world: World) -> None:
    session_id = await world.new_session("same")
    before = await world.call("get_session", session_id=session_id)
    assert await world.call("update_session", session_id=session_id, name="same", is_archived=False) == before


@pytest.mark.parametrize(
    "change",
    [
        f"content = repeat('x', {MAX_CONTENT_BYTES + 1})",
        "metadata = jsonb_build_object('x', repeat('x', 100000))",
        "metadata = '[]'",
        "role = 'admin'",
        '"order" = 0',
    ],
)
async def test_the_table_itself_refuses_what_the_contract_forbids(world: World, change: str) -> None:
    session_id = await world.new_session()
    await world.append(session_id, "x")
    with pytest.raises(asyncpg.CheckViolationError):
        await world.admin.execute(f"update public.messages set {change} where session_id = $1", session_id)


@pytest.mark.parametrize("count", [0, 101])
async def test_an_append_of_too_few_or_too_many_messages_names_the_field(world: World, count: int) -> None:
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await world.append(await world.new_session(), *["x"] * count)
    assert (refusal.value.sqlstate, refusal.value.message) == ("PT400", "INVALID_FIELD")
    assert json.loads(refusal.value.detail)["field"] == "messages"


async def test_metadata_that_grows_in_the_database_names_the_field(world: World) -> None:
    messages = [{"role": "user"}, {"role": "user", "metadata": {"x": [1e300] * 1000}}]
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await world.call("append_messages", session_id=await world.new_session(), messages=messages)
    assert (refusal.value.sqlstate, refusal.value.message) == ("PT400", "FIELD_TOO_LARGE")
    assert json.loads(refusal.value.detail)["field"] == "messages[1].metadata"


@pytest.mark.parametrize("metadata", [{"x": [1] * 999}, {"x": [[]] * 333, "y": [{"z": None}] * 332}])
async def test_metadata_holds_a_thousand_values(world: World, metadata: dict[str, Any]) -> None:
    session_id = await world.new_session()
    stored = await world.call(
        "append_messages",
        session_id=session_id,
        messages=[{"role": "user", "metadata": metadata}],
        include_contents=True,
    )
    assert stored["messages"][0]["metadata"] == metadata
    # By whatever way it comes.
    for more in ({**metadata, "w": 0, "v": {}}, {**metadata, "w": [0]}):
        row = {"role": "user", "metadata": more}
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await world.call("append_messages", session_id=session_id, messages=[row])
        assert (refusal.value.sqlstate, refusal.value.message) == ("PT400", "FIELD_TOO_LARGE")
        assert json.loads(refusal.value.detail) == {"field": "metadata", "limit": "1000 values"}
    assert await orders_of(world, session_id) == [1]


async def test_an_append_with_one_bad_message_appends_none(world: World) -> None:
    session_id = await world.new_session()
    messages = [{"role": "user", "content": "good"}, {"role": "nobody", "content": "bad"}]
    with pytest.raises(asyncpg.CheckViolationError):
        await world.call("append_messages", session_id=session_id, messages=messages)
    assert await orders_of(world, session_id) == []
    assert [message["order"] for message in await world.append(session_id, "next")] == [1]


async def test_a_page_of_messages_ends_before_two_mebibytes(world: World) -> None:
    session_id = await world.new_session()
    large = MEBIBYTE - 64  # the notes count too
    for size in (large, large, 1024, large, large):
        await world.append(session_id, "x" * size)
    pages, after = [], 0
    while True:
        page = await world.call("list_messages", session_id=session_id, page_size=100, after_order=after)
        pages.append([message["order"] for message in page["messages"]])
        after = pages[-1][-1]
        if not page["has_more"]:
            break
    assert pages == [[1, 2], [3, 4], [5]]
    page = await world.call("list_messages", session_id=session_id, page_size=100, from_end=True)
    assert ([message["order"] for message in page["messages"]], page["has_more"]) == ([4, 5], True)


async def test_a_page_counts_bytes_and_not_characters(world: World) -> None:
    session_id = await world.new_session()
    for _ in range(3):
        await world.append(session_id, "é" * (MEBIBYTE // 2 - 32))
    page = await world.call("list_messages", session_id=session_id)
    assert ([message["order"] for message in page["messages"]], page["has_more"]) == ([1, 2], True)


@pytest.mark.parametrize("notes", [{"x": "n" * 60_000}, {"x": [1] * 999}], ids=["compressed", "plain"])
async def test_a_page_counts_notes(world: World, notes: dict[str, Any]) -> None:
    session_id = await world.new_session()
    messages = [{"role": "user", "metadata": notes}] * 100
    await world.call("append_messages", session_id=session_id, messages=messages)
    page = await world.call("list_messages", session_id=session_id, page_size=100)
    count = len(page["messages"])
    if "n" in str(notes):
        assert (count, page["has_more"]) == (2 * MEBIBYTE // 60_024, True)
    else:
        assert (count, page["has_more"]) == (100, False)


@pytest.mark.parametrize("from_end", [False, True])
async def test_paging_messages_is_complete_while_new_ones_come(world: World, from_end: bool) -> None:
    session_id = await world.new_session()
    await world.append(session_id, *(str(number) for number in range(1, 26)))
    seen: list[int] = []
    bounds: dict[str, int] = {}
    while True:
        page = await world.call("list_messages", session_id=session_id, page_size=4, from_end=from_end, **bounds)
        orders = [message["order"] for message in page["messages"]]
        assert orders == sorted(orders)
        seen = orders + seen if from_end else seen + orders
        if not page["has_more"]:
            break
        if len(seen) < 20:
            await world.append(session_id, "new")
        bounds = {"before_order": orders[0]} if from_end else {"after_order": orders[-1]}
    total = len(await orders_of(world, session_id))
    assert seen == list(range(1, 26 if from_end else total + 1))
    assert total > 25


async def test_bounds_limit_both_directions(world: World) -> None:
    session_id = await world.new_session()
    await world.append(session_id, *"abcdefghij")
    for from_end, expected in ((False, [3, 4, 5]), (True, [5, 6, 7])):
        page = await world.call(
            "list_messages", session_id=session_id, page_size=3, from_end=from_end, after_order=2, before_order=8
        )
        assert ([message["order"] for message in page["messages"]], page["has_more"]) == (expected, True)


async def test_paging_sessions_is_complete_while_new_ones_come(world: World) -> None:
    expected = [await world.new_session(f"number {number}") for number in range(25)]
    seen: list[str] = []
    bounds: dict[str, str] = {}
    while True:
        page = await world.call("list_sessions", page_size=4, **bounds)
        seen += [session["id"] for session in page["sessions"]]
        if not page["has_more"]:
            break
        last = page["sessions"][-1]
        bounds = {"before_updated_at": last["updated_at"], "before_id": last["id"]}
        await world.append(await world.new_session("new"), "busy")
    assert seen == expected[::-1]


async def test_sessions_of_one_moment_are_paged_by_id(world: World) -> None:
    expected = [await world.new_session() for _ in range(9)]
    async with world.admin.transaction():
        await world.admin.execute("alter table public.sessions disable trigger sessions_touch_updated_at")
        await world.admin.execute("update public.sessions set updated_at = '2026-01-01' where user_id = $1", world.user)
        await world.admin.execute("alter table public.sessions enable trigger sessions_touch_updated_at")
    seen: list[str] = []
    bounds: dict[str, str] = {}
    for _ in range(3):
        page = await world.call("list_sessions", page_size=3, **bounds)
        seen += [session["id"] for session in page["sessions"]]
        last = page["sessions"][-1]
        bounds = {"before_updated_at": last["updated_at"], "before_id": last["id"]}
    assert not page["has_more"]
    assert seen == sorted(expected, reverse=True)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("PLAN", {"My plan", "planets"}),
        ("100%", {"100% sure"}),
        ("a_b", {"a_b"}),
        ("\\", {"back\\slash"}),
        ("%", {"100% sure"}),
    ],
)
async def test_a_search_takes_its_text_as_it_is(world: World, query: str, found: set[str]) -> None:
    for name in ("My plan", "planets", "100% sure", "1000 sure", "a_b", "axb", "back\\slash"):
        await world.new_session(name)
    sessions = (await world.call("list_sessions", query=query))["sessions"]
    assert {session["name"] for session in sessions} == found


async def test_deleting_an_account_deletes_everything_of_it(world: World) -> None:
    session_id = await world.new_session()
    await world.append(session_id, "x")
    await world.admin.execute("delete from auth.users where id = $1", world.user)
    assert await orders_of(world, session_id) == []
    for operation in ("get_me", "create_session"):
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await world.call(operation)
        assert (refusal.value.sqlstate, refusal.value.message) == ("PT404", "ACCOUNT_NOT_FOUND")


async def test_a_stranger_who_inserts_into_a_session_does_not_learn_whether_it_exists(world: World) -> None:
    session_id, stranger = await world.new_session(), await add_user(world.admin)
    refusals = []
    for wanted in (session_id, str(uuid4())):
        async with world.pool.acquire() as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError) as refusal:
                async with acting_as(connection, stranger):
                    await connection.execute(
                        "insert into public.messages (session_id, role) values ($1, 'user')", wanted
                    )
        refusals.append(refusal.value.message)
    assert refusals[0] == refusals[1]
