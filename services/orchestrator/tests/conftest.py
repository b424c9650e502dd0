import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
import pytest
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import sessions_pb2

from servicekit import channel
from servicekit.identity import Caller
from servicekit.testing import acting_as, make_caller, served
from services.orchestrator.__main__ import build
from services.orchestrator.settings import OrchestratorSettings
from services.orchestrator.tests.fakes import FakeSessions, SessionsProcess, sessions_running
from tests.support.model_server import ModelServer

Event = orchestrator_pb2.RunEvent


@dataclass
class Suite:
    """The orchestrator under test, its two neighbours, and one user."""

    sessions: SessionsProcess
    model: ModelServer
    connection: grpc.aio.Channel
    caller: Caller

    @property
    def fake(self) -> FakeSessions:
        return self.sessions.fake

    def add_session(self, *, name: str = "", caller: Caller | None = None) -> str:
        return self.fake.add_session((caller or self.caller).user_id, name=name)

    def stored(self, session_id: str) -> list[sessions_pb2.Message]:
        return self.fake.messages[session_id]

    def texts(self, session_id: str) -> list[str]:
        return [message.content for message in self.stored(session_id)]

    async def turn(self, session_id: str, content: str, *, caller: Caller | None = None, **fields: Any) -> list[Event]:
        """Run a turn to its end and return its events."""
        return [event async for event in self.stream(session_id, content, caller=caller, **fields)]

    async def stream(
        self,
        session_id: str,
        content: str,
        *,
        caller: Caller | None = None,
        timeout_seconds: float = 60.0,
        **fields: Any,
    ) -> AsyncIterator[Event]:
        request = orchestrator_pb2.StreamTurnRequest(session_id=session_id, content=content, **fields)
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(self.connection)
        with acting_as(caller or self.caller):
            responses = channel.stream(stub.StreamTurn, request, timeout_seconds=timeout_seconds)
            async with contextlib.aclosing(responses):
                async for response in responses:
                    yield response.event


MakeSuite = Callable[..., AbstractAsyncContextManager[Suite]]


@pytest.fixture
def make_suite(monkeypatch: pytest.MonkeyPatch) -> MakeSuite:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CONCERTO_MODEL", "LANGSMITH_TRACING"):
        monkeypatch.delenv(name, raising=False)

    @contextlib.asynccontextmanager
    async def make(**settings: Any) -> AsyncIterator[Suite]:
        async with ModelServer.running() as model, sessions_running() as sessions:
            values = {
                "sessions_target": sessions.target,
                "openai_base_url": model.base_url,
                "openai_api_key": "test-key",
                "model": "test-model",
                **settings,
            }
            loaded = OrchestratorSettings(_env_file=None, **values)
            async with build(loaded) as registrations, served(registrations) as connection:
                yield Suite(sessions, model, connection, make_caller(str(uuid4())))

    return make


@pytest.fixture
async def suite(make_suite: MakeSuite) -> AsyncIterator[Suite]:
    async with make_suite() as made:
        yield made


def kinds(events: list[Event]) -> list[str]:
    """Names of the events' payloads, repetitions folded."""
    names = [str(event.WhichOneof("payload")) for event in events]
    return [name for place, name in enumerate(names) if place == 0 or names[place - 1] != name]


def text_of(events: list[Event]) -> str:
    return "".join(event.message_delta.text for event in events)


def state_of(events: list[Event]) -> str:
    return orchestrator_pb2.RunState.Name(events[-1].run_finished.state).removeprefix("RUN_STATE_")


def error_of(events: list[Event]) -> orchestrator_pb2.Error:
    return next(event.error.error for event in events if event.HasField("error"))
