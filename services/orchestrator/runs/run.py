"""A run: one turn from its stored user's message to its stored end, with or without listeners."""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from concerto.errors.v1 import errors_pb2
from concerto.sessions.v1 import runs_pb2, sessions_pb2, turns_pb2
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
from services.orchestrator.steps import Answerer, Namer, Piece, Step, Thought, ToolCall

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


@dataclass(frozen=True, slots=True)
class Dependencies:
    """What every run of a process works with."""

    store: SessionsClient
    writer: EventWriter
    leases: Leases
    window: Window
    answerer: Answerer
    namer: Namer


class Run:
    """Executes one turn by the lease that StartRun gave out.

    turn: what was asked. started: StartRun's answer, with a lease. answerer: makes the answer.
    prompt: what the model is given; None means the system prompt and the session's history.

    Knows neither gRPC nor who listens: events go through the writer to `log`. `execute` raises nothing and is meant
    for a task of its own; it ends early by `cancel`, `interrupt`, or the loss of its lease, of which it says nothing.
    """

    def __init__(
        self,
        turn: turns_pb2.Turn,
        started: runs_pb2.StartRunResponse,
        dependencies: Dependencies,
        *,
        answerer: Answerer,
        prompt: Sequence[BaseMessage] | None,
    ) -> None:
        self.turn = turn
        self.id = started.run.id
        self.user_id = started.run.user_id
        self.session_id = started.run.session_id
        self.request_id = started.run.request_id
        self.log = RunLog()
        self.session_may_be_free = asyncio.Event()
        self.naming: asyncio.Task[None] | None = None
        self._dependencies = dependencies
        self._answerer = answerer
        self._own_prompt = prompt
        # A part of the answer would keep all of it in memory, with its history.
        kept = runs_pb2.StartRunResponse(run=started.run, lease=started.lease, events=started.events)
        self._run = kept.run
        self._user_message = sessions_pb2.Message()
        self._started: runs_pb2.StartRunResponse | None = started
        self._held = HeldLease(kept.lease, on_lost=self._abandon, on_cancelled=self.cancel)
        self.outbox = Outbox(self._held, self.log, next_seq=1, on_failed=self._stop)
        """What is still to be stored."""
        self._transcript = Transcript(run_id=self.id, model=started.run.model, agent=started.run.agent)
        self._stopped: AppError | None = None
        self._stopping = asyncio.Event()
        self._has_text = asyncio.Event()
        self._speech: asyncio.Task[None] | None = None
        self._started_at = time.monotonic()
        self._first_token_at: float | None = None
        self._has_thought = False
        self._watch = watches.NOTHING
        dependencies.leases.add(self._held)
        if not self.is_queued:
            self._announce(kept.events)

    @property
    def is_queued(self) -> bool:
        """True while another run of the session is before it."""
        return self._run.state == runs_pb2.RUN_STATE_QUEUED

    def cancel(self) -> None:
        """End the run because it was asked for; what was said is kept. One that is storing its end is left alone."""
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
                self.outbox.trace_context = observing.trace_context()
                error = await self._wait_in_queue() if self.is_queued else None
                if error is None and not self._held.is_lost:
                    error = await self._listen()
                await self._finish(error)
        except Exception as error:  # noqa: BLE001 (nobody could handle it; the run is ended for us by its lease)
            _LOG.error("run.broken", run_id=self.id, cause=logs.describe(error))
        finally:
            self._dependencies.leases.remove(self._held)
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
        _LOG.warning("run.lost", run_id=self.id, session_id=self.session_id)
        self.log.close()
        self._stop(AppError("CANCELLED", cause="the lease is lost"))

    def _announce(self, events: Sequence[runs_pb2.RunEvent]) -> None:
        """Publish what the sessions service has stored itself: that the run has started."""
        self._user_message = events[0].run_started.user_message
        self.outbox.next_seq = events[-1].seq + 1
        self.log.publish(events)

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
                    with observing.untraced():
                        promoted = await self._dependencies.store.promote_run(self._held.lease)
                except AppError as error:
                    is_unknown = is_retryable(error)
                    if error.reason == "LEASE_LOST":
                        self._held.lose()
                    elif error.reason != "RUN_NOT_NEXT" and not is_unknown:
                        return error
                else:
                    self._run = promoted.run
                    self._announce(promoted.events)
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
            self._has_text.set()
        return None

    async def _name_session(self) -> None:
        # Its calls would cost the first words time; a model that thinks for long is not waited for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NAME_AFTER_SECONDS):
                await self._has_text.wait()
                await self.outbox.settled.wait()
        await self._dependencies.namer.name_session(self.session_id, self._user_message, model=self._run.model)

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
                if self._publish(step):
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
        if self._own_prompt is not None:
            return self._own_prompt
        # A long history is not held in memory for as long as the model speaks.
        started, self._started = self._started, None
        return await self._dependencies.window.prompt(
            self._dependencies.store,
            self.session_id,
            user_message,
            model=self._run.model,
            newest=started.history if started is not None else (),
            has_earlier=started is None or started.has_earlier_messages,
        )

    def _publish(self, step: Step) -> bool:
        """Let a step's event be stored; True when that is best begun before anything else is done."""
        payload: dict[str, Any]
        if isinstance(step, Piece):
            if step.text:
                is_first = self._first_token_at is None
                self._first_token_at = self._first_token_at or time.monotonic()
                self._dependencies.writer.put_text(self.outbox, step.text, urgent=is_first)
                if is_first:
                    self._has_text.set()
                return is_first or len(self.outbox) >= MAX_WAITING
            return False
        if isinstance(step, Thought):
            if step.takes_back:
                return False  # those who listen are told by the message, once it is stored
            is_first, self._has_thought = not self._has_thought, True
            self._dependencies.writer.put_thought(self.outbox, step.text, urgent=is_first)
            return is_first or len(self.outbox) >= MAX_WAITING
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
        self._dependencies.writer.put(self.outbox, runs_pb2.RunEvent(created_at=now(), **payload), urgent=True)
        return True

    async def _finish(self, error: AppError | None) -> None:
        """Store the end, once everything before it is stored."""
        if not self._held.is_lost:
            await self._dependencies.writer.flush(self.outbox)
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
        self._dependencies.leases.remove(self._held)
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
                return await self._dependencies.store.finish_run(finish)
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
            "session_id": self.session_id,
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
