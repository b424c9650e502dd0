"""The sessions service on Postgres itself and through a real PgBouncer, in each mode with the settings that fit it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from concerto.sessions.v1 import runs_pb2, sessions_pb2, turns_pb2
from pydantic import SecretStr
from structlog.testing import capture_logs

from local.hosted import database
from servicekit.database import admission
from servicekit.database.client import open_database
from servicekit.rpc import channel
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as
from services.sessions import notifications, runs_servicer
from services.sessions.notifications import Notifications
from services.sessions.settings import Settings
from services.sessions.tests.conftest import Service, service_over, settings_for
from tests.support.database import add_user
from tests.support.pgbouncer import keeps_statements, pgbouncer
from tests.support.suites import RunningStack
from tests.support.waiting import until

BURST = 200
OWN_POOL, SERVER_POOL = 4, 5
WAYS = ("direct", "session", "transaction")
PIECES = 20


@pytest.fixture
async def owner(stack: RunningStack) -> Caller:
    admin = await asyncpg.connect(stack.admin_db_url)
    try:
        return stack.caller(await add_user(admin))
    finally:
        await admin.close()


@pytest.fixture(scope="module")
async def transaction_url(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Through PgBouncer in transaction mode, which keeps no prepared statements."""
    async with pgbouncer(stack, tmp_path_factory.mktemp("t"), "transaction", pool_size=SERVER_POOL) as url:
        yield url


@pytest.fixture(scope="module")
async def session_url(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Through PgBouncer in session mode, with a place for each connection of the service and the one that listens."""
    async with pgbouncer(stack, tmp_path_factory.mktemp("s"), "session", pool_size=SERVER_POOL) as url:
        yield url


def settings_on(stack: RunningStack, url: str, **changes: Any) -> Settings:
    changes = {"db_url": SecretStr(url), "db_pool_size": OWN_POOL, **changes}
    return settings_for(stack, "direct").model_copy(update=changes)


@pytest.fixture(params=WAYS)
def settings(request: pytest.FixtureRequest, stack: RunningStack, transaction_url: str, session_url: str) -> Settings:
    """Settings of the service for each way to the database, as docs/hosted.md gives them."""
    urls = {"direct": stack.db_url, "session": session_url, "transaction": transaction_url}
    cache = {"db_statement_cache_size": 0} if request.param == "transaction" else {}
    return settings_on(stack, urls[request.param], **cache)


async def answer(service: Service) -> list[runs_pb2.RunEvent]:
    """Start a run, follow it, write its pieces and its end meanwhile; return what the follower saw."""
    session_id = await service.new_session()
    started = await service.call(
        "StartRun", runs_pb2.StartRunRequest(session_id=session_id, turn=turns_pb2.Turn(content="hello"))
    )
    following = asyncio.create_task(follow(service, started.run.id))
    for seq in range(2, PIECES + 2):
        event = runs_pb2.RunEvent(seq=seq, message_delta=runs_pb2.MessageDelta(text=f"{seq} "))
        batch = runs_pb2.RunEventBatch(lease=started.lease, events=[event])
        done = await service.call("AppendRunEvents", runs_pb2.AppendRunEventsRequest(batches=[batch]))
        assert list(done.lost_run_ids) == []
    message = sessions_pb2.NewMessage(role=sessions_pb2.ROLE_ASSISTANT, content="answer")
    finish = runs_pb2.FinishRunRequest(
        lease=started.lease, messages=[message], next_seq=PIECES + 2, state=runs_pb2.RUN_STATE_SUCCEEDED
    )
    await service.call("FinishRun", finish)
    return await following


async def follow(service: Service, run_id: str) -> list[runs_pb2.RunEvent]:
    events: list[runs_pb2.RunEvent] = []
    request = runs_pb2.WatchRunEventsRequest(run_id=run_id)
    async with contextlib.aclosing(channel.stream(service.runs.WatchRunEvents, request)) as responses:
        async for response in responses:
            events += response.events
    return events


async def test_sessions_and_answers_work_on_each_way(stack: RunningStack, settings: Settings, owner: Caller) -> None:
    async with service_over(stack, "direct", settings) as service:
        with acting_as(owner):
            session_id = await service.new_session("a name")
            await service.append(session_id, "one", "two")
            listed = await service.call("ListMessages", sessions_pb2.ListMessagesRequest(session_id=session_id))
            assert [message.content for message in listed.messages] == ["one", "two"]
            for events in await asyncio.gather(*(answer(service) for _ in range(3))):
                assert [event.seq for event in events] == list(range(1, PIECES + 4))
                text = "".join(event.message_delta.text for event in events)
                assert text == "".join(f"{seq} " for seq in range(2, PIECES + 2))


async def test_a_burst_of_200_calls_on_a_small_pool_succeeds_on_each_way(
    stack: RunningStack, settings: Settings, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # How long the last of them wait is the machine's affair; that none is lost is what this is about.
    monkeypatch.setattr(admission, "QUEUE_SECONDS", channel.CALL_TIMEOUT_SECONDS)
    async with service_over(stack, "direct", settings) as service:
        with acting_as(owner):
            session_ids = await asyncio.gather(*(service.new_session(f"{number}") for number in range(BURST)))
            assert len(set(session_ids)) == BURST
            messages = await asyncio.gather(*(service.append(session_ids[0], str(number)) for number in range(BURST)))
    assert sorted(message.order for (message,) in messages) == list(range(1, BURST + 1))


async def test_a_callers_rights_stay_with_its_own_statement_in_transaction_mode(
    stack: RunningStack, transaction_url: str, owner: Caller
) -> None:
    admin = await asyncpg.connect(stack.admin_db_url)
    people = [owner, *[stack.caller(await add_user(admin)) for _ in range(2)]]
    await admin.close()
    database = await open_database(settings_on(stack, transaction_url, db_statement_cache_size=0))
    try:
        answers = await asyncio.gather(*(database.call("get_me", {}, person) for person in people * 20))
    finally:
        await database.close()
    assert [answer["user"]["id"] for answer in answers] == [person.user_id for person in people] * 20


async def test_prepared_statements_get_lost_in_transaction_mode(
    stack: RunningStack, transaction_url: str, session_url: str
) -> None:
    assert not await database.keeps_statements(transaction_url)
    assert await database.keeps_statements(session_url)
    assert await database.keeps_statements(stack.db_url)


async def test_prepared_statements_work_in_transaction_mode_where_the_pooler_keeps_them(
    stack: RunningStack, tmp_path: Path
) -> None:
    if not keeps_statements():
        pytest.skip("this PgBouncer is older than 1.21 and keeps no prepared statements")
    async with pgbouncer(stack, tmp_path, "transaction", pool_size=2, prepared_statements=100) as url:
        assert await database.keeps_statements(url)


async def test_notifications_arrive_in_session_mode_and_not_in_transaction_mode(
    stack: RunningStack, transaction_url: str, session_url: str
) -> None:
    assert not await database.delivers_notifications(transaction_url, transaction_url)
    assert await database.delivers_notifications(session_url, session_url)
    assert await database.delivers_notifications(stack.db_url, transaction_url)


async def test_the_service_notices_that_nothing_arrives_and_says_what_to_set(
    stack: RunningStack, transaction_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "PROOF_SECONDS", 0.5)
    database = await open_database(settings_on(stack, transaction_url, db_statement_cache_size=0))
    deaf = Notifications(transaction_url, notify=database.notify)
    with capture_logs() as logs:
        deaf.start()
        await until(lambda: logs, "the warning")
        await deaf.close()
    await database.close()
    assert not deaf.is_listening
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("notifications.not_delivered", "warning")]
    assert "SUPABASE_LISTEN_DB_URL" in logs[0]["advice"]
    assert stack.db_url not in json.dumps(logs)


async def test_another_address_to_listen_on_brings_the_notifications_back(
    stack: RunningStack, transaction_url: str, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Looking by itself would come too late for the test.
    monkeypatch.setattr(runs_servicer, "POLL_SECONDS", 600.0)
    changes = {"db_statement_cache_size": 0, "listen_db_url": SecretStr(stack.db_url)}
    settings = settings_on(stack, transaction_url, **changes)
    database = await open_database(settings)
    hearing = Notifications(stack.db_url, notify=database.notify)
    hearing.start()
    await hearing.ready()
    assert hearing.is_listening
    await hearing.close()
    await database.close()
    async with service_over(stack, "direct", settings) as service:
        with acting_as(owner):
            events = await answer(service)
    assert [event.seq for event in events] == list(range(1, PIECES + 4))


@pytest.mark.parametrize("way", WAYS)
async def test_the_doctor_tells_the_mode_and_whether_the_settings_fit(
    stack: RunningStack, transaction_url: str, session_url: str, way: str
) -> None:
    urls = {"direct": stack.db_url, "session": session_url, "transaction": transaction_url}
    findings = await database.check_database(settings_on(stack, urls[way], db_statement_cache_size=100))
    wrong = [(finding.subject, finding.advice) for finding in findings if finding.advice]
    if way == "transaction":
        ((subject, advice),) = wrong
        assert subject == "pooler"
        assert "CONCERTO_DB_STATEMENT_CACHE_SIZE=0" in advice
        hints = [finding.hint for finding in findings if finding.subject == "notifications"]
        assert ["SUPABASE_LISTEN_DB_URL" in hint for hint in hints] == [True]
        fitting = settings_on(stack, transaction_url, db_statement_cache_size=0, listen_db_url=SecretStr(stack.db_url))
        findings = await database.check_database(fitting)
        wrong = [(finding.subject, finding.advice) for finding in findings if finding.advice]
        assert [finding.detail for finding in findings if finding.subject == "notifications"] == ["arrive"]
    assert wrong == []
    assert all("postgresql://" not in str(finding) for finding in findings)


async def test_the_doctor_names_an_address_where_nothing_is_heard(stack: RunningStack, transaction_url: str) -> None:
    settings = settings_on(stack, transaction_url, db_statement_cache_size=0, listen_db_url=SecretStr(transaction_url))
    wrong = [finding for finding in await database.check_database(settings) if finding.advice]
    assert [finding.subject for finding in wrong] == ["SUPABASE_LISTEN_DB_URL"]
