import asyncio
import contextlib
import time
from dataclasses import replace
from typing import Any

import grpc
import pytest
from concerto.sessions.v1 import runs_pb2, turns_pb2

from servicekit.errors import AppError
from servicekit.messages import converter
from servicekit.rpc import channel, server
from servicekit.testing import expiry, make_brief_caller, make_caller
from services.orchestrator.__main__ import build
from services.orchestrator.runs import event_writer, leases, registry, run_log
from services.orchestrator.runs.run import Run
from services.orchestrator.tests.conftest import (
    SLOW,
    MakeSuite,
    Suite,
    assert_whole,
    reason_of,
    settings_beside,
    state_of,
    text_of,
)
from tests.support.model_server import Behaviour
from tests.support.waiting import until


def executed(suite: Suite, run_id: str) -> Run:
    """Return a run that the suite's orchestrator executes."""
    found = suite.runs.find(run_id)
    assert found is not None
    return found


async def test_run_outlives_the_access_token_it_was_started_with(suite: Suite) -> None:
    brief = make_brief_caller(suite.caller.user_id)
    session_id = suite.add_session()
    suite.fake.fill(session_id, ["One", "Two"])
    suite.model.script(Behaviour(tokens=40, delay_seconds=0.08))
    turn = asyncio.create_task(suite.turn(session_id, "Hello", caller=brief))
    await expiry(brief)
    assert not turn.done(), "the model is still speaking"
    events = await turn
    assert state_of(events) == "SUCCEEDED"
    assert_whole(events)
    assert suite.texts(session_id)[-1] == text_of(events)
    with pytest.raises(AppError) as caught:
        await suite.turn(session_id, "Hello", caller=brief)
    assert caught.value.reason == "TOKEN_EXPIRED"


async def test_run_whose_start_was_answered_with_a_failure_is_still_executed(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.fake.runs.lost_answers = 2
    events = await suite.turn(session_id, "Hello")
    assert state_of(events) == "SUCCEEDED"
    assert len(suite.fake.runs.runs) == 1
    assert_whole(events)


async def test_queued_run_outlives_its_token_too(suite: Suite) -> None:
    brief = make_brief_caller(suite.caller.user_id)
    session_id = suite.add_session()
    suite.model.script(Behaviour(tokens=5), Behaviour(text="Second."))
    suite.fake.hold["FinishRun"] = asyncio.Event()
    await suite.create(session_id, "First")
    queued = await replace(suite, caller=brief).create(session_id, "Then", if_running=turns_pb2.IF_RUNNING_QUEUE)
    await expiry(brief)
    assert len(suite.model.chats) == 1, "it waits for its turn"
    suite.fake.hold.pop("FinishRun").set()
    assert state_of(await suite.events(queued.id)) == "SUCCEEDED"
    asked = [message["content"] for message in suite.model.chats[1]["messages"]]
    assert asked[1:] == ["First\n\nThen"], "no answer stands between them"


async def test_calls_by_lease_carry_no_token(suite: Suite) -> None:
    suite.model.script(Behaviour(tokens=70, delay_seconds=0.02))
    assert state_of(await suite.turn(suite.add_session(), "Hello")) == "SUCCEEDED"
    assert suite.fake.calls["RenewLease"] > 0
    assert suite.fake.runs.tokens == []


async def test_events_are_stored_before_anybody_sees_them(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(tokens=50, delay_seconds=0.002))
    async for event in suite.stream(session_id, "Hello"):
        (stored,) = suite.fake.runs.runs.values()
        assert stored.events[event.seq - 1] == event


async def test_many_runs_share_one_writer(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    # A machine that cannot keep up for as long as a lease lasts would lose the runs, which nobody reaps here.
    for module in (leases, registry):
        monkeypatch.setattr(module, "LEASE_SECONDS", 200)
    # All sides of all turns are this one process, and a call has its usual time for its start.
    callers = [make_caller() for _ in range(40)]
    suite.model.default = Behaviour(tokens=20, delay_seconds=0.05)
    turns = await asyncio.gather(
        *(suite.turn(suite.add_session(caller=caller), "Hello", caller=caller) for caller in callers)
    )
    for events in turns:
        assert_whole(events)
        assert text_of(events) == "".join(f"t{index} " for index in range(20))
    written = suite.fake.runs.appended
    assert sum(written) <= 40 * 20
    assert len(written) < 160, "events of all runs go together"
    assert max(written) > 10


async def test_deltas_of_one_run_that_wait_together_stay_separate_up_to_a_limit(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.fake.hold["AppendRunEvents"] = asyncio.Event()
    suite.model.script(Behaviour(tokens=40))
    run = await suite.create(session_id, "Hello")
    await until(lambda: suite.model.sent_tokens == 40)
    suite.fake.hold.pop("AppendRunEvents").set()
    events = await suite.events(run.id)
    assert sum(event.HasField("message_delta") for event in events) == 40

    suite.fake.hold["AppendRunEvents"] = asyncio.Event()
    suite.model.script(Behaviour(tokens=1_000))
    run = await suite.create(session_id, "Hello")
    await until(lambda: len(executed(suite, run.id).outbox) > 990)
    suite.fake.hold.pop("AppendRunEvents").set()
    events = await suite.events(run.id)
    assert_whole(events)
    assert sum(event.HasField("message_delta") for event in events) < event_writer.MAX_WAITING * 2
    assert text_of(events) == "".join(f"t{index} " for index in range(1_000))


async def test_slow_reader_holds_up_neither_the_run_nor_memory(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    # Few, as a machine that is busy joins pieces until not many more than a hundred events are left.
    monkeypatch.setattr(run_log, "MAX_EVENTS", 16)
    text = " ".join(f"word{index:04}{'x' * 150}" for index in range(6_000))
    async with contextlib.AsyncExitStack() as stack:
        registrations = await stack.enter_async_context(build(settings_beside(suite)))
        port = await stack.enter_async_context(server.serving(settings_beside(suite), registrations))
        # As small a window as a real client far away may have.
        connection = await stack.enter_async_context(
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.http2.bdp_probe", 0)])
        )
        local_suite = replace(suite, connection=connection, runs=registrations[0].servicer.runs)
        local_suite.model.script(Behaviour(text=text))
        run = await local_suite.create(local_suite.add_session(), "Hello")
        slow = local_suite.follow(run.id)
        received = [await anext(slow)]
        log = executed(local_suite, run.id).log
        most = 0
        while len(local_suite.runs):
            most = max(most, len(log))
            await asyncio.sleep(0.005)  # the pause between two looks at how long the log is
        assert most <= 2 * run_log.MAX_EVENTS
        assert (await local_suite.get(run.id)).state == runs_pb2.RUN_STATE_SUCCEEDED
        received += [event async for event in slow]
    # It had fallen behind what memory holds, while the run went on or after it, as gRPC's buffers would have it.
    assert suite.fake.calls["WatchRunEvents"] == 1
    assert_whole(received)
    assert text_of(received) == text


async def test_reader_that_is_cut_off_from_memory_goes_on_from_the_table(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log, "MAX_EVENTS", 10)
    suite.model.script(Behaviour(tokens=200, delay_seconds=0.005))
    run = await suite.create(suite.add_session(), "Hello")
    await until(lambda: suite.model.sent_tokens > 60)
    events = await suite.events(run.id)
    assert_whole(events)
    assert suite.fake.calls["WatchRunEvents"] == 1
    assert text_of(events) == "".join(f"t{index} " for index in range(200))


async def test_sessions_service_that_restarts_during_a_run_loses_nothing(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(tokens=100, delay_seconds=0.02))
    task = asyncio.create_task(suite.turn(session_id, "Hello"))
    await until(lambda: suite.model.sent_tokens > 10)
    await suite.sessions.stop()
    await asyncio.sleep(1.5)  # the service is away for longer than a first try and its repetition
    await suite.sessions.start()
    events = await task
    assert_whole(events)
    assert state_of(events) == "SUCCEEDED"
    assert suite.texts(session_id)[1] == text_of(events) == "".join(f"t{index} " for index in range(100))


async def test_sessions_service_that_is_away_when_the_model_ends_is_waited_for(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(tokens=20, delay_seconds=0.02))
    task = asyncio.create_task(suite.turn(session_id, "Hello"))
    await until(lambda: suite.model.sent_tokens > 3)
    await suite.sessions.stop()
    await until(lambda: suite.model.sent_tokens == 20)
    await asyncio.sleep(1.0)  # the service is away for longer than a first try and its repetition
    await suite.sessions.start()
    events = await task
    assert state_of(events) == "SUCCEEDED"
    assert suite.texts(session_id) == ["Hello", text_of(events)]


async def test_reader_of_the_table_survives_a_restart_of_the_sessions_service(suite: Suite, other: Suite) -> None:
    suite.model.script(Behaviour(tokens=60, delay_seconds=0.02))
    run = await suite.create(suite.add_session(), "Hello")
    task = asyncio.create_task(other.events(run.id))
    await until(lambda: suite.model.sent_tokens > 10)
    await suite.sessions.stop()
    await asyncio.sleep(0.5)  # the reader asks at least once while the service is away
    await suite.sessions.start()
    events = await task
    assert_whole(events)
    assert state_of(events) == "SUCCEEDED"


async def test_sessions_service_that_stays_away_ends_the_run_silently_once_its_lease_is_over(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_SECONDS", 1)
    await suite.create(suite.add_session(), SLOW)
    await until(lambda: suite.model.sent_tokens > 3)
    await suite.sessions.stop()
    await until(lambda: len(suite.runs) == 0, seconds=20)
    await until(lambda: suite.model.open_streams == 0)
    await suite.sessions.start()


async def test_run_whose_lease_is_lost_stops_silently_and_its_readers_learn_the_end_from_the_table(
    suite: Suite,
) -> None:
    session_id = suite.add_session()
    run = await suite.create(session_id, SLOW)
    task = asyncio.create_task(suite.events(run.id))
    await until(lambda: suite.model.sent_tokens > 5)
    suite.fake.runs.take_away(run.id)
    events = await task
    assert_whole(events)
    assert (state_of(events), reason_of(events)) == ("INTERRUPTED", "RUN_INTERRUPTED")
    await until(lambda: len(suite.runs) == 0 and suite.model.open_streams == 0)
    assert suite.texts(session_id)[1:] == [text_of(events)]
    assert suite.fake.calls["FinishRun"] == 0


async def test_silent_run_learns_from_the_heartbeat_that_its_lease_is_lost(suite: Suite) -> None:
    run = await suite.create(suite.add_session(), "Hello [[fault:silent]]")
    await until(lambda: suite.model.requests)
    suite.fake.runs.take_away(run.id)
    await until(lambda: len(suite.runs) == 0)


async def test_one_runs_unstorable_event_costs_the_others_nothing(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = suite.fake.runs.AppendRunEvents

    async def picky(request: runs_pb2.AppendRunEventsRequest, context: Any) -> object:
        if any("bad" in event.message_delta.text for batch in request.batches for event in batch.events):
            raise AppError("INVALID_REQUEST")
        return await real(request, context)

    monkeypatch.setattr(suite.fake.runs, "AppendRunEvents", picky)
    await suite.sessions.stop()
    await suite.sessions.start()
    suite.model.script(Behaviour(text="good good good bad good"), Behaviour(tokens=50, delay_seconds=0.005))
    bad, good = await asyncio.gather(
        suite.turn(suite.add_session(), "Hello"), suite.turn(suite.add_session(), "Hello too")
    )
    turns = {state_of(events): events for events in (bad, good)}
    assert set(turns) == {"FAILED", "SUCCEEDED"}
    for events in turns.values():
        assert_whole(events)


async def test_end_that_is_refused_is_stored_with_the_answer_alone(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = suite.fake.runs.FinishRun

    async def picky(request: runs_pb2.FinishRunRequest, context: Any) -> runs_pb2.FinishRunResponse:
        if request.state == runs_pb2.RUN_STATE_SUCCEEDED:
            raise AppError("INVALID_REQUEST")
        return await real(request, context)

    monkeypatch.setattr(suite.fake.runs, "FinishRun", picky)
    await suite.sessions.stop()
    await suite.sessions.start()
    session_id = suite.add_session()
    events = await suite.turn(session_id, "Hello")
    assert_whole(events)
    assert (state_of(events), reason_of(events)) == ("FAILED", "INTERNAL")
    assert suite.texts(session_id)[1] == text_of(events)


async def test_draining_lets_runs_end_and_their_streams_hear_it(make_suite: MakeSuite) -> None:
    async with contextlib.AsyncExitStack() as stack:
        suite = await stack.enter_async_context(make_suite())
        session_id = suite.add_session()
        suite.model.script(Behaviour(tokens=20, delay_seconds=0.02))
        task = asyncio.create_task(suite.turn(session_id, "Hello"))
        await until(lambda: suite.model.sent_tokens > 3)
        draining = asyncio.create_task(suite.runs.drain(5.0))
        await asyncio.sleep(0)
        with pytest.raises(AppError) as caught:
            await suite.create(suite.add_session(), "Too late")
        assert caught.value.reason == "SHUTTING_DOWN"
        await draining
        events = await task
    assert state_of(events) == "SUCCEEDED"
    assert suite.texts(session_id)[1] == text_of(events)


async def test_stopping_the_service_interrupts_what_is_not_done_in_time_and_says_so(suite: Suite) -> None:
    session_id = suite.add_session()
    settings = settings_beside(suite)
    async with contextlib.AsyncExitStack() as client, contextlib.AsyncExitStack() as service:
        registrations = await service.enter_async_context(build(settings))
        port = await service.enter_async_context(server.serving(settings, registrations))
        connection = await client.enter_async_context(channel.connect(f"127.0.0.1:{port}", registrations[0].service))
        stopped = replace(suite, connection=connection)
        slow = asyncio.create_task(stopped.turn(session_id, SLOW))
        await until(lambda: suite.model.sent_tokens > 3)
        suite.model.script(Behaviour(tokens=10, delay_seconds=0.02))
        quick = asyncio.create_task(stopped.turn(suite.add_session(), "Hello"))
        await until(lambda: len(suite.model.chats) == 2)
        await service.aclose()
        events = await slow
        assert state_of(await quick) == "SUCCEEDED"
    assert (state_of(events), reason_of(events)) == ("INTERRUPTED", "RUN_INTERRUPTED")
    assert_whole(events)
    answer = suite.stored(session_id)[1]
    assert answer.content == text_of(events)
    metadata = converter.to_json(answer.metadata)
    assert (metadata["partial"], metadata["error_reason"]) == (True, "RUN_INTERRUPTED")


async def test_heartbeats_of_all_runs_go_together(suite: Suite) -> None:
    for _ in range(5):
        await suite.create(suite.add_session(), SLOW)
    await asyncio.sleep(3.2)  # the length of three heartbeats, which are counted
    assert 2 <= suite.fake.calls["RenewLease"] <= 5
    assert all(stored.lease_ends_at > time.monotonic() + 7 for stored in suite.fake.runs.runs.values())
