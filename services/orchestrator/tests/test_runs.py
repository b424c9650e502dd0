import asyncio
import contextlib
from dataclasses import replace
from uuid import uuid4

import pytest
from concerto.orchestrator.v1 import orchestrator_pb2
from concerto.sessions.v1 import runs_pb2, sessions_pb2, turns_pb2

from servicekit.errors import AppError
from servicekit.messages import converter
from servicekit.rpc import channel
from servicekit.testing import acting_as, make_caller
from services.orchestrator import orchestrator_servicer
from services.orchestrator.tests.conftest import (
    SLOW,
    Event,
    MakeSuite,
    Suite,
    assert_whole,
    first_of,
    kinds,
    state_of,
    text_of,
)
from tests.support.model_server import FAULTS, Behaviour
from tests.support.waiting import until


async def test_created_run_goes_on_by_itself_and_can_be_read_as_often_as_wanted(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(tokens=20, delay_seconds=0.01))
    run = await suite.create(session_id, "Hello")
    assert (run.state, run.session_id, run.model, run.agent) == (
        runs_pb2.RUN_STATE_RUNNING, session_id, "test-model", "assistant",
    )  # fmt: skip
    live = await suite.events(run.id)
    assert_whole(live)
    assert text_of(live) == "".join(f"t{index} " for index in range(20))
    assert await suite.events(run.id) == live
    ended = await suite.get(run.id)
    assert ended.state == runs_pb2.RUN_STATE_SUCCEEDED
    assert ended.answer_message_id == suite.stored(session_id)[1].id
    assert ended.usage.completion_tokens == 20


@pytest.mark.parametrize("after_seq", [0, 1, 7, 23])
async def test_stream_goes_on_after_the_seq_that_the_client_has(suite: Suite, after_seq: int) -> None:
    suite.model.script(Behaviour(tokens=20, delay_seconds=0.005))
    run = await suite.create(suite.add_session(), "Hello")
    live, later = await suite.events(run.id, after_seq=after_seq), await suite.events(run.id, after_seq=after_seq)
    assert_whole(live, after_seq=after_seq)
    assert live == later
    assert state_of(live) == "SUCCEEDED"


async def answers_of(suite: Suite, run_id: str, **fields: bool) -> list[list[Event]]:
    request = orchestrator_pb2.StreamRunRequest(run_id=run_id, **fields)
    with acting_as(suite.caller):
        return [[each.event, *each.more] async for each in channel.stream(suite.stub.StreamRun, request)]


async def test_events_stored_together_share_an_answer_where_that_is_asked_for(suite: Suite) -> None:
    suite.fake.hold["AppendRunEvents"] = asyncio.Event()
    suite.model.script(Behaviour(tokens=40))
    run = await suite.create(suite.add_session(), "Hello")
    readers = [
        asyncio.create_task(answers_of(suite, run.id, **fields))
        for fields in ({}, {"in_batches": True}, {"in_batches": False})
    ]
    await until(lambda: suite.model.sent_tokens == 40)
    suite.fake.hold.pop("AppendRunEvents").set()
    alone, together, apart = await asyncio.gather(*readers)
    assert alone == apart
    assert {len(events) for events in alone} == {1}
    assert_whole([event for events in together for event in events])
    assert [event for events in together for event in events] == [event for (event,) in alone]
    assert max(map(len, together)) >= 20


async def test_large_events_do_not_share_an_answer(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orchestrator_servicer, "MAX_BATCH_BYTES", 100)
    suite.fake.hold["AppendRunEvents"] = asyncio.Event()
    suite.model.script(Behaviour(tokens=40))
    run = await suite.create(suite.add_session(), "Hello")
    reader = asyncio.create_task(answers_of(suite, run.id, in_batches=True))
    await until(lambda: suite.model.sent_tokens == 40)
    suite.fake.hold.pop("AppendRunEvents").set()
    answers = await reader
    assert max(map(len, answers)) > 1
    assert all(sum(event.ByteSize() for event in events) <= 100 for events in answers if len(events) > 1)


async def test_stream_after_the_end_of_an_ended_run_just_ends(suite: Suite) -> None:
    events = await suite.turn(suite.add_session(), "Hello")
    run_id = events[0].run_started.run_id
    assert await suite.events(run_id, after_seq=events[-1].seq) == []
    assert await suite.events(run_id, after_seq=10_000) == []


async def test_strangers_run_is_not_found(suite: Suite) -> None:
    run = await suite.create(suite.add_session(), SLOW)
    stranger = replace(suite, caller=make_caller())
    for attempt in (stranger.events(run.id), stranger.get(run.id), stranger.cancel(run.id)):
        with pytest.raises(AppError) as caught:
            await attempt
        assert caught.value.reason == "RUN_NOT_FOUND"
    assert (await suite.get(run.id)).state == runs_pb2.RUN_STATE_RUNNING


async def test_runs_are_listed_newest_first_in_pages(suite: Suite) -> None:
    session_id = suite.add_session()
    for _ in range(3):
        await suite.turn(session_id, "Hello")
    await suite.turn(suite.add_session(), "Elsewhere")
    with acting_as(suite.caller):
        first = await channel.call(
            suite.stub.ListRuns, orchestrator_pb2.ListRunsRequest(session_id=session_id, page_size=2)
        )
        second = await channel.call(
            suite.stub.ListRuns,
            orchestrator_pb2.ListRunsRequest(session_id=session_id, page_size=2, page_token=first.next_page_token),
        )
    assert (len(first.runs), len(second.runs), second.next_page_token) == (2, 1, "")


async def test_run_goes_on_when_its_client_goes_away(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(tokens=40, delay_seconds=0.01))
    async with contextlib.aclosing(suite.stream(session_id, "Hello")) as events:
        run_id = (await first_of(events)).run_started.run_id
    rest = await suite.events(run_id, after_seq=1)
    assert state_of(rest) == "SUCCEEDED"
    assert suite.texts(session_id)[1] == text_of(rest) == "".join(f"t{index} " for index in range(40))


async def test_run_goes_on_when_its_client_goes_away_before_the_run_has_begun(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.fake.hold["StartRun"] = asyncio.Event()
    task = asyncio.create_task(suite.turn(session_id, "Hello"))
    await until(lambda: suite.fake.calls["StartRun"])
    task.cancel()
    await asyncio.sleep(0.05)  # the end of the call reaches its service, which has no event for it
    suite.fake.hold.pop("StartRun").set()
    await until(lambda: len(suite.stored(session_id)) == 2)


async def test_clients_deadline_ends_its_call_and_not_the_run(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(tokens=40, delay_seconds=0.02))
    with pytest.raises(AppError) as caught:
        await suite.turn(session_id, "Hello", timeout_seconds=0.4)
    assert caught.value.reason == "DEADLINE_EXCEEDED"
    await until(lambda: len(suite.stored(session_id)) == 2)
    assert "partial" not in suite.stored(session_id)[1].metadata.fields


async def test_cancelled_run_keeps_its_partial_text_and_stops_the_model(suite: Suite) -> None:
    session_id = suite.add_session()
    run = await suite.create(session_id, SLOW)
    received: list[Event] = []
    async for event in suite.follow(run.id):
        received.append(event)
        if event.seq == 5:
            assert (await suite.cancel(run.id)).is_cancellation_requested
    assert_whole(received)
    assert kinds(received)[-3:] == ["message_completed", "usage", "run_finished"]
    assert state_of(received) == "CANCELLED"
    answer = suite.stored(session_id)[1]
    metadata = converter.to_json(answer.metadata)
    assert answer.content == text_of(received) == suite.fake.runs.text_of(run.id)
    assert (metadata["partial"], metadata["error_reason"]) == (True, "CANCELLED")
    assert metadata["usage"]["estimated"] is True
    assert suite.fake.runs.ledger[0].is_estimated
    await until(lambda: suite.model.open_streams == 0)
    assert suite.model.sent_tokens < 900
    assert state_of(await suite.turn(session_id, "And now?")) == "SUCCEEDED"


async def test_cancelled_run_says_that_somebody_asked_for_it(suite: Suite) -> None:
    run = await suite.create(suite.add_session(), SLOW)
    await until(lambda: suite.model.sent_tokens > 3)
    suite.fake.hold["RequestRunCancellation"] = asyncio.Event()
    task = asyncio.create_task(suite.cancel(run.id))
    await until(lambda: suite.fake.calls["RequestRunCancellation"])
    sent = suite.model.sent_tokens
    await until(lambda: suite.model.sent_tokens > sent + 3)
    suite.fake.hold.pop("RequestRunCancellation").set()
    assert (await task).is_cancellation_requested
    assert state_of(await suite.events(run.id)) == "CANCELLED"
    assert (await suite.get(run.id)).is_cancellation_requested


async def test_run_stops_even_if_the_wish_could_not_be_stored(suite: Suite) -> None:
    run = await suite.create(suite.add_session(), SLOW)
    await until(lambda: suite.model.sent_tokens > 3)
    suite.fake.refuse["RequestRunCancellation"] = "INTERNAL"
    with pytest.raises(AppError) as caught:
        await suite.cancel(run.id)
    assert caught.value.reason == "INTERNAL"
    assert state_of(await suite.events(run.id)) == "CANCELLED"


async def test_run_is_cancelled_from_another_replica(suite: Suite, other: Suite) -> None:
    run = await suite.create(suite.add_session(), SLOW)
    await until(lambda: suite.model.sent_tokens > 3)
    await other.cancel(run.id)
    assert state_of(await other.events(run.id)) == "CANCELLED"


async def test_run_cancelled_before_the_first_token_stores_no_answer(suite: Suite) -> None:
    session_id = suite.add_session()
    run = await suite.create(session_id, "Hello [[fault:silent]]")
    await until(lambda: suite.model.requests)
    await suite.cancel(run.id)
    events = await suite.events(run.id)
    assert kinds(events) == ["run_started", "usage", "run_finished"]
    assert state_of(events) == "CANCELLED"
    assert len(suite.stored(session_id)) == 1


async def test_cancelling_an_ended_run_changes_nothing(suite: Suite) -> None:
    events = await suite.turn(suite.add_session(), "Hello")
    run = await suite.cancel(events[0].run_started.run_id)
    assert run.state == runs_pb2.RUN_STATE_SUCCEEDED


async def test_stream_on_another_replica_follows_a_run_from_its_first_event(suite: Suite, other: Suite) -> None:
    suite.model.script(Behaviour(tokens=30, delay_seconds=0.02))
    run = await suite.create(suite.add_session(), "Hello")
    assert len(other.runs) == 0
    remote, local = await asyncio.gather(other.events(run.id), suite.events(run.id))
    assert remote == local
    assert state_of(remote) == "SUCCEEDED"


async def test_second_run_of_a_session_is_refused_with_the_running_ones_id(suite: Suite, other: Suite) -> None:
    session_id = suite.add_session()
    run = await suite.create(session_id, SLOW)
    for one in (suite, other):
        with pytest.raises(AppError) as caught:
            await one.turn(session_id, "Me too")
        assert (caught.value.reason, caught.value.metadata["run_id"]) == ("RUN_IN_PROGRESS", run.id)
    assert len(suite.stored(session_id)) == 1


@pytest.mark.parametrize("remote", [False, True])
async def test_queued_run_begins_when_the_one_before_it_has_ended(suite: Suite, other: Suite, *, remote: bool) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(tokens=20, delay_seconds=0.02), Behaviour(text="Second."), Behaviour(text="Third."))
    first = await suite.create(session_id, "One")
    queue = other if remote else suite
    queued = [
        await queue.create(session_id, content, if_running=turns_pb2.IF_RUNNING_QUEUE) for content in ("Two", "Three")
    ]
    assert {run.state for run in queued} == {runs_pb2.RUN_STATE_QUEUED}
    for run in (first, *queued):
        events = await suite.events(run.id)
        assert_whole(events)
        assert state_of(events) == "SUCCEEDED"
    assert [text for text in suite.texts(session_id) if not text.startswith("t0")] == [
        "One", "Two", "Second.", "Three", "Third.",
    ]  # fmt: skip
    assert [message["content"] for message in suite.model.chats[2]["messages"]][-3:] == ["Two", "Second.", "Three"]


async def test_queued_run_can_be_cancelled_and_stores_nothing(suite: Suite) -> None:
    session_id = suite.add_session()
    first = await suite.create(session_id, SLOW)
    queued = await suite.create(session_id, "Never", if_running=turns_pb2.IF_RUNNING_QUEUE)
    await suite.cancel(queued.id)
    events = await suite.events(queued.id)
    assert kinds(events) == ["run_finished"]
    assert state_of(events) == "CANCELLED"
    assert suite.texts(session_id) == [SLOW]
    await suite.cancel(first.id)


@pytest.mark.parametrize("remote", [False, True])
async def test_new_run_can_take_the_place_of_the_running_one(suite: Suite, other: Suite, *, remote: bool) -> None:
    session_id = suite.add_session()
    first = await suite.create(session_id, SLOW)
    await until(lambda: suite.model.sent_tokens > 3)
    second = other if remote else suite
    events = await second.turn(session_id, "Rather this", if_running=turns_pb2.IF_RUNNING_CANCEL)
    assert state_of(events) == "SUCCEEDED"
    assert (await suite.get(first.id)).state == runs_pb2.RUN_STATE_CANCELLED
    assert [message.role for message in suite.stored(session_id)] == [
        sessions_pb2.ROLE_USER, sessions_pb2.ROLE_ASSISTANT, sessions_pb2.ROLE_USER, sessions_pb2.ROLE_ASSISTANT,
    ]  # fmt: skip


async def test_repetition_follows_the_running_run_here_and_on_another_replica(suite: Suite, other: Suite) -> None:
    session_id, request_id = suite.add_session(), str(uuid4())
    suite.model.script(Behaviour(tokens=30, delay_seconds=0.02))
    run = await suite.create(session_id, "Hello", request_id=request_id)
    assert (await suite.create(session_id, "Hello", request_id=request_id.upper())).id == run.id
    local, remote = await asyncio.gather(
        *(one.turn(session_id, "Hello", request_id=request_id) for one in (suite, other))
    )
    assert local == remote
    assert_whole(local)
    assert len(suite.model.chats) == 1
    assert len(suite.stored(session_id)) == 2


async def test_repetition_of_a_failed_run_tells_its_end_again(suite: Suite) -> None:
    session_id, request_id = suite.add_session(), str(uuid4())
    suite.model.script(FAULTS["cut"])
    failed = await suite.turn(session_id, "Hello", request_id=request_id)
    assert state_of(failed) == "FAILED"
    assert await suite.turn(session_id, "Hello", request_id=request_id) == failed
    assert len(suite.model.chats) == 1


async def test_repetition_is_followed_where_a_new_run_would_be_too_many(make_suite: MakeSuite) -> None:
    async with make_suite(max_runs=1) as suite:
        session_id, request_id = suite.add_session(), str(uuid4())
        run = await suite.create(session_id, SLOW, request_id=request_id)
        with pytest.raises(AppError) as caught:
            await suite.create(suite.add_session(), "One more")
        assert caught.value.reason == "TOO_MANY_RUNS"
        assert caught.value.retry_after_seconds
        assert (await suite.create(session_id, SLOW, request_id=request_id)).id == run.id
        await suite.cancel(run.id)
        await until(lambda: len(suite.runs) == 0)
        assert state_of(await suite.turn(session_id, "Now")) == "SUCCEEDED"


async def test_user_with_too_many_runs_is_refused(make_suite: MakeSuite) -> None:
    async with make_suite(max_user_runs=2) as suite:
        for _ in range(2):
            await suite.create(suite.add_session(), SLOW)
        with pytest.raises(AppError) as caught:
            await suite.create(suite.add_session(), "One more")
        assert caught.value.reason == "TOO_MANY_RUNS"
        stranger = replace(suite, caller=make_caller())
        assert state_of(await stranger.turn(stranger.add_session(), "Hello")) == "SUCCEEDED"


async def test_answer_is_made_again_from_the_same_question(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(text="Good."), Behaviour(text="Fine."), Behaviour(text="Better."))
    await suite.turn(session_id, "Hello")
    question, _ = suite.stored(session_id)
    await suite.turn(session_id, "And more")
    run = await suite.create(session_id, regenerate_message_id=question.id)
    events = await suite.events(run.id)
    assert events[0].run_started.user_message.id == question.id
    assert [message["content"] for message in suite.model.chats[2]["messages"][1:]] == ["Hello"]
    active = [message.content for message in suite.stored(session_id) if message.is_active]
    assert active == ["Hello", "Better."]


async def test_edited_question_takes_the_place_of_the_old_one(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(text="Good."), Behaviour(text="Bon."))
    await suite.turn(session_id, "Hello")
    await suite.turn(session_id, "Bonjour", edit_message_id=suite.stored(session_id)[0].id)
    assert [message["content"] for message in suite.model.chats[1]["messages"][1:]] == ["Bonjour"]
    active = [message.content for message in suite.stored(session_id) if message.is_active]
    assert active == ["Bonjour", "Bon."]


async def test_run_of_an_agent_that_is_not_there_is_refused(suite: Suite) -> None:
    with pytest.raises(AppError) as caught:
        await suite.create(suite.add_session(), "Hello", agent="unknown")
    assert caught.value.reason == "AGENT_NOT_FOUND"
    assert suite.fake.calls["StartRun"] == 0


async def test_prices_travel_with_the_run_and_make_its_cost(make_suite: MakeSuite) -> None:
    prices = {"test-model": {"prompt": 2_000_000, "completion": 8_000_000, "cached": 500_000}}
    async with make_suite(model_prices=prices) as suite:
        suite.model.script(Behaviour(text="One two three four", cached_tokens=2))
        events = await suite.turn(suite.add_session(), "Hello")
        usage = events[-2].usage
        assert usage.cost_micro_usd == round((usage.prompt_tokens - 2) * 2 + 2 * 0.5 + 4 * 8)
