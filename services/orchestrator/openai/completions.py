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
from servicekit.rpc import sizes
from services.orchestrator.models import offline
from services.orchestrator.models.provider_errors import from_provider, report_of
from services.orchestrator.models.provider_requests import LIMITS, ProviderRequests
from services.orchestrator.models.server_chunks import TURNED, AnswerReader, Part
from services.orchestrator.models.window import FILE_KINDS, count_messages, count_text
from services.orchestrator.openai.terms import Terms, parse

Json = dict[str, Any]

MAX_MODEL_CHARS = 200
MAX_MESSAGES = 10_000
"""Most messages of one request: more would take the process a second, in which nobody else is answered."""
WHOLE_ANSWER_FACTOR = 5

_READ_BESIDE = ("tools", "functions", "response_format")

_PARAMETER = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")


@dataclass(frozen=True, slots=True)
class Request:
    """A chat completion that is asked for. What has no field here is passed on unread."""

    text: str
    """The request as the client wrote it, with a bound on the answer's tokens."""
    body: Json
    """The same, parsed."""
    model: str
    wants_stream: bool
    wants_usage: bool
    """True when the stream is to end with a chunk that counts the tokens."""

    @classmethod
    def read(cls, text: str, terms: Terms) -> "Request":
        """Return the request that a JSON text asks for.

        Raises AppError INVALID_JSON, MISSING_FIELD, INVALID_FIELD, FIELD_TOO_LARGE or PARAMETER_NOT_ALLOWED, with the
        field as OpenAI names it.
        """
        body = parse(text)
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
        if len(messages) > MAX_MESSAGES:
            raise AppError("FIELD_TOO_LARGE", metadata={"field": "messages", "limit": f"{MAX_MESSAGES} messages"})
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                raise _invalid(f"messages[{index}]", "must be an object with a role")
        if not isinstance(body.get("stream"), bool | None):
            raise _invalid("stream", "must be true or false")
        terms.check(body)
        body, text = terms.bounded(body, text)
        options = body.get("stream_options")
        wants_usage = isinstance(options, dict) and options.get("include_usage") is True
        return cls(text, body, model, body.get("stream") is True, wants_usage)

    @property
    def prompt(self) -> list[BaseMessage]:
        """The messages as LangChain knows them, to count and to quote; their texts only."""
        return [_to_langchain(message) for message in self.body["messages"]]

    @property
    def counted(self) -> list[BaseMessage]:
        """The prompt and all else that the provider reads and charges for: tools, the answer's form, calls, files."""
        messages = self.body["messages"]
        named = [self.body.get(name) for name in _READ_BESIDE]
        called = [message.get(name) for message in messages for name in ("tool_calls", "function_call")]
        beside = [value for value in (*named, *called) if value]
        parts = [part for message in messages for part in _parts_of(message.get("content"))]
        kinds = [kind for part in parts if isinstance(kind := part.get("type"), str) and kind in FILE_KINDS]
        files: list[str | Json] = [{"type": kind} for kind in kinds]
        if beside:
            files.append({"type": "text", "text": json.dumps(beside)})
        return [*self.prompt, SystemMessage(files)] if files else self.prompt

    @property
    def question(self) -> str:
        """Text of the last message that is the user's; empty when there is none."""
        for message in reversed(self.body["messages"]):
            if message["role"] == "user":
                return _text_of(message.get("content"))
        return ""

    def shown(self, answer: Json) -> Json | None:
        """Return what the client gets to see of the provider's answer; None for what is not meant for it."""
        if TURNED in answer:
            return None
        if self.wants_stream and not self.wants_usage and "usage" in answer:
            answer = {key: value for key, value in answer.items() if key != "usage"}
            return answer if answer["choices"] else None
        return answer

    def counting(self) -> Json | None:
        """Return a body whose stream ends with its usage; None when the request itself asks for it."""
        if not self.wants_stream or self.wants_usage:
            return None
        options = self.body.get("stream_options")
        options = {**options, "include_usage": True} if isinstance(options, dict) else {"include_usage": True}
        return {**self.body, "stream_options": options}


async def ask_provider(
    requests: ProviderRequests, request: Request, *, stall_seconds: float, body: Json | None = None
) -> AsyncGenerator[Json, None]:
    """Yield the provider's answer: its chunks as they come, or the whole one, whichever of them the provider sends.

    stall_seconds: how long the provider may be silent within a stream.
    body: asked in place of the request's own text, which is otherwise passed on letter by letter.
    Raises AppError with a reason of the table's Models section. A stream that ends without saying why, or in which
    something unreadable stands, is broken. An answer that is no success ends with its reason, after what was said.
    """
    reader = AnswerReader(keeps_chunks=True)
    gathered = Gathered(reader)
    failure: AppError | None = None
    try:
        async with contextlib.aclosing(_parts(requests, request, reader, stall_seconds, body)) as parts:
            async for part in parts:
                if not request.wants_stream:
                    gathered.add(part)
                    continue
                for chunk in part.chunks:
                    yield chunk
    except (AppError, GeneratorExit):
        raise
    except Exception as error:
        failure = from_provider(error, model=request.model)
        if failure is None:
            raise
        if failure.reason == "MODEL_REQUEST_REFUSED" and (parameter := _refused_parameter(error)):
            failure = AppError(failure.reason, metadata={"param": parameter}, cause=error)
    failure = failure or reader.failure
    if not request.wants_stream and (failure is None or gathered.has_begun):
        # What was said is kept and counted, whatever came then.
        yield gathered.answer(is_good=failure is None)
    if failure is not None:
        raise failure from (failure.cause if isinstance(failure.cause, Exception) else None)


def _parts(
    requests: ProviderRequests, request: Request, reader: AnswerReader, stall_seconds: float, body: Json | None
) -> AsyncGenerator[Part, None]:
    # A whole answer comes all at once, so the provider is silent for as long as it takes.
    seconds = stall_seconds if request.wants_stream else stall_seconds * WHOLE_ANSWER_FACTOR
    return requests.answer(
        request.body if body is None else body,
        text=request.text if body is None else None,
        reader=reader,
        stall_seconds=seconds,
        patience=openai.Timeout(seconds, connect=stall_seconds),
    )


class Gathered:
    """Makes one answer of its parts."""

    def __init__(self, reader: AnswerReader) -> None:
        self._reader = reader
        self._whole: Json | None = None
        self._head: Json = {}
        self._texts: dict[str, list[str]] = {}
        self._usage: Any = None

    def add(self, part: Part) -> None:
        """Take in the next part."""
        self._whole = part.whole or self._whole
        for chunk in part.chunks:
            self._head = self._head or {
                name: value for name, value in chunk.items() if name not in ("choices", "usage")
            }
            self._usage = chunk.get("usage") or self._usage
            if turned := chunk.get(TURNED):
                self._turn(turned)
            for choice in chunk["choices"]:
                for name in ("content", "refusal", "reasoning_content"):
                    if isinstance(piece := choice["delta"].get(name), str):
                        self._texts.setdefault(name, []).append(piece)

    def _turn(self, kind: str) -> None:
        text, thought = self._texts.pop("content", []), self._texts.pop("reasoning_content", [])
        if kind == "thought":
            self._texts["reasoning_content"] = thought + text

    @property
    def has_begun(self) -> bool:
        """True once anything was said or counted."""
        return bool(self._whole or self._texts or self._usage)

    def answer(self, *, is_good: bool) -> Json:
        """Return the whole answer, as it was sent where it was sent so; one that is not good has no finish_reason."""
        if self._whole is not None:
            return self._whole
        calls = self._reader.calls
        message: Json = {"role": "assistant", "content": None if calls else "", "refusal": None}
        message |= {name: "".join(pieces) for name, pieces in self._texts.items()}
        if calls:
            message["tool_calls"] = calls.as_sent()
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reader.finish_reason or None}
        if not is_good:
            choice["finish_reason"] = None
        usage = {"usage": self._usage} if self._usage else {}
        return {**_head("chat.completion", ""), **self._head, "object": "chat.completion", "choices": [choice], **usage}


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


def whole(text: str, *, model: str, finish_reason: str, usage: Json, reasoning: str = "") -> Json:
    """Return a text, and what the model thought before it, as a whole answer."""
    message = {"role": "assistant", "content": text, "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    return {**_head("chat.completion", model), "choices": [choice], "usage": usage}


def in_chunks(words: Iterable[str], *, model: str, finish_reason: str, reasoning: str = "") -> Iterable[Json]:
    """Yield an answer's words, and what the model thought before them, as the chunks of a stream."""
    head = _head("chat.completion.chunk", model)
    deltas: list[tuple[Json, str | None]] = [({"role": "assistant", "content": ""}, None)]
    if reasoning:
        deltas.append(({"reasoning_content": reasoning}, None))
    deltas += [({"content": word}, None) for word in words]
    for delta, reason in [*deltas, ({}, finish_reason)]:
        yield {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}


def to_text(answer: Json) -> str:
    """Return an answer as JSON text, its keys in their order.

    Raises AppError MODEL_ANSWER_MALFORMED, and MODEL_ANSWER_TOO_LARGE for more than fits into one answer of an rpc.
    """
    try:
        text = json.dumps(answer, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise AppError("MODEL_ANSWER_MALFORMED", cause=error) from error
    if len(text) > sizes.MAX_CONTENT_BYTES:  # it is ASCII
        raise AppError("MODEL_ANSWER_TOO_LARGE", metadata={"limit": f"{sizes.MAX_CONTENT_BYTES} bytes"})
    return text


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
        if count_text("".join([*kept, word])) > left_tokens:
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


def _most_tokens(body: Mapping[str, Any]) -> int:
    most: int = min(body[name] for name in LIMITS if body.get(name) is not None)
    return most


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


def _parts_of(content: object) -> list[Json]:
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _text_of(content: object) -> str:
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in _parts_of(content)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _refused_parameter(error: Exception) -> str | None:
    """Return which parameter the provider did not like; a plain name only, for it may quote anything."""
    params = report_of(error).params if isinstance(error, openai.APIError) else []
    return next((param for param in params if _PARAMETER.fullmatch(param)), None)


def _invalid(field: str, problem: str) -> AppError:
    return AppError("INVALID_FIELD", metadata={"field": field, "problem": problem})
