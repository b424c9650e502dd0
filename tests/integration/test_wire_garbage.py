from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor

from servicekit import parts
from servicekit.rpc import channel, contracts
from tests.support.api import Person
from tests.support.certificates import certificates_of
from tests.support.suites import RunningStack

METHODS: list[tuple[parts.Part, MethodDescriptor]] = [
    (part, method)
    for part in parts.SERVICES
    for service in (*contracts.public_services(part), *contracts.internal_services(part))
    for method in service.methods
]
GARBAGE: dict[str, list[bytes]] = {
    "nothing at all": [],
    "an empty message": [b""],
    "corrupt": [b"\xff\xff\xff"],
    "cut off": [b"\x0a\x7fabc"],
    "no UTF-8": [b"\x0a\x02\xff\xfe"],
    "unknown fields": [b"\xf8\xff\xff\xff\x0f\x01"],
    "a text of NUL": [b"\x0a\x01\x00"],
}
AT_FAULT_OF_US = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
DEADLINE_SECONDS = 60


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        async for _ in call:
            break
    except grpc.aio.AioRpcError as error:
        return error.code()
    call.cancel()
    return grpc.StatusCode.OK


@pytest.mark.parametrize(("part", "method"), METHODS, ids=[method.full_name for _, method in METHODS])
async def test_no_rpc_falls_over_what_is_no_message_or_an_empty_one(
    stack: RunningStack, owner: Person, part: parts.Part, method: MethodDescriptor
) -> None:
    before = tracebacks(stack)
    codes: dict[str, grpc.StatusCode] = {}
    target = stack.env[part.target_variable]
    async with channel.connect(target, method.containing_service, tls=certificates_of(stack.env)) as connection:
        call: Any = connection.stream_stream(f"/{method.containing_service.full_name}/{method.name}")
        metadata = [("authorization", owner.headers["Authorization"])]
        for name, messages in GARBAGE.items():
            codes[name] = await code_of(call(_each(messages), metadata=metadata, timeout=DEADLINE_SECONDS))
    assert {name: code for name, code in codes.items() if code in AT_FAULT_OF_US} == {}
    refused = {codes["nothing at all"], codes["corrupt"], codes["cut off"]}
    assert refused == {grpc.StatusCode.INVALID_ARGUMENT}
    assert tracebacks(stack) == before


async def _each(messages: Iterable[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message


def tracebacks(stack: RunningStack) -> int:
    """Return how many tracebacks our processes have logged; 0 where their logs are out of reach."""
    folder: Path = stack.home / "logs"
    return sum(path.read_text(errors="replace").count("Traceback") for path in folder.glob("*.log"))
