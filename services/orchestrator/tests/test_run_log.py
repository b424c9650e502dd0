import asyncio

import pytest
from concerto.sessions.v1 import runs_pb2

from services.orchestrator.runs import run_log
from services.orchestrator.runs.run_log import RunLog


def delta(seq: int) -> runs_pb2.RunEvent:
    return runs_pb2.RunEvent(seq=seq, message_delta=runs_pb2.MessageDelta(text=f"t{seq} "))


def end(seq: int) -> runs_pb2.RunEvent:
    return runs_pb2.RunEvent(seq=seq, run_finished=runs_pb2.RunFinished(state=runs_pb2.RUN_STATE_SUCCEEDED))


async def seqs(log: RunLog, after_seq: int = 0) -> list[int]:
    return [event.seq async for events in log.follow(after_seq) for event in events]


async def test_readers_get_what_is_there_and_what_comes() -> None:
    log = RunLog()
    log.publish([delta(1), delta(2)])
    readers = [asyncio.create_task(seqs(log, after_seq)) for after_seq in (0, 1, 3)]
    await asyncio.sleep(0)
    log.publish([delta(3)])
    log.publish([delta(4), end(5)])
    assert await asyncio.gather(*readers) == [[1, 2, 3, 4, 5], [2, 3, 4, 5], [4, 5]]
    assert await seqs(log, 5) == await seqs(log, 99) == []


async def test_reader_whose_place_is_gone_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "MAX_EVENTS", 4)
    log = RunLog()
    log.publish([delta(1)])
    slow = log.follow(0)
    assert [event.seq for event in await anext(slow)] == [1]
    for seq in range(2, 30):
        log.publish([delta(seq)])
        assert len(log) <= 8
    assert [events async for events in slow] == []
    log.publish([end(30)])
    assert (await seqs(log, 26)) == [27, 28, 29, 30]


async def test_a_reader_is_given_what_is_there_at_once_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_log, "MAX_BATCH", 3)
    log = RunLog()
    log.publish([*map(delta, range(1, 8)), end(8)])
    assert [[event.seq for event in events] async for events in log.follow(1)] == [[2, 3, 4], [5, 6, 7], [8]]


async def test_closed_log_lets_its_readers_go() -> None:
    log = RunLog()
    log.publish([delta(1)])
    reader = asyncio.create_task(seqs(log))
    await asyncio.sleep(0)
    log.close()
    assert await reader == [1]


async def test_events_that_do_not_follow_on_close_the_log() -> None:
    log = RunLog()
    log.publish([delta(1)])
    log.publish([delta(3)])
    assert await seqs(log) == [1]
