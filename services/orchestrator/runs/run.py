"""A run: one turn from its stored user's message to its stored end, whoever listens."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from concerto.errors.v1 import errors_pb2
from concerto.sessions.v1 import runs_pb2, sessions_pb2
from google.protobuf import struct_pb2
from langchain_core.messages import BaseMessage

from servicekit.errors import AppError
from servicekit.rpc import request
from servicekit.telemetry import logs, measures, observing, watches
from services.orchestrator.models.messages import to_struct
from services.orchestrator.models.window import Window
from services.orchestrator.runs.event_writer import MAX_WAITING, EventWriter, Outbox, now
from services.orchestrator.runs.leases import HeldLease, Leases
from services.orchestrator.runs.run_log import RunLog
from services.orchestrator.runs.transcript import Transcript
from services.orchestrator.sessions_client import SessionsClient, is_retryable
from services.orchestrator.steps import Answerer, Namer, Piece, Step, ToolCall

_LOG = structlog.stdlib.get_logger(__name__)

PROMOTE_SECONDS = 0.3
"""How often a queued run asks whether it is next."""

NAME_AFTER_SECONDS = 1.0
"""How long a session's name waits for the first words at most."""

MAX_EVENT_OUTPUT_CHARS = 4_000
"""Most of a tool's output that its event shows; the stored message has it whole."""

FINISHED = measures.Counter("concerto_runs_finished", "Runs that have stored their end, by their state.", ("state",))

# A lease that was last renewed long ago may still be valid where nobody could take it.
_LEAST_FINISH_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a caller asks for."""

    user_id: str
    session_id: str
    content: str = ""
    """What the user says; empty when a message is answered again."""
    metadata: struct_pb2.Struct | None = None
    """The client's notes about the user's message."""
    model: str = ""
    """The wanted model; empty for the configured one."""
    agent: str = ""
    """The wanted agent; empty for the configured one."""
    request_id: str = ""
    """The client's id that makes a retry safe; empty makes the turn one of its own."""
    if_running: runs_pb2.IfRunning.ValueType = runs_pb2.IF_RUNNING_UNSPECIFIED
    regenerate_message_id: str = ""
    edit_message_id: str = ""
    source: str = ""
    """Who asks, for the ledger; empty means a turn."""
    prompt: Sequence[BaseMessage] | None = None
    """What the model is given; None means the system prompt and the session's history."""
    answerer: Answerer | None = None
    """Who answers; None means the agents."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every run of a process works with."""

    store: SessionsClient
    writer: EventWriter
    leases: Leases
    window: Window
    answerer: Answerer
    namer: Namer


class Run:
    """Executes one turn by the lease that StartRun gave out.

    Knows neither gRPC nor who listens: events go through the writer to `log`. `execute` raises nothing and is meant
    for a task of its own; it ends early by `cancel`, `interrupt`, or the loss of its lease, of which it says nothing.
    """

    def __init__(self, turn: Turn, started: runs_pb2.StartRunResponse, surroundings: Surroundings) -> None:
        self.turn = turn
        self.id = started.run.id
        self.log = RunLog()
        self.session_may_be_free = asyncio.Event()
        self.naming: asyncio.Task[None] | None = None
        self._around = surroundings
        self._answerer = turn.answerer or surroundings.answerer
        self._run = started.run
        self._user_message = started.user_message
        self._started: runs_pb2.StartRunResponse | None = started
        self._held = HeldLease(started.lease, on_lost=self._abandon, on_cancelled=self.cancel)
        self.outbox = Outbox(self._held, self.log, next_seq=1, on_failed=self._stop)
        """What is still to be stored."""
        self._transcript = Transcript(run_id=self.id, model=started.run.model, agent=started.run.agent)
        self._stopped: AppError | None = None
        self._stopping = asyncio.Event()
        self._has_spoken = asyncio.Event()
        self._speech: asyncio.Task[None] | None = None
        self._started_at = time.monotonic()
        self._first_token_at: float | None = None
        self._watch = watches.NOTHING
        surroundings.leases.add(self._held)
        if not self.is_queued:
            self._announce()

    @property
    def is_queued(self) -> bool:
        """True while another run of the session is before it."""
        return self._run.state == runs_pb2.RUN_STATE_QUEUED

    def cancel(self) -> None:
        """End the run as somebody wants it; what was said is kept. One that is storing its end is left alone."""
        self._stop(AppError("CANCELLED"))

    def interrupt(self) -> None:
        """End the run because its process ends; what was said is kept."""
        self._stop(AppError("RUN_INTERRUPTED"))

    async def execute(self) -> None:
        """Wait until it is the run's turn, let the agent answer, and store the end."""
        # The client's deadline ends its call, not the run.
        request.begin(request.current_id(), None)
        try:
            with observing.working("run", self._attributes()) as self._watch:
                self.outbox.place = observing.place()
                error = await self._wait_in_queue() if self.is_queued else None
                if error is None and not self._held.is_lost:
                    error = await self._listen()
                await self._finish(error)
        except Exception as error:  # noqa: BLE001 (nobody could handle it; the run is ended for us by its lease)
            _LOG.error("run.broken", run_id=self.id, cause=logs.describe(error))
        finally:
            self._around.leases.remove(self._held)
            self.log.close()

    def _attributes(self) -> dict[str, str]:
        agent = self._run.agent
        known = {"gen_ai.agent.name": agent} if agent else {}
        return {"gen_ai.operation.name": "invoke_agent", "concerto.run.id": self.id, **known}

    def _stop(self, error: AppError) -> None:
        if self._stopped is None:
            self._stopped = error
        self._stopping.set()
        if self._speech is not None:
            self._speech.cancel()

    def _abandon(self) -> None:
        _LOG.warning("run.lost", run_id=self.id, session_id=self.turn.session_id)
        self.log.close()
        self._stop(AppError("CANCELLED", cause="the lease is lost"))

    def _announce(self) -> None:
        """Publish the first event, which the sessions service has stored itself."""
        self.outbox.next_seq = 2
        event = runs_pb2.RunEvent(
            seq=1,
            created_at=self._run.started_at,
            run_started=runs_pb2.RunStarted(
                run_id=self.id,
                session_id=self._run.session_id,
                user_message=self._user_message,
                model=self._run.model,
                agent=self._run.agent,
            ),
        )
        self.log.publish([event])

    async def _wait_in_queue(self) -> AppError | None:
        """Return None once the run is the session's running one, or why it never will be."""
        # The caller's token may be gone when it is this run's turn.
        early = asyncio.create_task(self._read_early())
        is_unknown = False
        try:
            # While it is unknown whether a call has promoted the run, its next event has no number.
            while self._stopped is None or (is_unknown and not self._held.is_lost):
                self.session_may_be_free.clear()
                try:
                    with observing.unseen():
                        promoted = await self._around.store.promote_run(self._held.lease)
                except AppError as error:
                    is_unknown = is_retryable(error)
                    if error.reason == "LEASE_LOST":
                        self._held.lose()
                    elif error.reason != "RUN_NOT_NEXT" and not is_unknown:
                        return error
                else:
                    self._run, self._user_message = promoted.run, promoted.user_message
                    self._announce()
                    self._transcript.prompt = await early
                    return None
                await self._pause(PROMOTE_SECONDS)
            return self._stopped
        finally:
            early.cancel()
            await asyncio.gather(early, return_exceptions=True)

    async def _read_early(self) -> Sequence[BaseMessage]:
        if not self.turn.content:
            return ()
        try:
            return await self._read_prompt(
                sessions_pb2.Message(role=sessions_pb2.ROLE_USER, content=self.turn.content, order=2**31 - 1)
            )
        except AppError:
            return ()

    async def _pause(self, seconds: float) -> None:
        waits = [asyncio.create_task(self.session_may_be_free.wait()), asyncio.create_task(self._stopping.wait())]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _listen(self) -> AppError | None:
        """Let the agent answer; return why the run does not succeed, if it does not."""
        if self._user_message.content:
            self.naming = asyncio.create_task(self._name_session())
        self._speech = asyncio.create_task(self._speak())
        if self._stopped is not None:
            self._speech.cancel()
        try:
            await self._speech
        except asyncio.CancelledError:
            return self._stopped or AppError("CANCELLED")
        except AppError as error:
            return error
        except Exception as error:  # noqa: BLE001 (a run has no caller that could handle it; it ends with a reason)
            return AppError("INTERNAL", cause=error)
        finally:
            self._has_spoken.set()
        return None

    async def _name_session(self) -> None:
        # Its calls would cost the first words time; a model that thinks for long is not waited for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NAME_AFTER_SECONDS):
                await self._has_spoken.wait()
                await self.outbox.settled.wait()
        await self._around.namer.name_session(self._run.session_id, self._user_message, model=self._run.model)

    async def _speak(self) -> None:
        prompt = await self._prompt()
        self._transcript.ask(prompt)
        steps = self._answerer.answer(self._run.agent, prompt, model=self._run.model)
        async with contextlib.aclosing(steps):
            async for step in steps:
                if self._stopped is not None:
                    # asyncio.wait_for of Python 3.11 loses a cancellation that meets its result.
                    raise asyncio.CancelledError
                self._transcript.add(step)
                if self._tell(step):
                    await asyncio.sleep(0)  # the writer's turn

    async def _prompt(self) -> Sequence[BaseMessage]:
        try:
            return await self._read_prompt(self._user_message)
        except AppError as error:
            if error.reason != "TOKEN_EXPIRED" or not self._transcript.prompt:
                raise
            # Waiting took longer than the token lasted: what was said when the run was queued has to do.
            return self._transcript.prompt

    async def _read_prompt(self, user_message: sessions_pb2.Message) -> Sequence[BaseMessage]:
        if self.turn.prompt is not None:
            return self.turn.prompt
        # A long history is not held in memory for as long as the model speaks.
        started, self._started = self._started, None
        return await self._around.window.prompt(
            self._around.store,
            self._run.session_id,
            user_message,
            newest=started.history if started is not None else (),
            has_earlier=started is None or started.has_earlier_messages,
        )

    def _tell(self, step: Step) -> bool:
        """Let a step's event be stored; True when that is best begun before anything else is done."""
        payload: dict[str, Any]
        if isinstance(step, Piece):
            if step.text:
                is_first = self._first_token_at is None
                self._first_token_at = self._first_token_at or time.monotonic()
                self._around.writer.put_text(self.outbox, step.text, urgent=is_first)
                if is_first:
                    self._has_spoken.set()
                return is_first or len(self.outbox) >= MAX_WAITING
            return False
        if isinstance(step, ToolCall):
            arguments = to_struct(step.arguments)
            payload = {"tool_started": runs_pb2.ToolStarted(call_id=step.call_id, name=step.name, arguments=arguments)}
        else:
            payload = {
                "tool_finished": runs_pb2.ToolFinished(
                    call_id=step.call_id,
                    name=step.name,
                    output=step.output[:MAX_EVENT_OUTPUT_CHARS],
                    is_error=step.is_error,
                )
            }
        self._around.writer.put(self.outbox, runs_pb2.RunEvent(created_at=now(), **payload), urgent=True)
        return True

    async def _finish(self, error: AppError | None) -> None:
        """Store the end, once everything before it is stored."""
        if not self._held.is_lost:
            await self._around.writer.flush(self.outbox)
        if self._held.is_lost:
            return
        error = error or self.outbox.failure
        finish = runs_pb2.FinishRunRequest(
            lease=self._held.lease,
            state=_state_after(error),
            messages=self._transcript.messages(error),
            usage=self._transcript.usage(error),
            error=_error_of(error),
            next_seq=self.outbox.next_seq,
        )
        give_up_at = max(self._held.valid_until, time.monotonic() + _LEAST_FINISH_SECONDS)
        # From here on only the answer says whose the run is: a heartbeat that crosses it would find it ended.
        self._around.leases.remove(self._held)
        try:
            answer = await self._finish_until(give_up_at, finish)
        except AppError as failure:
            if failure.reason == "LEASE_LOST":
                self._held.lose()
                return
            _LOG.error("run.not_finished", run_id=self.id, reason=failure.reason, cause=_cause_of(failure))
            if is_retryable(failure):
                return
            error = AppError("INTERNAL", cause=failure)
            # What was refused is most likely a message; the answer's text alone is worth another try.
            del finish.messages[:]
            finish.messages.extend(self._transcript.messages(error)[-1:])
            finish.state = runs_pb2.RUN_STATE_FAILED
            finish.error.CopyFrom(_error_of(error) or errors_pb2.Error())
            answer = await self._finish_until(time.monotonic() + _LEAST_FINISH_SECONDS, finish)
        self._note_end(finish.state, error)
        self.log.publish(answer.events)

    async def _finish_until(self, give_up_at: float, finish: runs_pb2.FinishRunRequest) -> runs_pb2.FinishRunResponse:
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._around.store.finish_run(finish)
            except AppError as error:
                if not is_retryable(error) or time.monotonic() + pause_seconds > give_up_at:
                    raise
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, _MAX_PAUSE_SECONDS)

    def _note_end(self, state: runs_pb2.RunState.ValueType, error: AppError | None) -> None:
        name = runs_pb2.RunState.Name(state).removeprefix("RUN_STATE_")
        self._watch.note({"concerto.run.state": name} | ({"error.type": error.reason} if error is not None else {}))
        FINISHED.add(1, name)
        values: dict[str, Any] = {
            "run_id": self.id,
            "session_id": self.turn.session_id,
            "model": self._run.model,
            "agent": self._run.agent,
            "state": name,
            "milliseconds": round((time.monotonic() - self._started_at) * 1000, 1),
        }
        if self._first_token_at is not None:
            values["first_token_milliseconds"] = round((self._first_token_at - self._started_at) * 1000, 1)
        if error is not None:
            values["reason"] = error.reason
            values["cause"] = _cause_of(error)
        if error is not None and error.reason == "INTERNAL":
            _LOG.error("run.finished", **values)
        else:
            _LOG.info("run.finished", **values)


def _state_after(error: AppError | None) -> runs_pb2.RunState.ValueType:
    match error.reason if error else None:
        case None:
            return runs_pb2.RUN_STATE_SUCCEEDED
        case "CANCELLED":
            return runs_pb2.RUN_STATE_CANCELLED
        case "RUN_INTERRUPTED":
            return runs_pb2.RUN_STATE_INTERRUPTED
        case _:
            return runs_pb2.RUN_STATE_FAILED


def _error_of(error: AppError | None) -> errors_pb2.Error | None:
    if error is None or error.reason == "CANCELLED":
        return None
    return error.to_message()


def _cause_of(error: AppError) -> str | None:
    return None if error.cause is None else logs.describe(error.cause)
