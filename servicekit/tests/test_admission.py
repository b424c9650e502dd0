import asyncio
import random
from collections import Counter

import pytest

from servicekit.database import admission
from servicekit.database.admission import Admission, Ticket, share_of
from servicekit.errors import AppError

ADA, BEN, CLARA, DORA = "ada", "ben", "clara", "dora"


async def turn() -> None:
    """Let everything that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


def entering(
    gate: Admission, caller: str | None, *, row: str = "", size_bytes: int = 0, seconds: float = 60
) -> "asyncio.Task[Ticket]":
    return asyncio.create_task(gate.enter(caller, row=row, size_bytes=size_bytes, seconds=seconds))


async def entered(gate: Admission, *callers: str | None, row: str = "") -> "list[asyncio.Task[Ticket]]":
    """Let the callers come in this order; those that are admitted are done."""
    tasks = [entering(gate, caller, row=row) for caller in callers]
    await turn()
    return tasks


def count(tasks: "list[asyncio.Task[Ticket]]") -> int:
    return sum(task.done() for task in tasks)


async def refusal(gate: Admission, caller: str | None, *, size_bytes: int = 0, seconds: float = 60) -> AppError:
    with pytest.raises(AppError) as error:
        await gate.enter(caller, size_bytes=size_bytes, seconds=seconds)
    return error.value


async def gone(tasks: "list[asyncio.Task[Ticket]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("size", "share"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2), (8, 3), (9, 3), (10, 3), (20, 7), (30, 10)]
)
async def test_one_caller_has_a_third_at_once_and_leaves_room_for_others(size: int, share: int) -> None:
    assert share_of(size) == share
    gate = Admission(size)
    tasks = await entered(gate, *[ADA] * 40)
    assert count(tasks) == share
    others = await entered(gate, BEN)
    assert count(others) == (1 if size > 1 else 0)
    await gone(tasks + others)


@pytest.mark.parametrize(("size", "callers"), [(1, 1), (2, 2), (3, 3), (4, 3), (10, 9)])
async def test_callers_together_leave_a_connection_for_the_services_own_work(size: int, callers: int) -> None:
    gate = Admission(size)
    tasks = await entered(gate, *(f"caller {number}" for number in range(40)))
    assert count(tasks) == callers
    own = await entered(gate, *[None] * 5)
    assert count(own) == size - callers
    await gone(tasks + own)


async def test_the_services_own_work_knows_no_share_and_comes_first() -> None:
    gate = Admission(6)
    own = await entered(gate, *[None] * 6)
    assert count(own) == 6
    waiting = await entered(gate, ADA, BEN, None)
    assert count(waiting) == 0
    gate.leave(own[0].result())
    await turn()
    assert [task.done() for task in waiting] == [False, False, True]
    await gone(waiting)


async def test_calls_of_one_caller_follow_each_other_in_the_order_in_which_they_came() -> None:
    gate = Admission(3)
    first, *waiting = await entered(gate, *[ADA] * 6)
    order = []
    ticket = first.result()
    while waiting:
        gate.leave(ticket)
        await turn()
        done = [task for task in waiting if task.done()]
        assert len(done) == 1
        order.append(waiting.index(done[0]))
        waiting.remove(done[0])
        ticket = done[0].result()
    assert order == [0] * 5


async def test_callers_take_turns_however_many_calls_one_of_them_has() -> None:
    gate = Admission(3)
    held = await entered(gate, CLARA, DORA, "somebody")
    flood = await entered(gate, *[ADA] * 50)
    other = await entered(gate, BEN)
    assert count(flood + other) == 0
    gate.leave(held[0].result())
    gate.leave(held[1].result())
    await turn()
    assert count(flood) == count(other) == 1
    await gone(flood + other)


async def test_a_call_that_ends_lets_the_next_of_its_caller_in() -> None:
    gate = Admission(10)
    tasks = await entered(gate, *[ADA] * 200)
    for ended in range(200):
        assert count(tasks) == min(200, ended + share_of(10))
        gate.leave(tasks[ended].result())
        await turn()
    assert gate.waiting == 0


async def test_more_calls_than_may_wait_are_refused_and_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "REFUSAL_SECONDS", 0.01)
    gate = Admission(3)
    tasks = await entered(gate, *[ADA] * (1 + admission.MOST_WAITING))
    assert gate.waiting == admission.MOST_WAITING
    error = await refusal(gate, ADA)
    assert (error.reason, error.http_status, error.code.name) == ("TOO_MANY_REQUESTS", 429, "RESOURCE_EXHAUSTED")
    assert error.retry_after_seconds == admission.RETRY_SECONDS
    assert count(await entered(gate, BEN)) == 1
    await gone(tasks)


async def test_refusals_take_a_while_so_that_who_repeats_at_once_makes_no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "REFUSAL_SECONDS", 600.0)
    monkeypatch.setattr(admission, "MOST_WAITING", 20)
    gate = Admission(3)
    tasks = await entered(gate, *[ADA] * 21)
    refused = await entered(gate, *[ADA] * 20)
    assert count(refused) == 0
    # No more of them than may wait, and none that holds much: those are let go at once.
    assert (await refusal(gate, ADA)).reason == "TOO_MANY_REQUESTS"
    assert gate.waiting == 20
    await gone(refused)
    assert (await refusal(gate, ADA, size_bytes=admission.MOST_DELAYED_BYTES + 1)).reason == "TOO_MANY_REQUESTS"
    await gone(tasks)


async def test_what_waits_of_one_caller_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "REFUSAL_SECONDS", 0.01)
    gate = Admission(3)
    size = admission.MOST_WAITING_BYTES // 4
    tasks = await entered(gate, ADA) + [entering(gate, ADA, size_bytes=size) for _ in range(4)]
    await turn()
    assert (await refusal(gate, ADA, size_bytes=1)).reason == "TOO_MANY_REQUESTS"
    await gone(tasks[1:2])
    assert count(tasks) == 2
    tasks.append(entering(gate, ADA, size_bytes=size))
    await turn()
    assert gate.waiting == 4
    await gone(tasks)


async def test_what_waits_of_all_callers_is_bounded_in_bytes() -> None:
    gate = Admission(1)
    held = await entered(gate, ADA)
    size = admission.MOST_WAITING_BYTES
    many = admission.MOST_WAITING_BYTES_OF_ALL // size
    tasks = [entering(gate, f"caller {number}", size_bytes=size) for number in range(many)]
    await turn()
    # Nobody's own fault, so it is the database that is busy.
    assert (await refusal(gate, BEN, size_bytes=1)).reason == "DATABASE_BUSY"
    await gone(tasks + held)


async def test_who_waits_too_long_for_its_own_share_is_told_to_send_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "QUEUE_SECONDS", 0.01)
    gate = Admission(3)
    held = await entered(gate, ADA)
    assert (await refusal(gate, ADA)).reason == "TOO_MANY_REQUESTS"
    assert gate.waiting == 0
    gate.leave(held[0].result())
    assert count(await entered(gate, ADA)) == 1


async def test_who_waits_too_long_for_what_others_have_is_told_that_the_database_is_busy() -> None:
    gate = Admission(2)
    held = await entered(gate, ADA, BEN)
    assert (await refusal(gate, CLARA, seconds=0.01)).reason == "DATABASE_BUSY"
    assert (await refusal(gate, None, seconds=0.01)).reason == "DATABASE_BUSY"
    gate.leave(held[0].result())
    assert count(await entered(gate, CLARA)) == 1


async def test_calls_with_one_row_follow_each_other_and_hold_no_connection_while_they_wait() -> None:
    gate = Admission(10)
    tasks = await entered(gate, *[ADA] * 4, row="session")
    assert count(tasks) == 1
    # Two more of the caller's share are there for everything else.
    assert count(await entered(gate, ADA, ADA, row="")) == 2
    for ended in range(4):
        assert count(tasks) == ended + 1
        gate.leave(tasks[ended].result())
        await turn()
    assert gate.waiting == 0


async def test_a_row_passes_by_who_is_gone_or_too_late() -> None:
    gate = Admission(10)
    tasks = await entered(gate, *[ADA] * 3, row="session")
    late = entering(gate, ADA, row="session", seconds=0.01)
    with pytest.raises(AppError) as error:
        await late
    assert error.value.reason == "TOO_MANY_REQUESTS"
    await gone(tasks[1:2])
    gate.leave(tasks[0].result())
    await turn()
    assert tasks[2].done()
    gate.leave(tasks[2].result())
    assert count(await entered(gate, BEN, row="session")) == 1


async def test_a_call_that_pauses_keeps_its_row_and_gives_its_connection_to_others() -> None:
    gate = Admission(3)
    (held,) = await entered(gate, ADA, row="session")
    waiting = await entered(gate, ADA, row="session") + await entered(gate, ADA)
    gate.pause(held.result())
    await turn()
    assert [task.done() for task in waiting] == [False, True]
    resuming = asyncio.create_task(gate.resume(held.result(), seconds=60))
    await turn()
    assert not resuming.done()
    gate.leave(waiting[1].result())
    await turn()
    assert resuming.done()
    gate.leave(held.result())
    await turn()
    assert waiting[0].done()


async def test_who_goes_at_the_moment_of_being_admitted_leaves_nothing_behind() -> None:
    gate = Admission(1)
    (held,) = await entered(gate, ADA)
    waiting = await entered(gate, BEN, row="session")
    gate.leave(held.result())
    await gone(waiting)
    assert count(await entered(gate, CLARA, row="session")) == 1


async def test_whatever_comes_and_goes_no_limit_is_passed_and_everybody_is_served() -> None:
    chance = random.Random(7)
    size = 7
    gate = Admission(size)
    active: Counter[str | None] = Counter()
    rows: Counter[str] = Counter()
    served = refused = cancelled = 0

    async def one(caller: str | None, row: str) -> None:
        nonlocal served, refused
        try:
            ticket = await gate.enter(caller, row=row, size_bytes=chance.randrange(10), seconds=60)
        except AppError:
            refused += 1
            return
        try:
            for _ in range(chance.randrange(1, 4)):
                active[caller] += 1
                rows[row] += 1
                assert active.total() <= size
                assert caller is None or active[caller] <= share_of(size)
                assert not row or rows[row] == 1
                try:
                    await asyncio.sleep(chance.random() / 1000)  # work of any length
                finally:
                    active[caller] -= 1
                    rows[row] -= 1
                gate.pause(ticket)
                await gate.resume(ticket, seconds=60)
            served += 1
        finally:
            gate.leave(ticket)

    tasks = []
    for _ in range(600):
        caller = chance.choice([None, ADA, ADA, ADA, BEN, CLARA])
        row = chance.choice(["", "", f"row of {caller}"])
        tasks.append(asyncio.create_task(one(caller, row)))
        if chance.random() < 0.2:
            await asyncio.sleep(0)
        if chance.random() < 0.1:
            chance.choice(tasks).cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, asyncio.CancelledError):
            cancelled += 1
        elif result is not None:
            raise result
    assert served + refused + cancelled == len(tasks)
    assert served > 300
    assert gate.waiting == 0
    # All of it is free again.
    assert count(await entered(gate, *[None] * size)) == size


async def test_long_work_has_the_whole_share_of_its_caller_and_nothing_of_others() -> None:
    gate = Admission(10)
    long = [asyncio.create_task(gate.enter(ADA, is_exclusive=True, seconds=60)) for _ in range(2)]
    await turn()
    short = await entered(gate, ADA, BEN)
    assert [task.done() for task in long + short] == [True, False, False, True]
    gate.leave(long[0].result())
    await turn()
    assert [task.done() for task in long + short] == [True, True, False, True]
    gate.leave(long[1].result())
    await turn()
    assert short[0].done()
    # It waits for those that came before it.
    third = asyncio.create_task(gate.enter(ADA, is_exclusive=True, seconds=60))
    await turn()
    assert not third.done()
    gate.leave(short[0].result())
    await turn()
    assert third.done()


async def test_long_work_that_is_given_up_lets_shorter_work_by() -> None:
    gate = Admission(10)
    (held,) = await entered(gate, ADA)
    long = asyncio.create_task(gate.enter(ADA, is_exclusive=True, seconds=60))
    await turn()
    short = await entered(gate, ADA)
    assert count([long, *short]) == 0
    await gone([long])
    await turn()
    assert count(short) == 1
    gate.leave(held.result())


async def test_who_has_had_too_much_long_work_waits_until_it_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "CREDIT_SECONDS", 0.02)
    monkeypatch.setattr(admission, "CREDIT_PER_SECOND", 1.0)
    loop = asyncio.get_running_loop()
    gate = Admission(10)
    ticket = await gate.enter(ADA, seconds=60)
    gate.charge(ticket, 0.01)
    gate.leave(ticket)
    ticket = await gate.enter(ADA, seconds=60)
    began = loop.time()
    gate.charge(ticket, 0.11)
    gate.leave(ticket)
    others = await entered(gate, BEN, None)
    assert count(others) == 2
    ticket = await gate.enter(ADA, seconds=60)
    assert loop.time() - began >= 0.08
    gate.leave(ticket)


async def test_one_call_that_took_very_long_makes_the_next_wait_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "CREDIT_PER_SECOND", 100.0)
    gate = Admission(10)
    ticket = await gate.enter(ADA, seconds=60)
    gate.charge(ticket, 1_000_000.0)
    gate.leave(ticket)
    gate.leave(await gate.enter(ADA, seconds=60))


async def test_a_debt_outlives_the_calls_it_came_from_and_goes_when_it_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "CREDIT_PER_SECOND", 100.0)
    gate = Admission(10)
    ticket = await gate.enter(ADA, seconds=60)
    gate.charge(ticket, 3.0)
    gate.leave(ticket)
    waiting = await entered(gate, ADA)
    assert count(waiting) == 0
    await waiting[0]
    gate.leave(waiting[0].result())
    assert count(await entered(gate, *[ADA] * 3)) == 3
