"""What a client with gRPC's own settings takes: the channels of these tests have no others."""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from concerto.sessions.v1 import runs_pb2, sessions_pb2, turns_pb2
from google.protobuf import struct_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from servicekit.errors import AppError
from servicekit.rpc import channel, sizes
from servicekit.rpc.identity import Caller
from servicekit.rpc.sizes import MAX_ANSWER_BYTES, MAX_CONTENT_BYTES
from servicekit.testing import acting_as
from services.sessions.tests.conftest import Service
from tests.support.contract import MAX_CONTENT_BYTES as MOST_OF_A_MESSAGE

SERVICES = [
    module.DESCRIPTOR.services_by_name[name]
    for module, name in ((sessions_pb2, "SessionsService"), (runs_pb2, "RunsService"))
]
LARGE_MESSAGES = 5
NOTED_MESSAGES = 50


def struct(**values: Any) -> struct_pb2.Struct:
    result = struct_pb2.Struct()
    result.update(values)
    return result


NOTES = struct(notes="n" * 65_000)
# As many bytes as can be had of so short a text.
NUMBERS = struct(numbers=[1] * 998)


class Filled:
    """A session that gets more than an answer may hold, and what can be asked about it."""

    def __init__(self, service: Service, caller: Caller) -> None:
        self.service = service
        self.caller = caller
        self.session_id = ""
        self.sizes: list[int] = []
        self.appended: list[str] = []
        self.lease = runs_pb2.Lease()

    async def ask(self, rpc: str, message: Message) -> Any:
        with acting_as(self.caller):
            answer = await self.service.call(rpc, message)
        self.sizes.append(answer.ByteSize())
        return answer

    async def begin(self) -> None:
        """Make the session."""
        created = await self.ask("CreateSession", sessions_pb2.CreateSessionRequest(name="é" * 200))
        self.session_id = created.session.id

    async def fill(self) -> None:
        """Store more than one answer may hold: by its contents, and by its notes."""
        large = sessions_pb2.NewMessage(role=sessions_pb2.ROLE_USER, content=words(MOST_OF_A_MESSAGE), metadata=NOTES)
        await self.append([large] * LARGE_MESSAGES)
        noted = [sessions_pb2.NewMessage(role=sessions_pb2.ROLE_USER, metadata=notes) for notes in (NOTES, NUMBERS)]
        await self.append(noted * (NOTED_MESSAGES // 2))

    async def append(self, messages: list[sessions_pb2.NewMessage]) -> None:
        request = sessions_pb2.AppendMessagesRequest(
            session_id=self.session_id, messages=messages, request_id=str(uuid4())
        )
        answer = await self.ask("AppendMessages", request)
        assert [message.order for message in answer.messages] == [
            len(self.appended) + position for position in range(1, len(messages) + 1)
        ]
        assert not any(message.content or message.HasField("metadata") for message in answer.messages)
        self.appended += [message.id for message in answer.messages]


def words(size: int) -> str:
    return ("needle " * (size // 7 + 1))[:size]


@pytest.fixture
async def filled(direct: Service, owner: Caller) -> Filled:
    filled = Filled(direct, owner)
    await filled.begin()
    return filled


async def begin(filled: Filled, **fields: Any) -> runs_pb2.StartRunResponse:
    turn = turns_pb2.Turn(content=words(MOST_OF_A_MESSAGE), metadata=NOTES, if_running=turns_pb2.IF_RUNNING_QUEUE)
    answer: runs_pb2.StartRunResponse = await filled.ask(
        "StartRun", runs_pb2.StartRunRequest(session_id=filled.session_id, turn=turn, lease_seconds=120, **fields)
    )
    return answer


async def say(filled: Filled, lease: runs_pb2.Lease, events: list[runs_pb2.RunEvent]) -> None:
    batch = runs_pb2.RunEventBatch(lease=lease, events=events)
    answer = await filled.ask("AppendRunEvents", runs_pb2.AppendRunEventsRequest(batches=[batch]))
    assert not answer.lost_run_ids


def delta(text: str, seq: int = 2) -> runs_pb2.RunEvent:
    return runs_pb2.RunEvent(seq=seq, message_delta=runs_pb2.MessageDelta(text=text))


async def finish(filled: Filled, lease: runs_pb2.Lease) -> None:
    answer = sessions_pb2.NewMessage(
        role=sessions_pb2.ROLE_ASSISTANT, content=words(MOST_OF_A_MESSAGE), metadata=NUMBERS
    )
    request = runs_pb2.FinishRunRequest(
        lease=lease, state=runs_pb2.RUN_STATE_SUCCEEDED, messages=[answer], usage=runs_pb2.Usage(model="m"), next_seq=9
    )
    finished = await filled.ask("FinishRun", request)
    assert finished.events[0].message_completed.message.content == answer.content


async def append_messages(filled: Filled) -> None:
    """Contents are answered where they are asked for, and refused before anything is stored where they are too many."""
    message = sessions_pb2.NewMessage(role=sessions_pb2.ROLE_USER, content="x" * MOST_OF_A_MESSAGE)
    request = sessions_pb2.AppendMessagesRequest(
        session_id=filled.session_id, messages=[message] * 2, include_contents=True
    )
    answer = await filled.ask("AppendMessages", request)
    assert [len(one.content) for one in answer.messages] == [MOST_OF_A_MESSAGE] * 2
    request.messages.extend([message] * 2)
    with pytest.raises(AppError) as refusal:
        await filled.ask("AppendMessages", request)
    assert refusal.value.reason == "FIELD_TOO_LARGE"
    assert refusal.value.metadata["limit"] == f"{MAX_CONTENT_BYTES} bytes with include_contents"
    session = (await filled.ask("GetSession", sessions_pb2.GetSessionRequest(session_id=filled.session_id))).session
    assert session.message_count == 2


async def list_messages(filled: Filled) -> None:
    """Every message is on some page, from either end, with the longest answer under way beside it."""
    await filled.fill()
    started = await begin(filled)
    await say(filled, started.lease, [delta(words(MOST_OF_A_MESSAGE))])
    for from_end in (False, True):
        seen: list[str] = []
        token = ""
        while True:
            request = sessions_pb2.ListMessagesRequest(
                session_id=filled.session_id, from_end=from_end, page_token=token, page_size=100,
                include_answer_under_way=True,
            )  # fmt: skip
            page = await filled.ask("ListMessages", request)
            assert len(page.answer_under_way.text) == MOST_OF_A_MESSAGE
            found = [message.id for message in page.messages]
            seen = found + seen if from_end else seen + found
            token = page.next_page_token
            if not token:
                break
        assert seen == [*filled.appended, started.run.user_message_id]
    found = await filled.ask("SearchMessages", sessions_pb2.SearchMessagesRequest(query="needle", page_size=50))
    assert len(found.hits) > 1


async def start_run(filled: Filled) -> None:
    """The history that comes along is as much as fits, the newest."""
    await filled.fill()
    started = await begin(filled, history_messages=100)
    assert started.has_earlier_messages
    history = [message.id for message in started.history]
    assert len(history) > 1
    assert history == filled.appended[-len(history) :]


async def promote_run(filled: Filled) -> None:
    """A run that has waited brings its user's message."""
    first, second = await begin(filled), await begin(filled)
    await finish(filled, first.lease)
    promoted = await filled.ask("PromoteRun", runs_pb2.PromoteRunRequest(lease=second.lease))
    assert len(promoted.events[0].run_started.user_message.content) == MOST_OF_A_MESSAGE


async def finish_run(filled: Filled) -> None:
    """The longest answer comes back with the run's end."""
    await finish(filled, (await begin(filled)).lease)


async def watch_run_events(filled: Filled) -> None:
    """All events come, in order, in parts of which none is larger than it may be but for a single event."""
    started = await begin(filled)
    numbers = struct(arguments=[1] * 998)  # eleven bytes each on the wire and three as text, which bounds a page
    tools = [
        runs_pb2.RunEvent(seq=seq, tool_started=runs_pb2.ToolStarted(call_id=str(seq), name="t", arguments=numbers))
        for seq in range(2, 22)
    ]
    most_bytes = 5 * tools[0].ByteSize()
    await say(filled, started.lease, [*tools, delta(words(MOST_OF_A_MESSAGE), 22)])
    await finish(filled, started.lease)
    parts: list[list[int]] = []
    request = runs_pb2.WatchRunEventsRequest(run_id=started.run.id)
    with acting_as(filled.caller), mock.patch.object(sizes, "MAX_CONTENT_BYTES", most_bytes):
        async with contextlib.aclosing(channel.stream(filled.service.runs.WatchRunEvents, request)) as responses:
            async for response in responses:
                filled.sizes.append(response.ByteSize())
                parts.append([event.seq for event in response.events])
                assert len(response.events) == 1 or sum(event.ByteSize() for event in response.events) <= most_bytes
    assert [seq for part in parts for seq in part] == list(range(1, 26))
    assert max(map(len, parts)) > 2


CHECKS: dict[str, Callable[[Filled], Awaitable[None]]] = {
    "AppendMessages": append_messages,
    "ListMessages": list_messages,
    "StartRun": start_run,
    "PromoteRun": promote_run,
    "FinishRun": finish_run,
    "WatchRunEvents": watch_run_events,
}


def holders(descriptor: Descriptor, seen: frozenset[str] = frozenset()) -> bool:
    """Return whether a message holds, however deep, what is as long as its writer wants."""
    if descriptor in (sessions_pb2.Message.DESCRIPTOR, runs_pb2.MessageDelta.DESCRIPTOR):
        return True
    if descriptor in (sessions_pb2.AnswerUnderWay.DESCRIPTOR, struct_pb2.Struct.DESCRIPTOR):
        return True
    nested = [field.message_type for field in descriptor.fields if field.message_type is not None]
    return any(one.full_name not in seen and holders(one, seen | {descriptor.full_name}) for one in nested)


def test_every_rpc_whose_answer_holds_what_somebody_wrote_is_looked_at() -> None:
    named = {method.name for service in SERVICES for method in service.methods if holders(method.output_type)}
    assert named == set(CHECKS)


@pytest.mark.parametrize("rpc", CHECKS)
async def test_no_answer_is_larger_than_a_client_takes(filled: Filled, rpc: str) -> None:
    await CHECKS[rpc](filled)
    assert max(filled.sizes) <= MAX_ANSWER_BYTES
