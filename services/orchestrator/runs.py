"""Runs: one turn each, from the stored user's message to the stored answer, whoever listens."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4, uuid5

import structlog
from concerto.orchestrator.v1 import orchestrator_pb2
from concerto.sessions.v1 import sessions_pb2
from google.protobuf import struct_pb2, timestamp_pb2

from servicekit import converter, request, telemetry
from servicekit.errors import AppError
from services.orchestrator.messages import to_struct
from services.orchestrator.models import Models, TokenUsage
from services.orchestrator.store import MAX_PAGE, SessionsStore
from services.orchestrator.titles import title_of
from services.orchestrator.window import Window, count_messages, count_text

_LOG = structlog.stdlib.get_logger(__name__)

# How long the end of a run waits for a sessions service that is away.
STORE_PATIENCE_SECONDS = 5.0
# A title is nearly always there before the answer; a late one must not hold the end back.
TITLE_PATIENCE_SECONDS = 0.25
CLOSE_SECONDS = STORE_PATIENCE_SECONDS + 5.0

_NAMES = UUID("6f1c1f0e-3c55-4b0b-8d0c-6f3f0f8f5a11")


@dataclass(frozen=True, slots=True)
class Turn:
    """What a caller asks for."""

    user_id: str
    session_id: str
    content: str
    """What the user says."""
    metadata: struct_pb2.Struct | None = None
    """The client's notes about the user's message."""
    model: str = ""
    """The wanted model; empty for the configured one."""
    request_id: str = ""
    """The client's id that makes a retry safe; empty makes the turn one of its own."""

    key: str = field(init=False)
    """Names the turn: the same for each repetition of it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.user_id}/{self.session_id}/{self.request_id or uuid4()}".lower())

    def id_of(self, part: str) -> str:
        """Return the UUID of a part of the turn (`run`, `user`, `answer`), the same for each repetition."""
        return str(uuid5(_NAMES, f"{self.key}/{part}"))


class RunLog:
    """The events of one run, in memory: appended by the run, followed by any number of readers.

    The run never waits for a reader. What is held is about as large as the answer's text.
    """

    def __init__(self) -> None:
        self._events: list[orchestrator_pb2.RunEvent] = []
        self._changed = asyncio.Event()

    @property
    def ended(self) -> bool:
        """True when the last event is there."""
        return bool(self._events) and self._events[-1].HasField("run_finished")

    def add(self, **payload: Any) -> None:
        """Append an event; `payload` is the one field of RunEvent that says what happened."""
        now = timestamp_pb2.Timestamp()
        now.FromNanoseconds(time.time_ns() // 1000 * 1000)
        self._events.append(orchestrator_pb2.RunEvent(seq=len(self._events) + 1, created_at=now, **payload))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self, after_seq: int = 0) -> AsyncIterator[orchestrator_pb2.RunEvent]:
        """Yield the events after `after_seq`, then each new one, until the run has ended."""
        place = after_seq
        while True:
            changed = self._changed
            while place < len(self._events):
                yield self._events[place]
                place += 1
            if self.ended:
                return
            await changed.wait()


class Run:
    """One turn: `start` stores what the user said, `execute` lets the model answer and stores that.

    Knows neither gRPC nor who listens: events go to `log`. `execute` always ends with run_finished and raises
    nothing; it is meant for a task of its own, and ended early by `cancel` only.
    """

    def __init__(self, turn: Turn, *, store: SessionsStore, models: Models, window: Window) -> None:
        self.turn = turn
        self.id = turn.id_of("run")
        self.model = models.name_for(turn.model)
        self.log = RunLog()
        self.cancelled = False
        self._store = store
        self._models = models
        self._window = window
        self._user_message = sessions_pb2.Message()
        self._speech: asyncio.Task[None] | None = None
        self._said: list[str] = []
        self._usage: TokenUsage | None = None
        self._prompt_tokens = 0
        self._finish_reason = ""
        self._stored: sessions_pb2.Message | None = None
        self._started_at = time.monotonic()
        self._first_token_at: float | None = None

    async def start(self) -> None:
        """Store the user's message, once however often the turn is repeated; raises what sessions raises."""
        message = sessions_pb2.NewMessage(
            role=sessions_pb2.ROLE_USER, content=self.turn.content, metadata=self.turn.metadata
        )
        answer = await self._store.append(self.turn.session_id, [message], request_id=self.turn.id_of("user"))
        self._user_message = answer[0]

    def cancel(self) -> None:
        """Stop the model. What it has said by then is kept; a run that is already storing its end is left alone."""
        self.cancelled = True
        if self._speech is not None:
            self._speech.cancel()

    async def execute(self) -> None:
        """Let the model answer, and store the answer or what there is of it."""
        # The client's deadline ends its call, not the storing of what was said.
        request.begin(request.current_id(), None)
        self.log.add(
            run_started=orchestrator_pb2.RunStarted(
                run_id=self.id, session_id=self.turn.session_id, user_message=self._user_message, model=self.model
            )
        )
        naming = asyncio.create_task(self._name_session())
        error = await self._listen_to_model()
        error = await self._store_answer(error)
        await asyncio.wait({naming}, timeout=TITLE_PATIENCE_SECONDS)
        self._finish(error)
        await asyncio.wait({naming})

    async def _listen_to_model(self) -> AppError | None:
        self._speech = asyncio.create_task(self._speak())
        if self.cancelled:
            self._speech.cancel()
        try:
            await self._speech
        except asyncio.CancelledError:
            return AppError("CANCELLED")
        except AppError as error:
            return error
        except Exception as error:  # noqa: BLE001 (a run has no caller that could handle it; it ends with a reason)
            return AppError("INTERNAL", cause=error)
        return None

    async def _speak(self) -> None:
        prompt_task = asyncio.create_task(
            self._window.prompt(self._store, self.turn.session_id, self._user_message), name="prompt"
        )
        try:
            self._stored = await self._find_answer() if self.turn.request_id else None
            if self._stored is not None:
                self._say(self._stored.content)
                return
            prompt = await prompt_task
        finally:
            prompt_task.cancel()
            # Taken note of, or asyncio would complain about a failure that does not matter any more.
            await asyncio.gather(prompt_task, return_exceptions=True)
        self._prompt_tokens = count_messages(prompt)
        async with contextlib.aclosing(self._models.answer(prompt, model=self.model)) as pieces:
            async for piece in pieces:
                if self.cancelled:
                    # asyncio.wait_for of Python 3.11 loses a cancellation that meets its result.
                    raise asyncio.CancelledError
                self._say(piece.text)
                self._usage = piece.usage or self._usage
                self._finish_reason = piece.finish_reason or self._finish_reason

    def _say(self, text: str) -> None:
        if not text:
            return
        self._first_token_at = self._first_token_at or time.monotonic()
        self._said.append(text)
        self.log.add(message_delta=orchestrator_pb2.MessageDelta(text=text))

    async def _find_answer(self) -> sessions_pb2.Message | None:
        """Return the answer that an earlier call of the same turn has stored; a partial one does not count."""
        # It stands right after the user's message, or a few places on where turns ran side by side.
        page = await self._store.list_messages(
            self.turn.session_id, page_size=MAX_PAGE, after_order=self._user_message.order
        )
        for message in page.messages:
            metadata = message.metadata.fields
            if message.role != sessions_pb2.ROLE_ASSISTANT or "run_id" not in metadata or "partial" in metadata:
                continue
            if metadata["run_id"].string_value == self.id:
                return message
        return None

    async def _store_answer(self, error: AppError | None) -> AppError | None:
        """Store the answer and say so; return why the run fails, if it does."""
        text = "".join(self._said)
        if self._stored is None and (error is None or text):
            try:
                self._stored = await self._append(text, error)
            except AppError as failure:
                error = error or failure
            except Exception as failure:  # noqa: BLE001 (as in _listen_to_model)
                error = error or AppError("INTERNAL", cause=failure)
        if self._stored is not None:
            self.log.add(message_completed=orchestrator_pb2.MessageCompleted(message=self._stored))
        usage = self._usage_event(text)
        if usage is not None:
            self.log.add(usage=usage)
        return error

    async def _append(self, text: str, error: AppError | None) -> sessions_pb2.Message:
        message = sessions_pb2.NewMessage(
            role=sessions_pb2.ROLE_ASSISTANT, content=text, metadata=to_struct(self._metadata(text, error))
        )
        # A partial answer does not take the answer's place: a retry of the turn may still bring the whole one.
        request_id = self.turn.id_of("answer") if error is None else str(uuid4())
        try:
            stored = await self._store.append(
                self.turn.session_id, [message], request_id=request_id, patience_seconds=STORE_PATIENCE_SECONDS
            )
        except AppError as failure:
            if failure.reason != "REQUEST_ID_REUSED":
                raise
            # The same turn, sent twice at once, has been answered by another replica meanwhile.
            other = await self._find_answer()
            if other is None:
                raise
            return other
        return stored[0]

    def _metadata(self, text: str, error: AppError | None) -> dict[str, Any]:
        usage = self._usage or self._estimated_usage(text)
        metadata: dict[str, Any] = {
            "model": self.model,
            "run_id": self.id,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "cached_tokens": usage.cached_tokens,
            },
        }
        if self._usage is None:
            metadata["usage"]["estimated"] = True
        if self._finish_reason:
            metadata["finish_reason"] = self._finish_reason
        if error is not None:
            metadata |= {"partial": True, "error_reason": error.reason}
        return metadata

    def _usage_event(self, text: str) -> orchestrator_pb2.Usage | None:
        if self._stored is not None and "usage" in self._stored.metadata.fields:
            # What is stored is what counts, also where the answer came from an earlier call.
            metadata = converter.to_json(self._stored.metadata)
            kept = {key: int(value) for key, value in metadata["usage"].items() if key != "estimated"}
            return orchestrator_pb2.Usage(model=str(metadata["model"]), **kept)
        if self._usage is None and not text:
            return None
        usage = self._usage or self._estimated_usage(text)
        return orchestrator_pb2.Usage(
            model=self.model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
        )

    def _estimated_usage(self, text: str) -> TokenUsage:
        # Providers count only at the end, which a broken stream does not reach.
        return TokenUsage(prompt_tokens=self._prompt_tokens, completion_tokens=count_text(text) if text else 0)

    def _finish(self, error: AppError | None) -> None:
        state: orchestrator_pb2.RunState.ValueType = orchestrator_pb2.RUN_STATE_SUCCEEDED
        if error is not None and error.reason == "CANCELLED" and self.cancelled:
            state = orchestrator_pb2.RUN_STATE_CANCELLED
        elif error is not None:
            state = orchestrator_pb2.RUN_STATE_FAILED
            self.log.add(
                error=orchestrator_pb2.RunError(error=converter.from_json(orchestrator_pb2.Error, error.to_json()))
            )
        self._write_log_entry(state, error)
        self.log.add(run_finished=orchestrator_pb2.RunFinished(state=state))

    def _write_log_entry(self, state: "orchestrator_pb2.RunState.ValueType", error: AppError | None) -> None:
        values: dict[str, Any] = {
            "run_id": self.id,
            "session_id": self.turn.session_id,
            "model": self.model,
            "state": orchestrator_pb2.RunState.Name(state).removeprefix("RUN_STATE_"),
            "milliseconds": round((time.monotonic() - self._started_at) * 1000, 1),
        }
        if self._first_token_at is not None:
            values["first_token_milliseconds"] = round((self._first_token_at - self._started_at) * 1000, 1)
        if error is not None:
            values["reason"] = error.reason
            if error.cause is not None:
                values["cause"] = telemetry.describe(error.cause)
        if error is not None and error.reason == "INTERNAL":
            _LOG.error("run.finished", **values)
        else:
            _LOG.info("run.finished", **values)

    async def _name_session(self) -> None:
        """Give a session without a name a title from its first user's message; a name of the user's own stays."""
        try:
            first = self._user_message
            if first.order > 1:
                session = await self._store.get_session(self.turn.session_id)
                if session.name:
                    return
                page = await self._store.list_messages(self.turn.session_id, page_size=10)
                first = next((one for one in page.messages if one.role == sessions_pb2.ROLE_USER), first)
            title = title_of(first.content)
            if title:
                await self._store.name_session(self.turn.session_id, title)
        except AppError as error:
            if error.reason != "SESSION_NAME_CHANGED":
                _LOG.warning("session.not_named", session_id=self.turn.session_id, reason=error.reason)
        except Exception as error:  # noqa: BLE001 (a title never costs an answer)
            _LOG.error("session.not_named", session_id=self.turn.session_id, cause=telemetry.describe(error))


class Runs:
    """The runs of this process, each in a task of its own."""

    def __init__(self, *, store: SessionsStore, models: Models, window: Window) -> None:
        self._store = store
        self._models = models
        self._window = window
        self._followers: dict[Run, int] = {}
        self._by_key: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, turn: Turn) -> Run:
        """Store the user's message and start the run; a repetition of a running turn joins its run.

        Each `begin` is followed by one `leave`. Raises what the sessions service raises, before anything runs.
        """
        run = Run(turn, store=self._store, models=self._models, window=self._window)
        await run.start()
        running = self._by_key.get(turn.key)
        if running is not None:
            self._followers[running] += 1
            return running
        self._by_key[turn.key] = run
        self._followers[run] = 1
        task = asyncio.create_task(run.execute(), name=f"run {run.id}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._forget(run, done))
        return run

    def leave(self, run: Run) -> None:
        """Say that one listener is gone; a run that nobody listens to any more is cancelled."""
        left = self._followers.get(run)
        if left is None:
            return
        self._followers[run] = left - 1
        if left == 1 and not run.log.ended:
            self._drop_key(run)
            run.cancel()

    async def close(self) -> None:
        """Cancel what still runs and wait until the partial answers are stored."""
        for run in list(self._followers):
            run.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=CLOSE_SECONDS)

    def _forget(self, run: Run, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._followers.pop(run, None)
        self._drop_key(run)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("run.broken", run_id=run.id, cause=telemetry.describe(task.exception() or ""))

    def _drop_key(self, run: Run) -> None:
        if self._by_key.get(run.turn.key) is run:
            del self._by_key[run.turn.key]
