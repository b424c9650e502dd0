import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from concerto.sessions.v1 import runs_pb2, turns_pb2
from concerto.sessions.v1 import sessions_pb2 as pb
from google.protobuf.message import Message

from servicekit.database import admission, client
from servicekit.errors import AppError
from servicekit.rpc import channel
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as
from services.sessions.tests.conftest import Service, service_over, settings_for
from services.sessions.tests.test_runs import append, finish, start
from tests.support.suites import RunningStack
from tests.support.waiting import until

POOL = 6
SHARE = admission.share_of(POOL)
WAITS_FOR_A_LOCK = (
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and usename = 'concerto_login'"
    " and application_name = $1"
)


@dataclass(frozen=True)
class Crowd:
    """A service with a pool of its own, and the superuser, who can hold rows."""

    service: Service
    admin: asyncpg.Connection
    name: str
    """Which of the database's connections are the service's."""

    @contextlib.asynccontextmanager
    async def holding(self, session_id: str) -> AsyncIterator[None]:
        """Hold a session's row, as a slow call of another process does."""
        async with self.admin.transaction():
            await self.admin.execute("select from public.sessions where id = $1::text::uuid for update", session_id)
            yield

    async def waiting(self) -> int:
        """How many of the service's connections wait for a lock."""
        found: int = await self.admin.fetchval(WAITS_FOR_A_LOCK, self.name)
        return found


@pytest.fixture
async def crowd(stack: RunningStack) -> AsyncIterator[Crowd]:
    name = f"fairness {uuid4()}"
    plain = settings_for(stack, "direct")
    assert plain.db_url is not None
    url = type(plain.db_url)(f"{plain.db_url.get_secret_value()}?application_name={name.replace(' ', '%20')}")
    settings = plain.model_copy(update={"db_url": url, "db_pool_size": POOL})
    admin = await asyncpg.connect(stack.admin_db_url)
    async with service_over(stack, "direct", settings) as service:
        yield Crowd(service, admin, name)
    await admin.close()


def as_caller(service: Service, caller: Caller, rpc: str, message: Message) -> "asyncio.Task[Any]":
    async def call() -> Any:
        with acting_as(caller):
            return await service.call(rpc, message)

    return asyncio.create_task(call())


def appending(session_id: str, content: str = "x") -> Message:
    messages = [pb.NewMessage(role=pb.ROLE_USER, content=content)]
    return pb.AppendMessagesRequest(session_id=session_id, messages=messages, include_contents=True)


async def session_of(service: Service, caller: Caller) -> str:
    with acting_as(caller):
        return await service.new_session()


async def test_one_row_is_waited_for_by_one_connection_and_the_others_wait_without(
    crowd: Crowd, owner: Caller, stranger: Caller
) -> None:
    session_id, other = await session_of(crowd.service, owner), await session_of(crowd.service, owner)
    elsewhere = await session_of(crowd.service, stranger)
    async with crowd.holding(session_id):
        tasks = [as_caller(crowd.service, owner, "AppendMessages", appending(session_id, str(n))) for n in range(20)]
        await until(crowd.waiting, "the one that waits")
        assert await crowd.waiting() == 1
        # The caller's own other calls, and everybody else's, go on meanwhile.
        await as_caller(crowd.service, owner, "AppendMessages", appending(other))
        await as_caller(crowd.service, stranger, "AppendMessages", appending(elsewhere))
        assert not any(task.done() for task in tasks)
    answers = await asyncio.gather(*tasks)
    assert [answer.messages[0].content for answer in answers] == [str(number) for number in range(20)]
    assert [answer.messages[0].order for answer in answers] == list(range(1, 21))


async def test_a_row_that_stays_locked_is_waited_for_without_a_connection(crowd: Crowd, owner: Caller) -> None:
    session_id = await session_of(crowd.service, owner)
    async with crowd.holding(session_id):
        task = as_caller(crowd.service, owner, "AppendMessages", appending(session_id))
        await until(crowd.waiting, "the call that waits")
        # It comes back again and again, and lets go in between.
        await until(lambda: _is_zero(crowd), "the pause")
        await until(crowd.waiting, "its next try")
        assert not task.done()
    assert (await task).messages[0].order == 1


async def _is_zero(crowd: Crowd) -> bool:
    return await crowd.waiting() == 0


@pytest.mark.parametrize("rpc", ["UpdateSession", "SelectBranch", "DeleteSession", "StartRun"])
async def test_whatever_locks_a_session_waits_its_turn(crowd: Crowd, owner: Caller, rpc: str) -> None:
    session_id = await session_of(crowd.service, owner)
    message_id = (await as_caller(crowd.service, owner, "AppendMessages", appending(session_id))).messages[0].id
    requests: dict[str, Message] = {
        "UpdateSession": pb.UpdateSessionRequest(session_id=session_id, name="renamed"),
        "SelectBranch": pb.SelectBranchRequest(session_id=session_id, message_id=message_id),
        "DeleteSession": pb.DeleteSessionRequest(session_id=session_id),
        "StartRun": runs_pb2.StartRunRequest(
            session_id=session_id, turn=turns_pb2.Turn(content="x", if_running=turns_pb2.IF_RUNNING_QUEUE)
        ),
    }
    async with crowd.holding(session_id):
        tasks = [as_caller(crowd.service, owner, rpc, requests[rpc]) for _ in range(5)]
        await until(crowd.waiting, "the one that waits")
        assert await crowd.waiting() == 1
        await until(lambda: _is_zero(crowd), "the pause")
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert not isinstance(results[0], BaseException)
    reasons = {result.reason for result in results if isinstance(result, AppError)}
    assert reasons == ({"SESSION_NOT_FOUND"} if rpc == "DeleteSession" else set())


async def test_a_callers_flood_holds_a_third_and_is_refused_beyond_its_queue(
    crowd: Crowd, owner: Caller, stranger: Caller
) -> None:
    sessions = await asyncio.gather(*(session_of(crowd.service, owner) for _ in range(POOL)))
    elsewhere = await session_of(crowd.service, stranger)
    async with contextlib.AsyncExitStack() as held:
        for session_id in sessions:
            await held.enter_async_context(crowd.holding(session_id))
        tasks = [
            as_caller(crowd.service, owner, "AppendMessages", appending(sessions[number % POOL]))
            for number in range(SHARE + admission.MOST_WAITING + 20)
        ]
        await until(lambda: sum(task.done() for task in tasks) >= 20, "the refusals")
        refused = [task.exception() for task in tasks if task.done()]
        assert {(error.reason, error.retry_after_seconds) for error in refused if isinstance(error, AppError)} == {
            ("TOO_MANY_REQUESTS", admission.RETRY_SECONDS)
        }
        assert await crowd.waiting() <= SHARE
        await as_caller(crowd.service, stranger, "AppendMessages", appending(elsewhere))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    # Whatever was let in is stored, and whatever was not says so.
    refused = [result for result in results if isinstance(result, BaseException)]
    assert {error.reason for error in refused if isinstance(error, AppError)} == {"TOO_MANY_REQUESTS"}
    stored = [
        (await as_caller(crowd.service, owner, "GetSession", pb.GetSessionRequest(session_id=session_id))).session
        for session_id in sessions
    ]
    assert sum(session.message_count for session in stored) == len(results) - len(refused) > 0


async def test_an_answer_under_way_goes_on_while_its_owner_floods(crowd: Crowd, owner: Caller) -> None:
    with acting_as(owner):
        started = await start(crowd.service)
        session_id = await crowd.service.new_session()
    async with crowd.holding(session_id):
        tasks = [as_caller(crowd.service, owner, "AppendMessages", appending(session_id)) for _ in range(50)]
        await until(crowd.waiting, "the flood")
        # Events, leases and the end belong to the services, whose share nobody takes.
        assert await append(crowd.service, started.lease, ["a", "b"]) == []
        renewal = runs_pb2.RenewLeaseRequest(leases=[started.lease], lease_seconds=10)
        assert list((await crowd.service.call("RenewLease", renewal)).lost_run_ids) == []
        ended = await finish(crowd.service, started.lease, 4)
        assert ended.run.state == runs_pb2.RUN_STATE_SUCCEEDED
    await asyncio.gather(*tasks)


async def test_others_events_and_leases_do_not_wait_for_a_run_that_is_being_deleted(
    crowd: Crowd, owner: Caller, stranger: Caller
) -> None:
    with acting_as(owner):
        doomed = await start(crowd.service)
    with acting_as(stranger):
        other = await start(crowd.service)
    leases = [doomed.lease, other.lease]
    batches = [
        runs_pb2.RunEventBatch(
            lease=lease, events=[runs_pb2.RunEvent(seq=2, message_delta=runs_pb2.MessageDelta(text="x"))]
        )
        for lease in leases
    ]
    transaction = crowd.admin.transaction()
    await transaction.start()
    await crowd.admin.execute("delete from public.runs where id = $1::text::uuid", doomed.run.id)
    renewed = await crowd.service.call("RenewLease", runs_pb2.RenewLeaseRequest(leases=leases, lease_seconds=60))
    # It may come back, so it is not lost yet.
    assert list(renewed.lost_run_ids) == []
    appended = await crowd.service.call("AppendRunEvents", runs_pb2.AppendRunEventsRequest(batches=batches))
    assert list(appended.lost_run_ids) == [doomed.run.id]
    await transaction.rollback()
    seconds = "select extract(epoch from lease_expires_at - now()) from public.runs where id = $1::text::uuid"
    assert await crowd.admin.fetchval(seconds, other.run.id) > 30
    assert await crowd.admin.fetchval(seconds, doomed.run.id) < 30
    seqs = "select array_agg(seq) from public.run_events where run_id = $1::text::uuid"
    assert await crowd.admin.fetchval(seqs, other.run.id) == [1, 2]


async def test_following_a_run_goes_on_when_its_callers_share_was_taken_for_a_while(
    crowd: Crowd, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    with acting_as(owner):
        started = await start(crowd.service)
        others = [await crowd.service.new_session() for _ in range(SHARE)]
        request = runs_pb2.WatchRunEventsRequest(run_id=started.run.id)
        responses = channel.stream(crowd.service.runs.WatchRunEvents, request)
        events = list((await anext(responses)).events)
    # Whatever cannot begin at once is refused, as it is behind a full queue.
    monkeypatch.setattr(admission, "MOST_WAITING", 0)
    async with contextlib.AsyncExitStack() as held:
        for other in others:
            await held.enter_async_context(crowd.holding(other))
        tasks = [as_caller(crowd.service, owner, "AppendMessages", appending(other)) for other in others]
        await until(crowd.waiting, "the caller's share to be taken")
        await append(crowd.service, started.lease, ["a"])
        await finish(crowd.service, started.lease, 3)
    await asyncio.gather(*tasks, return_exceptions=True)
    async for response in responses:
        events += response.events
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].WhichOneof("payload") == "run_finished"


async def test_a_long_session_is_deleted_in_steps(crowd: Crowd, owner: Caller) -> None:
    session_id = await session_of(crowd.service, owner)
    await crowd.admin.execute(
        "insert into public.messages (session_id, role, content) select $1::text::uuid, 'user', n::text"
        " from generate_series(1, 10001) as n",
        session_id,
    )
    assert (
        await crowd.admin.fetchval("select message_count from public.sessions where id = $1::text::uuid", session_id)
        == 10001
    )
    await as_caller(crowd.service, owner, "DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
    left = "select (select count(*) from public.messages where session_id = $1::text::uuid)"
    assert await crowd.admin.fetchval(left, session_id) == 0
    with pytest.raises(AppError) as error:
        await as_caller(crowd.service, owner, "GetSession", pb.GetSessionRequest(session_id=session_id))
    assert error.value.reason == "SESSION_NOT_FOUND"


async def test_a_caller_pays_for_long_work_and_others_do_not_wait(
    crowd: Crowd, owner: Caller, stranger: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "FREE_SECONDS", 0.0)
    monkeypatch.setattr(client, "FREE_BYTES", 0)
    monkeypatch.setattr(admission, "CREDIT_SECONDS", 0.0001)
    loop = asyncio.get_running_loop()
    session_id, elsewhere = await session_of(crowd.service, owner), await session_of(crowd.service, stranger)
    large = "x" * 1_000_000
    await as_caller(crowd.service, owner, "AppendMessages", appending(session_id, large))
    began = loop.time()
    listing = as_caller(crowd.service, owner, "ListMessages", pb.ListMessagesRequest(session_id=session_id))
    await as_caller(crowd.service, stranger, "AppendMessages", appending(elsewhere))
    assert not listing.done()
    assert (await listing).messages[0].content == large
    # What was appended, for one caller's third of a core.
    assert loop.time() - began >= len(large) / client.BYTES_PER_SECOND


async def test_a_search_has_its_callers_whole_share_and_nothing_of_others(
    crowd: Crowd, owner: Caller, stranger: Caller
) -> None:
    session_id, elsewhere = await session_of(crowd.service, owner), await session_of(crowd.service, stranger)
    search = pb.SearchMessagesRequest(query="x", session_id=session_id)
    async with crowd.admin.transaction():
        # What a search of one session looks at first, while appending looks at other tables.
        await crowd.admin.execute("lock table public.messages in access exclusive mode")
        searches = [as_caller(crowd.service, owner, "SearchMessages", search) for _ in range(4)]
        await until(crowd.waiting, "the search")
        listing = as_caller(crowd.service, owner, "ListSessions", pb.ListSessionsRequest())
        assert len((await as_caller(crowd.service, stranger, "ListSessions", pb.ListSessionsRequest())).sessions) == 1
        assert await crowd.waiting() == 1
        assert not listing.done()
    assert elsewhere
    for found in await asyncio.gather(*searches):
        assert list(found.hits) == []
    assert len((await listing).sessions) == 1
