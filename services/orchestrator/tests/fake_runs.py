"""The runs service in memory: leases, idempotency, events, queue; as faithful as the orchestrator can tell."""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import grpc
from concerto.errors.v1 import errors_pb2
from concerto.sessions.v1 import runs_pb2, runs_pb2_grpc, sessions_pb2, turns_pb2
from google.protobuf import timestamp_pb2

from servicekit.errors import AppError
from servicekit.messages import paging
from servicekit.rpc import identity

RUNS_SERVICE = runs_pb2.DESCRIPTOR.services_by_name["RunsService"]
Context = grpc.aio.ServicerContext[Any, Any]
ALIVE = (runs_pb2.RUN_STATE_RUNNING, runs_pb2.RUN_STATE_QUEUED)


class Conversations(Protocol):
    """The sessions and messages that runs belong to; FakeSessions holds them."""

    sessions: dict[str, sessions_pb2.Session]
    messages: dict[str, list[sessions_pb2.Message]]
    calls: Counter[str]
    hold: dict[str, asyncio.Event]
    refuse: dict[str, str]

    def add(
        self, session_id: str, new: sessions_pb2.NewMessage, *, parent_id: str | None = None
    ) -> sessions_pb2.Message: ...


@dataclass
class StoredRun:
    """A row of runs and its events."""

    run: runs_pb2.Run
    lease_hash: bytes
    lease_ends_at: float
    prices: runs_pb2.Prices
    pending: runs_pb2.StartRunRequest
    source: str = "turn"
    events: list[runs_pb2.RunEvent] = field(default_factory=list)
    finished: tuple[bytes, runs_pb2.FinishRunResponse] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_alive(self) -> bool:
        return self.run.state in ALIVE

    def append(self, events: Iterable[runs_pb2.RunEvent]) -> None:
        known = {event.seq for event in self.events}
        for event in events:
            if event.seq not in known:
                assert event.seq == len(self.events) + 1, f"seq {event.seq} after {len(self.events)}"
                self.events.append(event)
        self.wake()

    def wake(self) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


class FakeRuns(runs_pb2_grpc.RunsServiceServicer):
    """Runs in dictionaries beside the FakeSessions that holds their messages.

    `appended` records the sizes of AppendRunEvents calls; `tokens` whether lease rpcs came with a bearer token.
    """

    def __init__(self, sessions: Conversations) -> None:
        self.sessions = sessions
        self.runs: dict[str, StoredRun] = {}
        self.appended: list[int] = []
        self.tokens: list[str] = []
        self.lost_answers = 0
        """So many starts are carried out and then answered with a failure."""
        self.ledger: list[runs_pb2.Usage] = []
        self.calls: dict[str, runs_pb2.StartModelCallRequest] = {}
        """Calls outside of runs that are under way."""
        self.called: list[tuple[runs_pb2.StartModelCallRequest, runs_pb2.Usage | None]] = []
        """Those that have ended, with what they had used."""
        self.brings_history = False
        """True once starts answer with the history that is asked for; an older service does not."""

    def text_of(self, run_id: str) -> str:
        return "".join(event.message_delta.text for event in self.runs[run_id].events)

    def take_away(self, run_id: str) -> None:
        """Do what the reaper does when a lease has run out."""
        stored = self.runs[run_id]
        text = self.text_of(run_id)
        messages = [sessions_pb2.NewMessage(role=sessions_pb2.ROLE_ASSISTANT, content=text)] if text else []
        error = AppError("RUN_INTERRUPTED").to_message()
        self._end(stored, runs_pb2.RUN_STATE_INTERRUPTED, messages, None, error)
        stored.lease_hash = b""

    async def _enter(self, rpc: str, context: Context | None = None) -> None:
        self.sessions.calls[rpc] += 1
        if context is not None:
            self.tokens.extend(
                str(value) for key, value in context.invocation_metadata() or () if key == "authorization"
            )
        if rpc in self.sessions.hold:
            await self.sessions.hold[rpc].wait()
        if rpc in self.sessions.refuse:
            raise AppError(self.sessions.refuse[rpc], metadata={"run_id": "", "problem": "", "field": ""})

    def _own(self, run_id: str) -> StoredRun:
        stored = self.runs.get(run_id)
        if stored is None or stored.run.user_id != identity.current_caller().user_id:
            raise AppError("RUN_NOT_FOUND", metadata={"run_id": run_id})
        return stored

    def _leased(self, lease: runs_pb2.Lease) -> StoredRun | None:
        stored = self.runs.get(lease.run_id)
        if stored is None or not stored.is_alive or stored.lease_hash != _hash(lease.token):
            return None
        return stored if time.monotonic() < stored.lease_ends_at else None

    async def StartRun(self, request: runs_pb2.StartRunRequest, context: Context) -> runs_pb2.StartRunResponse:
        await self._enter("StartRun")
        user_id, turn = identity.current_caller().user_id, request.turn
        session = self.sessions.sessions.get(request.session_id)
        if session is None or session.user_id != user_id:
            raise AppError("SESSION_NOT_FOUND", metadata={"session_id": request.session_id})
        messages = self.sessions.messages[session.id]
        same_session = [stored for stored in self.runs.values() if stored.run.session_id == session.id]
        for stored in same_session:
            if turn.request_id and stored.run.request_id == turn.request_id.lower():
                if stored.pending.turn.content != turn.content:
                    raise AppError("REQUEST_ID_REUSED", metadata={"request_id": turn.request_id})
                is_own = stored.is_alive and stored.lease_hash == _hash(request.lease_token)
                return runs_pb2.StartRunResponse(
                    run=stored.run,
                    lease=runs_pb2.Lease(run_id=stored.run.id, token=request.lease_token) if is_own else None,
                    events=stored.events[:1],
                )
        alive = [stored for stored in same_session if stored.is_alive]
        if alive and turn.if_running in (turns_pb2.IF_RUNNING_UNSPECIFIED, turns_pb2.IF_RUNNING_REJECT):
            raise AppError("RUN_IN_PROGRESS", metadata={"session_id": session.id, "run_id": alive[0].run.id})
        users = [stored for stored in self.runs.values() if stored.run.user_id == user_id and stored.is_alive]
        if request.max_user_runs and len(users) + len(self.calls) >= request.max_user_runs:
            raise AppError("TOO_MANY_RUNS", metadata={"scope": "of this user"}, retry_after_seconds=2)
        if alive and turn.if_running == turns_pb2.IF_RUNNING_CANCEL:
            for stored in alive:
                stored.run.is_cancellation_requested = True
        token = request.lease_token or uuid4().hex
        stored = StoredRun(
            run=runs_pb2.Run(
                id=str(uuid4()),
                session_id=session.id,
                user_id=user_id,
                state=runs_pb2.RUN_STATE_QUEUED if alive else runs_pb2.RUN_STATE_RUNNING,
                model=turn.model,
                agent=turn.agent,
                request_id=turn.request_id.lower(),
                created_at=now(),
            ),
            lease_hash=_hash(token),
            lease_ends_at=time.monotonic() + (request.lease_seconds or 10),
            prices=request.prices,
            pending=request,
            source=request.source or "turn",
        )
        message = None if alive else self._begin(stored)
        self.runs[stored.run.id] = stored
        lease = runs_pb2.Lease(run_id=stored.run.id, token=token)
        if self.lost_answers > 0:
            self.lost_answers -= 1
            raise AppError("DATABASE_UNAVAILABLE")
        earlier: list[sessions_pb2.Message] = []
        if self.brings_history and message is not None:
            earlier = [one for one in messages if one.is_active and one.order < message.order]
        history = earlier[-min(request.history_messages, 100) :] if request.history_messages else []
        return runs_pb2.StartRunResponse(
            run=stored.run,
            lease=lease,
            events=stored.events,
            history=history,
            has_earlier_messages=len(history) < len(earlier),
        )

    async def StartModelCall(
        self, request: runs_pb2.StartModelCallRequest, context: Context
    ) -> runs_pb2.StartModelCallResponse:
        await self._enter("StartModelCall")
        user_id = identity.current_caller().user_id
        users = [stored for stored in self.runs.values() if stored.run.user_id == user_id and stored.is_alive]
        if request.max_user_runs and len(users) + len(self.calls) >= request.max_user_runs:
            raise AppError("TOO_MANY_RUNS", metadata={"scope": "of this user"}, retry_after_seconds=2)
        self.calls[request.request_id] = request
        return runs_pb2.StartModelCallResponse(
            lease=runs_pb2.Lease(run_id=request.request_id, token=request.lease_token)
        )

    async def FinishModelCall(
        self, request: runs_pb2.FinishModelCallRequest, context: Context
    ) -> runs_pb2.FinishModelCallResponse:
        await self._enter("FinishModelCall", context)
        call = self.calls.pop(request.lease.run_id, None)
        if call is None or call.lease_token != request.lease.token:
            raise AppError("LEASE_LOST", metadata={"run_id": request.lease.run_id})
        self.called.append((call, request.usage if request.HasField("usage") else None))
        return runs_pb2.FinishModelCallResponse()

    def _begin(self, stored: StoredRun) -> sessions_pb2.Message:
        turn, run = stored.pending.turn, stored.run
        messages = self.sessions.messages[run.session_id]
        named = turn.regenerate_message_id or turn.edit_message_id
        target = None
        if named:
            target = next((one for one in messages if one.id == named), None)
            if target is None:
                raise AppError("MESSAGE_NOT_FOUND", metadata={"message_id": named})
            if target.role != sessions_pb2.ROLE_USER:
                raise AppError("NOT_A_USER_MESSAGE", metadata={"message_id": named})
            for message in messages:
                if message.order > target.order or (message.order == target.order and turn.edit_message_id):
                    message.is_active = False
        if turn.regenerate_message_id and target is not None:
            user_message = target
        else:
            new = sessions_pb2.NewMessage(
                role=sessions_pb2.ROLE_USER,
                content=turn.content,
                metadata=turn.metadata if turn.HasField("metadata") else None,
            )
            user_message = self.sessions.add(run.session_id, new, parent_id=target.parent_id if target else None)
        run.state = runs_pb2.RUN_STATE_RUNNING
        run.user_message_id = user_message.id
        run.started_at.CopyFrom(now())
        started = runs_pb2.RunStarted(
            run_id=run.id, session_id=run.session_id, user_message=user_message, model=run.model, agent=run.agent
        )
        stored.append([runs_pb2.RunEvent(seq=1, created_at=run.started_at, run_started=started)])
        return user_message

    async def PromoteRun(self, request: runs_pb2.PromoteRunRequest, context: Context) -> runs_pb2.PromoteRunResponse:
        await self._enter("PromoteRun", context)
        stored = self._leased(request.lease)
        if stored is None:
            raise AppError("LEASE_LOST", metadata={"run_id": request.lease.run_id})
        if stored.run.state == runs_pb2.RUN_STATE_RUNNING:
            return runs_pb2.PromoteRunResponse(run=stored.run, events=stored.events[:1])
        for other in self.runs.values():
            if other is stored:
                break
            if other.run.session_id == stored.run.session_id and other.is_alive:
                raise AppError("RUN_NOT_NEXT", metadata={"run_id": stored.run.id})
        self._begin(stored)
        return runs_pb2.PromoteRunResponse(run=stored.run, events=stored.events)

    async def AppendRunEvents(
        self, request: runs_pb2.AppendRunEventsRequest, context: Context
    ) -> runs_pb2.AppendRunEventsResponse:
        await self._enter("AppendRunEvents", context)
        self.appended.append(sum(len(batch.events) for batch in request.batches))
        lost = []
        for batch in request.batches:
            stored = self._leased(batch.lease)
            if stored is None:
                lost.append(batch.lease.run_id)
            else:
                stored.append(batch.events)
        return runs_pb2.AppendRunEventsResponse(lost_run_ids=lost)

    async def RenewLease(self, request: runs_pb2.RenewLeaseRequest, context: Context) -> runs_pb2.RenewLeaseResponse:
        await self._enter("RenewLease", context)
        lost, cancelled = [], []
        for lease in request.leases:
            stored = self._leased(lease)
            if lease.run_id in self.calls:
                continue
            if stored is None:
                lost.append(lease.run_id)
                continue
            stored.lease_ends_at = time.monotonic() + (request.lease_seconds or 10)
            if stored.run.is_cancellation_requested:
                cancelled.append(lease.run_id)
        return runs_pb2.RenewLeaseResponse(lost_run_ids=lost, cancelled_run_ids=cancelled)

    async def FinishRun(self, request: runs_pb2.FinishRunRequest, context: Context) -> runs_pb2.FinishRunResponse:
        await self._enter("FinishRun", context)
        known = self.runs.get(request.lease.run_id)
        content = request.SerializeToString(deterministic=True)
        if known is not None and known.finished is not None and known.finished[0] == content:
            return known.finished[1]
        stored = self._leased(request.lease)
        if stored is None:
            raise AppError("LEASE_LOST", metadata={"run_id": request.lease.run_id})
        assert request.next_seq == len(stored.events) + 1, f"{request.next_seq} after {len(stored.events)}"
        usage = request.usage if request.HasField("usage") else None
        error = request.error if request.HasField("error") else None
        events = self._end(stored, request.state, request.messages, usage, error)
        answer = runs_pb2.FinishRunResponse(run=stored.run, events=events)
        stored.finished = (content, answer)
        return answer

    def _end(
        self,
        stored: StoredRun,
        state: runs_pb2.RunState.ValueType,
        messages: Iterable[sessions_pb2.NewMessage],
        usage: runs_pb2.Usage | None,
        error: errors_pb2.Error | None,
    ) -> list[runs_pb2.RunEvent]:
        run = stored.run
        payloads: list[dict[str, Any]] = []
        kept = [self.sessions.add(run.session_id, message) for message in messages]
        if kept and kept[-1].role == sessions_pb2.ROLE_ASSISTANT:
            run.answer_message_id = kept[-1].id
            payloads.append({"message_completed": runs_pb2.MessageCompleted(message=kept[-1])})
        if usage is not None:
            prompt = (usage.prompt_tokens - usage.cached_tokens) * stored.prices.prompt
            cached = usage.cached_tokens * stored.prices.cached
            cost = prompt + cached + usage.completion_tokens * stored.prices.completion
            usage.cost_micro_usd = round(cost / 1_000_000)
            run.usage.CopyFrom(usage)
            payloads.append({"usage": usage})
        self.ledger.append(usage or runs_pb2.Usage(model=run.model))
        if error is not None:
            run.error_reason = error.details[0].reason
            payloads.append({"error": runs_pb2.RunError(error=error)})
        run.state = state
        run.finished_at.CopyFrom(now())
        payloads.append({"run_finished": runs_pb2.RunFinished(state=state)})
        first = len(stored.events) + 1
        events = [
            runs_pb2.RunEvent(seq=first + target, created_at=now(), **payload)
            for target, payload in enumerate(payloads)
        ]
        stored.append(events)
        return events

    async def WatchRunEvents(
        self, request: runs_pb2.WatchRunEventsRequest, context: Context
    ) -> AsyncIterator[runs_pb2.WatchRunEventsResponse]:
        await self._enter("WatchRunEvents")
        stored, last_seq = self._own(request.run_id), request.after_seq
        while True:
            changed = stored.changed
            while page := stored.events[last_seq : last_seq + 100]:
                yield runs_pb2.WatchRunEventsResponse(events=page)
                last_seq = page[-1].seq
            if not stored.is_alive:
                return
            await changed.wait()

    async def GetStoredRun(
        self, request: runs_pb2.GetStoredRunRequest, context: Context
    ) -> runs_pb2.GetStoredRunResponse:
        await self._enter("GetStoredRun")
        return runs_pb2.GetStoredRunResponse(run=self._own(request.run_id).run)

    async def ListStoredRuns(
        self, request: runs_pb2.ListStoredRunsRequest, context: Context
    ) -> runs_pb2.ListStoredRunsResponse:
        await self._enter("ListStoredRuns")
        user_id = identity.current_caller().user_id
        found = [stored.run for stored in self.runs.values() if stored.run.user_id == user_id][::-1]
        found = [run for run in found if request.session_id in ("", run.session_id)]
        start = paging.decode(request.page_token, (int,))[0] if request.page_token else 0
        end = start + min(request.page_size or 50, 100)
        token = paging.encode(end) if len(found) > end else ""
        return runs_pb2.ListStoredRunsResponse(runs=found[start:end], next_page_token=token)

    async def RequestRunCancellation(
        self, request: runs_pb2.RequestRunCancellationRequest, context: Context
    ) -> runs_pb2.RequestRunCancellationResponse:
        await self._enter("RequestRunCancellation")
        stored = self._own(request.run_id)
        if stored.is_alive:
            stored.run.is_cancellation_requested = True
        return runs_pb2.RequestRunCancellationResponse(run=stored.run)


def now() -> timestamp_pb2.Timestamp:
    made = timestamp_pb2.Timestamp()
    made.GetCurrentTime()
    return made


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
