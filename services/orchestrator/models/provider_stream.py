"""A provider's stream of chat completion chunks, read with as little work per token as possible.

What one read of the network brings becomes one part of the answer; nothing waits for more.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2
import openai
import orjson
from langchain_core.messages import ToolCallChunk
from langchain_core.messages.tool import tool_call_chunk

from services.orchestrator.steps import TokenUsage

DONE = b"[DONE]"

DRAIN_SECONDS = 1.0
"""How long the end of the answer may take to come after its last event."""


@dataclass(slots=True)
class Part:
    """What one read of the network has brought of an answer."""

    texts: Sequence[str] = ()
    """The pieces of text, none empty."""
    finish_reason: str = ""
    """The last one given."""
    usage: TokenUsage | None = None
    """The last one given."""
    tool_calls: Sequence[ToolCallChunk] = ()


class Events:
    """Finds the data of Server-Sent Events in bytes that may be cut anywhere.

    Lines end with LF, CR or CRLF; comments, and events without data, are passed over, as the standard has it
    (https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._data: list[bytes] = []
        self._skips_lf = False

    def feed(self, content: bytes) -> list[bytes]:
        """Return the data of the events that are complete by now."""
        if not self._rest and not self._data and not self._skips_lf and b"\r" not in content:
            quick = _whole_events(content)
            if quick is not None:
                return quick
        return self._by_lines(content)

    def _by_lines(self, content: bytes) -> list[bytes]:
        if self._skips_lf and content:
            self._skips_lf = False
            content = content.removeprefix(b"\n")
        if content.endswith(b"\r"):
            self._skips_lf = True
        if b"\r" in content:
            content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = content.split(b"\n")
        if not lines:
            self._rest.append(rest)
            return []
        if self._rest:
            lines[0] = b"".join([*self._rest, lines[0]])
        self._rest = [rest] if rest else []
        found: list[bytes] = []
        for line in lines:
            if line:
                name, _, value = line.partition(b":")
                if name == b"data":
                    self._data.append(value.removeprefix(b" "))
            elif self._data:
                found.append(b"\n".join(self._data))
                self._data.clear()
        return found


async def _reads(response: httpx2.Response) -> AsyncGenerator[list[bytes], None]:
    """Yield, per read of the network, the data of the events that came with it; close the response at the end.

    Failures of the connection become the client's own errors, as in its own streams.
    """
    events = Events()
    try:
        async for content in response.aiter_bytes():
            if found := events.feed(content):
                yield found
    except httpx2.TimeoutException as error:
        raise openai.APITimeoutError(request=response.request) from error
    except (httpx2.RequestError, ssl.SSLError, anyio.EndOfStream) as error:
        raise openai.APIConnectionError(request=response.request) from error
    finally:
        # The connection is kept only if the answer was read to its end.
        await response.aclose()


async def parts_of(response: httpx2.Response, *, stall_seconds: float) -> AsyncGenerator[Part, None]:
    """Yield the parts of a streamed answer as they come. Closing it is what tells the provider to stop.

    stall_seconds: how long the provider may say nothing, whatever comments it sends meanwhile.
    Raises TimeoutError after that, ValueError and its like for what is no stream of chunks, and the client's errors;
    what came before the failure is yielded first.
    """
    is_empty = True
    reads = _reads(response)
    try:
        while True:
            try:
                async with asyncio.timeout(stall_seconds):
                    found = await anext(reads)
            except StopAsyncIteration:
                break
            part, failure = Part(), None
            is_done = False
            texts: list[str] = []
            try:
                for data in found:
                    if data.startswith(DONE):
                        is_done = True
                        break
                    if _take_in(part, texts, _checked(_parse(data), response)):
                        is_empty = False
            except Exception as error:  # noqa: BLE001 (raised again, once what came before it is said)
                failure = error
            part.texts = texts
            if texts or part.finish_reason or part.usage is not None or part.tool_calls:
                yield part
            if failure is not None:
                raise failure
            if is_done:
                await _drain(reads)
                break
    finally:
        await reads.aclose()
        await response.aclose()  # also where nothing was read
    if is_empty:
        raise ValueError("a stream without any chunk")


async def _drain(reads: AsyncIterator[list[bytes]]) -> None:
    # A connection whose answer was read to its end serves the next request.
    with contextlib.suppress(TimeoutError, openai.APIError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in reads:
                pass


def _whole_events(content: bytes) -> list[bytes] | None:
    """Return the data of events that each have one line, the common case; None where it is not so simple."""
    if not content.startswith(b"data: ") or not content.endswith(b"\n\n"):
        return None
    blocks = content[6:-2].split(b"\n\ndata: ")
    return None if any(b"\n" in block for block in blocks) else blocks


def _parse(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Halves of characters are no valid JSON to orjson, but some providers send them.
        return json.loads(data.decode())


def _checked(chunk: Any, response: httpx2.Response) -> dict[str, Any]:
    """Return a chunk that is an object and no error. Raises the client's error for one that tells of a failure."""
    if not isinstance(chunk, dict):
        raise TypeError("a chunk that is no object")
    error = chunk.get("error")
    if error:
        message = error.get("message") if isinstance(error, dict) else None
        raise openai.APIError(
            message=message if message and isinstance(message, str) else "An error occurred during streaming",
            request=response.request,
            body=error,
        )
    return chunk


def _take_in(part: Part, texts: list[str], chunk: Mapping[str, Any]) -> bool:
    """Add what a chunk brings to the part; False when it brings nothing at all."""
    if usage := chunk.get("usage"):
        part.usage = _usage_of(usage)
    choices = chunk.get("choices")
    if not choices:
        return True
    choice = choices[0]
    delta = choice["delta"]
    part.finish_reason = str(choice.get("finish_reason") or "") or part.finish_reason
    if delta is None:
        return False
    # Some servers name the role in the first chunk only, and none speaks in another.
    if delta.get("role", "assistant") not in ("assistant", None):
        return True
    if content := delta.get("content"):
        texts += _texts_of(content)
    if calls := delta.get("tool_calls"):
        part.tool_calls = [*part.tool_calls, *_tool_calls_of(calls)]
    return True


def _texts_of(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise TypeError("content is neither text nor a list of blocks")
    # Blocks, as some servers send them.
    texts = [block if isinstance(block, str) else block.get("text", "") for block in content]
    return [text for text in texts if text]


def _tool_calls_of(calls: Sequence[Any]) -> list[ToolCallChunk]:
    return [
        tool_call_chunk(
            name=call["function"].get("name"),
            args=call["function"].get("arguments"),
            id=call.get("id"),
            index=call.get("index"),
        )
        for call in calls
    ]


def _usage_of(usage: Mapping[str, Any]) -> TokenUsage:
    return TokenUsage(
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count((usage.get("prompt_tokens_details") or {}).get("cached_tokens")),
    )


def _count(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int):
        raise TypeError("a count of tokens that is no integer")
    return value
