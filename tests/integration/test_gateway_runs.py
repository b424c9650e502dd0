"""Runs over the running suite's REST API: created, followed, resumed, left alone, cancelled."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest

from servicekit.messages.json_reader import MAX_DEPTH
from tests.support.api import Event, Person, ok, read_events, reason, text_of
from tests.support.suites import RunningStack

LONG = "Tell me more. " * 20


async def create_run(person: Person, session_id: str, **fields: Any) -> dict[str, Any]:
    response = await person.call("POST", f"/sessions/{session_id}/runs", {"content": "Hello", **fields})
    assert response.status_code == 201, response.text
    run: dict[str, Any] = response.json()
    return run


async def follow(person: Person, run_id: str, last_event_id: str | None = None, query: str = "") -> list[Event]:
    headers = person.headers if last_event_id is None else {**person.headers, "Last-Event-ID": last_event_id}
    async with person.client.stream("GET", f"/runs/{run_id}/events{query}", headers=headers) as response:
        assert response.status_code == httpx.codes.OK
        return [event async for event in read_events(response)]


async def end_of(person: Person, run_id: str) -> dict[str, Any]:
    await follow(person, run_id)
    run: dict[str, Any] = ok(await person.call("GET", f"/runs/{run_id}"))
    return run


async def test_a_run_is_followed_from_its_beginning_and_from_any_place(owner: Person) -> None:
    session = await owner.create_session()
    run = await create_run(owner, session["id"])
    assert (run["session_id"], run["state"], run["finished_at"]) == (session["id"], "RUNNING", None)
    events = await follow(owner, run["id"])
    assert [event.id for event in events] == [str(position) for position in range(1, len(events) + 1)]
    assert (events[0].type, events[-1].data) == ("run.started", {"state": "SUCCEEDED"})
    stored = await owner.messages(session["id"])
    assert stored[-1]["content"] == text_of(events)
    for position in (1, len(events) // 2, len(events) - 1):
        assert await follow(owner, run["id"], str(position)) == events[position:]
        assert await follow(owner, run["id"], None, f"?after_seq={position}") == events[position:]
        assert await follow(owner, run["id"], str(position), "?after_seq=1") == events[position:]


async def test_notes_nested_as_deeply_as_allowed_come_back(owner: Person) -> None:
    deepest: dict[str, Any] = {}
    for _ in range(MAX_DEPTH - 1):
        deepest = {"a": deepest}
    session = await owner.create_session()
    run = await create_run(owner, session["id"], metadata=deepest)
    for _ in range(2):  # from the memory of its process, and from the table
        events = await follow(owner, run["id"])
        assert events[0].data["user_message"]["metadata"] == deepest
        await end_of(owner, run["id"])
    assert (await owner.messages(session["id"]))[0]["metadata"] == deepest
    refused = await owner.call("POST", f"/sessions/{session['id']}/runs", {"content": "x", "metadata": {"a": deepest}})
    detail = refused.json()["error"]["details"][0]
    assert (refused.status_code, detail["reason"], detail["metadata"]["field"]) == (400, "INVALID_FIELD", "metadata")


async def test_a_client_that_has_everything_gets_204(owner: Person) -> None:
    run = await create_run(owner, (await owner.create_session())["id"])
    events = await follow(owner, run["id"])
    for accept in ("text/event-stream", "application/json"):
        headers = {**owner.headers, "Last-Event-ID": str(events[-1].id), "Accept": accept}
        assert (await owner.client.get(f"/runs/{run['id']}/events", headers=headers)).status_code == 204


async def test_a_run_is_folded_into_one_answer(owner: Person) -> None:
    run = await create_run(owner, (await owner.create_session())["id"])
    headers = {**owner.headers, "Accept": "application/json"}
    answer = ok(await owner.client.get(f"/runs/{run['id']}/events", headers=headers))
    assert (answer["run_id"], answer["state"], answer["tools"]) == (run["id"], "SUCCEEDED", [])
    assert answer["message"]["role"] == "assistant"


async def test_a_client_that_leaves_its_turn_leaves_the_run_alone(owner: Person) -> None:
    session = await owner.create_session()
    turn = owner.turn(session["id"], LONG)
    first = await anext(turn)
    await turn.aclose()
    run = await end_of(owner, first.data["run_id"])
    assert (run["state"], run["is_cancellation_requested"]) == ("SUCCEEDED", False)
    events = await follow(owner, run["id"])
    assert (await owner.messages(session["id"]))[-1]["content"] == text_of(events)


async def test_a_run_is_cancelled_without_a_body(owner: Person, stack: RunningStack) -> None:
    session = await owner.create_session()
    # Another replica hears of it within about a second. An offline answer does not last as long; three before it do.
    for _ in range(3 if stack.replicas > 1 else 0):
        await create_run(owner, session["id"], content=LONG, if_running="queue")
    run = await create_run(owner, session["id"], content=LONG, if_running="queue")
    cancelled = await owner.client.post(f"/runs/{run['id']}/cancel", headers=owner.headers)
    assert (cancelled.status_code, cancelled.json()["id"]) == (200, run["id"])
    assert (await end_of(owner, run["id"]))["state"] == "CANCELLED"
    again = await owner.client.post(f"/runs/{run['id']}/cancel", headers=owner.headers)
    assert (again.status_code, again.json()["state"]) == (200, "CANCELLED")


async def test_a_busy_session_names_the_run_that_it_is_busy_with(owner: Person) -> None:
    session = await owner.create_session()
    run = await create_run(owner, session["id"], content=LONG)
    refused = await owner.call("POST", f"/sessions/{session['id']}/runs", {"content": "And?"})
    assert (refused.status_code, reason(refused)) == (409, "RUN_IN_PROGRESS")
    assert refused.json()["error"]["details"][0]["metadata"]["run_id"] == run["id"]
    queued = await create_run(owner, session["id"], content="And?", if_running="queue")
    assert queued["state"] == "QUEUED"
    assert (await end_of(owner, queued["id"]))["state"] == "SUCCEEDED"


async def test_too_many_runs_are_told_how_long_to_wait(owner: Person) -> None:
    sessions = await asyncio.gather(*(owner.create_session() for _ in range(14)))
    body = {"content": LONG}
    answers = await asyncio.gather(
        *(owner.call("POST", f"/sessions/{session['id']}/runs", body) for session in sessions)
    )
    refused = [answer for answer in answers if not answer.is_success]
    assert {(answer.status_code, reason(answer)) for answer in refused} == {(429, "TOO_MANY_RUNS")}
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    for answer in answers:
        if answer.is_success:
            await end_of(owner, answer.json()["id"])


@pytest.mark.parametrize("verb_and_path", ["GET /runs/{}", "GET /runs/{}/events", "POST /runs/{}/cancel"])
async def test_somebody_elses_run_is_not_found(owner: Person, stranger: Person, verb_and_path: str) -> None:
    run = await create_run(owner, (await owner.create_session())["id"])
    verb, path = verb_and_path.split()
    for run_id in (run["id"], str(uuid4())):
        response = await stranger.call(verb, path.format(run_id))
        assert (response.status_code, reason(response)) == (404, "RUN_NOT_FOUND")
    assert (await end_of(owner, run["id"]))["state"] == "SUCCEEDED"


async def test_a_session_lists_its_runs(owner: Person) -> None:
    session = await owner.create_session()
    ids = []
    for _ in range(3):
        run = await create_run(owner, session["id"])
        await end_of(owner, run["id"])
        ids.append(run["id"])
    first = ok(await owner.call("GET", f"/runs?session_id={session['id']}&page_size=2"))
    query = f"session_id={session['id']}&page_size=2&page_token={first['next_page_token']}"
    second = ok(await owner.call("GET", f"/runs?{query}"))
    assert [run["id"] for run in first["runs"] + second["runs"]] == ids[::-1]
    assert second["next_page_token"] == ""


@pytest.mark.parametrize(
    ("body", "about"),
    [
        ({}, "content"),
        ({"content": "  "}, "content"),
        ({"edit_message_id": str(uuid4())}, "content"),
        ({"content": "x", "regenerate_message_id": str(uuid4())}, "content"),
        ({"edit_message_id": str(uuid4()), "regenerate_message_id": str(uuid4())}, "edit_message_id"),
    ],
)
async def test_a_turn_says_something_or_regenerates(owner: Person, body: dict[str, str], about: str) -> None:
    for kind in ("turns", "runs"):
        response = await owner.call("POST", f"/sessions/{uuid4()}/{kind}", body)
        detail = response.json()["error"]["details"][0]
        assert (response.status_code, detail["metadata"]["field"]) == (400, about)
