import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.api import Event, Person, ok, read_events, text_of
from tests.support.suites import RunningStack

REMEMBERED = Path(__file__).resolve().parents[2] / "build" / "containers" / "remembered.json"
QUESTION = "Name a composer, please."


@pytest.fixture
async def client(stack: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=60) as made:
        yield made


async def test_an_answer_is_streamed_stored_and_can_be_followed_from_any_place(client: httpx.AsyncClient) -> None:
    person = await Person.sign_up(client, display_name="Jörg")
    session = await person.create_session(name="kept")
    events = [event async for event in person.turn(session["id"], QUESTION)]
    assert [event.id for event in events] == [str(position) for position in range(1, len(events) + 1)]
    assert events[-1].data == {"state": "SUCCEEDED"}
    assert QUESTION in text_of(events)  # the model tells what it was asked
    stored = await person.messages(session["id"])
    assert [message["content"] for message in stored] == [QUESTION, text_of(events)]
    for position in (1, len(events) // 2):
        assert await follow(person, events[0].data["run_id"], after=position) == events[position:]
    REMEMBERED.write_text(json.dumps({"email": person.user["email"], "session": session["id"], "messages": stored}))


async def test_a_client_that_left_gets_the_rest_and_nothing_twice(client: httpx.AsyncClient) -> None:
    person = await Person.sign_up(client)
    session = await person.create_session()
    begun: list[Event] = []
    async for event in person.turn(session["id"], "[[fault:slow]]"):
        begun.append(event)
        if len(begun) == 20:
            break
    run_id = begun[0].data["run_id"]
    seen = begun[:10]
    rest = await follow(person, run_id, after=10)
    assert [event.id for event in seen + rest] == [str(position) for position in range(1, len(seen + rest) + 1)]
    assert text_of(seen + rest) == "".join(f"t{position} " for position in range(1000))
    assert rest[-1].data == {"state": "SUCCEEDED"}


async def test_what_the_model_does_wrong_is_told_by_its_reason(client: httpx.AsyncClient) -> None:
    person = await Person.sign_up(client)
    session = await person.create_session()
    events = [event async for event in person.turn(session["id"], "[[fault:server_error]]")]
    (error,) = [event for event in events if event.type == "error"]
    assert error.data["error"]["details"][0]["reason"] == "MODEL_UNAVAILABLE"


async def test_after_a_restart_the_conversation_is_there_and_goes_on(client: httpx.AsyncClient) -> None:
    known = json.loads(REMEMBERED.read_text())
    person = await Person.log_in(client, known["email"])
    assert person.user["display_name"] == "Jörg"
    assert await person.messages(known["session"]) == known["messages"]
    events = [event async for event in person.turn(known["session"], "And another one?")]
    assert events[-1].data == {"state": "SUCCEEDED"}
    assert len(await person.messages(known["session"])) == 4


async def follow(person: Person, run_id: str, *, after: int) -> list[Event]:
    headers = {**person.headers, "Last-Event-ID": str(after)}
    async with person.client.stream("GET", f"/runs/{run_id}/events", headers=headers) as response:
        if response.status_code == httpx.codes.NO_CONTENT:
            return []
        if not response.is_success:
            await response.aread()
            ok(response)
        return [event async for event in read_events(response)]
