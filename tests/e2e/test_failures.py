import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from tests.e2e.conftest import Start, until_ready
from tests.support.api import Event, Person, read_events, reason, text_of
from tests.support.contract import ROOT
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import RunningStack
from tests.support.waiting import until


async def test_killed_postgres_comes_back_without_a_restart_of_any_service(
    stack: RunningStack, api: httpx.AsyncClient
) -> None:
    person = await Person.sign_up(api)
    session = await person.create_session(name="before")
    pids = {name: stack.process(name) for name in stack.own_processes}
    old = stack.process("postgres")
    seen = set()

    async def works() -> bool:
        response = await person.call("GET", f"/sessions/{session['id']}")
        if not response.is_success:
            assert response.status_code == 503, response.text
            seen.add(reason(response))
        return response.is_success and stack.process("postgres") != old

    os.kill(old, signal.SIGKILL)
    await until(works, "the database")
    assert seen <= {"DATABASE_UNAVAILABLE", "DATABASE_BUSY"}
    await until_ready(api)
    again = await Person.log_in(api, person.user["email"])
    await again.create_session(name="after")
    assert {name: stack.process(name) for name in stack.own_processes} == pids


async def test_a_killed_service_is_reported_and_restarted(start: Start) -> None:
    stack = await start(mode="processes")
    old = stack.process("auth")

    async def replaced() -> bool:
        return stack.process("auth") != old

    os.kill(old, signal.SIGKILL)
    await until(replaced, "the restart")
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=30) as client:
        await until_ready(client)
        await Person.sign_up(client)
    assert "auth" in stack.output.rsplit("Stop ", 1)[-1]


async def test_nothing_that_was_said_is_in_any_log(stack: RunningStack, api: httpx.AsyncClient) -> None:
    words = "the-duchess-sails-at-dawn-7519"
    person = await Person.sign_up(api, password=f"pw-{words}")
    session = await person.create_session()
    path = f"/sessions/{session['id']}"
    assert [event async for event in person.turn(session["id"], f"Say {words}")][-1].data == {"state": "SUCCEEDED"}
    await person.call("POST", f"{path}/messages", {"messages": [{"role": "robot", "content": words}]})
    await person.call("POST", f"{path}/messages", {"messages": [{"role": "user", "content": words, words: 1}]})
    await person.call("PATCH", path, {"name": words})
    await person.call("GET", f"/sessions?query={words}")
    await person.call("GET", f"/sessions?page_token={words}")
    await api.post("/auth/login", json={"email": person.user["email"], "password": f"wrong-{words}"})
    await api.post("/auth/signup", json={"email": f"{words}@example.com", "password": words[:3]})
    await api.post("/auth/refresh", json={"refresh_token": f"x-{words}"})
    await api.get("/sessions", headers={"Authorization": f"Bearer {words}"})
    logs = {entry.name: entry.read_text(errors="replace") for entry in (stack.home / "logs").iterdir()}
    assert set(logs) >= {"postgres.log", *(f"{name}.log" for name in stack.own_processes)}
    for secret in (words, person.tokens["access_token"], person.tokens["refresh_token"]):
        assert [name for name, text in logs.items() if secret in text] == []
        assert secret not in stack.output


SessionsService = Callable[[RunningStack], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def sessions_service() -> AsyncIterator[SessionsService]:
    """Starts the sessions service by hand beside a suite that runs without it, so that nothing restarts it."""
    started: list[asyncio.subprocess.Process] = []

    async def start_one(stack: RunningStack) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "services.sessions"),
            cwd=ROOT,
            env={**stack.env, "CONCERTO_ENV_FILE": "/dev/null"},
            stderr=asyncio.subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.mark.long
@pytest.mark.alone
async def test_a_sessions_service_killed_during_a_turn_costs_no_text_when_it_comes_back_in_time(
    start: Start, model: ModelServer, sessions_service: SessionsService
) -> None:
    stack = await start("postgres,supabase,auth,orchestrator,gateway")
    service = await sessions_service(stack)
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=60) as client:
        await until_ready(client)
        person = await Person.sign_up(client)
        session = await person.create_session()
        model.script(Behaviour(tokens=100, delay_seconds=0.02))
        events: list[Event] = []
        async for event in person.turn(session["id"], "Count, please."):
            events.append(event)
            if event.type == "message.delta" and service.returncode is None:
                service.kill()
                await service.wait()
                await sessions_service(stack)
        assert events[-1].data == {"state": "SUCCEEDED"}
        assert [event.id for event in events] == [str(index) for index in range(1, len(events) + 1)]
        assert text_of(events) == "".join(f"t{index} " for index in range(100))
        stored = await person.messages(session["id"])
        assert [message["content"] for message in stored] == ["Count, please.", text_of(events)]


@pytest.mark.long
@pytest.mark.own_mode
async def test_a_completion_whose_process_is_killed_is_in_the_ledger_and_takes_no_place(
    start: Start, model: ModelServer
) -> None:
    stack = await start(mode="processes", CONCERTO_MAX_RUNS_PER_USER="1")
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=60) as client:
        await until_ready(client)
        person = await Person.sign_up(client)
        session = await person.create_session()
        model.script(Behaviour(tokens=5000, delay_seconds=0.02))
        body = {"model": "test-model", "messages": [{"role": "user", "content": "Count."}], "stream": True}
        seen = []
        async with client.stream("POST", "/v1/chat/completions", json=body, headers=person.headers) as response:
            async for line in response.aiter_lines():
                seen.append(line)
                if len(seen) == 20:
                    refused = await person.call("POST", f"/sessions/{session['id']}/runs", {"content": "And I?"})
                    assert (refused.status_code, reason(refused)) == (429, "TOO_MANY_RUNS")
                    os.kill(stack.process("orchestrator"), signal.SIGKILL)
        assert '"error"' in "".join(seen[-3:])

        async def total() -> dict[str, int]:
            return dict((await person.call("GET", "/usage")).json()["total"])

        async def is_counted() -> bool:
            return (await total())["runs"] == 1

        await until(is_counted, "the row in the ledger")
        assert (await total())["prompt_tokens"] > 0
        await until_ready(client)
        events = [event async for event in person.turn(session["id"], "And now?")]
        assert events[-1].data == {"state": "SUCCEEDED"}


@pytest.mark.long
async def test_a_sessions_service_that_stays_away_too_long_leaves_the_partial_text(
    start: Start, model: ModelServer, sessions_service: SessionsService
) -> None:
    stack = await start("postgres,supabase,auth,orchestrator,gateway")
    service = await sessions_service(stack)
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=60) as client:
        await until_ready(client)
        person = await Person.sign_up(client)
        session = await person.create_session()
        model.script(Behaviour(tokens=5000, delay_seconds=0.02))
        events: list[Event] = []
        async for event in person.turn(session["id"], "Count, please."):
            events.append(event)
            if len(events) == 20 and service.returncode is None:
                service.kill()
                await service.wait()
        assert events[0].type == "run.started"
        assert events[-1].type == "error"
        assert events[-1].data["error"]["details"][0]["reason"] == "SERVICE_UNAVAILABLE"
        assert model.open_streams == 0
        refused = await person.call("GET", "/sessions")
        assert (refused.status_code, reason(refused)) == (503, "SERVICE_UNAVAILABLE")

        await sessions_service(stack)
        await until_ready(client)
        run = events[0].data["run_id"]
        path, last = f"/runs/{run}/events", events[-2].id
        headers = {**person.headers, "Last-Event-ID": str(last)}
        async with client.stream("GET", path, headers=headers) as response:
            rest = [event async for event in read_events(response)]
        assert [event.type for event in rest][-2:] == ["error", "run.finished"]
        assert rest[-2].data["error"]["details"][0]["reason"] == "RUN_INTERRUPTED"
        assert rest[-1].data == {"state": "INTERRUPTED"}
        whole = [*events[:-1], *rest]
        assert [event.id for event in whole] == [str(index) for index in range(1, len(whole) + 1)]
        stored = await person.messages(session["id"])
        assert [message["content"] for message in stored] == ["Count, please.", text_of(whole)]
        assert stored[1]["metadata"]["partial"] is True
        model.script(Behaviour(text="And on."))
        events = [event async for event in person.turn(session["id"], "And now?")]
        assert events[-1].data == {"state": "SUCCEEDED"}
