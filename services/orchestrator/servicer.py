"""The rpcs of the orchestrator service."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc

from servicekit import identity
from services.orchestrator.runs import Runs, Turn


class OrchestratorServicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Lets models answer in sessions."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs

    async def StreamTurn(
        self, request: orchestrator_pb2.StreamTurnRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[orchestrator_pb2.StreamTurnResponse]:
        """Start the turn's run and pass its events on; when the client goes, the run is cancelled."""
        turn = Turn(
            user_id=identity.current_caller().user_id,
            session_id=request.session_id,
            content=request.content,
            metadata=request.metadata if request.HasField("metadata") else None,
            model=request.model,
            request_id=request.request_id,
        )
        run = await self._runs.begin(turn)
        # A client may vanish while an event is being written, where no `finally` of ours would run at once.
        context.add_done_callback(lambda _: self._runs.leave(run))  # type: ignore[arg-type]
        async for event in run.log.follow():
            yield orchestrator_pb2.StreamTurnResponse(event=event)
