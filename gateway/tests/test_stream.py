import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from concerto.orchestrator.v1 import orchestrator_pb2
from concerto.sessions.v1 import runs_pb2, turns_pb2

from gateway.app import build
from gateway.tests import fakes
from gateway.tests.fakes import SESSION_ID, Neighbours, error_of
from servicekit.errors import AppError
from tests.support.waiting import forever

Header = dict[str, str]
TURNS = f"/sessions/{SESSION_ID}/turns"
BODY = {"content": "Hi"}
JSON = {"accept": "application/json"}
RUNS = f"/sessions/{SESSION_ID}/runs"
EVENTS = f"/runs/{fakes.RUN_ID}/events"
Events = AsyncIterator[runs_pb2.RunEvent]


def frames(text: str) -> list[dict[str, str]]:
    """Return the fields of each event; fails for anything that is neither a field nor a comment."""
    assert text.endswith("\n\n")
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        assert all(": " in line for line in lines)
        if lines:
            found.append(dict(line.split(": ", 1) for line in lines))
    return found


async def test_each_event_has_its_place_its_type_and_its_json(client: httpx.AsyncClient, bearer: Header) -> None:
    response = await client.post(TURNS, json=BODY, headers=bearer)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    assert response.headers["x-request-id"]
    events = frames(response.text)
    assert [(event["id"], event["event"]) for event in events] == [
        ("1", "run.started"),
        ("2", "message.delta"),
        ("3", "message.delta"),
        ("4", "message.completed"),
        ("5", "usage"),
        ("6", "run.finished"),
    ]
    data = [json.loads(event["data"]) for event in events]
    assert data[0]["user_message"]["content"] == "Hi"
    assert data[0]["run_id"] == fakes.RUN_ID
    assert data[2] == {"text": "day\n\nto you"}
    assert data[3]["message"]["role"] == "assistant"
    assert data[4] == {
        "model": "offline",
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "cached_tokens": 0,
        "cost_micro_usd": 0,
        "is_estimated": False,
    }
    assert data[5] == {"state": "SUCCEEDED"}


@pytest.mark.parametrize(
    "accept",
    [
        "text/event-stream",
        "*/*",
        "text/html",
        ";;",
        "application/json;q=0.1, text/event-stream",
        "application/json;q=x",
    ],
)
async def test_any_other_accept_header_means_events(client: httpx.AsyncClient, bearer: Header, accept: str) -> None:
    response = await client.post(TURNS, json=BODY, headers={**bearer, "accept": accept})
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_the_last_event_id_of_a_reconnecting_client_does_no_harm(
    client: httpx.AsyncClient, bearer: Header
) -> None:
    response = await client.post(TURNS, json=BODY, headers={**bearer, "last-event-id": "3"})
    assert len(frames(response.text)) == 6


async def test_an_error_event_is_part_of_the_stream(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def turn(_: object) -> Events:
        yield fakes.started()
        yield fakes.failed(2, "MODEL_UNAVAILABLE", code=503, status="UNAVAILABLE")
        yield fakes.finished(3, runs_pb2.RUN_STATE_FAILED)

    neighbours.turn = turn
    events = frames((await client.post(TURNS, json=BODY, headers=bearer)).text)
    assert [event["event"] for event in events] == ["run.started", "error", "run.finished"]
    error = json.loads(events[1]["data"])["error"]
    assert (error["code"], error["details"][0]["reason"]) == (503, "MODEL_UNAVAILABLE")


async def test_an_event_of_a_newer_service_is_passed_over(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def turn(_: object) -> Events:
        yield fakes.started()
        yield runs_pb2.RunEvent(seq=2)
        yield fakes.finished(3)

    neighbours.turn = turn
    events = frames((await client.post(TURNS, json=BODY, headers=bearer)).text)
    assert [event["id"] for event in events] == ["1", "3"]


@pytest.mark.parametrize("accept", [{}, JSON])
async def test_a_refusal_before_the_first_event_is_an_answer_of_its_own(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, accept: Header
) -> None:
    async def turn(_: object) -> Events:
        raise AppError("SESSION_NOT_FOUND", metadata={"session_id": SESSION_ID})
        yield fakes.started()

    neighbours.turn = turn
    response = await client.post(TURNS, json=BODY, headers={**bearer, **accept})
    assert error_of(response) == (404, "SESSION_NOT_FOUND", {"session_id": SESSION_ID})


@pytest.mark.parametrize("accept", [{}, JSON])
async def test_a_stream_without_events_is_an_error(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, accept: Header
) -> None:
    async def turn(_: object) -> Events:
        return
        yield fakes.started()

    neighbours.turn = turn
    response = await client.post(TURNS, json=BODY, headers={**bearer, **accept})
    assert error_of(response)[:2] == (500, "INTERNAL")


async def test_a_stream_that_breaks_ends_with_one_error_event(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def turn(_: object) -> Events:
        yield fakes.started()
        yield fakes.delta(2, "half")
        raise AppError("DATABASE_UNAVAILABLE")

    neighbours.turn = turn
    events = frames((await client.post(TURNS, json=BODY, headers=bearer)).text)
    assert [event["event"] for event in events] == ["run.started", "message.delta", "error"]
    assert "id" not in events[2]
    assert json.loads(events[2]["data"])["error"]["details"][0]["reason"] == "DATABASE_UNAVAILABLE"


async def test_a_crash_amid_a_stream_tells_nothing(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def turn(_: object) -> Events:
        yield fakes.started()
        raise RuntimeError("the password is swordfish")

    neighbours.turn = turn
    text = (await client.post(TURNS, json=BODY, headers=bearer)).text
    assert json.loads(frames(text)[-1]["data"])["error"]["details"][0]["reason"] == "INTERNAL"
    assert "swordfish" not in text


async def test_a_service_that_dies_amid_a_stream_ends_it_with_an_error_event(bearer: Header) -> None:
    neighbours = Neighbours()
    going = asyncio.Event()

    async def turn(_: object) -> Events:
        yield fakes.started()
        going.set()
        await forever()

    neighbours.turn = turn
    serving = fakes.serving(neighbours)
    target = await serving.__aenter__()
    async with (
        build(fakes.gateway_settings(target)) as app,
        fakes.listening(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
        client.stream("POST", TURNS, json=BODY, headers=bearer) as response,
    ):
        await going.wait()
        await serving.__aexit__(None, None, None)
        events = frames((await response.aread()).decode())
    assert [event["event"] for event in events] == ["run.started", "error"]
    error = json.loads(events[1]["data"])["error"]
    assert error["code"] == 503


async def test_an_idle_stream_is_kept_alive_with_comments(bearer: Header) -> None:
    neighbours = Neighbours()
    received = asyncio.Event()

    async def turn(_: object) -> Events:
        yield fakes.started()
        await received.wait()
        yield fakes.finished(2)

    neighbours.turn = turn
    text = ""
    async with (
        fakes.gateway_over_http(neighbours, keep_alive_seconds=0.1) as client,
        client.stream("POST", TURNS, json=BODY, headers=bearer) as response,
    ):
        async for part in response.aiter_text():
            text += part
            if ": keep-alive\n\n" in text:
                received.set()
    assert [event["id"] for event in frames(text)] == ["1", "2"]


async def test_a_stream_whose_first_event_is_late_begins_without_it(bearer: Header) -> None:
    neighbours = Neighbours()
    read = asyncio.Event()

    async def turn(_: object) -> Events:
        await read.wait()
        yield fakes.started()
        yield fakes.finished(2)

    neighbours.turn = turn
    async with (
        fakes.gateway_over_http(neighbours, keep_alive_seconds=0.1) as client,
        client.stream("POST", TURNS, json=BODY, headers=bearer) as response,
    ):
        chunks = response.aiter_text()
        assert await anext(chunks) == ": keep-alive\n\n"
        read.set()
        text = "".join([chunk async for chunk in chunks])
    assert [event["id"] for event in frames(text)] == ["1", "2"]


async def test_a_late_refusal_is_an_error_event(bearer: Header) -> None:
    neighbours = Neighbours()

    async def turn(_: object) -> Events:
        await asyncio.sleep(0.3)  # longer than the pause after which a comment is sent
        raise AppError("SESSION_NOT_FOUND", metadata={"session_id": SESSION_ID})
        yield fakes.started()

    neighbours.turn = turn
    async with fakes.gateway_over_http(neighbours, keep_alive_seconds=0.1) as client:
        response = await client.post(TURNS, json=BODY, headers=bearer)
    (event,) = frames(response.text)
    assert (response.status_code, event["event"]) == (200, "error")
    assert json.loads(event["data"])["error"]["code"] == 404


async def test_a_client_that_goes_away_before_a_late_first_event_only_stops_reading(bearer: Header) -> None:
    neighbours = Neighbours()
    going = asyncio.Event()

    async def turn(_: object) -> Events:
        going.set()
        await forever()
        yield fakes.started()

    neighbours.turn = turn
    async with fakes.gateway_over_http(neighbours, keep_alive_seconds=0.05) as client:
        async with client.stream("POST", TURNS, json=BODY, headers=bearer) as response:
            assert response.status_code == 200
            await going.wait()
        await asyncio.wait_for(neighbours.cancelled.wait(), 60)


async def test_a_busy_stream_needs_no_comments(bearer: Header) -> None:
    neighbours = Neighbours()

    async def turn(_: object) -> Events:
        yield fakes.started()
        for seq in range(2, 12):
            await asyncio.sleep(0.02)  # events come apart, each far sooner than a comment would
            yield fakes.delta(seq, "x")
        yield fakes.finished(12)

    neighbours.turn = turn
    async with fakes.gateway_over_http(neighbours, keep_alive_seconds=5) as client:
        assert "keep-alive" not in (await client.post(TURNS, json=BODY, headers=bearer)).text


async def test_events_arrive_as_they_happen(bearer: Header) -> None:
    neighbours = Neighbours()
    read = asyncio.Event()

    async def turn(_: object) -> Events:
        yield fakes.started()
        await read.wait()  # the client has the first event while the second one does not exist yet
        yield fakes.finished(2)

    neighbours.turn = turn
    async with (
        fakes.gateway_over_http(neighbours) as client,
        client.stream("POST", TURNS, json=BODY, headers=bearer) as response,
    ):
        chunks = response.aiter_text()
        assert "run.started" in await anext(chunks)
        read.set()
        assert "run.finished" in "".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("accept", [{}, JSON])
@pytest.mark.parametrize("first", [True, False])
async def test_a_client_that_goes_away_only_stops_reading(bearer: Header, accept: Header, first: bool) -> None:
    neighbours = Neighbours()
    going = asyncio.Event()

    async def turn(_: object) -> Events:
        if first:
            yield fakes.started()
        going.set()
        await forever()
        yield fakes.finished(2)

    neighbours.turn = turn
    async with fakes.gateway_over_http(neighbours) as client:
        asking = asyncio.create_task(_ask(client, {**bearer, **accept}))
        await asyncio.wait_for(going.wait(), 60)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.wait_for(neighbours.cancelled.wait(), 60)
    assert [name for name, _, _ in neighbours.calls] == ["StreamTurn"]


async def _ask(client: httpx.AsyncClient, headers: Header) -> None:
    async with client.stream("POST", TURNS, json=BODY, headers=headers) as response:
        await response.aread()


async def test_a_gateway_that_stops_says_so_to_its_streams(bearer: Header, caplog: pytest.LogCaptureFixture) -> None:
    neighbours = Neighbours()

    async def turn(_: object) -> Events:
        yield fakes.started()
        await forever()

    neighbours.turn = turn
    async with fakes.serving(neighbours) as target, build(fakes.gateway_settings(target)) as app:
        listening = fakes.listening(app)
        port = await listening.__aenter__()
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
            client.stream("POST", TURNS, json=BODY, headers=bearer) as response,
        ):
            chunks = response.aiter_text()
            assert "run.started" in await anext(chunks)
            stopping = asyncio.create_task(listening.__aexit__(None, None, None))
            assert "SHUTTING_DOWN" in "".join([chunk async for chunk in chunks])
            await stopping
    assert "Exception in ASGI application" not in caplog.text


async def test_one_json_answer_folds_the_events(client: httpx.AsyncClient, bearer: Header) -> None:
    response = await client.post(TURNS, json=BODY, headers={**bearer, **JSON})
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {
        *("run_id", "session_id", "user_message", "model", "agent", "message", "usage", "state", "tools")
    }
    assert body["tools"] == []
    assert (body["run_id"], body["session_id"], body["model"]) == (fakes.RUN_ID, SESSION_ID, "offline")
    assert body["user_message"]["content"] == "Hi"
    assert body["message"]["content"] == "Good day\n\nto you"
    assert body["usage"]["completion_tokens"] == 4
    assert body["state"] == "SUCCEEDED"


async def with_tools(_: object) -> Events:
    yield fakes.started()
    yield fakes.tool_started(2, "one", "search")
    yield fakes.tool_started(3, "two", "summarise")
    yield fakes.tool_finished(4, "one", "search", "found")
    yield fakes.completed(5, "Done")
    yield fakes.finished(6)


async def test_tools_have_events_of_their_own(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    neighbours.turn = with_tools
    events = frames((await client.post(TURNS, json=BODY, headers=bearer)).text)
    assert [event["event"] for event in events][1:4] == ["tool.started", "tool.started", "tool.finished"]
    assert json.loads(events[3]["data"]) == {"call_id": "one", "name": "search", "output": "found", "is_error": False}


async def test_one_json_answer_gathers_each_tools_call(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    neighbours.turn = with_tools
    body = (await client.post(TURNS, json=BODY, headers={**bearer, **JSON})).json()
    assert [(tool["call_id"], tool["name"], tool["output"]) for tool in body["tools"]] == [
        ("one", "search", "found"),
        ("two", "summarise", None),
    ]


async def test_events_that_come_together_are_streamed_and_folded_one_by_one(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    apart = await client.post(TURNS, json=BODY, headers=bearer)
    neighbours.batch_size = 4
    together = await client.post(TURNS, json=BODY, headers=bearer)
    assert frames(together.text) == frames(apart.text)
    folded = (await client.post(TURNS, json=BODY, headers={**bearer, **JSON})).json()
    assert (folded["state"], folded["message"]["content"]) == ("SUCCEEDED", "Good day\n\nto you")


async def test_how_events_come_is_no_choice_over_rest(client: httpx.AsyncClient, bearer: Header) -> None:
    for response in (
        await client.get(f"{EVENTS}?in_batches=false", headers=bearer),
        await client.post(f"{TURNS}?in_batches=true", json=BODY, headers=bearer),
    ):
        assert error_of(response)[:2] == (400, "UNKNOWN_FIELD")


async def test_a_runs_events_are_streamed_and_folded_like_a_turns(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    response = await client.get(EVENTS, headers=bearer)
    assert [event["id"] for event in frames(response.text)] == ["1", "2", "3", "4", "5", "6"]
    asked = orchestrator_pb2.StreamRunRequest(run_id=fakes.RUN_ID, in_batches=True)
    assert neighbours.last[:2] == ("StreamRun", asked)
    body = (await client.get(EVENTS, headers={**bearer, **JSON})).json()
    assert (body["run_id"], body["state"], body["message"]["content"]) == (
        fakes.RUN_ID,
        "SUCCEEDED",
        "Good day\n\nto you",
    )


@pytest.mark.parametrize(
    ("query", "header", "position"),
    [("", None, 0), ("?after_seq=3", None, 3), ("", "7", 7), ("?after_seq=3", "7", 7), ("?after_seq=3", "0", 0)],
)
async def test_the_last_event_id_is_the_place_and_wins_over_the_query(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, query: str, header: str | None, position: int
) -> None:
    headers = bearer if header is None else {**bearer, "last-event-id": header}
    assert (await client.get(EVENTS + query, headers=headers)).status_code == 200
    assert neighbours.last[1].after_seq == position


@pytest.mark.parametrize("accept", [{}, JSON])
async def test_a_client_that_has_everything_is_told_to_stop_reconnecting(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, accept: Header
) -> None:
    async def turn(_: object) -> Events:
        return
        yield fakes.started()

    neighbours.turn = turn
    response = await client.get(EVENTS, headers={**bearer, **accept, "last-event-id": "6"})
    assert (response.status_code, response.content) == (204, b"")


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "1e3", "+1", "9223372036854775808", "9" * 30])
async def test_a_last_event_id_that_is_no_place_is_named(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, text: str
) -> None:
    response = await client.get(EVENTS, headers={**bearer, "last-event-id": text})
    assert error_of(response) == (
        400,
        "INVALID_FIELD",
        {"field": "Last-Event-ID", "problem": "must be the id of an event"},
    )
    assert neighbours.calls == []


@pytest.mark.parametrize("seconds", [None, 2.5])
@pytest.mark.parametrize(
    ("reason", "metadata", "status"),
    [("TOO_MANY_RUNS", {"scope": "user"}, 429), ("RUN_IN_PROGRESS", {"session_id": "s", "run_id": "r"}, 409)],
)
async def test_a_refused_run_says_how_long_to_wait_where_that_is_known(
    client: httpx.AsyncClient,
    neighbours: Neighbours,
    bearer: Header,
    reason: str,
    metadata: dict[str, str],
    status: int,
    seconds: float | None,
) -> None:
    neighbours.answers["CreateRun"] = AppError(reason, metadata=metadata, retry_after_seconds=seconds)
    response = await client.post(RUNS, json=BODY, headers=bearer)
    assert error_of(response) == (status, reason, metadata)
    known = "3" if seconds else None
    assert response.headers.get("retry-after") == (known or "60" if status == 429 else known)


async def test_a_created_run_comes_back_with_201(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    run = runs_pb2.Run(id=fakes.RUN_ID, session_id=SESSION_ID, state=runs_pb2.RUN_STATE_QUEUED)
    neighbours.answers["CreateRun"] = orchestrator_pb2.CreateRunResponse(run=run)
    response = await client.post(RUNS, json={**BODY, "if_running": "queue"}, headers=bearer)
    assert (response.status_code, response.json()["state"]) == (201, "QUEUED")
    turn = neighbours.last[1].turn
    assert turn.if_running == turns_pb2.IF_RUNNING_QUEUE
    assert UUID(turn.request_id), "so that the call may be repeated"


async def test_a_run_is_cancelled_without_a_body(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    bodies: tuple[dict[str, str] | None, ...] = (None, {})
    for body in bodies:
        response = await client.post(f"/runs/{fakes.RUN_ID}/cancel", json=body, headers=bearer)
        assert (response.status_code, response.json()["id"]) == (200, "")
    assert neighbours.last[1].run_id == fakes.RUN_ID


async def test_instants_of_a_query_are_read(client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header) -> None:
    query = {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02T01:00:00+01:00", "group_by": "model"}
    assert (await client.get("/usage", params=query, headers=bearer)).status_code == 200
    asked = neighbours.last[1]
    assert asked.to.seconds - getattr(asked, "from").seconds == 86_400
    response = await client.get("/usage", params={"from": "yesterday"}, headers=bearer)
    assert error_of(response)[:2] == (400, "INVALID_FIELD")


@pytest.mark.parametrize(
    ("metadata", "wait"), [({"retry_after_seconds": "9"}, "9"), ({"retry_after_seconds": "soon"}, "60"), ({}, "60")]
)
async def test_one_json_answer_of_a_failed_turn_is_its_error(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, metadata: dict[str, str], wait: str
) -> None:
    async def turn(_: object) -> Events:
        yield fakes.started()
        yield fakes.delta(2, "half")
        yield fakes.failed(3, "MODEL_RATE_LIMITED", code=429, status="RESOURCE_EXHAUSTED", **metadata)
        yield fakes.completed(4, "half")
        yield fakes.finished(5, runs_pb2.RUN_STATE_FAILED)

    neighbours.turn = turn
    response = await client.post(TURNS, json=BODY, headers={**bearer, **JSON})
    assert error_of(response) == (429, "MODEL_RATE_LIMITED", metadata)
    assert response.headers["retry-after"] == wait


async def test_one_json_answer_of_a_cancelled_turn_says_so(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def turn(_: object) -> Events:
        yield fakes.started()
        yield fakes.finished(2, runs_pb2.RUN_STATE_CANCELLED)

    neighbours.turn = turn
    body = (await client.post(TURNS, json=BODY, headers={**bearer, **JSON})).json()
    assert (body["state"], body["message"], body["usage"]) == ("CANCELLED", None, None)


BROKEN: list[tuple[Any, str]] = [
    (AppError("DATABASE_UNAVAILABLE"), "DATABASE_UNAVAILABLE"),
    (None, "INTERNAL"),
    (fakes.failed(2, "MODEL_TIMEOUT", code=0, status=""), "INTERNAL"),
    (fakes.event(2, error=runs_pb2.RunError()), "INTERNAL"),
]


@pytest.mark.parametrize(("end", "reason"), BROKEN)
async def test_one_json_answer_of_a_broken_stream_is_an_error(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, end: Any, reason: str
) -> None:
    async def turn(_: object) -> Events:
        yield fakes.started()
        if isinstance(end, AppError):
            raise end
        if end is not None:
            yield end

    neighbours.turn = turn
    response = await client.post(TURNS, json=BODY, headers={**bearer, **JSON})
    assert error_of(response)[1] == reason
