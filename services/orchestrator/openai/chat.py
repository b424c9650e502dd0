"""The orchestrator's side of the OpenAI-compatible API: completions that are passed on, and kept if asked."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from concerto.orchestrator.v1 import orchestrator_pb2
from concerto.sessions.v1 import runs_pb2, sessions_pb2, turns_pb2
from langchain_core.messages import BaseMessage

from servicekit.errors import AppError, from_message
from services.orchestrator.limits import MAX_QUESTION_BYTES
from services.orchestrator.models import offline
from services.orchestrator.models.model_calls import ModelCall
from services.orchestrator.models.models import Models, TextSanitizer
from services.orchestrator.openai import completions
from services.orchestrator.openai.completions import Json, Request
from services.orchestrator.runs.registry import RunRegistry
from services.orchestrator.steps import Piece, TokenUsage

SOURCE = "chat_completions"
"""What the ledger says of runs that were asked for here."""
MAX_WAITING_CHUNKS = 10_000
"""Most chunks that wait for a slow client; it is then cut off, and its run goes on."""

_OFFLINE_PAUSE_SECONDS = 0.01

Ask = Callable[[], AsyncGenerator[Json, None]]


class ChatCompletions:
    """Answers chat completions. The conversation is the client's: no history and no system prompt of ours is added.

    context_tokens: the offline model's window; a provider knows its own.
    stall_seconds: how long a provider may be silent within a stream.
    """

    def __init__(self, *, models: Models, runs: RunRegistry, context_tokens: int, stall_seconds: float) -> None:
        self._models = models
        self._runs = runs
        self._context_tokens = context_tokens
        self._stall_seconds = stall_seconds

    async def answer(
        self, message: orchestrator_pb2.StreamChatCompletionRequest
    ) -> AsyncGenerator[orchestrator_pb2.StreamChatCompletionResponse, None]:
        """Yield the answer's chunks, or the whole answer when no stream is asked for.

        Without a session nothing is stored, and the model stops when the client goes away. With one, the exchange is
        a run: it goes on without the client, and the answer ends once it is stored.
        Raises AppError for a request that cannot be answered, a failing model and a refused run.
        """
        request = Request.read(message.request_json)
        if self._models.provider is None and request.model != offline.NAME:
            raise AppError("MODEL_NOT_FOUND", metadata={"model": request.model})
        answers = self._kept(request, message) if message.session_id else self._ask(request)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                yield orchestrator_pb2.StreamChatCompletionResponse(completion_json=completions.to_text(answer))

    def _ask(self, request: Request, *, body: Json | None = None) -> AsyncGenerator[Json, None]:
        client = self._models.provider
        if client is not None:
            answers = completions.ask_provider(client, request, stall_seconds=self._stall_seconds, body=body)
        else:
            answers = completions.answer_offline(
                request, context_tokens=self._context_tokens, pause=lambda: asyncio.sleep(_OFFLINE_PAUSE_SECONDS)
            )
        call = self._models.calls.watch(request.model)
        return answers if call is None else _watched(answers, call)

    async def _kept(
        self, request: Request, message: orchestrator_pb2.StreamChatCompletionRequest
    ) -> AsyncGenerator[Json, None]:
        question = _storable(request.question)
        if not question.strip():
            raise AppError("MISSING_FIELD", metadata={"field": "messages"}, cause="no text of the user's to keep")
        if len(question.encode()) > MAX_QUESTION_BYTES:
            raise AppError("FIELD_TOO_LARGE", metadata={"field": "messages", "limit": f"{MAX_QUESTION_BYTES} bytes"})
        exchange = Exchange(request, lambda: self._ask(request, body=request.counting()))
        run = await self._runs.begin(
            message.session_id,
            turns_pb2.Turn(content=question, model=request.model, request_id=message.request_id),
            source=SOURCE,
            prompt=request.prompt,
            answerer=exchange,
        )
        ending = asyncio.create_task(self._end_of(run.id, run.user_id))
        try:
            async for chunk in exchange.chunks(until=ending):
                yield chunk
            end = await ending
        finally:
            exchange.leave()
            ending.cancel()
        if failure := exchange.error or end.error:
            raise failure
        if end.state != runs_pb2.RUN_STATE_SUCCEEDED:
            raise AppError("CANCELLED" if end.state == runs_pb2.RUN_STATE_CANCELLED else "RUN_INTERRUPTED")
        if not exchange.has_begun:
            for answer in end.answers(request):
                yield answer

    async def _end_of(self, run_id: str, user_id: str) -> "_End":
        end = _End()
        async with contextlib.aclosing(self._runs.follow(run_id, user_id=user_id)) as events:
            async for event in events:
                end.take(event)
        return end


@dataclass(slots=True)
class _End:
    """How a run has ended, from its events."""

    state: "runs_pb2.RunState.ValueType" = runs_pb2.RUN_STATE_UNSPECIFIED
    error: AppError | None = None
    model: str = ""
    message: sessions_pb2.Message | None = None
    usage: runs_pb2.Usage = field(default_factory=runs_pb2.Usage)

    def take(self, event: runs_pb2.RunEvent) -> None:
        """Take in the next event."""
        match event.WhichOneof("payload"):
            case "run_started":
                self.model = event.run_started.model
            case "message_completed":
                self.message = event.message_completed.message
            case "usage":
                self.usage = event.usage
            case "error":
                self.error = from_message(event.error.error)
            case "run_finished":
                self.state = event.run_finished.state

    def answers(self, request: Request) -> list[Json]:
        """Return the stored answer in OpenAI's shape, for a repetition of its request."""
        text, finish_reason = "", "stop"
        if self.message is not None:
            text = self.message.content
            notes = self.message.metadata.fields
            finish_reason = notes["finish_reason"].string_value if "finish_reason" in notes else finish_reason
        usage = {
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "total_tokens": self.usage.prompt_tokens + self.usage.completion_tokens,
        }
        if not request.wants_stream:
            return [completions.whole(text, model=self.model, finish_reason=finish_reason, usage=usage)]
        chunks = list(completions.in_chunks([text], model=self.model, finish_reason=finish_reason))
        return [*chunks, {**chunks[-1], "choices": [], "usage": usage}] if request.wants_usage else chunks


class Exchange:
    """Answers one run with what the provider says, and hands that on, unchanged, to the client that waits for it."""

    def __init__(self, request: Request, ask: Ask) -> None:
        self.error: AppError | None = None
        self.has_begun = False
        self._request = request
        self._ask = ask
        self._waiting: deque[Json] = deque()
        self._changed = asyncio.Event()
        self._has_reader = True
        self._is_over = False

    def agent_for(self, wanted: str) -> str:
        """Return no agent: the model answers alone."""
        return wanted

    async def answer(
        self,
        agent: str,  # noqa: ARG002 (the shape of an Answerer)
        prompt: Sequence[BaseMessage],  # noqa: ARG002
        *,
        model: str,  # noqa: ARG002
    ) -> AsyncGenerator[Piece, None]:
        """Yield the text, the finish_reason and the usage of the provider's answer."""
        self.has_begun = True
        sanitizer = TextSanitizer()
        try:
            async with contextlib.aclosing(self._ask()) as answers:
                async for answer in answers:
                    self._hand_on(answer)
                    piece = _piece_of(answer, sanitizer)
                    if piece is not None:
                        yield piece
            if tail := sanitizer.finish():
                yield Piece(text=tail)
        except AppError as error:
            self.error = error
            raise
        finally:
            self._is_over = True
            self._changed.set()

    async def chunks(self, *, until: "asyncio.Task[Any]") -> AsyncGenerator[Json, None]:
        """Yield the provider's answers as they come, until they or the run are at an end."""
        until.add_done_callback(lambda _: self._changed.set())
        while True:
            self._changed.clear()
            while self._waiting:
                yield self._waiting.popleft()
            if not self._has_reader:
                raise AppError("DEADLINE_EXCEEDED", cause="the client reads too slowly")
            if self._is_over or until.done():
                return
            await self._changed.wait()

    def leave(self) -> None:
        """Keep nothing more for the client: it is gone."""
        self._has_reader = False
        self._waiting.clear()

    def _hand_on(self, answer: Json) -> None:
        if not self._has_reader:
            return
        if self._request.wants_stream and not self._request.wants_usage and "usage" in answer:
            # Only the ledger has asked for it.
            answer = {key: value for key, value in answer.items() if key != "usage"}
            if not answer["choices"]:
                return
        self._waiting.append(answer)
        if len(self._waiting) > MAX_WAITING_CHUNKS:
            self.leave()
        self._changed.set()


async def _watched(answers: AsyncGenerator[Json, None], call: ModelCall) -> AsyncGenerator[Json, None]:
    sanitizer = TextSanitizer()
    with call:
        async with contextlib.aclosing(answers):
            async for answer in answers:
                if (piece := _piece_of(answer, sanitizer)) is not None:
                    call.take(piece)
                yield answer


def _piece_of(answer: Json, sanitizer: TextSanitizer) -> Piece | None:
    text, finish_reason = "", ""
    if answer["choices"]:
        choice = answer["choices"][0]
        part = choice.get("delta") or choice.get("message")
        content = part.get("content") if isinstance(part, dict) else None
        text = sanitizer.feed(content) if isinstance(content, str) else ""
        finish_reason = str(choice.get("finish_reason") or "")
    usage = _usage_of(answer.get("usage"))
    return Piece(text=text, finish_reason=finish_reason, usage=usage) if text or finish_reason or usage else None


def _usage_of(usage: object) -> TokenUsage | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    return TokenUsage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else 0,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0


def _storable(text: str) -> str:
    sanitizer = TextSanitizer()
    return sanitizer.feed(text) + sanitizer.finish()
