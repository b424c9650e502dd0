import asyncio
import contextlib
import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import runs_pb2

from servicekit.rpc import channel
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as
from tests.support.api import Person, ok
from tests.support.measured import Note
from tests.support.model_server import Behaviour, ModelServer
from tests.support.replica import second_orchestrator
from tests.support.suites import RunningStack, start_stack, stop_stack
from tests.support.waiting import until

ROUNDS = 5
INTERRUPTED_WITHIN_SECONDS = 15.0
MOST_BEHIND_TOKENS = 64
TEXT = " ".join(f"word{index}" for index in range(200))

pytestmark = pytest.mark.own_mode


@dataclass
class Replicas:
    """A suite whose orchestrator is A; B is a second one on the same sessions service, reached by `b`."""

    stack: RunningStack
    model: ModelServer
    person: Person
    b: "orchestrator_pb2_grpc.OrchestratorServiceAsyncStub"

    async def start_run(self, behaviour: Behaviour) -> str:
        """Start a run on A, through the gateway."""
        session = await self.person.create_session(name="replicas")
        self.model.script(behaviour)
        run = ok(await self.person.call("POST", f"/sessions/{session['id']}/runs", {"content": "Count, please."}))
        return str(run["id"])

    async def follow(self, run_id: str, after_seq: int = 0) -> AsyncIterator[runs_pb2.RunEvent]:
        """Follow it on B."""
        request = orchestrator_pb2.StreamRunRequest(run_id=run_id, after_seq=after_seq)
        async with contextlib.aclosing(channel.stream(self.b.StreamRun, request)) as responses:
            async for response in responses:
                yield response.event

    async def answer(self, run_id: str) -> dict[str, object]:
        """Return the stored answer of a run."""
        run = ok(await self.person.call("GET", f"/runs/{run_id}"))
        messages = await self.person.messages(run["session_id"])
        (found,) = [message for message in messages if message["id"] == run["answer_message_id"]]
        return dict(found)


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[Replicas]:
    folder = Path(tempfile.mkdtemp(prefix="concerto-"))
    async with ModelServer.running() as model:
        settings: dict[str, Any] = {"OPENAI_BASE_URL": model.base_url, "CONCERTO_MODEL": "test-model"}
        stack = await asyncio.to_thread(start_stack, folder, mode="processes", **settings)
        try:
            async with (
                second_orchestrator(stack, model_url=model.base_url) as connection,
                httpx.AsyncClient(base_url=stack.gateway_url, timeout=30) as client,
            ):
                stub = orchestrator_pb2_grpc.OrchestratorServiceStub(connection)
                yield Replicas(stack, model, await Person.sign_up(client), stub)
        finally:
            await asyncio.to_thread(stop_stack, stack)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def replicas(running: Replicas) -> Iterator[Replicas]:
    """The same, with calls to B carrying the person's token."""
    token = running.person.tokens["access_token"]
    with acting_as(Caller(token=token, claims=jwt.decode(token, options={"verify_signature": False}))):
        yield running


def text_of(events: list[runs_pb2.RunEvent]) -> str:
    return "".join(event.message_delta.text for event in events)


async def test_a_replica_follows_what_another_one_executes(replicas: Replicas, note: Note) -> None:
    waits = []
    for _ in range(ROUNDS):
        run_id = await replicas.start_run(Behaviour(text=TEXT, delay_seconds=0.005))
        began = time.monotonic()
        events: list[runs_pb2.RunEvent] = []
        async for event in replicas.follow(run_id):
            if not events:
                waits.append(time.monotonic() - began)
            events.append(event)
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        assert events[-1].run_finished.state == runs_pb2.RUN_STATE_SUCCEEDED
        assert text_of(events) == TEXT == (await replicas.answer(run_id))["content"]
        later = [event async for event in replicas.follow(run_id, after_seq=5)]
        assert later == events[5:]
    note(
        f"first event of a run that another replica executes: {statistics.median(waits) * 1000:.0f} ms "
        f"at the median, {max(waits) * 1000:.0f} ms at most, {ROUNDS} runs"
    )


async def test_a_run_is_cancelled_through_another_replica(replicas: Replicas) -> None:
    run_id = await replicas.start_run(Behaviour(text=TEXT, delay_seconds=0.05))
    events = []
    async for event in replicas.follow(run_id):
        events.append(event)
        if len(events) == 10:
            request = orchestrator_pb2.CancelRunRequest(run_id=run_id)
            run = (await channel.call(replicas.b.CancelRun, request)).run
            assert run.is_cancellation_requested or run.state == runs_pb2.RUN_STATE_CANCELLED
    assert events[-1].run_finished.state == runs_pb2.RUN_STATE_CANCELLED
    assert 0 < len(text_of(events)) < len(TEXT)
    answer = await replicas.answer(run_id)
    assert (answer["content"], answer["metadata"]["partial"]) == (text_of(events), True)  # type: ignore[index]

    async def model_is_left_alone() -> bool:
        return replicas.model.open_streams == 0

    await until(model_is_left_alone, "the end of the model's stream")


async def test_a_killed_replicas_run_ends_interrupted_for_who_follows_it_on_another(
    replicas: Replicas, note: Note
) -> None:
    sent_before, sent = replicas.model.sent_tokens, 0
    run_id = await replicas.start_run(Behaviour(text=TEXT, delay_seconds=0.05))
    events, killed_at = [], 0.0
    async for event in replicas.follow(run_id):
        events.append(event)
        if len(events) == 10:
            os.kill(replicas.stack.process("orchestrator"), signal.SIGKILL)
            killed_at, sent = time.monotonic(), replicas.model.sent_tokens - sent_before
    waited = time.monotonic() - killed_at
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert events[-1].run_finished.state == runs_pb2.RUN_STATE_INTERRUPTED
    assert [event.error.error.details[0].reason for event in events if event.HasField("error")] == ["RUN_INTERRUPTED"]
    assert TEXT.startswith(text_of(events).strip())

    async def gateway_works() -> bool:
        return (await replicas.person.call("GET", f"/runs/{run_id}")).is_success

    await until(gateway_works, "replica A")
    answer = await replicas.answer(run_id)
    assert (answer["content"], answer["metadata"]["partial"]) == (text_of(events), True)  # type: ignore[index]
    kept = len(text_of(events).split())
    note(f"an orphaned run ended {waited:.1f} s after its process; {kept} of {sent} tokens sent by then were kept")
    assert sent - kept <= MOST_BEHIND_TOKENS
    assert waited <= INTERRUPTED_WITHIN_SECONDS
