import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import psutil
import pytest
from concerto.auth.v1 import auth_pb2, auth_pb2_grpc
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import sessions_pb2, sessions_pb2_grpc

from local.settings import ROOT
from servicekit.errors import AppError
from servicekit.messages.converter import to_json
from servicekit.rpc import channel
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as
from tests.e2e.conftest import Start, settings_of, until_ready
from tests.support.api import Event, Person, ok, reason, text_of
from tests.support.certificates import certificates_of
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import PreparedStarts, RunningStack, stop_stack
from tests.support.waiting import until

INTERRUPTED_WITHIN_SECONDS = 15.0
ENDED_AFTER_A_START_SECONDS = 5.0
DRAIN_SECONDS = 3
PEOPLE, ROUNDS = 2, 40

pytestmark = pytest.mark.own_mode


@pytest.fixture(scope="module")
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer.running() as server:
        yield server


@pytest.fixture(scope="module")
async def suite(model: ModelServer, prepared: PreparedStarts) -> AsyncIterator[RunningStack]:
    """All of our parts in one process, whatever the test run's mode; who ends that process leaves a new one."""
    folder = Path(tempfile.mkdtemp(prefix="concerto-"))
    settings: dict[str, Any] = {**settings_of(model), "CONCERTO_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    stack = await asyncio.to_thread(prepared.start, folder, mode="one-process", **settings)
    yield stack
    await asyncio.to_thread(stop_stack, stack)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def client(suite: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=suite.gateway_url, timeout=60, limits=limits) as made:
        yield made


async def turn_until_signal(
    suite: RunningStack, person: Person, session_id: str, number: signal.Signals
) -> list[Event]:
    """Begin a turn, send the process a signal at its 10th event, and return what the client saw of it."""
    events: list[Event] = []
    try:
        async for event in person.turn(session_id, "Count, please."):
            events.append(event)
            if len(events) == 10:
                os.kill(suite.process("gateway"), number)
    except httpx.TransportError:
        pass
    return events


async def ended_run(person: Person, run_id: str) -> tuple[dict[str, Any], float, float]:
    """Return the run once it has ended, and when the gateway answered first and last, however often it was away."""
    found: dict[str, Any] = {}
    answered_at: list[float] = []

    async def has_ended() -> bool:
        try:
            response = await person.call("GET", f"/runs/{run_id}")
        except httpx.TransportError:
            return False
        answered_at.append(time.monotonic())
        found.update(response.json() if response.is_success else {})
        return bool(response.is_success) and found["state"] != "RUNNING"

    await until(has_ended, "the run's end")
    return found, answered_at[0], answered_at[-1]


async def test_a_killed_process_comes_back_and_its_run_ends_interrupted_with_its_text(
    suite: RunningStack, client: httpx.AsyncClient, model: ModelServer
) -> None:
    person = await Person.sign_up(client)
    session = await person.create_session()
    model.script(Behaviour(tokens=2000, delay_seconds=0.02))
    old, before = suite.process("gateway"), len(suite.output)
    events = await turn_until_signal(suite, person, session["id"], signal.SIGKILL)
    killed_at = time.monotonic()
    run, back_at, ended_at = await ended_run(person, events[0].data["run_id"])
    # Where a start takes long, the lease is over before there is a process that could end the run.
    assert ended_at <= max(killed_at + INTERRUPTED_WITHIN_SECONDS, back_at + ENDED_AFTER_A_START_SECONDS)
    assert (run["state"], run["error_reason"]) == ("INTERRUPTED", "RUN_INTERRUPTED")
    _, answer = await person.messages(session["id"])
    assert answer["metadata"]["partial"] is True
    assert answer["content"].startswith(text_of(events))
    assert suite.process("gateway") != old
    await until(printed(suite, "concerto was ended by SIGKILL", before), "the supervisor's word of it")
    await until_ready(client)
    model.script(Behaviour(text="And on."))
    events = [event async for event in person.turn(session["id"], "And now?")]
    assert (text_of(events), events[-1].data) == ("And on.", {"state": "SUCCEEDED"})


async def test_a_turn_that_ends_in_time_is_told_to_its_end_while_the_process_stops(
    suite: RunningStack, client: httpx.AsyncClient, model: ModelServer
) -> None:
    person = await Person.sign_up(client)
    session = await person.create_session()
    model.script(Behaviour(tokens=60, delay_seconds=0.02))
    process, before = psutil.Process(suite.process("gateway")), len(suite.output)
    events = await turn_until_signal(suite, person, session["id"], signal.SIGTERM)
    assert events[-1].data == {"state": "SUCCEEDED"}
    assert text_of(events) == "".join(f"t{index} " for index in range(60))
    await until(ended(process), "the process's end")
    await until(printed(suite, "concerto stopped with exit code 0", before), "the supervisor's word of it")
    await until_ready(client)
    stored = await person.messages(session["id"])
    assert [message["content"] for message in stored] == ["Count, please.", text_of(events)]


async def test_a_turn_that_goes_on_too_long_is_stored_as_interrupted_before_the_process_has_stopped(
    suite: RunningStack, client: httpx.AsyncClient, model: ModelServer
) -> None:
    person = await Person.sign_up(client)
    session = await person.create_session()
    model.script(Behaviour(tokens=5000, delay_seconds=0.02))
    process, before = psutil.Process(suite.process("gateway")), len(suite.output)
    events = await turn_until_signal(suite, person, session["id"], signal.SIGTERM)
    await until(ended(process), "the process's end")
    await until(printed(suite, "concerto stopped with exit code 0", before), "the supervisor's word of it")
    await until_ready(client)
    run = ok(await person.call("GET", f"/runs/{events[0].data['run_id']}"))
    assert run["state"] == "INTERRUPTED"
    _, answer = await person.messages(session["id"])
    assert answer["metadata"]["partial"] is True
    assert answer["content"].startswith(text_of(events))
    assert "rpc.crashed" not in (suite.home / "logs" / "concerto.log").read_text()


def ended(process: psutil.Process) -> Any:
    async def check() -> bool:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE

    return check


def printed(suite: RunningStack, words: str, after: int) -> Any:
    async def check() -> bool:
        return words in suite.output[after:]

    return check


async def test_the_services_ports_answer_as_the_gateway_does(suite: RunningStack, client: httpx.AsyncClient) -> None:
    person = await Person.sign_up(client, display_name="Jörg")
    session = await person.create_session(name="one")
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    ok(await person.call("POST", f"/sessions/{session['id']}/messages", body))
    async with (
        connect(suite, "SESSIONS", sessions_pb2) as sessions_channel,
        connect(suite, "AUTH", auth_pb2) as auth_channel,
        connect(suite, "ORCHESTRATOR", orchestrator_pb2) as orchestrator_channel,
    ):
        sessions: Any = sessions_pb2_grpc.SessionsServiceStub(sessions_channel)
        auth: Any = auth_pb2_grpc.AuthServiceStub(auth_channel)
        orchestrator: Any = orchestrator_pb2_grpc.OrchestratorServiceStub(orchestrator_channel)
        with acting_as(caller_of(person)):
            asked = {
                f"/sessions/{session['id']}/messages": channel.call(
                    sessions.ListMessages, sessions_pb2.ListMessagesRequest(session_id=session["id"])
                ),
                "/sessions": channel.call(sessions.ListSessions, sessions_pb2.ListSessionsRequest()),
                "/agents": channel.call(orchestrator.ListAgents, orchestrator_pb2.ListAgentsRequest()),
            }
            for path, answer in asked.items():
                assert ok(await person.call("GET", path)) == to_json(await answer), path
            me = await channel.call(auth.GetMe, auth_pb2.GetMeRequest())
            assert ok(await person.call("GET", "/auth/me")) == to_json(me.user)
            missing = sessions_pb2.GetSessionRequest(session_id=person.user["id"])
            with pytest.raises(AppError) as caught:
                await channel.call(sessions.GetSession, missing)
        response = await person.call("GET", f"/sessions/{person.user['id']}")
        assert (reason(response), caught.value.reason) == ("SESSION_NOT_FOUND", "SESSION_NOT_FOUND")
        assert response.json()["error"] == caught.value.to_json()


async def test_two_users_at_once_never_see_each_other(
    suite: RunningStack, client: httpx.AsyncClient, model: ModelServer
) -> None:
    people = [await Person.sign_up(client) for _ in range(PEOPLE)]
    sessions = [await person.create_session(name=person.user["email"]) for person in people]

    async def live(person: Person, session_id: str, other_id: str, index: int) -> None:
        mine = f"{person.user['email']} says {index}"
        body = {"messages": [{"role": "user", "content": mine}], "include_contents": True}
        (stored,) = ok(await person.call("POST", f"/sessions/{session_id}/messages", body))["messages"]
        assert stored["content"] == mine
        listed = ok(await person.call("GET", "/sessions"))["sessions"]
        assert [session["user_id"] for session in listed] == [person.user["id"]]
        assert ok(await person.call("GET", "/auth/me"))["email"] == person.user["email"]
        refused = await person.call("GET", f"/sessions/{other_id}")
        assert (refused.status_code, reason(refused)) == (404, "SESSION_NOT_FOUND")
        assert (await client.get("/sessions")).status_code == 401

    async def talk(person: Person) -> None:
        session = await person.create_session(name=person.user["email"])
        for index in range(3):
            events = [event async for event in person.turn(session["id"], f"{person.user['email']} asks {index}")]
            assert events[-1].data == {"state": "SUCCEEDED"}

    work = [
        live(person, session["id"], other["id"], index)
        for index in range(ROUNDS)
        for person, session, other in zip(people, sessions, reversed(sessions), strict=True)
    ]
    await asyncio.gather(*work)
    asked_before = len(model.chats)
    await asyncio.gather(*(talk(person) for person in people for _ in range(5)))
    chats = model.chats[asked_before:]
    assert len(chats) == PEOPLE * 5 * 3
    for chat in chats:
        asked = {message["content"].split(" ")[0] for message in chat["messages"] if message["role"] == "user"}
        assert len(asked) == 1
    for person, session in zip(people, sessions, strict=True):
        log_text = {message["content"].split(" ")[0] for message in await person.messages(session["id"])}
        assert log_text == {person.user["email"]}


def connect(suite: RunningStack, part: str, module: Any) -> grpc.aio.Channel:
    (service,) = module.DESCRIPTOR.services_by_name.values()
    return channel.connect(f"127.0.0.1:{suite.env[f'{part}_PORT']}", service, tls=certificates_of(suite.env))


def caller_of(person: Person) -> Caller:
    token = person.tokens["access_token"]
    return Caller(token=token, claims=jwt.decode(token, options={"verify_signature": False}))


def test_the_commands_know_the_one_process(suite: RunningStack) -> None:
    status = suite.command("status")
    assert status.returncode == 0
    assert [line.split()[0] for line in status.stdout.splitlines()[1:]] == ["postgres", "supabase", "concerto"]
    log = suite.command("logs", "orchestrator")
    assert "service=orchestrator" in log.stdout
    assert "service=gateway" in log.stdout
    assert not [line for line in suite.command("logs").stdout.splitlines() if line.startswith("gateway")]
    assert f"{suite.gateway_url}, process {suite.supervisor.pid}" in suite.command("doctor").stdout


@pytest.mark.long
async def test_everything_of_ours_runs_in_one_process_by_hand_too(start: Start) -> None:
    embedded = await start("postgres,supabase")
    serve = (sys.executable, "-m", "local.cli", "serve")
    settings = {**embedded.env, "CONCERTO_ENV_FILE": "/dev/null"}
    process = await asyncio.create_subprocess_exec(*serve, cwd=ROOT, env=settings, stderr=asyncio.subprocess.PIPE)
    try:
        async with httpx.AsyncClient(base_url=embedded.gateway_url, timeout=30) as client:
            await until_ready(client)
            await (await Person.sign_up(client)).create_session()
        second = await asyncio.create_subprocess_exec(*serve, cwd=ROOT, env=settings, stderr=asyncio.subprocess.PIPE)
        _, log_text = await second.communicate()
        assert second.returncode == 1
        assert "cannot be listened on" in log_text.decode().splitlines()[-1]
        assert "Traceback" not in log_text.decode()
    finally:
        process.terminate()
        _, log_text = await process.communicate()
    assert process.returncode == 0
    assert log_text.decode().splitlines()[-1].endswith("service=one-process")
