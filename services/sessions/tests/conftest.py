"""The service alone, in the test's process, over each way to the database."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from concerto.sessions.v1 import runs_pb2_grpc
from concerto.sessions.v1 import sessions_pb2 as pb
from concerto.sessions.v1 import sessions_pb2_grpc as pb_grpc
from google.protobuf.message import Message
from pydantic import SecretStr

from servicekit.rpc import channel
from servicekit.rpc.identity import Caller
from servicekit.testing import SERVICE_KEY, acting_as, served
from services.sessions import reasons
from services.sessions.__main__ import build
from services.sessions.settings import Settings
from tests.support.database import add_user
from tests.support.suites import RunningStack

reasons.register()

TRANSPORTS = ("direct", "rest")


@dataclass(frozen=True)
class Service:
    """The served service."""

    stub: "pb_grpc.SessionsServiceAsyncStub"
    runs: "runs_pb2_grpc.RunsServiceAsyncStub"
    transport: str

    async def call(self, rpc: str, message: Message) -> Any:
        """Call an rpc of either service as the current caller. Raises the service's AppError."""
        stub = self.stub if hasattr(self.stub, rpc) else self.runs
        return await channel.call(getattr(stub, rpc), message, service_key=SERVICE_KEY)

    async def new_session(self, name: str = "") -> str:
        """Create a session and return its id."""
        return str((await self.call("CreateSession", pb.CreateSessionRequest(name=name))).session.id)

    async def append(self, session_id: str, *contents: str) -> list[pb.Message]:
        """Append messages of the user."""
        messages = [pb.NewMessage(role=pb.ROLE_USER, content=content) for content in contents]
        request = pb.AppendMessagesRequest(session_id=session_id, messages=messages)
        return list((await self.call("AppendMessages", request)).messages)


def settings_for(stack: RunningStack, transport: str) -> Settings:
    """Return settings with one way to the database."""
    return Settings(
        _env_file=None,
        supabase_url=stack.supabase_url,
        supabase_publishable_key=SecretStr(stack.publishable_key),
        db_url=SecretStr(stack.db_url) if transport == "direct" else None,
    )


@pytest.fixture(scope="session", params=TRANSPORTS)
async def service(request: pytest.FixtureRequest, stack: RunningStack) -> AsyncIterator[Service]:
    async with service_over(stack, request.param) as service:
        yield service


@pytest.fixture(scope="session")
async def direct(stack: RunningStack) -> AsyncIterator[Service]:
    """The service over direct connections only, which runs need."""
    async with service_over(stack, "direct") as service:
        yield service


@asynccontextmanager
async def service_over(stack: RunningStack, transport: str, settings: Settings | None = None) -> AsyncIterator[Service]:
    """Serve the service with one way to the database."""
    async with (
        build(settings or settings_for(stack, transport)) as registrations,
        served(registrations, supabase_url=stack.supabase_url) as connection,
    ):
        yield Service(pb_grpc.SessionsServiceStub(connection), runs_pb2_grpc.RunsServiceStub(connection), transport)


@pytest.fixture
async def owner(stack: RunningStack) -> Caller:
    """A new user."""
    return await _new_caller(stack)


@pytest.fixture
async def stranger(stack: RunningStack) -> Caller:
    """Another new user."""
    return await _new_caller(stack)


@pytest.fixture
def signed_in(owner: Caller) -> Iterator[Caller]:
    """Makes calls of the test be the owner's."""
    with acting_as(owner):
        yield owner


async def _new_caller(stack: RunningStack) -> Caller:
    admin = await asyncpg.connect(stack.admin_db_url)
    try:
        return stack.caller(await add_user(admin))
    finally:
        await admin.close()
