import asyncio
import signal

import httpx
import psutil

from tests.e2e.conftest import Start
from tests.support.api import Person, text_of
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import RunningStack

FIRST, ANSWER = "My favourite composer is Clara Schumann.", "She wrote a concerto at fourteen."


def client_of(stack: RunningStack) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=stack.gateway_url, timeout=30)


async def interrupt(stack: RunningStack) -> None:
    processes = [psutil.Process(process["pid"]) for process in stack.processes().values()]
    assert processes
    stack.supervisor.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(stack.supervisor.wait, 60) == 0, stack.output
    assert [process for process in processes if process.is_running()] == []


async def test_a_conversation_continues_after_everything_was_stopped(start: Start, model: ModelServer) -> None:
    model.script(Behaviour(text=ANSWER))
    stack = await start()
    async with client_of(stack) as client:
        person = await Person.sign_up(client, display_name="Jörg")
        session = await person.create_session()
        events = [event async for event in person.turn(session["id"], FIRST)]
        assert [event.type for event in events][:2] == ["run.started", "message.delta"]
        assert [event.type for event in events][-3:] == ["message.completed", "usage", "run.finished"]
        assert [event.id for event in events] == [str(index) for index in range(1, len(events) + 1)]
        assert text_of(events) == ANSWER
        before = await person.messages(session["id"])
    await interrupt(stack)

    stack = await start()
    async with client_of(stack) as client:
        person = await Person.log_in(client, person.user["email"])
        assert person.user["display_name"] == "Jörg"
        assert await person.messages(session["id"]) == before
        assert [message["content"] for message in before] == [FIRST, ANSWER]
        named = (await person.call("GET", f"/sessions/{session['id']}")).json()
        assert named["name"] == FIRST
        assert [event async for event in person.turn(session["id"], "What did I tell you?")][-1].data == {
            "state": "SUCCEEDED"
        }
    await interrupt(stack)

    asked = [(message["role"], message["content"]) for message in model.chats[-1]["messages"]]
    assert asked[-3:] == [("user", FIRST), ("assistant", ANSWER), ("user", "What did I tell you?")]


async def test_what_the_model_gets_is_only_what_its_own_user_said(start: Start, model: ModelServer) -> None:
    stack = await start()
    async with client_of(stack) as client:
        people = [await Person.sign_up(client) for _ in range(4)]
        sessions = [await person.create_session() for person in people]

        async def talk(person: Person, session_id: str) -> None:
            for n in range(3):
                mine = f"{person.user['email']} says {n}"
                events = [event async for event in person.turn(session_id, mine)]
                assert mine in text_of(events)

        await asyncio.gather(*(talk(person, session["id"]) for person, session in zip(people, sessions, strict=True)))
    assert len(model.chats) == 12
    for body in model.chats:
        questions = [message["content"] for message in body["messages"] if message["role"] == "user"]
        assert len({text.split(" ")[0] for text in questions}) == 1
