import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from uuid import uuid4

import pytest
from concerto.sessions.v1 import sessions_pb2 as pb
from concerto.sessions.v1 import sessions_pb2_grpc as pb_grpc
from google.protobuf.message import Message
from pydantic import SecretStr

from servicekit.database.client import open_database
from servicekit.errors import AppError
from servicekit.rpc import channel, server
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as, served
from services.sessions.sessions_servicer import SessionsServicer
from services.sessions.sessions_store import SessionsStore
from services.sessions.tests.conftest import settings_for
from tests.support.suites import RunningStack
from tests.support.wire import ONE_ROUND_TRIP, PASSWORD, PREPARE, QUERY, Wire, in_front_of

SERVICE = pb.DESCRIPTOR.services_by_name["SessionsService"]


@dataclass(frozen=True)
class Bench:
    """The service alone, with nothing that asks the database by itself."""

    stub: "pb_grpc.SessionsServiceAsyncStub"
    wire: Wire

    async def call(self, message: Message) -> Message:
        rpc = message.DESCRIPTOR.name.removesuffix("Request")
        return await channel.call(getattr(self.stub, rpc), message)

    async def messages_of(self, message: Message) -> list[str]:
        """Return the kinds of messages that a call sends to the database."""
        self.wire.sent.clear()
        with contextlib.suppress(AppError):
            await self.call(message)
        return list(self.wire.sent)


@pytest.fixture
async def bench(stack: RunningStack, owner: Caller) -> AsyncIterator[Bench]:
    async with in_front_of(stack.db_url) as (wire, url):
        settings = settings_for(stack, "direct").model_copy(update={"db_url": SecretStr(url)})
        database = await open_database(settings)
        registration = server.Registration(
            SERVICE, pb_grpc.add_SessionsServiceServicer_to_server, SessionsServicer(SessionsStore(database))
        )
        async with served([registration], supabase_url=stack.supabase_url) as connection:
            with acting_as(owner):
                yield Bench(pb_grpc.SessionsServiceStub(connection), wire)
        await database.close()


NO_SESSION = str(uuid4())
# The server is told the time of the statement before it, and that it is over behind it.
WITH_A_TIME_OF_ITS_OWN = [QUERY, *ONE_ROUND_TRIP, QUERY]
NEW = pb.NewMessage(role=pb.ROLE_USER, content="words")
CALLS: dict[str, Callable[[str, str], Message]] = {
    "CreateSession": lambda _, __: pb.CreateSessionRequest(name="another"),
    "ListSessions": lambda _, __: pb.ListSessionsRequest(page_size=50),
    "GetSession": lambda session, _: pb.GetSessionRequest(session_id=session),
    "UpdateSession": lambda session, _: pb.UpdateSessionRequest(session_id=session, name="renamed"),
    "AppendMessages": lambda session, _: pb.AppendMessagesRequest(session_id=session, messages=[NEW, NEW]),
    "ListMessages": lambda session, _: pb.ListMessagesRequest(session_id=session, page_size=50),
    "SelectBranch": lambda session, message: pb.SelectBranchRequest(session_id=session, message_id=message),
    "SearchMessages": lambda _, __: pb.SearchMessagesRequest(query="words"),
    "ListUsage": lambda _, __: pb.ListUsageRequest(),
    "DeleteSession": lambda session, _: pb.DeleteSessionRequest(session_id=session),
}


def test_each_rpc_is_counted() -> None:
    assert CALLS.keys() == {method.name for method in SERVICE.methods}


async def _session_with_a_message(bench: Bench) -> tuple[str, str]:
    session: pb.Session = (await bench.call(pb.CreateSessionRequest(name="one"))).session  # type: ignore[attr-defined]
    request = pb.AppendMessagesRequest(session_id=session.id, messages=[NEW])
    answer: pb.AppendMessagesResponse = await bench.call(request)  # type: ignore[assignment]
    return session.id, answer.messages[0].id


@pytest.mark.parametrize("rpc", CALLS)
async def test_a_call_is_one_round_trip_to_the_database(bench: Bench, rpc: str) -> None:
    session_id, message_id = await _session_with_a_message(bench)
    expected = WITH_A_TIME_OF_ITS_OWN if rpc in ("SearchMessages", "ListUsage") else ONE_ROUND_TRIP
    assert await bench.messages_of(CALLS[rpc](session_id, message_id)) == expected
    assert bench.wire.connections == 1


async def test_a_refused_call_is_one_round_trip_too(bench: Bench) -> None:
    await _session_with_a_message(bench)
    assert await bench.messages_of(pb.GetSessionRequest(session_id=NO_SESSION)) == ONE_ROUND_TRIP
    assert await bench.messages_of(pb.ListSessionsRequest()) == ONE_ROUND_TRIP
    assert bench.wire.connections == 1


async def test_the_first_call_of_a_connection_prepares_the_statement_and_does_no_more(bench: Bench) -> None:
    first = await bench.messages_of(pb.ListSessionsRequest())
    assert [kind for kind in first if kind != PASSWORD] == [*PREPARE, *ONE_ROUND_TRIP]


async def test_many_calls_at_once_are_one_round_trip_each(bench: Bench) -> None:
    session_id, _ = await _session_with_a_message(bench)
    await asyncio.gather(*(bench.call(pb.GetSessionRequest(session_id=session_id)) for _ in range(40)))
    bench.wire.sent.clear()
    await asyncio.gather(*(bench.call(pb.GetSessionRequest(session_id=session_id)) for _ in range(40)))
    assert sorted(bench.wire.sent) == sorted(ONE_ROUND_TRIP * 40)
