"""A model server's answer, read from the network with as little work per token as possible.

What one read of the network brings becomes one part of the answer; nothing waits for more. What the events mean is
`server_chunks.py`'s.
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httpx2
import openai
import orjson

from services.orchestrator.models.server_chunks import AnswerReader, Part
from services.orchestrator.models.server_events import ErrorData, Events

DONE = b"[DONE]"

DRAIN_SECONDS = 1.0
"""How long the end of the answer may take to come after its last event."""

MAX_VALUES = 2_000_000
"""Most values of one event; a long answer with the probabilities of its tokens has half as many."""


async def parts_of(
    response: httpx2.Response, *, stall_seconds: float, reader: AnswerReader | None = None
) -> AsyncGenerator[Part, None]:
    """Yield the parts of an answer as they come, streamed or in one document. Closing it tells the provider to stop.

    reader: knows at the end how the answer has ended; absent where nobody asks.
    stall_seconds: how long the provider may send nothing but comments. Saying nothing at all for that long is the
    connection's own end, so both together may last twice that.
    Raises TimeoutError after that, ValueError and its like for what is no answer, and the client's errors; what came
    before the failure is yielded first.
    """
    reader = reader or AnswerReader()
    events = Events()
    # Most answers are not compressed: decoding them would be a generator more for each read.
    is_compressed = "content-encoding" in response.headers
    reads = response.aiter_bytes() if is_compressed else response.aiter_raw()
    clock = asyncio.get_running_loop().time
    received_at = clock()
    try:
        while True:
            content = await _next_read(reads, response)
            if is_compressed:
                await asyncio.sleep(0)  # one read of the network may bring thousands of pieces, none of them waited for
            found = events.finish() if content is None else events.feed(content)
            if found or events.is_document:
                received_at = clock()
            elif clock() - received_at > stall_seconds:
                raise TimeoutError
            part, failure, is_done = Part(), None, content is None
            try:
                for data in found:
                    if data.startswith(DONE):
                        is_done = True
                        break
                    _take(reader, data, part)
                if is_done:
                    reader.finish(part)
            except Exception as error:  # noqa: BLE001 (raised again, once what came before it is said)
                failure = error
            if part:
                yield part
            if isinstance(failure, _ReportedError):
                raise openai.APIError(
                    message="An error occurred during streaming", request=response.request, body=failure.body
                ) from None
            if failure is not None:
                raise failure
            if is_done:
                if content is not None:
                    await _drain(reads)
                break
    finally:
        failure = None  # it holds this frame, and so what was read
        # The connection is kept only if the answer was read to its end.
        await reads.aclose()
        await response.aclose()  # also where nothing was read
    if reader.is_empty:
        raise ValueError("a stream without any chunk")


class _ReportedError(Exception):
    """The server tells of a failure."""

    def __init__(self, body: Any) -> None:
        super().__init__("the server tells of a failure")
        self.body = body


def _take(reader: AnswerReader, data: bytes, part: Part) -> None:
    if type(data) is ErrorData:
        raise _ReportedError(_parse_error(data))
    failure = reader.take(_parse(data), part)
    if failure is not None:
        raise _ReportedError(failure)


async def _next_read(reads: AsyncGenerator[bytes, None], response: httpx2.Response) -> bytes | None:
    """Return what the next read of the network brings, None at the end.

    Failures of the connection become the client's own errors, as in its own streams.
    """
    try:
        return await anext(reads, None)
    except httpx2.TimeoutException as error:
        raise openai.APITimeoutError(request=response.request) from error
    except (httpx2.RequestError, ssl.SSLError, anyio.EndOfStream) as error:
        raise openai.APIConnectionError(request=response.request) from error


async def _drain(reads: AsyncGenerator[bytes, None]) -> None:
    # A connection whose answer was read to its end serves the next request.
    with contextlib.suppress(TimeoutError, httpx2.HTTPError, ssl.SSLError, anyio.EndOfStream):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in reads:
                await asyncio.sleep(0)  # or the time would not be looked at


def _parse(data: bytes) -> Any:
    # Each value takes far more time and memory than it has bytes; commas may stand in texts.
    if len(data) > MAX_VALUES and sum(data.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES:
        raise ValueError("an event of too many values")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if not data.strip():
            return None
    try:
        # Halves of characters are no valid JSON to orjson, but some providers send them.
        return json.loads(data.decode())
    except json.JSONDecodeError:
        if data[:1] not in b"{[" or b"\n" not in data:
            raise
    # A document of chunks, one a line.
    return [_parse(line) for line in data.splitlines() if line.strip()]


def _parse_error(data: bytes) -> Any:
    try:
        return _parse(data)
    except ValueError:
        return data.decode(errors="replace")
