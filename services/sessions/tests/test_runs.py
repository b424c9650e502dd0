import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from concerto.errors.v1 import errors_pb2
from concerto.sessions.v1 import runs_pb2 as pb
from concerto.sessions.v1 import runs_pb2_grpc as pb_grpc
from concerto.sessions.v1 import sessions_pb2, turns_pb2
from google.protobuf.message import Message
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.rpc import channel
from servicekit.rpc.identity import Caller
from servicekit.testing import BRIEF_SECONDS, SERVICE_KEY, acting_as, expiry
from services.sessions import runs_servicer
from services.sessions.runs_servicer import RunsServicer
from services.sessions.tests.conftest import Service, service_over, settings_for
from tests.support.suites import RunningStack
from tests.support.waiting import until

RPCS = pb.DESCRIPTOR.services_by_name["RunsService"].methods_by_name
ERROR = errors_pb2.Error(code=503, status="UNAVAILABLE", details=[errors_pb2.ErrorDetail(reason="MODEL_UNREACHABLE")])


async def refusal(service: Service, rpc: str, message: Message) -> AppError:
    with pytest.raises(AppError) as error:
        await service.call(rpc, message)
    return error.value


def starting(session_id: str, content: str = "x", *, turn: dict[str, Any] | None = None, **args: Any) -> Message:
    return pb.StartRunRequest(session_id=session_id, turn=turns_pb2.Turn(content=content, **(turn or {})), **args)


async def start(service: Service, content: str = "hello", **args: Any) -> Any:
    session_id = args.pop("session_id", None) or await service.new_session()
    return await service.call("StartRun", starting(session_id, content, **args))


async def append(service: Service, lease: pb.Lease, texts: list[str], first_seq: int = 2) -> list[str]:
    events = [
        pb.RunEvent(seq=seq, message_delta=pb.MessageDelta(text=text)) for seq, text in enumerate(texts, first_seq)
    ]
    request = pb.AppendRunEventsRequest(batches=[pb.RunEventBatch(lease=lease, events=events)])
    return list((await service.call("AppendRunEvents", request)).lost_run_ids)


async def finish(service: Service, lease: pb.Lease, next_seq: int, **args: Any) -> Any:
    args.setdefault("state", pb.RUN_STATE_SUCCEEDED)
    answer = sessions_pb2.NewMessage(role=sessions_pb2.ROLE_ASSISTANT, content="answer")
    request = pb.FinishRunRequest(lease=lease, messages=[answer], next_seq=next_seq, **args)
    return await service.call("FinishRun", request)


async def watch(service: Service, run_id: str, after_seq: int = 0) -> list[pb.RunEvent]:
    events: list[pb.RunEvent] = []
    request = pb.WatchRunEventsRequest(run_id=run_id, after_seq=after_seq)
    async with contextlib.aclosing(channel.stream(service.runs.WatchRunEvents, request)) as responses:
        async for response in responses:
            assert response.events
            events += response.events
    return events


def kinds(events: Iterable[pb.RunEvent]) -> list[str]:
    return [str(event.WhichOneof("payload")) for event in events]


def about_a_run(lease: pb.Lease) -> dict[str, Message]:
    event = pb.RunEvent(seq=2, message_delta=pb.MessageDelta(text="x"))
    return {
        "StartRun": starting(str(uuid4())),
        "PromoteRun": pb.PromoteRunRequest(lease=lease),
        "AppendRunEvents": pb.AppendRunEventsRequest(batches=[pb.RunEventBatch(lease=lease, events=[event])]),
        "RenewLease": pb.RenewLeaseRequest(leases=[lease]),
        "FinishRun": pb.FinishRunRequest(lease=lease, state=pb.RUN_STATE_CANCELLED, next_seq=2),
        "WatchRunEvents": pb.WatchRunEventsRequest(run_id=lease.run_id),
        "GetStoredRun": pb.GetStoredRunRequest(run_id=lease.run_id),
        "ListStoredRuns": pb.ListStoredRunsRequest(),
        "RequestRunCancellation": pb.RequestRunCancellationRequest(run_id=lease.run_id),
        "StartModelCall": pb.StartModelCallRequest(
            request_id=str(uuid4()), model="m", source="chat_completions", lease_token="t" * 32
        ),
        "FinishModelCall": pb.FinishModelCallRequest(lease=lease),
    }


def test_every_rpc_of_the_contract_is_answered() -> None:
    missing = [name for name in RPCS if getattr(RunsServicer, name) is getattr(pb_grpc.RunsServiceServicer, name)]
    assert missing == []
    assert set(about_a_run(pb.Lease())) == set(RPCS)


async def test_a_watcher_sees_every_event_once_and_the_end(direct: Service, owner: Caller) -> None:
    with acting_as(owner):
        started = await start(direct, turn={"model": "m"})
        early = asyncio.create_task(watch(direct, started.run.id))
        for seq in range(2, 12, 2):
            assert await append(direct, started.lease, [f"{seq} ", f"{seq + 1} "], first_seq=seq) == []
        late = asyncio.create_task(watch(direct, started.run.id, after_seq=5))
        done = await finish(direct, started.lease, 12, usage=pb.Usage(prompt_tokens=3))
        events = await early
        assert [event.seq for event in events] == list(range(1, 15))
        assert events[:1] == list(started.events)
        assert "".join(event.message_delta.text for event in events[1:11]) == "2 3 4 5 6 7 8 9 10 11 "
        assert events[11:] == list(done.events)
        assert kinds(events[11:]) == ["message_completed", "usage", "run_finished"]
        assert await late == events[5:]
        assert await watch(direct, started.run.id, after_seq=14) == []


async def test_a_start_brings_the_history_that_is_asked_for(direct: Service, owner: Caller) -> None:
    with acting_as(owner):
        session_id = await direct.new_session()
        first = await start(direct, "one", session_id=session_id)
        await finish(direct, first.lease, 2)
        started = await start(direct, "two", session_id=session_id, history_messages=1)
        assert [message.content for message in started.history] == ["answer"]
        assert started.has_earlier_messages
        await finish(direct, started.lease, 2)
        assert not (await start(direct, "three", session_id=session_id)).history


async def test_a_watcher_gets_more_events_than_one_page_holds(direct: Service, owner: Caller) -> None:
    with acting_as(owner):
        started = await start(direct)
        await append(direct, started.lease, ["x"] * 900)
        await finish(direct, started.lease, 902)
        events = await watch(direct, started.run.id)
    assert [event.seq for event in events] == list(range(1, 904))


async def test_a_watch_goes_on_when_its_token_has_expired(direct: Service, stack: RunningStack, owner: Caller) -> None:
    with acting_as(owner):
        started = await start(direct)
    brief = stack.caller(owner.user_id, expires_in=BRIEF_SECONDS)
    with acting_as(brief):
        watching = asyncio.create_task(watch(direct, started.run.id))
        await expiry(brief)
        error = await refusal(direct, "GetStoredRun", pb.GetStoredRunRequest(run_id=started.run.id))
        assert error.reason == "TOKEN_EXPIRED"
    with acting_as(None):
        await append(direct, started.lease, ["late"])
        await finish(direct, started.lease, 3)
    assert kinds(await watching) == ["run_started", "message_delta", "message_completed", "run_finished"]


async def test_a_run_executing_elsewhere_is_followed_by_notifications(
    direct: Service, stack: RunningStack, owner: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A look by itself would come too late for the test.
    monkeypatch.setattr(runs_servicer, "POLL_SECONDS", 600.0)
    with acting_as(owner):
        started = await start(direct)
        async with service_over(stack, "direct") as other:
            request = pb.WatchRunEventsRequest(run_id=started.run.id, after_seq=1)
            async with contextlib.aclosing(channel.stream(other.runs.WatchRunEvents, request)) as responses:
                following = asyncio.create_task(anext(responses))
                await asyncio.sleep(0.3)  # the reader has found nothing and waits to be told, which has no event
                await append(direct, started.lease, ["now"])
                assert (await following).events[0].message_delta.text == "now"


async def test_an_orphaned_run_is_interrupted_with_its_partial_text(direct: Service, owner: Caller) -> None:
    with acting_as(owner):
        started = await start(direct, turn={"model": "m"}, lease_seconds=1)
        await append(direct, started.lease, ["par", "tial"])
        events = await watch(direct, started.run.id)
        assert kinds(events)[3:] == ["message_completed", "usage", "error", "run_finished"]
        assert events[3].message_completed.message.content == "partial"
        error = events[5].error.error
        assert (error.code, error.status, error.details[0].reason) == (503, "UNAVAILABLE", "RUN_INTERRUPTED")
        run = (await direct.call("GetStoredRun", pb.GetStoredRunRequest(run_id=started.run.id))).run
        assert (run.state, run.usage.is_estimated) == (pb.RUN_STATE_INTERRUPTED, True)
    assert await append(direct, started.lease, ["more"], first_seq=9) == [started.run.id]
    with pytest.raises(AppError) as error_:
        await finish(direct, started.lease, 4)
    assert (error_.value.reason, error_.value.http_status) == ("LEASE_LOST", 409)


async def test_a_run_is_kept_alive_and_told_of_its_cancellation(direct: Service, owner: Caller) -> None:
    with acting_as(owner):
        started = await start(direct, lease_seconds=1)
        for _ in range(6):
            request = pb.RenewLeaseRequest(leases=[started.lease], lease_seconds=1)
            answer = await direct.call("RenewLease", request)
            assert (list(answer.lost_run_ids), list(answer.cancelled_run_ids)) == ([], [])
            await asyncio.sleep(0.5)  # six renewals outlast the first lease by far; the database's clock is real
        await direct.call("RequestRunCancellation", pb.RequestRunCancellationRequest(run_id=started.run.id))
        answer = await direct.call("RenewLease", request)
        assert list(answer.cancelled_run_ids) == [started.run.id]
        done = await finish(direct, started.lease, 2, state=pb.RUN_STATE_CANCELLED)
    assert kinds(list(done.events)) == ["message_completed", "run_finished"]


async def test_a_refusal_for_too_many_runs_says_when_to_come_back(direct: Service, owner: Caller) -> None:
    with acting_as(owner):
        await start(direct, max_user_runs=1)
        request = starting(await direct.new_session(), max_user_runs=1)
        error = await refusal(direct, "StartRun", request)
    assert (error.reason, error.http_status, error.retry_after_seconds) == ("TOO_MANY_RUNS", 429, 2.0)


async def test_a_queued_run_begins_after_the_one_before_it(direct: Service, owner: Caller) -> None:
    with acting_as(owner):
        first = await start(direct, "1")
        second = await start(
            direct, "2", session_id=first.run.session_id, turn={"if_running": turns_pb2.IF_RUNNING_QUEUE}
        )
        assert (second.run.state, list(second.events)) == (pb.RUN_STATE_QUEUED, [])
        error = await refusal(direct, "PromoteRun", pb.PromoteRunRequest(lease=second.lease))
        assert (error.reason, error.http_status) == ("RUN_NOT_NEXT", 400)
        error = await refusal(direct, "StartRun", starting(first.run.session_id))
        assert (error.reason, error.metadata["run_id"]) == ("RUN_IN_PROGRESS", first.run.id)
        await finish(direct, first.lease, 2)
        promoted = await direct.call("PromoteRun", pb.PromoteRunRequest(lease=second.lease))
    assert (promoted.run.state, kinds(promoted.events)) == (pb.RUN_STATE_RUNNING, ["run_started"])
    assert promoted.events[0].run_started.user_message.content == "2"


async def test_a_strangers_run_answers_like_a_missing_one(direct: Service, owner: Caller, stranger: Caller) -> None:
    with acting_as(owner):
        started = await start(direct)
    with acting_as(stranger):
        for run_id in (started.run.id, str(uuid4())):
            for rpc in ("GetStoredRun", "RequestRunCancellation"):
                error = await refusal(direct, rpc, about_a_run(pb.Lease(run_id=run_id))[rpc])
                assert (error.reason, error.http_status) == ("RUN_NOT_FOUND", 404)
            with pytest.raises(AppError) as watched:
                await watch(direct, run_id)
            assert watched.value.reason == "RUN_NOT_FOUND"
        error = await refusal(direct, "ListStoredRuns", pb.ListStoredRunsRequest(session_id=started.run.session_id))
        assert error.reason == "SESSION_NOT_FOUND"
    with acting_as(owner):
        run = (await direct.call("GetStoredRun", pb.GetStoredRunRequest(run_id=started.run.id))).run
    assert not run.is_cancellation_requested


@pytest.mark.parametrize("rpc", ["StartRun", "GetStoredRun", "ListStoredRuns", "RequestRunCancellation"])
async def test_what_acts_as_a_user_needs_a_token(direct: Service, rpc: str) -> None:
    with acting_as(None):
        error = await refusal(direct, rpc, about_a_run(pb.Lease(run_id=str(uuid4()), token="x"))[rpc])
    assert error.reason == "TOKEN_MISSING"


@pytest.mark.parametrize(
    "event",
    [
        pb.RunEvent(seq=2, run_finished=pb.RunFinished(state=pb.RUN_STATE_SUCCEEDED)),
        pb.RunEvent(seq=2, message_completed=pb.MessageCompleted()),
        pb.RunEvent(seq=2),
        pb.RunEvent(message_delta=pb.MessageDelta(text="x")),
    ],
)
async def test_only_deltas_and_tools_are_appended(direct: Service, event: pb.RunEvent) -> None:
    lease = pb.Lease(run_id=str(uuid4()), token="x")
    request = pb.AppendRunEventsRequest(batches=[pb.RunEventBatch(lease=lease, events=[event])])
    error = await refusal(direct, "AppendRunEvents", request)
    assert (error.reason, error.metadata["field"]) == ("INVALID_FIELD", "batches[0].events[0]")


@pytest.mark.parametrize(
    ("args", "field"),
    [
        ({"state": pb.RUN_STATE_RUNNING}, "state"),
        ({"state": pb.RUN_STATE_QUEUED}, "state"),
        ({"state": pb.RUN_STATE_FAILED}, "error"),
        ({"state": pb.RUN_STATE_INTERRUPTED}, "error"),
    ],
)
async def test_a_wrong_end_is_refused(direct: Service, args: dict[str, Any], field: str) -> None:
    with pytest.raises(AppError) as error:
        await finish(direct, pb.Lease(run_id=str(uuid4()), token="x"), 2, **args)
    assert error.value.metadata["field"] == field


async def test_a_failed_run_tells_why(direct: Service, owner: Caller) -> None:
    with acting_as(owner):
        started = await start(direct)
        done = await finish(direct, started.lease, 2, state=pb.RUN_STATE_FAILED, error=ERROR)
    assert done.run.error_reason == "MODEL_UNREACHABLE"
    assert kinds(list(done.events)) == ["message_completed", "error", "run_finished"]
    assert done.events[1].error.error == ERROR


@pytest.fixture(scope="module")
async def over_rest(stack: RunningStack) -> AsyncIterator[Service]:
    async with service_over(stack, "rest") as service:
        yield service


WRITING = ("StartRun", "PromoteRun", "AppendRunEvents", "RenewLease", "FinishRun", "StartModelCall", "FinishModelCall")


@pytest.mark.parametrize(
    "key", [None, SecretStr(""), SecretStr("k" * 32), SecretStr(SERVICE_KEY.get_secret_value()[:-1])]
)
@pytest.mark.parametrize("rpc", ["StartRun", "StartModelCall"])
async def test_a_users_token_alone_says_no_prices_and_no_limits(
    direct: Service, owner: Caller, rpc: str, key: SecretStr | None
) -> None:
    with acting_as(owner):
        session_id = await direct.new_session()
        request: Any = about_a_run(pb.Lease())[rpc]
        request.session_id, request.max_user_runs = session_id, 0
        request.prices.SetInParent()
        with pytest.raises(AppError) as refused:
            await channel.call(getattr(direct.runs, rpc), request, service_key=key)
        assert (refused.value.reason, refused.value.http_status) == ("SERVICE_KEY_NEEDED", 403)
        runs = await direct.call("ListStoredRuns", pb.ListStoredRunsRequest(session_id=session_id))
        assert list(runs.runs) == []


async def test_what_a_call_outside_of_runs_has_used_is_in_the_ledger(direct: Service, owner: Caller) -> None:
    with acting_as(owner):
        request = about_a_run(pb.Lease())["StartModelCall"]
        lease = (await direct.call("StartModelCall", request)).lease
        assert (await direct.call("RenewLease", pb.RenewLeaseRequest(leases=[lease]))).lost_run_ids == []
    finish = pb.FinishModelCallRequest(lease=lease, usage=pb.Usage(prompt_tokens=2**63 - 1, completion_tokens=3))
    await direct.call("FinishModelCall", finish)
    assert (await refusal(direct, "FinishModelCall", finish)).reason == "LEASE_LOST"
    with acting_as(owner):
        total = (await direct.call("ListUsage", sessions_pb2.ListUsageRequest())).total
    assert (total.runs, total.prompt_tokens, total.completion_tokens) == (1, 10**12, 3)


@pytest.mark.parametrize("rpc", WRITING)
async def test_runs_need_the_direct_connection(over_rest: Service, owner: Caller, rpc: str) -> None:
    with acting_as(owner):
        error = await refusal(over_rest, rpc, about_a_run(pb.Lease(run_id=str(uuid4()), token="x"))[rpc])
        assert (error.reason, error.http_status) == ("DIRECT_DATABASE_NEEDED", 400)
        with pytest.raises(AppError) as watched:
            await watch(over_rest, str(uuid4()))
    assert watched.value.reason == "DIRECT_DATABASE_NEEDED"


async def test_watchers_hear_again_after_the_listening_connection_was_lost(stack: RunningStack, owner: Caller) -> None:
    admin = await asyncpg.connect(stack.admin_db_url)
    listening = "query ilike 'listen %concerto_runs%'"
    before = {row["pid"] for row in await admin.fetch(f"select pid from pg_stat_activity where {listening}")}
    with acting_as(owner):
        async with service_over(stack, "direct") as service:

            async def own() -> set[int]:
                for _ in range(500):
                    rows = await admin.fetch(f"select pid from pg_stat_activity where {listening}")
                    if pids := {row["pid"] for row in rows} - before:
                        return pids
                    await asyncio.sleep(0.02)  # the pause between two looks
                raise AssertionError("Nobody listens.")

            started = await start(service)
            watching = asyncio.create_task(watch(service, started.run.id))
            first = await own()
            await admin.execute("select pg_terminate_backend(pid) from unnest($1::integer[]) as p (pid)", list(first))

            async def listens_anew() -> bool:
                return await own() != first

            await until(listens_anew, "a new connection that listens")
            await append(service, started.lease, ["again"])
            await finish(service, started.lease, 3)
            events = await watching
    await admin.close()
    assert kinds(events) == ["run_started", "message_delta", "message_completed", "run_finished"]


async def test_a_process_prunes_old_deltas_by_itself(stack: RunningStack, owner: Caller) -> None:
    settings = settings_for(stack, "direct").model_copy(update={"run_events_kept_seconds": 0.0})
    with acting_as(owner):
        async with service_over(stack, "direct", settings) as service:
            started = await start(service)
            await append(service, started.lease, ["a", "b"])
            await finish(service, started.lease, 4)
            admin = await asyncpg.connect(stack.admin_db_url)
            ended = "update public.runs set finished_at = now() - interval '61 seconds' where id = $1::text::uuid"
            await admin.execute(ended, started.run.id)
            await admin.close()

            async def is_pruned() -> bool:
                return len(await watch(service, started.run.id)) == 3

            await until(is_pruned, "the events to be folded")
            events = await watch(service, started.run.id)
    assert [event.seq for event in events] == [1, 4, 5]
