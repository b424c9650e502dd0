import asyncio
import json
from uuid import uuid4

import pytest

from tests.support.contract import MAX_CONTENT_BYTES
from tests.support.runs import ERROR, RunsWorld, refused

STATES = ("SUCCEEDED", "FAILED", "CANCELLED", "INTERRUPTED")


async def test_a_finish_stores_messages_events_state_and_ledger_at_once(world: RunsWorld) -> None:
    session_id = await world.new_session()
    prices = {"prompt": 1_000_000, "completion": 4_000_000, "cached": 500_000}
    started = await world.start(session_id, "question", model="m", prices=prices, source="chat_completions")
    run_id = started["run"]["id"]
    await world.append(started["lease"], ["an", "swer"])
    finish = {
        "lease": started["lease"],
        "state": "SUCCEEDED",
        "messages": [
            {"role": "assistant", "content": "", "metadata": {"tool_calls": []}},
            {"role": "tool", "content": "found"},
            {"role": "assistant", "content": "answer", "metadata": {"model": "m-2"}},
        ],
        "usage": {"model": "m-2", "prompt_tokens": 11, "completion_tokens": 5, "cached_tokens": 4},
        "next_seq": 4,
    }
    answer = await world.system("finish_run", **finish)
    usage = {
        "model": "m-2", "prompt_tokens": 11, "completion_tokens": 5, "cached_tokens": 4, "cost_micro_usd": 29,
        "is_estimated": False,
    }  # fmt: skip
    assert answer["run"]["usage"] == usage
    stored = (await world.call("list_messages", session_id=session_id))["messages"]
    assert [message["content"] for message in stored] == ["question", "", "found", "answer"]
    assert answer["events"] == (await world.events(run_id))[3:]
    completed, used, finished = answer["events"]
    assert completed["message_completed"] == {"message": stored[-1]}
    assert answer["run"]["answer_message_id"] == stored[-1]["id"]
    assert (used["usage"], finished["run_finished"]) == (usage, {"state": "SUCCEEDED"})
    assert [event["seq"] for event in answer["events"]] == [4, 5, 6]
    [row] = await world.ledger()
    assert (row["model"], row["source"], row["cost_micro_usd"]) == ("m-2", "chat_completions", 29)
    assert (str(row["session_id"]), str(row["run_id"]), row["is_estimated"]) == (session_id, run_id, False)
    assert await world.system("finish_run", **finish) == answer, "a repetition answers the same"
    assert len(await world.ledger()) == 1
    assert await world.contents(session_id) == ["question", "", "found", "answer"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("answer", ["partial", None])
async def test_every_end_leaves_one_row_in_the_ledger(world: RunsWorld, state: str, answer: str | None) -> None:
    started = await world.start()
    error = None if state in ("SUCCEEDED", "CANCELLED") else ERROR
    done = await world.finish(started["lease"], state, answer, usage={"prompt_tokens": 3}, error=error)
    expected = [*(["message_completed"] if answer else []), "usage", *(["error"] if error else []), "run_finished"]
    assert (await world.types(started["run"]["id"]))[1:] == expected
    assert (done["run"]["state"], done["run"]["error_reason"]) == (state, "RUN_INTERRUPTED" if error else None)
    assert [row["prompt_tokens"] for row in await world.ledger()] == [3]


async def test_a_cancelled_run_has_no_error_even_if_one_is_sent(world: RunsWorld) -> None:
    started = await world.start()
    done = await world.finish(started["lease"], "CANCELLED", None, error=ERROR)
    assert (await world.types(started["run"]["id"]), done["run"]["error_reason"]) == (
        ["run_started", "run_finished"],
        None,
    )


async def test_a_model_that_was_never_asked_used_nothing_and_is_noted(world: RunsWorld) -> None:
    started = await world.start(model="m")
    await world.finish(started["lease"], "FAILED", None, error=ERROR)
    assert await world.types(started["run"]["id"]) == ["run_started", "error", "run_finished"]
    assert [(row["model"], row["prompt_tokens"]) for row in await world.ledger()] == [("m", 0)]


async def test_a_run_cancelled_while_it_waits_stores_nothing(world: RunsWorld) -> None:
    session_id = await world.new_session()
    first = await world.start(session_id, "1")
    waiting = await world.start(session_id, "2", if_running="queue")
    done = await world.finish(waiting["lease"], "CANCELLED", None)
    assert done["run"]["state"] == "CANCELLED"
    assert await world.types(waiting["run"]["id"]) == ["run_finished"]
    assert await world.contents(session_id) == ["1"]
    assert await world.ledger() == []
    await world.finish(first["lease"])
    assert (await world.start(session_id, "3"))["run"]["state"] == "RUNNING"


@pytest.mark.parametrize("pieces", [["Hal", "lo ", "Wörld"], ["\U0001f3bc", "\n\t\\u0041", '"{}"', "  "], [], ["", ""]])
async def test_the_reaper_folds_what_was_said_exactly(world: RunsWorld, pieces: list[str]) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "question", model="m")
    run_id, text = started["run"]["id"], "".join(pieces)
    await world.append(started["lease"], pieces)
    await world.interrupt(run_id)
    run = await world.run(run_id)
    assert (run["state"], run["error_reason"], run["usage"]["is_estimated"]) == ("INTERRUPTED", "RUN_INTERRUPTED", True)
    completed = ["message_completed"] if text else []
    expected = ["run_started", *["message_delta"] * len(pieces), *completed, "usage", "error", "run_finished"]
    assert await world.types(run_id) == expected
    messages = (await world.call("list_messages", session_id=session_id))["messages"]
    assert [message["content"] for message in messages] == ["question", *([text] if text else [])]
    if text:
        metadata = messages[-1]["metadata"]
        assert (metadata["partial"], metadata["error_reason"]) == (True, "RUN_INTERRUPTED")
        assert (messages[-1]["role"], messages[-1]["id"]) == ("assistant", run["answer_message_id"])
    assert [row["is_estimated"] for row in await world.ledger()] == [True]
    await world.system("interrupt_expired_runs", limit=10, error=ERROR)
    assert await world.types(run_id) == expected, "nothing is done twice"


async def test_a_text_that_no_message_holds_is_cut(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id)
    await world.append(started["lease"], ["x" * MAX_CONTENT_BYTES, "y"])
    await world.interrupt(started["run"]["id"])
    [_, partial] = await world.contents(session_id)
    assert set(partial) == {"x"}


async def test_a_death_that_is_reported_ends_the_leases_of_that_process_alone(world: RunsWorld) -> None:
    dead, alive = str(uuid4()), str(uuid4())
    session_id = await world.new_session()
    running = await world.start(session_id, process_id=dead, lease_seconds=3600)
    waiting = await world.start(session_id, process_id=dead, lease_seconds=3600, if_running="queue")
    ended = await world.start(process_id=dead)
    await world.finish(ended["lease"])
    others = [await world.start(process_id=alive, lease_seconds=3600), await world.start(lease_seconds=3600)]
    reported = await world.system("end_leases", process_id=dead)
    assert sorted(reported["run_ids"]) == sorted(one["run"]["id"] for one in (running, waiting))
    await world.system("interrupt_expired_runs", limit=1000, error=ERROR)
    states = [(await world.run(one["run"]["id"]))["state"] for one in (running, waiting, ended, *others)]
    assert states == ["INTERRUPTED", "INTERRUPTED", "SUCCEEDED", "RUNNING", "RUNNING"]
    assert await world.system("end_leases", process_id=dead) == {"run_ids": []}
    assert await world.system("end_leases") == {"run_ids": []}


async def test_a_process_that_lives_goes_on_after_it_was_called_dead(world: RunsWorld) -> None:
    process_id = str(uuid4())
    started = await world.start(process_id=process_id)
    async with world.admin.transaction():  # in which no service that runs sees the lease without its time
        await world.admin.fetchval("select private.end_leases($1::jsonb)", json.dumps({"process_id": process_id}))
        renewed = json.dumps({"leases": [started["lease"]]})
        assert json.loads(await world.admin.fetchval("select private.renew_leases($1::jsonb)", renewed)) == {
            "lost_run_ids": [], "cancelled_run_ids": []
        }  # fmt: skip
    assert await world.append(started["lease"], ["on"]) == []


async def test_a_waiting_run_whose_process_died_is_interrupted_as_well(world: RunsWorld) -> None:
    session_id = await world.new_session()
    await world.start(session_id, "1", lease_seconds=60)
    waiting = await world.start(session_id, "2", if_running="queue")
    await world.interrupt(waiting["run"]["id"])
    assert (await world.run(waiting["run"]["id"]))["state"] == "INTERRUPTED"
    assert await world.types(waiting["run"]["id"]) == ["error", "run_finished"]
    assert (await world.contents(session_id), await world.ledger()) == (["1"], [])


async def test_reapers_at_work_at_once_end_each_run_once(world: RunsWorld) -> None:
    started = [await world.start() for _ in range(20)]
    for one in started:
        await world.append(one["lease"], ["par", "tial"])
    await world.admin.execute(
        "update public.runs set lease_expires_at = now() - interval '1 second' where user_id = $1", world.user
    )
    answers = await asyncio.gather(*(world.system("interrupt_expired_runs", limit=50, error=ERROR) for _ in range(8)))
    ids = [run_id for answer in answers for run_id in answer["run_ids"]]
    assert len(ids) == len(set(ids))
    for one in started:
        await world.interrupt(one["run"]["id"])
        assert await world.contents(one["run"]["session_id"]) == ["hello", "partial"]
    assert len(await world.ledger()) == len(started)


async def test_a_lease_that_was_renewed_is_left_alone(world: RunsWorld) -> None:
    started = await world.start(lease_seconds=1)
    run_id = started["run"]["id"]
    await world.system("renew_leases", leases=[started["lease"]], lease_seconds=60)
    await asyncio.sleep(1.1)  # the first lease ends by the database's clock
    assert run_id not in (await world.system("interrupt_expired_runs", limit=1000, error=ERROR))["run_ids"]
    assert (await world.run(run_id))["state"] == "RUNNING"


async def test_a_late_writer_gets_more_time(world: RunsWorld) -> None:
    started = await world.start(lease_seconds=60)
    run_id = started["run"]["id"]
    await world.admin.execute(
        "update public.runs set lease_expires_at = now() + interval '20 seconds' where id = $1", run_id
    )
    assert await world.append(started["lease"], "a") == []
    assert await world.admin.fetchval(
        "select lease_expires_at > now() + interval '50 seconds' from public.runs where id = $1", run_id
    )
    row = "select xmin::text from public.runs where id = $1"
    before = await world.admin.fetchval(row, run_id)
    await world.append(started["lease"], "b", first_seq=3)
    assert await world.admin.fetchval(row, run_id) == before, "a lease that lives is not written again"


async def test_appending_and_ending_at_once_leaves_no_gap_and_nothing_behind_the_end(world: RunsWorld) -> None:
    for _ in range(10):
        started = await world.start()
        run_id = started["run"]["id"]
        await world.expire(run_id)
        await asyncio.gather(
            *(world.append(started["lease"], [str(seq)], first_seq=seq) for seq in range(2, 8)),
            world.system("interrupt_expired_runs", limit=1000, error=ERROR),
        )
        await world.interrupt(run_id)
        events = await world.events(run_id)
        assert "run_finished" in events[-1]
        streamed = "".join(event["message_delta"]["text"] for event in events if "message_delta" in event)
        assert (await world.contents(started["run"]["session_id"]))[1:] == ([streamed] if streamed else [])


async def test_starting_and_finishing_at_once_locks_nobody_out(world: RunsWorld) -> None:
    session_id = await world.new_session()
    for number in range(15):
        started = await world.start(session_id, str(number))
        answers = await asyncio.gather(
            world.finish(started["lease"]),
            world.start(session_id, "next", if_running="cancel"),
            world.call("request_run_cancellation", run_id=started["run"]["id"]),
            world.system("renew_leases", leases=[started["lease"]]),
            world.system("interrupt_expired_runs", limit=100, error=ERROR),
        )
        follower = answers[1]
        if follower["run"]["state"] == "QUEUED":
            await world.system("promote_run", lease=follower["lease"])
        await world.finish(follower["lease"])


async def test_old_deltas_are_pruned_and_the_rest_keeps_its_place(world: RunsWorld) -> None:
    old, recent, running = [await world.start() for _ in range(3)]
    for one in (old, recent, running):
        await world.append(one["lease"], "abc")
    tool = {"seq": 5, "tool_finished": {"call_id": "1", "name": "t", "output": "o", "is_error": False}}
    await world.system("append_run_events", batches=[{"lease": old["lease"], "events": [tool]}])
    await world.finish(old["lease"])
    await world.finish(recent["lease"])
    await world.admin.execute(
        "update public.runs set finished_at = now() - interval '2 hours' where id = $1", old["run"]["id"]
    )
    await world.system("prune_run_events", older_than_seconds=3600)
    events = await world.events(old["run"]["id"])
    assert [event["seq"] for event in events] == [1, 5, 6, 7]
    for one in (recent, running):
        assert (await world.types(one["run"]["id"])).count("message_delta") == 3
    assert (await world.system("prune_run_events", older_than_seconds=3600))["pruned"] == 0


@pytest.mark.parametrize("in_steps", [False, True])
async def test_deleting_a_session_ends_its_run_and_notes_what_it_used(world: RunsWorld, in_steps: bool) -> None:
    session_id = await world.new_session()
    await world.answered(session_id, "1", "one")
    started = await world.start(
        session_id, "two and 4", model="m", prices={"prompt": 2_000_000, "completion": 8_000_000}
    )
    run_id = started["run"]["id"]
    await world.append(started["lease"], ["four", "more"])
    await world.call("delete_session", session_id=session_id, in_steps=in_steps)
    assert await world.append(started["lease"], "x", first_seq=9) == [run_id]
    await refused("PT409", "LEASE_LOST", world.finish(started["lease"]))
    await refused("PT404", "RUN_NOT_FOUND", world.call("get_run", run_id=run_id))
    assert await world.admin.fetchval("select count(*) from public.run_events where run_id = $1", run_id) == 0
    rows = await world.ledger()
    counts = ("model", "prompt_tokens", "completion_tokens", "cost_micro_usd", "is_estimated")
    # A quarter of the 13 bytes that the session held, and of the eight that were said.
    assert [tuple(row[count] for count in counts) for row in rows] == [("", 0, 0, 0, False), ("m", 4, 2, 24, True)]


async def test_deleting_an_account_deletes_its_runs_events_and_ledger(world: RunsWorld) -> None:
    session_id = await world.new_session()
    run_id = (await world.answered(session_id, "1", "one"))["run"]["id"]
    running_id = (await world.start(session_id, "2"))["run"]["id"]
    await world.admin.execute("delete from auth.users where id = $1", world.user)
    for table, column in (("runs", "user_id"), ("api_usage", "user_id")):
        assert await world.admin.fetchval(f"select count(*) from public.{table} where {column} = $1", world.user) == 0
    left = await world.admin.fetchval(
        "select count(*) from public.run_events where run_id = any($1::uuid[])", [run_id, running_id]
    )
    assert left == 0
