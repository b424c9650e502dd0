import logging
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc
import pytest
from concerto.sessions.v1 import sessions_pb2, sessions_pb2_grpc
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from servicekit.rpc.server import Registration
from servicekit.testing import make_caller, served

SESSIONS = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
CREATE = f"/{SESSIONS.full_name}/CreateSession"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
CORRUPT = {
    "no tag": b"\xff",
    "a length beyond the end": b"\x0a\x05a",
    "no UTF-8": b"\x0a\x02\xff\xfe",
    "a group without an end": b"\x0b",
    "a field of number 0": b"\x00\x00",
    "much": b"\xff" * 1_000_000,
}


class Sessions(sessions_pb2_grpc.SessionsServiceServicer):
    async def CreateSession(self, request: Any, context: Any) -> Any:
        return sessions_pb2.CreateSessionResponse(session=sessions_pb2.Session(name=request.name))


@pytest.fixture
async def connection() -> AsyncIterator[grpc.aio.Channel]:
    add = sessions_pb2_grpc.add_SessionsServiceServicer_to_server
    async with served([Registration(SESSIONS, add, Sessions())]) as made:
        yield made


async def ask(connection: grpc.aio.Channel, path: str, messages: Iterable[bytes]) -> list[bytes]:
    """Send these bytes as the messages of an rpc of any kind, and return those of its answers."""

    async def sent() -> AsyncIterator[bytes]:
        for message in messages:
            yield message

    metadata = [("authorization", f"Bearer {make_caller().token}")]
    call: Callable[..., Any] = connection.stream_stream(path)
    return [answer async for answer in call(sent(), metadata=metadata)]


async def refusal(connection: grpc.aio.Channel, path: str, messages: Iterable[bytes]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(connection, path, messages)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert caught.value.details() == "The request is invalid."
    return caught.value.code(), info.reason


@pytest.mark.parametrize("path", [CREATE, CHECK, WATCH, REFLECT])
@pytest.mark.parametrize("message", CORRUPT.values(), ids=CORRUPT.keys())
async def test_a_corrupt_message_is_an_invalid_argument_and_leaves_no_traceback(
    connection: grpc.aio.Channel, caplog: pytest.LogCaptureFixture, path: str, message: bytes
) -> None:
    assert await refusal(connection, path, [message]) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("path", [CREATE, CHECK, WATCH])
async def test_an_rpc_without_a_message_is_an_invalid_argument(
    connection: grpc.aio.Channel, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    assert await refusal(connection, path, []) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert [entry for entry in caplog.records if entry.levelno >= logging.WARNING] == []


async def test_a_message_that_can_be_read_is_served_as_ever(connection: grpc.aio.Channel) -> None:
    wanted = sessions_pb2.CreateSessionRequest(name="Études")
    (answer,) = await ask(connection, CREATE, [wanted.SerializeToString()])
    assert sessions_pb2.CreateSessionResponse.FromString(answer).session.name == "Études"
    assert await ask(connection, CHECK, [b""]) == [b"\x08\x01"]
    listed = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = await ask(connection, REFLECT, [listed.SerializeToString()])
    listing = reflection_pb2.ServerReflectionResponse.FromString(answer).list_services_response
    assert SESSIONS.full_name in {one.name for one in listing.service}


async def test_an_rpc_that_does_not_exist_is_unimplemented(connection: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(connection, "/concerto.sessions.v1.SessionsService/Nothing", [b"\xff"])
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
