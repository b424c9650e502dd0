"""Calls of models that belong to no run: noted before a model is asked, entered in the ledger when they have ended."""

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import structlog
from concerto.sessions.v1 import runs_pb2
from langchain_core.messages import BaseMessage

from servicekit.errors import AppError
from servicekit.rpc import request
from servicekit.telemetry import logs
from services.orchestrator.models.window import count_messages
from services.orchestrator.runs.leases import LEASE_SECONDS, HeldLease, Leases
from services.orchestrator.runs.transcript import Transcript
from services.orchestrator.sessions_client import SessionsClient, is_retryable
from services.orchestrator.steps import Piece, Step, TokenUsage

_LOG = structlog.stdlib.get_logger(__name__)

CLOSE_SECONDS = 5.0
"""How long the ends of calls may take to be stored when the process ends; others are entered when their leases end."""

# A lease that was last renewed long ago may still be valid where nobody could take it.
_LEAST_FINISH_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 1.0


class Calls:
    """Makes calls that the ledger hears of, whatever becomes of the client, the provider and this process.

    prices: by model; a model without prices costs nothing.
    """

    def __init__(self, *, store: SessionsClient, leases: Leases, prices: Mapping[str, runs_pb2.Prices]) -> None:
        self._store = store
        self._leases = leases
        self._prices = prices
        self._background: set[asyncio.Task[None]] = set()

    async def begin(
        self,
        model: str,
        prompt: Sequence[BaseMessage],
        *,
        source: str,
        session_id: str = "",
        max_user_runs: int = 0,
    ) -> "Call":
        """Note that a model is about to be asked for the current caller; ask it within the block of what is returned.

        source: what the ledger says of it. session_id: the session that it is for, if any. max_user_runs: most runs and
        calls of the user anywhere; 0 for no limit. Raises AppError TOO_MANY_RUNS and what the sessions service raises.
        """
        wanted = runs_pb2.StartModelCallRequest(
            session_id=session_id,
            model=model,
            source=source,
            prompt_tokens=count_messages(prompt),
            prices=self._prices.get(model),
            lease_seconds=LEASE_SECONDS,
            max_user_runs=max_user_runs,
        )
        starting = asyncio.create_task(self._store.start_model_call(wanted))
        try:
            lease = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A client that vanishes in between must not leave a call that nobody ends.
            self._work(self._take_back(starting))
            raise
        return Call(self, self._leases, lease, model, prompt)

    async def close(self) -> None:
        """Wait a moment for the ends that are still to be stored."""
        if self._background:
            await asyncio.wait(set(self._background), timeout=CLOSE_SECONDS)
        for task in self._background:
            task.cancel()

    async def finish(self, held: HeldLease, usage: runs_pb2.Usage | None) -> None:
        """Enter in the ledger what a call has used; None: the model was not asked. Goes on when the caller goes."""
        await asyncio.shield(self._work(self._finish(held, usage)))

    def _work(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _take_back(self, starting: "asyncio.Task[runs_pb2.Lease]") -> None:
        try:
            lease = await starting
        except AppError:
            return
        await self._finish(HeldLease(lease, on_lost=_nothing, on_cancelled=_nothing), None)

    async def _finish(self, held: HeldLease, usage: runs_pb2.Usage | None) -> None:
        # The client's deadline ends its call, not what has to be stored of it.
        request.begin(request.current_id(), None)
        wanted = runs_pb2.FinishModelCallRequest(lease=held.lease, usage=usage)
        give_up_at = max(held.valid_until, time.monotonic() + _LEAST_FINISH_SECONDS)
        pause_seconds = _FIRST_PAUSE_SECONDS
        try:
            while True:
                try:
                    await self._store.finish_model_call(wanted)
                except AppError as error:
                    if error.reason == "LEASE_LOST":  # entered already, by an earlier try or when its lease had run out
                        return
                    if not is_retryable(error) or time.monotonic() + pause_seconds > give_up_at:
                        _LOG.error("model_call.not_finished", call_id=held.lease.run_id, reason=error.reason)
                        return
                else:
                    return
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(pause_seconds * 2, _MAX_PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 (nobody waits for it who could handle it)
            _LOG.error("model_call.not_finished", call_id=held.lease.run_id, cause=logs.describe(error))


class Call:
    """One call of a model, while its block lasts. Every exception passes; the ledger hears of each end."""

    def __init__(
        self, calls: Calls, leases: Leases, lease: runs_pb2.Lease, model: str, prompt: Sequence[BaseMessage]
    ) -> None:
        self._calls = calls
        self._leases = leases
        self._held = HeldLease(lease, on_lost=_nothing, on_cancelled=_nothing)
        self._transcript = Transcript(run_id=lease.run_id, model=model, agent="")
        self._transcript.ask(prompt)
        self._usage: TokenUsage | None = None
        leases.add(self._held)

    async def __aenter__(self) -> Self:
        return self

    def take(self, step: Step) -> None:
        """Take in the next step of the answer. Raises AppError RUN_INTERRUPTED once the call's lease is lost."""
        if self._held.is_lost:
            raise AppError("RUN_INTERRUPTED", cause="the lease is lost")
        if isinstance(step, Piece) and step.usage is not None:
            # Some servers count in each chunk what there was so far; the last count is the call's.
            self._usage, step = step.usage, replace(step, usage=None)
        self._transcript.add(step)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leases.remove(self._held)
        if self._held.is_lost:
            return
        if self._usage is not None:
            self._transcript.add(Piece(usage=self._usage))
        await self._calls.finish(self._held, self._transcript.usage(_failure(error)))


def _failure(error: BaseException | None) -> AppError | None:
    if error is None or isinstance(error, AppError):
        return error
    # The client has gone away, or this process is about to.
    return AppError("CANCELLED") if not isinstance(error, Exception) else AppError("INTERNAL", cause=error)


def _nothing() -> None:
    return
