"""Chat completions in OpenAI's own JSON: a request read as far as needed, answered by the provider or offline."""

import contextlib
import json
import re
import time
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import openai
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from servicekit.errors import AppError
from services.orchestrator.models import offline
from services.orchestrator.models.provider_errors import from_provider
from services.orchestrator.models.window import count_messages, count_text

Json = dict[str, Any]

PATH = "/chat/completions"
MAX_MODEL_CHARS = 200
# A whole answer comes all at once, so the provider is silent for as long as it takes.
WHOLE_ANSWER_FACTOR = 5

_PARAMETER = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")


@dataclass(frozen=True, slots=True)
class Request:
    """A chat completion that is asked for. What has no field here is passed on unread."""

    text: str
    """The request as the client wrote it."""
    body: Json
    """The same, parsed."""
    model: str
    wants_stream: bool
    wants_usage: bool
    """True when the stream is to end with a chunk that counts the tokens."""

    @classmethod
    def read(cls, text: str) -> "Request":
        """Return the request that a JSON text asks for.

        Raises AppError INVALID_JSON, MISSING_FIELD, INVALID_FIELD or FIELD_TOO_LARGE, with the field as OpenAI names
        it.
        """
        body = _parse(text)
        if not isinstance(body, dict):
            raise _invalid("The body", "must be an object")
        model = _required(body, "model")
        if not isinstance(model, str):
            raise _invalid("model", "must be a text")
        if len(model) > MAX_MODEL_CHARS:
            raise AppError("FIELD_TOO_LARGE", metadata={"field": "model", "limit": f"{MAX_MODEL_CHARS} characters"})
        messages = _required(body, "messages")
        if not isinstance(messages, list):
            raise _invalid("messages", "must be a list")
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise _invalid(f"messages[{index}]", "must be an object with a role")
        if body.get("stream") not in (None, True, False):
            raise _invalid("stream", "must be true or false")
        if body.get("n") not in (None, 1):
            raise _invalid("n", "must be 1: a request gets one answer")
        options = body.get("stream_options")
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        return cls(text, body, model, body.get("stream") is True, wants_usage)

    @property
    def prompt(self) -> list[BaseMessage]:
        """The messages as LangChain knows them, to count and to quote; their texts only."""
        return [_to_langchain(message) for message in self.body["messages"]]

    @property
    def question(self) -> str:
        """Text of the last message that is the user's; empty when there is none."""
        for message in reversed(self.body["messages"]):
            if message["role"] == "user":
                return _text_of(message.get("content"))
        return ""

    def counting(self) -> Json | None:
        """Return a body whose stream ends with its usage; None when the request itself asks for it."""
        if not self.wants_stream or self.wants_usage:
            return None
        options = self.body.get("stream_options")
        options = {**options, "include_usage": True} if isinstance(options, dict) else {"include_usage": True}
        return {**self.body, "stream_options": options}


async def ask_provider(
    client: openai.AsyncOpenAI, request: Request, *, stall_seconds: float, body: Json | None = None
) -> AsyncGenerator[Json, None]:
    """Yield the provider's answer: its chunks as they come, or the whole one.

    stall_seconds: how long the provider may be silent within a stream.
    body: asked in place of the request's own text, which is otherwise passed on letter by letter.
    Raises AppError with a reason of the table's Models section. A stream that ends without saying why, or in which
    something unreadable stands, is broken.
    """
    try:
        if request.wants_stream:
            async with contextlib.aclosing(_provider_chunks(client, request, stall_seconds, body)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        timeout = openai.Timeout(stall_seconds * WHOLE_ANSWER_FACTOR, connect=stall_seconds)
        content = _content(request, body)
        yield _checked(await client.post(PATH, cast_to=object, content=content, options={"timeout": timeout}))
    except (AppError, GeneratorExit):
        raise
    except Exception as error:
        known = from_provider(error, model=request.model)
        if known is None:
            raise
        if known.reason == "MODEL_REQUEST_REFUSED" and (parameter := _refused_parameter(error)):
            known = AppError(known.reason, metadata={"param": parameter}, cause=error)
        raise known from error


async def answer_offline(request: Request, *, context_tokens: int, pause: Any) -> AsyncGenerator[Json, None]:
    """Yield the offline model's answer in the same shape.

    context_tokens: a prompt with more is refused. pause: awaited between two words.
    Raises AppError PROMPT_TOO_LONG or INVALID_FIELD.
    """
    prompt = request.prompt
    prompt_tokens = count_messages(prompt)
    if prompt_tokens > context_tokens:
        raise AppError("PROMPT_TOO_LONG", cause="larger than the offline model's window")
    words, finish_reason = _cut(request.body, re.findall(r"\s*\S+\s*$|\s*\S+", offline.answer_to(prompt)))
    text = "".join(words)
    answer_tokens = count_text(text) if text else 0
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": answer_tokens,
        "total_tokens": prompt_tokens + answer_tokens,
    }
    if not request.wants_stream:
        yield whole(text, model=offline.NAME, finish_reason=finish_reason, usage=usage)
        return
    async for chunk in _paced(in_chunks(words, model=offline.NAME, finish_reason=finish_reason), pause):
        yield {**chunk, "usage": None} if request.wants_usage else chunk
    if request.wants_usage:
        yield {**_head("chat.completion.chunk", offline.NAME), "choices": [], "usage": usage}


def whole(text: str, *, model: str, finish_reason: str, usage: Json) -> Json:
    """Return a text as a whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return {**_head("chat.completion", model), "choices": [choice], "usage": usage}


def in_chunks(words: Iterable[str], *, model: str, finish_reason: str) -> Iterable[Json]:
    """Yield an answer's words as the chunks of a stream."""
    head = _head("chat.completion.chunk", model)
    deltas: list[tuple[Json, str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": word}, None) for word in words]
    for delta, reason in [*deltas, ({}, finish_reason)]:
        yield {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}


def to_text(answer: Json) -> str:
    """Return an answer as JSON text, its keys in their order. Raises AppError MODEL_ANSWER_MALFORMED."""
    try:
        return json.dumps(answer, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise AppError("MODEL_ANSWER_MALFORMED", cause=error) from error


async def _provider_chunks(
    client: openai.AsyncOpenAI, request: Request, stall_seconds: float, body: Json | None
) -> AsyncGenerator[Json, None]:
    stream = await client.post(
        PATH,
        cast_to=object,
        content=_content(request, body),
        options={"timeout": openai.Timeout(stall_seconds)},
        stream=True,
        stream_cls=openai.AsyncStream[object],
    )
    is_empty, is_finished = True, False
    # Closing it is what tells the provider to stop.
    async with stream:
        async for chunk in stream:
            known = _checked(chunk)
            is_empty = False
            is_finished = is_finished or any(choice.get("finish_reason") for choice in known["choices"])
            yield known
    if is_empty:
        raise AppError("MODEL_ANSWER_MALFORMED", cause="a stream without any chunk")
    if not is_finished:
        raise AppError("MODEL_CONNECTION_LOST", cause="the stream ended without a finish_reason")


def _content(request: Request, body: Json | None) -> bytes:
    return (request.text if body is None else json.dumps(body)).encode()


def _checked(answer: object) -> Json:
    """Return an answer that has the shape which every client relies on."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise AppError("MODEL_ANSWER_MALFORMED", cause="an answer without choices")
    checked: Json = answer  # type: ignore[assignment]
    return checked


async def _paced(chunks: Iterable[Json], pause: Any) -> AsyncGenerator[Json, None]:
    for chunk in chunks:
        await pause()
        yield chunk


def _head(kind: str, model: str) -> Json:
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _cut(body: Mapping[str, Any], words: list[str]) -> tuple[list[str], str]:
    """Return what `stop` and `max_tokens` leave of the words, and why the answer ends."""
    text, finish_reason = "".join(words), "stop"
    ends = [index for end in _stops(body.get("stop")) if (index := text.find(end)) >= 0]
    kept: list[str] = []
    left_chars, left_tokens = min(ends, default=len(text)), _most_tokens(body)
    for word in words:
        if left_chars <= 0:
            break
        if left_tokens is not None and count_text("".join([*kept, word])) > left_tokens:
            finish_reason = "length"
            break
        kept.append(word[:left_chars])
        left_chars -= len(word)
    return kept, finish_reason


def _stops(stop: object) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(end, str) for end in stops):
        raise _invalid("stop", "must be a text or a list of texts")
    return [end for end in stops if end]


def _most_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        most = body.get(name)
        if most is None:
            continue
        if not isinstance(most, int) or isinstance(most, bool) or most < 1:
            raise _invalid(name, "must be a positive integer")
        return most
    return None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise AppError("INVALID_JSON") from None


def _required(body: Mapping[str, Any], name: str) -> Any:
    value = body.get(name)
    if value in (None, "", []):
        raise AppError("MISSING_FIELD", metadata={"field": name})
    return value


def _to_langchain(message: Mapping[str, Any]) -> BaseMessage:
    text = _text_of(message.get("content"))
    match message["role"]:
        case "assistant":
            return AIMessage(text)
        case "system" | "developer":
            return SystemMessage(text)
        case "tool" | "function":
            return ToolMessage(text, tool_call_id="")
        case _:
            return HumanMessage(text)


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _refused_parameter(error: Exception) -> str | None:
    """Return which parameter the provider did not like; a plain name only, for it may quote anything."""
    body = getattr(error, "body", None)
    parameter = body.get("param") if isinstance(body, Mapping) else None
    return parameter if isinstance(parameter, str) and _PARAMETER.fullmatch(parameter) else None


def _invalid(field: str, problem: str) -> AppError:
    return AppError("INVALID_FIELD", metadata={"field": field, "problem": problem})
