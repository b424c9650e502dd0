"""Access ends with the account and with the sign-in: in every API, and for answers that are under way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
import grpc
import httpx
import pytest
from concerto.auth.v1 import auth_pb2, auth_pb2_grpc
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import sessions_pb2, sessions_pb2_grpc
from google.protobuf.message import Message

from local.suite.processes import Mode
from servicekit.errors import from_rpc_error
from servicekit.rpc import channel
from tests.e2e.conftest import Start
from tests.support.api import PASSWORD, Event, Person, text_of
from tests.support.certificates import certificates_of
from tests.support.model_server import Behaviour, ModelServer
from tests.support.streams import EventStream
from tests.support.suites import RunningStack
from tests.support.waiting import until

pytestmark = pytest.mark.own_mode

CHECK_SECONDS = 1.0
ENDED = "SIGN_IN_ENDED"
LONG = "a long story of"


@dataclass
class World:
    """A running suite, and what the tests reach it by."""

    stack: RunningStack
    client: httpx.AsyncClient
    admin: asyncpg.Pool
    channels: dict[str, grpc.aio.Channel]
    rests: dict[str, asyncio.Event]
    """Lets the model go on, by whom its long answer is for."""

    async def log_in(self, person: Person) -> Person:
        """Return a further sign-in of the same person."""
        return await Person.log_in(self.client, person.user["email"])

    async def at_supabase(self, person: Person, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request straight to the project, as any client with its public key may."""
        headers = {"apikey": self.stack.publishable_key, **person.headers, **options.pop("headers", {})}
        return await self.client.request(method, f"{self.stack.supabase_url}{path}", headers=headers, **options)


@contextlib.asynccontextmanager
async def world_of(stack: RunningStack, model: ModelServer) -> AsyncIterator[World]:
    services = {
        "auth": auth_pb2.DESCRIPTOR.services_by_name["AuthService"],
        "sessions": sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"],
        "orchestrator": orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorService"],
    }
    async with contextlib.AsyncExitStack() as opened:
        client = await opened.enter_async_context(httpx.AsyncClient(base_url=stack.gateway_url, timeout=60))
        admin = await opened.enter_async_context(asyncpg.create_pool(stack.admin_db_url, min_size=1, max_size=4))
        channels = {
            name: await opened.enter_async_context(
                channel.connect(stack.env[f"{name.upper()}_TARGET"], service, tls=certificates_of(stack.env))
            )
            for name, service in services.items()
        }
        rests: dict[str, asyncio.Event] = {}

        def choose(body: dict[str, Any]) -> Behaviour | None:
            _, long, subject = str(body["messages"][-1]["content"]).partition(LONG)
            return Behaviour(tokens=30, rest=rests.setdefault(subject, asyncio.Event())) if long else None

        model.choose = choose
        yield World(stack, client, admin, channels, rests)


async def end_account(world: World, _person: Person, ended: Person) -> None:
    await world.admin.execute("delete from auth.users where id = $1::text::uuid", ended.user["id"])


async def mark_account_deleted(world: World, _person: Person, ended: Person) -> None:
    await world.admin.execute("update auth.users set deleted_at = now() where id = $1::text::uuid", ended.user["id"])


async def ban(world: World, _person: Person, ended: Person) -> None:
    statement = "update auth.users set banned_until = now() + interval '1 hour' where id = $1::text::uuid"
    await world.admin.execute(statement, ended.user["id"])


async def log_out_everywhere(_world: World, person: Person, _ended: Person) -> None:
    assert (await person.call("POST", "/auth/logout", {"scope": "global"})).is_success


async def log_out_locally(_world: World, _person: Person, ended: Person) -> None:
    assert (await ended.call("POST", "/auth/logout", {"scope": "local"})).is_success


async def log_out_others(_world: World, person: Person, _ended: Person) -> None:
    assert (await person.call("POST", "/auth/logout", {"scope": "others"})).is_success


async def change_password(_world: World, person: Person, _ended: Person) -> None:
    answer = await person.call("PUT", "/auth/password", {"password": f"another-{PASSWORD}"})
    assert answer.is_success, answer.text


async def change_password_at_supabase(world: World, person: Person, _ended: Person) -> None:
    change = {"password": f"another-{PASSWORD}"}
    assert (await world.at_supabase(person, "PUT", "/auth/v1/user", json=change)).is_success


End = Callable[[World, Person, Person], Awaitable[None]]
# Each end with what it leaves: whether the person's other sign-in, with which they do it, goes on.
ENDS: dict[End, bool] = {
    end_account: False,
    mark_account_deleted: False,
    ban: False,
    log_out_everywhere: False,
    log_out_locally: True,
    log_out_others: True,
    change_password: True,
    change_password_at_supabase: True,
}


async def reason_of(answer: Awaitable[httpx.Response]) -> str:
    """Return why a request was refused, in the gateway's, OpenAI's or PostgREST's words; empty when it was not."""
    response = await answer
    if response.is_success:
        return ""
    body = response.json()
    error = body.get("error", body)
    reason = error["details"][0]["reason"] if isinstance(error.get("details"), list) else error.get("code", "").upper()
    reason = error["message"] if reason.startswith("PT") else reason
    return reason if response.status_code == 401 else f"{response.status_code} {reason}"


async def reason_of_rpc(world: World, person: Person, part: str, name: str, request: Message) -> str:
    stubs = {
        "auth": auth_pb2_grpc.AuthServiceStub,
        "sessions": sessions_pb2_grpc.SessionsServiceStub,
        "orchestrator": orchestrator_pb2_grpc.OrchestratorServiceStub,
    }
    method = getattr(stubs[part](world.channels[part]), name)
    try:
        await method(request, metadata=tuple((key.lower(), value) for key, value in person.headers.items()), timeout=30)
    except grpc.aio.AioRpcError as error:
        reason = from_rpc_error(error, service=part).reason
        return reason if error.code() is grpc.StatusCode.UNAUTHENTICATED else f"{error.code().name} {reason}"
    return ""


async def reasons(world: World, person: Person) -> dict[str, str]:
    """Return what each API says to this sign-in."""
    completion = {"model": "test-model", "messages": [{"role": "user", "content": "Hello"}]}
    calls = {
        "REST, auth": reason_of(person.call("GET", "/auth/me")),
        "REST, sessions": reason_of(person.call("GET", "/sessions")),
        "REST, orchestrator": reason_of(person.call("GET", "/agents")),
        "OpenAI, models": reason_of(person.call("GET", "/v1/models")),
        "OpenAI, completion": reason_of(person.call("POST", "/v1/chat/completions", completion)),
        "gRPC, auth": reason_of_rpc(world, person, "auth", "GetMe", auth_pb2.GetMeRequest()),
        "gRPC, sessions": reason_of_rpc(
            world, person, "sessions", "ListSessions", sessions_pb2.ListSessionsRequest(page_size=1)
        ),
        "gRPC, orchestrator": reason_of_rpc(
            world, person, "orchestrator", "ListModels", orchestrator_pb2.ListModelsRequest()
        ),
        "Supabase, an operation": reason_of(
            world.at_supabase(
                person, "POST", "/rest/v1/rpc/get_me", json={"args": {}}, headers={"content-profile": "api"}
            )
        ),
        "Supabase, a table": reason_of(world.at_supabase(person, "GET", "/rest/v1/users?select=id")),
        "Supabase, files": reason_of(
            world.at_supabase(person, "POST", "/storage/v1/object/list/avatars", json={"prefix": person.user["id"]})
        ),
    }
    return dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))


@dataclass
class Listening:
    """Answers under way that one sign-in listens to, each read to its end."""

    session_id: str
    turn: "asyncio.Task[list[Event]]"
    rpc: "asyncio.Task[str]"
    completion: "asyncio.Task[str]"


async def listen(world: World, person: Person) -> Listening:
    """Open streams of each kind and return once words arrive in all of them."""
    session = await person.create_session()
    begun = asyncio.Event()
    rpc_begun = asyncio.Event()
    completion_begun = asyncio.Event()

    async def read_turn() -> list[Event]:
        url = f"{world.stack.gateway_url}/sessions/{session['id']}/turns"
        stream = await EventStream.open(
            url, headers=person.headers, body={"content": f"Tell me {LONG}{person.user['id']}"}
        )
        events = []
        async for event in stream.events():
            events.append(event)
            if event.type == "message.delta":
                begun.set()
        return events

    async def read_rpc(run_id: str) -> str:
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(world.channels["orchestrator"])
        metadata = tuple((key.lower(), value) for key, value in person.headers.items())
        call = stub.StreamRun(orchestrator_pb2.StreamRunRequest(run_id=run_id), metadata=metadata)
        try:
            async for _ in call:
                rpc_begun.set()
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error, service="orchestrator").reason
        return ""

    async def read_completion() -> str:
        body = {
            "model": "test-model",
            "stream": True,
            "messages": [{"role": "user", "content": f"Tell me {LONG}{person.user['id']}"}],
        }
        last = ""
        async with world.client.stream("POST", "/v1/chat/completions", headers=person.headers, json=body) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line:
                    last = line
                    completion_begun.set()
        return last

    turn = asyncio.create_task(read_turn())
    await begun.wait()
    found = await world.admin.fetchval(
        "select id::text from public.runs where session_id = $1::text::uuid", session["id"]
    )
    rpc = asyncio.create_task(read_rpc(found))
    completion = asyncio.create_task(read_completion())
    await asyncio.gather(rpc_begun.wait(), completion_begun.wait())
    return Listening(session["id"], turn, rpc, completion)


async def check_end(world: World, end: End, *, leaves_other: bool) -> None:
    other = await Person.sign_up(world.client)
    ended = await world.log_in(other)
    assert set((await reasons(world, ended)).values()) == {""}, "everything answers before"
    listening = await listen(world, ended)

    await end(world, other, ended)

    async def is_refused_everywhere() -> bool:
        return set((await reasons(world, ended)).values()) == {ENDED}

    await until(is_refused_everywhere, f"every API to refuse after {end.__name__}", look=0.5)
    events, rpc, completion = await asyncio.gather(listening.turn, listening.rpc, listening.completion)
    assert events[-1].type == "error", events[-1]
    # With an account its answers go, too, and a listener may hear of that first.
    expected = {ENDED, "RUN_NOT_FOUND"} if end is end_account else {ENDED}
    assert events[-1].data["error"]["details"][0]["reason"] in expected
    assert rpc in expected
    assert ENDED.lower() in completion, completion

    async def is_unread() -> bool:
        """Whether the gateway itself knows, so that what is asked is not even read."""
        return await reason_of(world.client.post("/sessions", headers=ended.headers, content=b"no JSON")) == ENDED

    await until(is_unread, f"the gateway to know after {end.__name__}", look=0.5)

    async def is_other_refused() -> bool:
        """Who asked about the other sign-in later than about this one learns of its end later, too."""
        return set((await reasons(world, other)).values()) == {ENDED}

    if leaves_other:
        assert set((await reasons(world, other)).values()) == {""}
    else:
        await until(is_other_refused, f"every API to refuse the other sign-in after {end.__name__}", look=0.5)
    await check_answer(world, end, other, listening, received=text_of(events))


async def check_answer(world: World, end: End, other: Person, listening: Listening, *, received: str) -> None:
    """The answer goes on without its listeners and is stored; with the account it is gone."""
    run = "select r.state from public.runs as r where r.session_id = $1::text::uuid"
    if end is end_account:
        assert await world.admin.fetchval(run, listening.session_id) is None
        return
    world.rests[other.user["id"]].set()

    async def is_stored() -> bool:
        return bool(await world.admin.fetchval(run, listening.session_id) == "SUCCEEDED")

    await until(is_stored, f"the answer after {end.__name__}")
    stored = await world.admin.fetchval(
        "select content from public.messages where session_id = $1::text::uuid and role = 'assistant'",
        listening.session_id,
    )
    assert stored.startswith(received)
    assert len(stored) > len(received)
    if ENDS[end]:
        assert [message["content"] for message in await other.messages(listening.session_id)][-1] == stored


@pytest.mark.parametrize("mode", ["one-process", pytest.param("processes", marks=pytest.mark.long)])
async def test_access_ends_everywhere(start: Start, model: ModelServer, mode: Mode) -> None:
    stack = await start(mode=mode, CONCERTO_SIGN_IN_CHECK_SECONDS=str(CHECK_SECONDS))
    async with world_of(stack, model) as world:
        bystander = await Person.sign_up(world.client)
        await asyncio.gather(*(check_end(world, end, leaves_other=leaves) for end, leaves in ENDS.items()))
        assert set((await reasons(world, bystander)).values()) == {""}
