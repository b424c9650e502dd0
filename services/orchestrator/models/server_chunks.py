"""What the chunks of an answer mean, whichever server sends them: text, thinking, tool calls, counts, how it ends.

Servers that call themselves compatible with OpenAI's chat completions differ in all of it. What brings nothing is
passed over; what cannot be understood is an error, never guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import ToolCallChunk

from servicekit.errors import AppError
from services.orchestrator.agents.tool_calls import CallParts, CallPiece
from services.orchestrator.models import endings
from services.orchestrator.models.server_usage import counted, usage_beside
from services.orchestrator.models.thinking import Thinking
from services.orchestrator.steps import TokenUsage

Json = dict[str, Any]

_OTHERS_ROLES = frozenset({"user", "system", "developer", "tool", "function"})
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
_THINKING_BLOCKS = frozenset(
    {"thinking", "reasoning", "thought", "reasoning.text", "reasoning.summary", "summary_text"}
)
_FAILURE_WORDS = ("detail", "message", "msg", "errors", "error_message", "error_msg", "errorMessage")
_NO_REASONS = ("null", "None")
_HEAD = ("id", "object", "created", "model", "system_fingerprint")
TURNED = "concerto_turned"
"""Names, in a chunk that no client is shown, what `Part.turned` says."""

_IDLE_TYPES = frozenset(
    {"ping", "keepalive", "keep-alive", "heartbeat", "status", "progress", "info", "metadata", "usage"}
)


MAX_ANSWER_CHARS = 4 * 1024 * 1024
"""Most characters of what an answer says and thinks, together; no model says as much."""

MAX_CHUNKS_AT_ONCE = 50_000
"""Most chunks that come as one list: nothing else is done while they are read."""


@dataclass(slots=True)
class Part:
    """What one read of the network has brought of an answer."""

    texts: list[str] = field(default_factory=list)
    """The pieces of text, none empty."""
    finish_reason: str = ""
    """The last one given, as OpenAI names it where it is a known one (endings.known)."""
    usage: TokenUsage | None = None
    """The last one given."""
    tool_calls: list[ToolCallChunk] = field(default_factory=list)
    """Pieces of calls; `index` tells the calls apart, id and name come with a call's first piece."""
    thoughts: list[str] = field(default_factory=list)
    """The pieces of thinking, none empty."""
    chunks: list[Json] = field(default_factory=list)
    """The same as chunks of OpenAI's, where they are asked for; what a server sends besides stands in them, too."""
    turned: Literal["", "thought", "said"] = ""
    """What that which earlier parts brought has proved to be: thought where it was said, said where it was thought."""
    whole: Json | None = None
    """The answer as it was sent, where it came as one document and chunks are asked for."""

    def __bool__(self) -> bool:
        """Say whether it has brought anything."""
        return bool(
            self.texts
            or self.chunks
            or self.finish_reason
            or self.usage is not None
            or self.thoughts
            or self.tool_calls
            or self.turned
        )


class AnswerReader:
    """Understands one answer, chunk by chunk.

    keeps_chunks: parts have `chunks`, which any client of OpenAI's understands, and `whole`.
    """

    def __init__(self, *, keeps_chunks: bool = False) -> None:
        self.is_empty = True
        """True while no chunk has come."""
        self.finish_reason = ""
        """The last that the server gave, as `Part.finish_reason`."""
        self.has_text = False
        """True once anything but white space was said."""
        self.calls = CallParts()
        self.thinks_first: bool | None = None
        """Whether the text has begun with thinking that only an end tag told of; None where nothing tells."""
        self._keeps_chunks = keeps_chunks
        self._thinking = Thinking()
        self._has_sent_end = False
        self._head: Json = {}
        self._size = 0

    def expect_thinking(self) -> None:
        """Take the text for thinking until its end tag comes, as this model's answers begin so."""
        self._thinking.expect()

    @property
    def failure(self) -> AppError | None:
        """Why the answer, as far as it has come, is no success; None for one that is.

        Calls that were cut at the limit are no failure here: who asked for them with OpenAI's protocol knows `length`.
        """
        has_calls = bool(self.calls)
        if self.finish_reason == endings.LENGTH and has_calls:
            return None
        known = endings.failure_of(self.finish_reason, has_text=self.has_text, has_calls=has_calls)
        return known or self.calls.failure

    def take(self, chunk: Any, part: Part) -> Any:
        """Add what a chunk brings to the part; return what the server tells of a failure, None when there is none.

        Raises TypeError and its like for what is no chunk.
        """
        if type(chunk) is not dict:
            return self._take_other(chunk, part)
        choices = chunk.get("choices")
        if not choices:
            return self._take_beside(chunk, part)
        if type(choices) is not list or type(choices[0]) is not dict:
            raise TypeError("choices that are no list of objects")
        choice = choices[0]
        error = None
        if "error" in chunk or "error" in choice or "usage" in choice or "x_groq" in chunk:
            chunk, error = _normalized(chunk, choice)
            choice = chunk["choices"][0]
        self.is_empty = False
        if usage := chunk.get("usage"):
            part.usage = counted(usage) or part.usage
        delta = choice.get("delta")
        is_document = False
        if delta is None:
            delta, is_document = self._sent_at_once(choice)
        if delta is not None and type(delta) is not dict:
            raise TypeError("a delta that is no object")
        reason = choice.get("finish_reason")
        if self._keeps_chunks:
            self._keep(chunk, delta, part, is_document=is_document)
        else:
            if delta:
                self._take_delta(delta, part)
            if reason or is_document:
                self._note_end(reason, part, is_document=is_document)
        return {"error": error} if error else None

    def finish(self, part: Part) -> None:
        """Add what is known only at the end: half a tag, and the end of an answer that had to wait for its words."""
        text, thought = self._flush(part)
        if not self._keeps_chunks:
            return
        delta = _delta_with({}, text, thought)
        sends_end = bool(self.finish_reason) and not self._has_sent_end and self.failure is None
        if delta or sends_end:
            self._has_sent_end = self._has_sent_end or sends_end
            reason = self.finish_reason if sends_end else None
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
            part.chunks.append({**self._head, "choices": [choice]})

    def _take_delta(self, delta: Json, part: Part) -> tuple[str, str, Sequence[ToolCallChunk]]:
        """Add what a delta brings; return its text, its thinking and its pieces of calls."""
        role = delta.get("role")
        if role is not None and role in _OTHERS_ROLES:
            return "", "", ()
        text = thought = ""
        content = delta.get("content")
        if content:
            if type(content) is str:
                text = content
            elif type(content) is list:
                text, thought = _of_blocks(content)
            else:
                raise TypeError("content is neither text nor a list of blocks")
        is_plain = bool(content) and len(delta) == 1  # as most are
        if not is_plain:
            if refusal := delta.get("refusal"):
                text += refusal if isinstance(refusal, str) else ""
            thought = _thought_of(delta) or thought
        self._size += len(text) + len(thought)
        if self._size > MAX_ANSWER_CHARS:
            raise AppError("MODEL_ANSWER_TOO_LARGE", metadata={"limit": f"{MAX_ANSWER_CHARS} characters"})
        if thought:
            self._thinking.know()
        if text and (not self._thinking.is_past or "<" in text):
            inner, text = self._thinking.feed(text)
            thought += inner
            if self._thinking.has_turned:
                self._turn(part, "thought")
        if text:
            part.texts.append(text)
            self.has_text = self.has_text or not text.isspace()
        if thought:
            part.thoughts.append(thought)
        calls = () if is_plain else _calls_of(delta)
        if not calls:
            return text, thought, ()
        pieces = self.calls.add([_call_piece(call) for call in calls])
        part.tool_calls += pieces
        return text, thought, pieces

    def _note_end(self, reason: Any, part: Part, *, is_document: bool) -> bool:
        """Take in why the answer ends; say whether it does."""
        if not reason or reason in _NO_REASONS:
            if not is_document:
                return False
            reason = endings.STOP  # one document is whole, whatever it leaves out
        self.finish_reason = part.finish_reason = endings.known(str(reason))
        return True

    def _sent_at_once(self, choice: Json) -> tuple[Any, bool]:
        """Return what a choice without a delta says, and whether that is the whole answer."""
        message = choice.get("message")
        if message is None:
            text = choice.get("text")
            return ({"content": text} if isinstance(text, str) else None), False
        # Some streams end with all that was said before, once more.
        return (None, False) if self.has_text or self.calls else (message, True)

    def _flush(self, part: Part) -> tuple[str, str]:
        is_whole = endings.is_known(self.finish_reason) and self.finish_reason != endings.LENGTH
        thought, text = self._thinking.finish(is_whole=is_whole)
        if self._thinking.has_turned:
            self._turn(part, "said" if text else "thought")
        if text:
            part.texts.append(text)
            self.has_text = self.has_text or not text.isspace()
        if thought:
            part.thoughts.append(thought)
        return text, thought

    def _turn(self, part: Part, kind: Literal["thought", "said"]) -> None:
        """Say that what came before is of the other kind than it was taken for."""
        self._thinking.has_turned = False
        self.thinks_first = kind == "thought"
        self.has_text = False
        if self.thinks_first:
            part.thoughts += part.texts
            part.texts.clear()
        else:
            part.thoughts.clear()  # all of it is said once more, as text
        part.turned = kind
        if self._keeps_chunks:
            part.chunks.append({"choices": [], TURNED: kind})

    def _take_other(self, chunk: Any, part: Part) -> Any:
        if chunk is None or chunk == "[DONE]":
            return None
        if not isinstance(chunk, list):
            raise TypeError("a chunk that is no object")
        if len(chunk) > MAX_CHUNKS_AT_ONCE:
            raise ValueError("a list of too many chunks")
        for one in chunk:
            if (failure := self.take(one, part)) is not None:
                return failure
        return None

    def _take_beside(self, chunk: Json, part: Part) -> Any:
        """Take in what has no choices: counts, signs of life, failures."""
        error = chunk if _is_failure(chunk) else _error_beside(chunk)
        usage = chunk.get("usage") or usage_beside(chunk, {})
        if usage and (counts := counted(usage)) is not None:
            self.is_empty = False
            part.usage = counts
            if self._keeps_chunks:
                chunk = {**self._head} if error else chunk
                part.chunks.append({**chunk, "choices": [], "usage": usage})
        return error

    def _keep(self, chunk: Json, delta: Json | None, part: Part, *, is_document: bool) -> None:
        """Take in a chunk, and keep it in the form that OpenAI's clients know; the same object where it has that."""
        choice = chunk["choices"][0]
        self._head = self._head or {name: chunk[name] for name in _HEAD if name in chunk}
        text, thought, pieces = self._take_delta(delta, part) if delta else ("", "", ())
        reason = choice.get("finish_reason")
        is_end = self._note_end(reason, part, is_document=is_document)
        if self.finish_reason and not self._thinking.is_past:
            text_last, thought_last = self._flush(part)
            text, thought = text + text_last, thought + thought_last
        shown_end = self.finish_reason if is_end and self.failure is None else None
        if shown_end:
            self._has_sent_end = True
        shown = _shown(delta, text, thought, pieces) if delta is not None else _delta_with({}, text, thought)
        if is_document and delta is not None:
            part.whole = self._as_document(chunk, delta, text, thought)
            if shown.get("role") is None:
                shown = {"role": "assistant", **shown}
            chunk = {**chunk, "object": "chat.completion.chunk"}
        if not shown and not shown_end and not chunk.get("usage"):
            return
        if shown is delta is choice.get("delta") and shown_end == reason and len(chunk["choices"]) == 1:
            part.chunks.append(chunk)
            return
        known = {name: value for name, value in choice.items() if name not in ("message", "text")}
        choices = [{**known, "index": 0, "delta": shown, "finish_reason": shown_end}] if shown or shown_end else []
        part.chunks.append({**chunk, "choices": choices})

    def _as_document(self, chunk: Json, message: Json, text: str, thought: str) -> Json:
        """Return one document as OpenAI writes it; fields that OpenAI does not know stay."""
        refusal = message.get("refusal")
        content = text.removesuffix(refusal) if isinstance(refusal, str) else text
        shown = _delta_with({**message, "content": content or (None if self.calls else "")}, "", thought)
        if message.get("tool_calls"):
            calls, sent = _calls_of(message), self.calls.as_sent()
            pairs = zip(calls, sent, strict=True) if len(calls) == len(sent) else (({}, call) for call in sent)
            shown["tool_calls"] = [{**call, **made} for call, made in pairs]
        reason = self.finish_reason if self.failure is None else None
        choice = {**chunk["choices"][0], "index": 0, "message": shown, "finish_reason": reason}
        return {**chunk, "choices": [choice]}


def _shown(delta: Json, text: str, thought: str, pieces: Sequence[ToolCallChunk]) -> Json:
    """Return a delta as OpenAI's clients know it; the same object where it is so already."""
    content = delta.get("content")
    if not pieces and (content or "") == text and (not thought or delta.get("reasoning_content") == thought):
        return delta
    shown = dict(delta)
    if content != text and (content or text):
        # A refusal has a field of its own.
        shown["content"] = text.removesuffix(delta["refusal"]) if isinstance(delta.get("refusal"), str) else text
    if thought:
        shown["reasoning_content"] = thought
    if pieces and "tool_calls" in delta:
        shown["tool_calls"] = [
            _shown_call(call, piece) for call, piece in zip(delta["tool_calls"], pieces, strict=False)
        ]
    return shown


def _shown_call(call: Json, piece: ToolCallChunk) -> Json:
    kind = "custom" if isinstance(call.get("custom"), dict) else "function"
    inner = dict(call.get(kind) or {})
    inner["input" if kind == "custom" else "arguments"] = piece["args"] or ""
    named: Json = {"index": piece["index"]}
    if piece["id"]:
        named |= {"id": piece["id"], "type": kind}
        inner["name"] = piece["name"] or ""
    elif piece["name"]:
        inner["name"] = piece["name"]
    else:
        inner.pop("name", None)
    rest = {name: value for name, value in call.items() if name not in ("index", "id", "type", kind)}
    return {**named, **rest, kind: inner}


def _delta_with(delta: Json, text: str, thought: str) -> Json:
    if text:
        delta = {**delta, "content": text}
    return {**delta, "reasoning_content": thought} if thought else delta


def _calls_of(delta: Json) -> list[Any]:
    calls = delta.get("tool_calls")
    if function := delta.get("function_call"):
        return [*(calls or ()), {"function": function}]
    if not calls:
        return []
    if not isinstance(calls, list):
        raise TypeError("tool_calls that are no list")
    return calls


def _call_piece(call: Any) -> CallPiece:
    if not isinstance(call, dict):
        raise TypeError("a tool call that is no object")
    custom = call.get("custom")
    if isinstance(custom, dict):
        return CallPiece(call.get("index"), call.get("id"), custom.get("name"), custom.get("input"), is_free=True)
    function = call.get("function")
    if function is None:
        function = {"name": call.get("name"), "arguments": call.get("arguments")}
    if not isinstance(function, dict):
        raise TypeError("a function that is no object")
    return CallPiece(call.get("index"), call.get("id"), function.get("name"), function.get("arguments"))


def _of_blocks(blocks: Sequence[Any]) -> tuple[str, str]:
    """Return the text and the thinking of content that comes in blocks."""
    texts: list[str] = []
    thoughts: list[str] = []
    for block in blocks:
        if isinstance(block, str):
            texts.append(block)
        elif not isinstance(block, dict):
            raise TypeError("a block that is neither text nor an object")
        elif block.get("type") in _THINKING_BLOCKS:
            thoughts.append(_plain(block.get("thinking") or block.get("reasoning") or _text_in(block)))
        else:
            texts.append(_plain(block.get("text")))
    return "".join(texts), "".join(thoughts)


def _text_in(block: Json) -> Any:
    return block.get("text") or block.get("summary") or block.get("content")


def _plain(value: Any) -> str:
    """Return the text in what may be a text, an object with one, or a list of them."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return _plain(_text_in(value))
    return "".join(_plain(one) for one in value) if isinstance(value, list) else ""


def _thought_of(delta: Json) -> str:
    # Some servers say the same under two names.
    for name in _THOUGHTS:
        if value := delta.get(name):
            return _plain(value)
    details = delta.get("reasoning_details")
    return _plain(details) if details else ""


def _normalized(chunk: Json, choice: Json) -> tuple[Json, Any]:
    """Return a chunk with its counts where OpenAI has them, and the error that it tells of.

    Clients are given a reason of ours instead: the server's sentence may quote anything.
    """
    error = chunk.get("error") or choice.get("error") or _error_beside(chunk)
    usage = chunk.get("usage") or usage_beside(chunk, choice)
    if error:
        choice = {name: value for name, value in choice.items() if name != "error"}
        chunk = {name: value for name, value in chunk.items() if name not in ("error", "x_groq")}
    return {**chunk, "choices": [choice], **({"usage": usage} if usage else {})}, error


def _error_beside(chunk: Json) -> Any:
    beside = chunk.get("x_groq")
    error = beside.get("error") if isinstance(beside, dict) else None
    return {"error": error} if error else None


def _is_failure(chunk: Json) -> bool:
    """Say whether a chunk without choices tells of a failure."""
    if chunk.get("error"):
        return True
    if chunk.get("type") == "error" or chunk.get("object") == "error" or chunk.get("success") is False:
        return True
    answer = chunk.get("base_resp")
    if isinstance(answer, dict) and answer.get("status_code"):
        return True
    kind = chunk.get("type")
    if isinstance(kind, str) and kind.lower() in _IDLE_TYPES:
        return False
    return any(chunk.get(name) for name in _FAILURE_WORDS)
