import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import pytest
from concerto.errors.v1 import errors_pb2
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import runs_pb2, sessions_pb2
from concerto.sessions.v1.turns_pb2 import Turn
from pydantic import SecretStr

from local.setup import error_page
from servicekit.rpc import channel
from servicekit.rpc.identity import Caller
from servicekit.testing import JWT_SECRET, SERVICE_KEY, acting_as, make_caller, served
from services.orchestrator.__main__ import build
from services.orchestrator.runs.registry import RunRegistry
from services.orchestrator.settings import Settings as OrchestratorSettings
from services.orchestrator.tests.fakes import FakeSessions, SessionsProcess, sessions_running
from tests.support.model_server import FAULT_MODELS, ModelServer

error_page.register_all()  # the fakes stand for the sessions service

Event = runs_pb2.RunEvent

SLOW = "Go on [[fault:slow]]"


@dataclass
class Suite:
    """The orchestrator under test, its two neighbours, and one user."""

    sessions: SessionsProcess
    model: ModelServer
    connection: grpc.aio.Channel
    caller: Caller
    runs: RunRegistry

    @property
    def fake(self) -> FakeSessions:
        return self.sessions.fake

    def add_session(self, *, name: str = "", caller: Caller | None = None) -> str:
        return self.fake.add_session((caller or self.caller).user_id, name=name)

    def stored(self, session_id: str) -> list[sessions_pb2.Message]:
        return self.fake.messages[session_id]

    def texts(self, session_id: str) -> list[str]:
        return [message.content for message in self.stored(session_id)]

    @property
    def stub(self) -> "orchestrator_pb2_grpc.OrchestratorServiceAsyncStub":
        return orchestrator_pb2_grpc.OrchestratorServiceStub(self.connection)

    async def create(self, session_id: str, content: str = "", **fields: Any) -> runs_pb2.Run:
        request = orchestrator_pb2.CreateRunRequest(session_id=session_id, turn=Turn(content=content, **fields))
        with acting_as(self.caller):
            return (await channel.call(self.stub.CreateRun, request)).run

    async def get(self, run_id: str) -> runs_pb2.Run:
        with acting_as(self.caller):
            return (await channel.call(self.stub.GetRun, orchestrator_pb2.GetRunRequest(run_id=run_id))).run

    async def cancel(self, run_id: str) -> runs_pb2.Run:
        with acting_as(self.caller):
            return (await channel.call(self.stub.CancelRun, orchestrator_pb2.CancelRunRequest(run_id=run_id))).run

    async def follow(
        self, run_id: str, *, after_seq: int = 0, caller: Caller | None = None
    ) -> AsyncGenerator[Event, None]:
        request = orchestrator_pb2.StreamRunRequest(run_id=run_id, after_seq=after_seq)
        with acting_as(caller or self.caller):
            responses = channel.stream(self.stub.StreamRun, request)
            async with contextlib.aclosing(responses):
                async for response in responses:
                    yield response.event

    async def events(self, run_id: str, *, after_seq: int = 0, caller: Caller | None = None) -> list[Event]:
        return [event async for event in self.follow(run_id, after_seq=after_seq, caller=caller)]

    async def turn(self, session_id: str, content: str, *, caller: Caller | None = None, **fields: Any) -> list[Event]:
        """Run a turn to its end and return its events."""
        return [event async for event in self.stream(session_id, content, caller=caller, **fields)]

    async def stream(
        self,
        session_id: str,
        content: str,
        *,
        caller: Caller | None = None,
        timeout_seconds: float = 240.0,
        **fields: Any,
    ) -> AsyncGenerator[Event, None]:
        request = orchestrator_pb2.StreamTurnRequest(session_id=session_id, turn=Turn(content=content, **fields))
        with acting_as(caller or self.caller):
            responses = channel.stream(self.stub.StreamTurn, request, timeout_seconds=timeout_seconds)
            async with contextlib.aclosing(responses):
                async for response in responses:
                    yield response.event


@contextlib.asynccontextmanager
async def replica(
    sessions: SessionsProcess, model: ModelServer, caller: Caller, **settings: Any
) -> AsyncIterator[Suite]:
    """One orchestrator beside neighbours that run already."""
    values = {
        "sessions_target": sessions.target,
        "openai_base_url": model.base_url,
        "openai_api_key": "test-key",
        "model": "test-model",
        "models": FAULT_MODELS,
        "title_model": "off",
        "supabase_jwt_secret": SecretStr(JWT_SECRET),
        "service_key": SERVICE_KEY,
        **settings,
    }
    loaded = OrchestratorSettings(_env_file=None, **values)
    async with build(loaded) as registrations, served(registrations) as connection:
        yield Suite(sessions, model, connection, caller, registrations[0].servicer.runs)


MakeSuite = Callable[..., AbstractAsyncContextManager[Suite]]


@pytest.fixture
def make_suite(monkeypatch: pytest.MonkeyPatch) -> MakeSuite:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CONCERTO_MODEL", "LANGSMITH_TRACING"):
        monkeypatch.delenv(name, raising=False)

    @contextlib.asynccontextmanager
    async def make(**settings: Any) -> AsyncIterator[Suite]:
        async with (
            ModelServer.running() as model,
            sessions_running() as sessions,
            replica(sessions, model, make_caller(str(uuid4())), **settings) as suite,
        ):
            yield suite

    return make


@pytest.fixture
async def suite(make_suite: MakeSuite) -> AsyncIterator[Suite]:
    async with make_suite() as made:
        yield made


def kinds(events: list[Event]) -> list[str]:
    """Names of the events' payloads, repetitions folded."""
    names = [str(event.WhichOneof("payload")) for event in events]
    return [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]


def text_of(events: list[Event]) -> str:
    return "".join(event.message_delta.text for event in events)


def state_of(events: list[Event]) -> str:
    return runs_pb2.RunState.Name(events[-1].run_finished.state).removeprefix("RUN_STATE_")


def error_of(events: list[Event]) -> errors_pb2.Error:
    return next(event.error.error for event in events if event.HasField("error"))


@pytest.fixture
async def other(suite: Suite) -> AsyncIterator[Suite]:
    """A second replica, for the same user."""
    async with replica(suite.sessions, suite.model, suite.caller) as second:
        yield second


def settings_beside(suite: Suite) -> OrchestratorSettings:
    """Settings of a whole server beside the suite's neighbours."""
    return OrchestratorSettings(
        _env_file=None,
        port=0,
        drain_seconds=0.5,
        supabase_jwt_secret=SecretStr(JWT_SECRET),
        sessions_target=suite.sessions.target,
        openai_base_url=suite.model.base_url,
        model="test-model",
        title_model="off",
        service_key=SERVICE_KEY,
    )


def assert_whole(events: list[Event], *, after_seq: int = 0) -> None:
    assert [event.seq for event in events] == list(range(after_seq + 1, after_seq + 1 + len(events)))


def reason_of(events: list[Event]) -> str:
    return str(error_of(events).details[0].reason)


async def first_of(events: AsyncIterator[Event]) -> Event:
    async for event in events:
        return event
    raise AssertionError("no event came")
