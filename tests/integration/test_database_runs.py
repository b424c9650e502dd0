import asyncio
import json
from hashlib import sha256
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.support.database import acting_as, add_user, call
from tests.support.runs import RunsWorld, forged, refused, start_args, user_message_of
from tests.support.suites import RunningStack

MEBIBYTE = 1024 * 1024
# Every character that Python calls white space, NUL's neighbours among them.
BLANKS = [char for char in map(chr, range(0x110000)) if char.isspace()]
STATES = ("SUCCEEDED", "FAILED", "CANCELLED", "INTERRUPTED")


async def test_a_start_stores_the_message_the_run_and_its_first_event(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, "Träume?", metadata={"a": 1}, model="m", agent="guide")
    run, message = started["run"], user_message_of(started)
    assert (run["state"], run["model"], run["agent"], run["user_id"]) == ("RUNNING", "m", "guide", world.user)
    assert (run["user_message_id"], run["answer_message_id"], run["usage"]) == (message["id"], None, None)
    assert (message["role"], message["content"], message["metadata"]) == ("user", "Träume?", {"a": 1})
    [event] = await world.events(run["id"])
    assert event["seq"] == 1
    assert event["run_started"] == {
        "run_id": run["id"], "session_id": session_id, "user_message": message, "model": "m", "agent": "guide"
    }  # fmt: skip
    assert await world.contents(session_id) == ["Träume?"]


async def test_a_run_that_is_opened_past_its_operation_is_as_bounded_as_any(world: RunsWorld) -> None:
    session_id, other = await world.new_session(), await world.start()
    row = "jsonb_populate_record(null::public.runs, $1)"
    given = {"session_id": session_id, "state": "QUEUED", "source": "turn", "prices": {}, "lease_seconds": 2**31 - 1}
    given |= {"user_message_id": user_message_of(other)["id"], "request_hash": "\\x00"}
    async with world.pool.acquire() as login, acting_as(login, world.user) as user:
        answer = json.loads(await user.fetchval(f"select private.open_run({row}, null, '', false)", json.dumps(given)))
        lease_seconds, message_id = await user.fetchrow(
            "select lease_seconds, user_message_id from public.runs where id = $1", answer["run"]["id"]
        )
    assert (lease_seconds, message_id) == (3600, None)


async def test_a_lease_token_is_random_and_only_its_hash_is_stored(world: RunsWorld) -> None:
    started = [await world.start() for _ in range(8)]
    tokens = {one["lease"]["token"] for one in started}
    assert len(tokens) == 8
    assert all(len(token) == 64 and int(token, 16) for token in tokens)
    rows = await world.admin.fetchval(
        "select string_agg(r::text || r.lease_hash::text, ' ') from public.runs as r where user_id = $1",
        world.user,
    )
    assert not any(token in rows for token in tokens)


@pytest.mark.parametrize(
    ("args", "reason", "field"),
    [
        ({}, "MISSING_FIELD", "content"),
        *(({"content": blank}, "MISSING_FIELD", "content") for blank in ("", " \n\t", *BLANKS, " " * MEBIBYTE)),
        ({"content": "", "edit_message_id": str(uuid4())}, "MISSING_FIELD", "content"),
        ({"content": "x", "regenerate_message_id": str(uuid4())}, "INVALID_FIELD", "content"),
        (
            {"content": "", "regenerate_message_id": str(uuid4()), "edit_message_id": str(uuid4())},
            "INVALID_FIELD",
            "edit_message_id",
        ),
        ({"content": "x", "metadata": {"x": [1e300] * 1000}}, "FIELD_TOO_LARGE", "metadata"),
    ],
)
async def test_a_start_with_a_wrong_field_names_it(
    world: RunsWorld, args: dict[str, Any], reason: str, field: str
) -> None:
    session_id = await world.new_session()
    detail = await refused("PT400", reason, world.call("start_run", **start_args(session_id, **args)))
    assert detail["field"] == field
    assert await world.contents(session_id) == []


async def test_one_request_id_sent_at_once_starts_one_run_with_one_lease(world: RunsWorld) -> None:
    session_id, request_id = await world.new_session(), str(uuid4())
    answers = await asyncio.gather(*(world.start(session_id, "x", request_id=request_id) for _ in range(8)))
    assert len({answer["run"]["id"] for answer in answers}) == 1
    assert sum(1 for answer in answers if answer.get("lease")) == 1
    assert all(user_message_of(answer) == user_message_of(answers[0]) for answer in answers)
    assert await world.contents(session_id) == ["x"]


async def test_a_start_repeated_with_its_own_lease_token_still_gets_the_lease(world: RunsWorld) -> None:
    session_id, asked = await world.new_session(), {"request_id": str(uuid4()), "lease_token": "t" * 40}
    first = await world.start(session_id, "x", **asked)
    again = await world.start(session_id, "x", **asked)
    assert first["lease"] == again["lease"] == {"run_id": first["run"]["id"], "token": "t" * 40}
    assert again["events"] == first["events"] == await world.events(first["run"]["id"])
    assert "lease" not in await world.start(session_id, "x", **{**asked, "lease_token": "u" * 40})
    assert await world.append(again["lease"], ["a"]) == []
    await world.finish(first["lease"])
    assert "lease" not in await world.start(session_id, "x", **asked)


async def test_a_repeated_start_answers_the_run_as_it_is_now(world: RunsWorld) -> None:
    session_id, request_id = await world.new_session(), str(uuid4())
    started = await world.start(session_id, "x", request_id=request_id)
    await world.finish(started["lease"])
    again = await world.start(session_id, "x", request_id=request_id, model="another")
    assert (again["run"]["id"], again["run"]["state"]) == (started["run"]["id"], "SUCCEEDED")
    assert "lease" not in again


@pytest.mark.parametrize("other", [{"content": "y"}, {"metadata": {"a": 1}}, {"edit": True}])
async def test_a_request_id_with_another_request_is_refused(world: RunsWorld, other: dict[str, Any]) -> None:
    session_id, request_id = await world.new_session(), str(uuid4())
    started = await world.start(session_id, "x", request_id=request_id)
    await world.finish(started["lease"])
    args = {"content": "x", **other}
    if args.pop("edit", False):
        args["edit_message_id"] = user_message_of(started)["id"]
    attempt = world.call("start_run", **start_args(session_id, request_id=request_id, **args))
    assert (await refused("PT409", "REQUEST_ID_REUSED", attempt))["request_id"] == request_id


async def test_a_session_runs_one_turn_at_a_time(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id)
    detail = await refused("PT409", "RUN_IN_PROGRESS", world.start(session_id, "more"))
    assert detail == {"session_id": session_id, "run_id": started["run"]["id"]}
    assert await world.contents(session_id) == ["hello"]
    await world.finish(started["lease"])
    assert (await world.start(session_id, "more"))["run"]["state"] == "RUNNING"


async def test_starts_sent_at_once_start_one_run(world: RunsWorld) -> None:
    session_id = await world.new_session()
    answers = await asyncio.gather(*(world.start(session_id) for _ in range(8)), return_exceptions=True)
    assert sum(1 for answer in answers if isinstance(answer, dict)) == 1
    assert {answer.message for answer in answers if isinstance(answer, asyncpg.PostgresError)} == {"RUN_IN_PROGRESS"}


async def test_waiting_runs_begin_in_their_order_and_store_their_message_then(world: RunsWorld) -> None:
    session_id = await world.new_session()
    first = await world.start(session_id, "1")
    second = await world.start(session_id, "2", if_running="queue")
    third = await world.start(session_id, "3", if_running="queue")
    for waiting in (second, third):
        assert (waiting["run"]["state"], waiting["events"]) == ("QUEUED", [])
        detail = await refused("PT400", "RUN_NOT_NEXT", world.system("promote_run", lease=waiting["lease"]))
        assert detail == {"run_id": waiting["run"]["id"]}
    assert await world.contents(session_id) == ["1"]
    await world.finish(first["lease"], answer="one")
    await refused("PT400", "RUN_NOT_NEXT", world.system("promote_run", lease=third["lease"]))
    promoted = await world.system("promote_run", lease=second["lease"])
    assert (promoted["run"]["state"], user_message_of(promoted)["content"]) == ("RUNNING", "2")
    assert promoted["events"] == await world.events(second["run"]["id"])
    assert await world.system("promote_run", lease=second["lease"]) == promoted, "a repetition answers the same"
    await refused("PT400", "RUN_NOT_NEXT", world.system("promote_run", lease=third["lease"]))
    await world.finish(second["lease"], answer="two")
    await world.system("promote_run", lease=third["lease"])
    assert await world.contents(session_id) == ["1", "one", "2", "two", "3"]
    assert await world.types(third["run"]["id"]) == ["run_started"]
    await refused("PT409", "LEASE_LOST", world.system("promote_run", lease=second["lease"]))


async def test_a_run_that_cancels_the_other_one_follows_it(world: RunsWorld) -> None:
    session_id = await world.new_session()
    first = await world.start(session_id, "1")
    second = await world.start(session_id, "2", if_running="cancel")
    assert second["run"]["state"] == "QUEUED"
    leases = [first["lease"], second["lease"]]
    answer = await world.system("renew_leases", leases=leases)
    assert answer == {"lost_run_ids": [], "cancelled_run_ids": [first["run"]["id"]]}
    await world.finish(first["lease"], "CANCELLED", None)
    await world.system("promote_run", lease=second["lease"])
    assert await world.contents(session_id) == ["1", "2"]


@pytest.mark.parametrize("if_running", ["queue", "cancel"])
async def test_nothing_waits_in_a_session_without_a_run(world: RunsWorld, if_running: str) -> None:
    assert (await world.start(if_running=if_running))["run"]["state"] == "RUNNING"


async def test_a_user_has_at_most_so_many_runs(world: RunsWorld) -> None:
    sessions = [await world.new_session() for _ in range(6)]
    answers = await asyncio.gather(
        *(world.start(session_id, max_user_runs=3) for session_id in sessions), return_exceptions=True
    )
    started = [answer for answer in answers if isinstance(answer, dict)]
    refusals = [answer for answer in answers if isinstance(answer, asyncpg.PostgresError)]
    assert (len(started), len(refusals)) == (3, 3)
    assert {(refusal.sqlstate, refusal.message) for refusal in refusals} == {("PT429", "TOO_MANY_RUNS")}
    assert json.loads(refusals[0].detail) == {"scope": "per user", "retry_after_seconds": "2"}
    await world.finish(started[0]["lease"])
    assert (await world.start(max_user_runs=3))["run"]["state"] == "RUNNING"
    stranger = RunsWorld(world.admin, world.pool, await add_user(world.admin))
    assert (await stranger.start(max_user_runs=1))["run"]["state"] == "RUNNING"


async def test_an_event_that_is_there_is_passed_over(world: RunsWorld) -> None:
    started = await world.start()
    run_id = started["run"]["id"]
    assert await world.append(started["lease"], "ab") == []
    assert await world.append(started["lease"], "ZXc", first_seq=3) == []
    texts = [event["message_delta"]["text"] for event in (await world.events(run_id))[1:]]
    assert texts == ["a", "b", "X", "c"]


async def test_events_of_many_runs_are_stored_at_once_and_the_lost_are_named(world: RunsWorld) -> None:
    good, ended, wrong, queued_behind = [await world.start() for _ in range(4)]
    queued = await world.start(queued_behind["run"]["session_id"], if_running="queue")
    await world.finish(ended["lease"])
    unknown = {"run_id": str(uuid4()), "token": good["lease"]["token"]}
    swapped = {"run_id": wrong["run"]["id"], "token": good["lease"]["token"]}
    tool = {"call_id": "1", "name": "search", "arguments": {"q": ["ä", 1, None]}}
    events = [{"seq": 2, "message_delta": {"text": "x"}}, {"seq": 3, "tool_started": tool}]
    leases = [good["lease"], ended["lease"], unknown, swapped, queued["lease"]]
    answer = await world.system("append_run_events", batches=[{"lease": lease, "events": events} for lease in leases])
    lost = {ended["run"]["id"], unknown["run_id"], wrong["run"]["id"], queued["run"]["id"]}
    assert set(answer["lost_run_ids"]) == lost
    assert await world.types(good["run"]["id"]) == ["run_started", "message_delta", "tool_started"]
    assert (await world.events(good["run"]["id"]))[-1]["tool_started"] == tool
    assert await world.types(wrong["run"]["id"]) == ["run_started"]
    assert "message_delta" not in await world.types(ended["run"]["id"])


async def test_one_notification_tells_of_a_run_per_call(world: RunsWorld, stack: RunningStack) -> None:
    received: list[str] = []
    listener = await asyncpg.connect(stack.db_url)
    await listener.add_listener("concerto_runs", lambda _c, _p, _n, payload: received.append(payload))
    started = await world.start()
    await world.append(started["lease"], "abc")
    await world.call("request_run_cancellation", run_id=started["run"]["id"])
    await world.call("request_run_cancellation", run_id=started["run"]["id"])
    await world.finish(started["lease"])
    await listener.execute("select 1")
    await listener.close()
    assert received.count(sha256(started["run"]["id"].encode()).hexdigest()) == 4


@pytest.mark.parametrize("act", ["append", "renew", "finish", "promote"])
@pytest.mark.parametrize("kind", ["wrong token", "another run's token", "no token", "a run that has ended"])
async def test_nobody_acts_for_a_run_without_its_lease(world: RunsWorld, act: str, kind: str) -> None:
    started, other = await world.start(), await world.start()
    run_id = started["run"]["id"]
    lease = {
        "wrong token": forged(started["lease"]),
        "another run's token": {"run_id": run_id, "token": other["lease"]["token"]},
        "no token": {"run_id": run_id},
        "a run that has ended": started["lease"],
    }[kind]
    if kind == "a run that has ended":
        await world.interrupt(run_id)
    before = await world.run(run_id), await world.types(run_id)
    if act == "append":
        assert await world.append(lease, "x", first_seq=50) == [run_id]
    elif act == "renew":
        answer = await world.system("renew_leases", leases=[lease], lease_seconds=60)
        assert answer == {"lost_run_ids": [run_id], "cancelled_run_ids": []}
    elif act == "finish":
        assert await refused("PT409", "LEASE_LOST", world.finish(lease)) == {"run_id": run_id}
    else:
        await refused("PT409", "LEASE_LOST", world.system("promote_run", lease=lease))
    assert (await world.run(run_id), await world.types(run_id)) == before


async def test_events_are_read_in_pages(world: RunsWorld) -> None:
    started = await world.start()
    await world.append(started["lease"], "abcdefgh")
    seen: list[int] = []
    while True:
        page = await world.call(
            "read_run_events", run_id=started["run"]["id"], after_seq=seen[-1] if seen else 0, page_size=4
        )
        assert page["state"] == "RUNNING"
        seen += [event["seq"] for event in page["events"]]
        if not page["has_more"]:
            break
    assert seen == list(range(1, 10))


async def test_a_page_of_events_ends_before_two_mebibytes(world: RunsWorld) -> None:
    started = await world.start()
    await world.append(started["lease"], [letter * 900_000 for letter in "abc"])
    pages, after = [], 0
    while True:
        page = await world.call("read_run_events", run_id=started["run"]["id"], after_seq=after)
        pages.append([event["seq"] for event in page["events"]])
        after = pages[-1][-1]
        if not page["has_more"]:
            break
    assert pages == [[1, 2, 3], [4]]


async def test_runs_are_listed_newest_first_in_pages(world: RunsWorld) -> None:
    session_id = await world.new_session()
    ids = [(await world.answered(session_id, str(number), "a"))["run"]["id"] for number in range(5)]
    other = (await world.start())["run"]["id"]
    for filters, expected in (({"session_id": session_id}, ids[::-1]), ({}, [other, *ids[::-1]])):
        seen: list[str] = []
        bounds: dict[str, str] = {}
        while True:
            page = await world.call("list_runs", page_size=2, **filters, **bounds)
            seen += [run["id"] for run in page["runs"]]
            if not page["has_more"]:
                break
            last = page["runs"][-1]
            bounds = {"before_created_at": last["created_at"], "before_id": last["id"]}
        assert seen == expected


async def test_a_cancellation_is_asked_for_once_and_never_of_an_ended_run(world: RunsWorld) -> None:
    started = await world.start()
    run_id = started["run"]["id"]
    assert (await world.call("request_run_cancellation", run_id=run_id))["run"]["is_cancellation_requested"] is True
    answer = await world.system("renew_leases", leases=[started["lease"]])
    assert answer["cancelled_run_ids"] == [run_id]
    other = await world.start()
    await world.finish(other["lease"])
    answer = await world.call("request_run_cancellation", run_id=other["run"]["id"])
    assert (answer["run"]["state"], answer["run"]["is_cancellation_requested"]) == ("SUCCEEDED", False)


async def test_a_stranger_starts_nothing_from_a_message_of_somebody_else(world: RunsWorld) -> None:
    message_id = user_message_of(await world.start())["id"]
    stranger = await add_user(world.admin)
    session_id = (await call(world.pool, stranger, "create_session"))["session"]["id"]
    for name in ("regenerate_message_id", "edit_message_id"):
        content = "x" if name == "edit_message_id" else ""
        attempt = call(
            world.pool, stranger, "start_run", **start_args(session_id, content=content, **{name: message_id})
        )
        detail = await refused("PT404", "MESSAGE_NOT_FOUND", attempt)
        assert detail == {"session_id": session_id, "message_id": message_id}
