"""The rpcs of the orchestrator service."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import grpc
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import runs_pb2

from servicekit.rpc import identity
from servicekit.rpc.sizes import MAX_ANSWER_BYTES
from services.orchestrator.agents.registry import Agents
from services.orchestrator.openai.chat import ChatCompletions
from services.orchestrator.runs.registry import RunRegistry
from services.orchestrator.sessions_client import SessionsClient

Context = grpc.aio.ServicerContext[Any, Any]

MAX_BATCH_BYTES = MAX_ANSWER_BYTES // 4
"""Most bytes of events that share an answer; one event may be larger by itself."""


class OrchestratorServicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Lets models answer in sessions."""

    def __init__(self, runs: RunRegistry, *, store: SessionsClient, agents: Agents, chat: ChatCompletions) -> None:
        self.runs = runs
        self._store = store
        self._agents = agents
        self._chat = chat

    async def CreateRun(
        self, request: orchestrator_pb2.CreateRunRequest, context: Context
    ) -> orchestrator_pb2.CreateRunResponse:
        """Start the run and return it; it goes on by itself."""
        return orchestrator_pb2.CreateRunResponse(run=await self.runs.begin(request.session_id, request.turn))

    async def StreamRun(
        self, request: orchestrator_pb2.StreamRunRequest, context: Context
    ) -> AsyncIterator[orchestrator_pb2.StreamRunResponse]:
        """Pass on the run's events, from this process's memory or from the table."""
        user_id = identity.current_caller().user_id
        batches = self.runs.follow(request.run_id, user_id=user_id, after_seq=request.after_seq)
        async with contextlib.aclosing(batches):
            async for events in batches:
                for first, *more in _split(events, in_batches=request.in_batches):
                    yield orchestrator_pb2.StreamRunResponse(event=first, more=more)

    async def StreamTurn(
        self, request: orchestrator_pb2.StreamTurnRequest, context: Context
    ) -> AsyncIterator[orchestrator_pb2.StreamTurnResponse]:
        """Start the run and pass its events on; when the client goes, the run stays."""
        run = await self.runs.begin(request.session_id, request.turn)
        batches = self.runs.follow(run.id, user_id=run.user_id)
        async with contextlib.aclosing(batches):
            async for events in batches:
                for first, *more in _split(events, in_batches=request.in_batches):
                    yield orchestrator_pb2.StreamTurnResponse(event=first, more=more)

    async def GetRun(
        self, request: orchestrator_pb2.GetRunRequest, context: Context
    ) -> orchestrator_pb2.GetRunResponse:
        """Return the run as it is stored."""
        return orchestrator_pb2.GetRunResponse(run=await self._store.get_run(request.run_id))

    async def ListRuns(
        self, request: orchestrator_pb2.ListRunsRequest, context: Context
    ) -> orchestrator_pb2.ListRunsResponse:
        """Return a page of the caller's runs; the token is the sessions service's."""
        page = await self._store.list_runs(
            runs_pb2.ListStoredRunsRequest(
                page_size=request.page_size, page_token=request.page_token, session_id=request.session_id
            )
        )
        return orchestrator_pb2.ListRunsResponse(runs=page.runs, next_page_token=page.next_page_token)

    async def CancelRun(
        self, request: orchestrator_pb2.CancelRunRequest, context: Context
    ) -> orchestrator_pb2.CancelRunResponse:
        """Cancel the run at once where it executes here, else by way of the sessions service."""
        user_id = identity.current_caller().user_id
        return orchestrator_pb2.CancelRunResponse(run=await self.runs.cancel(request.run_id, user_id=user_id))

    async def ListAgents(
        self, request: orchestrator_pb2.ListAgentsRequest, context: Context
    ) -> orchestrator_pb2.ListAgentsResponse:
        """Return a page of the agents."""
        return self._agents.list_agents(request)

    async def ListModels(
        self, request: orchestrator_pb2.ListModelsRequest, context: Context
    ) -> orchestrator_pb2.ListModelsResponse:
        """Return a page of the models."""
        return await self._agents.list_models(request)

    async def StreamChatCompletion(
        self, request: orchestrator_pb2.StreamChatCompletionRequest, context: Context
    ) -> AsyncIterator[orchestrator_pb2.StreamChatCompletionResponse]:
        """Pass on the model's answer in OpenAI's own JSON."""
        async with contextlib.aclosing(self._chat.answer(request)) as answers:
            async for answer in answers:
                yield answer


def _split(events: Sequence[runs_pb2.RunEvent], *, in_batches: bool) -> Iterator[Sequence[runs_pb2.RunEvent]]:
    """Yield the events as answers hold them: one by one, or as many as fit."""
    if len(events) == 1:
        yield events
        return
    batch: list[runs_pb2.RunEvent] = []
    size = 0
    for event in events:
        size += event.ByteSize()
        if batch and (not in_batches or size > MAX_BATCH_BYTES):
            yield batch
            batch, size = [], event.ByteSize()
        batch.append(event)
    yield batch
