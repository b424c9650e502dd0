"""The orchestrator's side of the OpenAI-compatible API: completions that are passed on, and kept if asked."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from concerto.orchestrator.v1 import orchestrator_pb2
from concerto.sessions.v1 import runs_pb2, sessions_pb2, turns_pb2
from langchain_core.messages import BaseMessage

from servicekit.errors import AppError, from_message
from services.orchestrator.limits import MAX_QUESTION_BYTES
from services.orchestrator.models.model_calls import ModelCall
from services.orchestrator.models.models import Models, TextSanitizer
from services.orchestrator.models.server_chunks import TURNED
from services.orchestrator.models.server_usage import counted
from services.orchestrator.openai import completions
from services.orchestrator.openai.completions import Json, Request
from services.orchestrator.openai.terms import Terms
from services.orchestrator.runs.registry import RunRegistry
from services.orchestrator.steps import Piece, Thought, TokenUsage

SOURCE = "chat_completions"
"""What the ledger says of runs that were asked for here."""
MAX_WAITING_CHUNKS = 10_000
"""Most chunks that wait for a slow client; it is then cut off, and its run goes on."""

_OFFLINE_PAUSE_SECONDS = 0.01

Ask = Callable[[], AsyncGenerator[Json, None]]


class ChatCompletions:
    """Answers chat completions. The conversation is the client's: no history and no system prompt of ours is added.

    terms: what requests may ask for. context_tokens: the offline model's window; a provider knows its own.
    stall_seconds: how long a provider may be silent within a stream.
    """

    def __init__(
        self, *, models: Models, runs: RunRegistry, terms: Terms, context_tokens: int, stall_seconds: float
    ) -> None:
        self._models = models
        self._runs = runs
        self._terms = terms
        self._context_tokens = context_tokens
        self._stall_seconds = stall_seconds

    async def answer(
        self, message: orchestrator_pb2.StreamChatCompletionRequest
    ) -> AsyncGenerator[orchestrator_pb2.StreamChatCompletionResponse, None]:
        """Yield the answer's chunks, or the whole answer when no stream is asked for.

        Without a session nothing is stored but what was used, and the model stops when the client goes away. With one,
        the exchange is a run: it goes on without the client, and the answer ends once it is stored.
        Raises AppError for a request that cannot be answered, a failing model and a refused run or call.
        """
        request = Request.read(message.request_json, self._terms)
        await self._models.learn_names()
        self._models.name_for(request.model)  # refuses one that is not offered
        answers = self._kept(request, message) if message.session_id else self._unkept(request)
        async with contextlib.aclosing(answers):
            async for answer in answers:
                yield orchestrator_pb2.StreamChatCompletionResponse(completion_json=completions.to_text(answer))

    def _ask(self, request: Request) -> AsyncGenerator[Json, None]:
        requests = self._models.requests
        if requests is not None:
            counting = request.counting()
            answers = completions.ask_provider(requests, request, stall_seconds=self._stall_seconds, body=counting)
        else:
            answers = completions.answer_offline(
                request, context_tokens=self._context_tokens, pause=lambda: asyncio.sleep(_OFFLINE_PAUSE_SECONDS)
            )
        call = self._models.calls.watch(request.model)
        return answers if call is None else _watched(answers, call)

    async def _unkept(self, request: Request) -> AsyncGenerator[Json, None]:
        sanitizer, thinking = TextSanitizer(), TextSanitizer()
        async with (
            self._runs.calling(request.model, request.counted, source=SOURCE) as call,
            contextlib.aclosing(self._ask(request)) as answers,
        ):
            async for answer in answers:
                if (thought := _thought_of(answer, thinking)) is not None:
                    call.take(thought)
                if (piece := _piece_of(answer, sanitizer)) is not None:
                    call.take(piece)
                if (shown := request.shown(answer)) is not None:
                    yield shown

    async def _kept(
        self, request: Request, message: orchestrator_pb2.StreamChatCompletionRequest
    ) -> AsyncGenerator[Json, None]:
        question = _storable(request.question)
        if not question.strip():
            raise AppError("MISSING_FIELD", metadata={"field": "messages"}, cause="no text of the user's to keep")
        if len(question.encode()) > MAX_QUESTION_BYTES:
            raise AppError("FIELD_TOO_LARGE", metadata={"field": "messages", "limit": f"{MAX_QUESTION_BYTES} bytes"})
        exchange = Exchange(request, lambda: self._ask(request))
        run = await self._runs.begin(
            message.session_id,
            turns_pb2.Turn(content=question, model=request.model, request_id=message.request_id),
            source=SOURCE,
            prompt=request.counted,
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
        async with contextlib.aclosing(self._runs.follow(run_id, user_id=user_id)) as batches:
            async for events in batches:
                for event in events:
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
        text, reasoning, finish_reason = "", "", "stop"
        if self.message is not None:
            text, reasoning = self.message.content, self.message.reasoning
            notes = self.message.metadata.fields
            finish_reason = notes["finish_reason"].string_value if "finish_reason" in notes else finish_reason
        usage = {
            "prompt_tokens": self.usage.prompt_tokens,
            "completion_tokens": self.usage.completion_tokens,
            "total_tokens": self.usage.prompt_tokens + self.usage.completion_tokens,
        }
        if not request.wants_stream:
            return [
                completions.whole(text, model=self.model, finish_reason=finish_reason, usage=usage, reasoning=reasoning)
            ]
        chunks = list(completions.in_chunks([text], model=self.model, finish_reason=finish_reason, reasoning=reasoning))
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
    ) -> AsyncGenerator[Piece | Thought, None]:
        """Yield the thoughts, the text, the finish_reason and the usage of the provider's answer."""
        self.has_begun = True
        sanitizer, thinking = TextSanitizer(), TextSanitizer()
        usage: TokenUsage | None = None
        try:
            async with contextlib.aclosing(self._ask()) as answers:
                async for answer in answers:
                    self._hand_on(answer)
                    if (thought := _thought_of(answer, thinking)) is not None:
                        yield thought
                    piece = _piece_of(answer, sanitizer)
                    if piece is not None:
                        # Some servers count in each chunk what there was so far; the last count is the call's.
                        usage = piece.usage or usage
                        yield replace(piece, usage=None)
            if (tail := sanitizer.finish()) or usage is not None:
                yield Piece(text=tail, usage=usage)
        except AppError as error:
            self.error = error
            if usage is not None:
                yield Piece(usage=usage)
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
        shown = self._request.shown(answer)
        if shown is None:
            return
        self._waiting.append(shown)
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
    elif answer.get(TURNED) == "said":
        return Piece(takes_back=True)
    usage = counted(answer.get("usage"))
    return Piece(text=text, finish_reason=finish_reason, usage=usage) if text or finish_reason or usage else None


def _thought_of(answer: Json, sanitizer: TextSanitizer) -> Thought | None:
    if not answer["choices"]:
        return Thought("", takes_back=True) if answer.get(TURNED) == "thought" else None
    choice = answer["choices"][0]
    part = choice.get("delta") or choice.get("message")
    if not isinstance(part, dict):
        return None
    thought = part.get("reasoning_content") or part.get("reasoning")
    text = sanitizer.feed(thought) if thought and isinstance(thought, str) else ""
    return Thought(text) if text else None


def _storable(text: str) -> str:
    sanitizer = TextSanitizer()
    return sanitizer.feed(text) + sanitizer.finish()
