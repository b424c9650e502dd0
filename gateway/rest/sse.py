"""Streams of events: as Server-Sent Events, or folded into one JSON answer."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import orjson
import structlog
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway import failures
from gateway.rest.folding import PAYLOAD, Answer, Folding
from servicekit.errors import AppError
from servicekit.messages.converter import to_json

_LOG = structlog.stdlib.get_logger(__name__)

KEEP_ALIVE_SECONDS = 15.0
MEDIA_TYPE = "text/event-stream"
_KEEP_ALIVE = b": keep-alive\n\n"

T = TypeVar("T")
Events = AsyncGenerator[Sequence[Message], None]
"""Event messages, one or several at a time, each with `seq` and a oneof `payload`."""


def event_name(payload: str) -> str:
    """Return an event's type for its payload's field: `thing_made` is `thing.made`."""
    return payload.replace("_", ".", 1)


def encode(event: Message) -> bytes:
    """Return one event as it is sent; empty when its payload is of a kind that this process does not know."""
    payload = event.WhichOneof(PAYLOAD)
    if payload is None:
        return b""
    name, text = _forms(event.DESCRIPTOR)[payload]
    message = getattr(event, payload)
    data = to_json(message) if text is None else {text: getattr(message, text)}
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, name, orjson.dumps(data))  # type: ignore[attr-defined]


@cache
def _forms(event: Descriptor) -> Mapping[str, tuple[bytes, str | None]]:
    """Return each payload's event type and, where a single text is all it holds, the name of that field.

    Nearly all events are of such a kind, which needs no converter.
    """
    return {
        payload.name: (event_name(payload.name).encode(), _only_text(payload.message_type.fields))
        for payload in event.oneofs_by_name[PAYLOAD].fields
        if payload.message_type is not None
    }


def _only_text(fields: Sequence[FieldDescriptor]) -> str | None:
    if len(fields) != 1 or fields[0].is_repeated or fields[0].has_presence:
        return None
    return fields[0].name if fields[0].type == FieldDescriptor.TYPE_STRING else None


@dataclass(frozen=True, slots=True)
class Wording(Generic[T]):
    """How a stream is put into bytes."""

    encode: Callable[[T], bytes]
    """What comes at once: one event, or several."""
    encode_error: Callable[[AppError], bytes]
    """The last event of a stream that breaks."""
    tail: bytes = b""
    """What stands after the last event of a stream that ends well."""


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """Return what `work` returns; when the client goes away first, cancel it.

    Raises AppError CANCELLED in that case, which nobody receives but the log.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise AppError("CANCELLED", cause="the client went away")
    finally:
        await _cancel(working, gone)


async def first_of(events: AsyncGenerator[T, None], *, may_be_empty: bool = False) -> T | None:
    """Return the first event, so that a refusal can still be an answer of its own; None when nothing comes at all.

    may_be_empty: whether that may be; otherwise it raises AppError INTERNAL. Raises the AppError of a refusal.
    """
    async for event in events:
        return event
    if may_be_empty:
        return None
    raise AppError("INTERNAL", cause="a stream ended before its first event")


def nothing() -> Response:
    """Return the answer of a stream that is over and of which the client has everything.

    It is what tells a browser's EventSource to stop reconnecting.
    """
    return Response(status_code=204, headers={"cache-control": "no-store"})


def _encode_error(error: AppError) -> bytes:
    return b"event: error\ndata: %s\n\n" % orjson.dumps(failures.body(error))


def _encode_all(events: Sequence[Message]) -> bytes:
    return b"".join(map(encode, events))


EVENTS: Wording[Sequence[Message]] = Wording(_encode_all, _encode_error)
"""The contract's events."""


async def begin(
    receive: Receive,
    events: AsyncGenerator[T, None],
    *,
    wording: Wording[T],
    keep_alive_seconds: float = KEEP_ALIVE_SECONDS,
    may_be_empty: bool = False,
) -> Response:
    """Return the answer that sends a stream's events, once its first one is there or `keep_alive_seconds` are over.

    The first event may be long in coming; what is between here and the client must not take that for a dead connection.
    Raises the AppError of a stream that is refused by then; a later refusal is its `error` event.
    """
    first = asyncio.ensure_future(first_of(events, may_be_empty=may_be_empty))
    try:
        await while_connected(receive, asyncio.wait({first}, timeout=keep_alive_seconds))
    except BaseException:
        await _cancel(first)
        raise
    if first.done() and first.result() is None:
        return nothing()
    return EventStream(first, events, wording=wording, keep_alive_seconds=keep_alive_seconds)


class EventStream(Response, Generic[T]):
    """Sends events as they come, until the stream ends or the client goes away (which cancels the rpc).

    The cancelled rpc is a reader that leaves; what the events tell of may go on without it.
    first: the event that is sent before all of `events`; None for none.
    keep_alive_seconds: after so much silence a comment line is sent, without touching the stream of events.
    A stream that breaks ends with one `error` event.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        first: "asyncio.Future[T | None]",
        events: AsyncGenerator[T, None],
        *,
        wording: Wording[T],
        keep_alive_seconds: float,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.body = b""
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self._first = first
        self._events = events
        self._wording = wording
        self._keep_alive_seconds = keep_alive_seconds
        self._sent_at = 0.0

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Set the headers; unlike other answers, this one has no length."""
        super().init_headers(headers)
        self.raw_headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request; who asks for the head only is a reader that leaves at once."""
        if scope["method"] == "HEAD":
            await _cancel(self._first)
            await self._events.aclose()
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": b""})
            return
        writing = asyncio.create_task(self._write(send))
        idling = asyncio.create_task(self._keep_alive(send))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        except asyncio.CancelledError:
            # The process is ending and waits no longer. With its last event the answer is complete, and a request that
            # ends well is not logged as a crash.
            await _cancel(writing, idling)
            with contextlib.suppress(Exception):
                await self._end(send, AppError("SHUTTING_DOWN"))
            task = asyncio.current_task()
            if task is not None:
                task.uncancel()
        finally:
            await _cancel(writing, idling, gone, self._first)
            await self._events.aclose()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            first = await self._first
            if first is not None:
                await self._send(send, self._wording.encode(first))
            async for event in self._events:
                await self._send(send, self._wording.encode(event))
        except AppError as error:
            await self._end(send, error)
        except Exception as error:  # noqa: BLE001 (its text must not reach the client; the headers are sent)
            await self._end(send, AppError("INTERNAL", cause=error))
        else:
            await send({"type": "http.response.body", "body": self._wording.tail})

    async def _end(self, send: Send, error: AppError) -> None:
        _LOG.warning("stream.broken", **failures.log_values(error))
        last = self._wording.encode_error(error)
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send(self, send: Send, content: bytes) -> None:
        self._sent_at = asyncio.get_running_loop().time()
        if content:
            await send({"type": "http.response.body", "body": content, "more_body": True})

    async def _keep_alive(self, send: Send) -> None:
        clock = asyncio.get_running_loop().time
        self._sent_at = clock()
        while True:
            idle_seconds = clock() - self._sent_at
            if idle_seconds < self._keep_alive_seconds:
                await asyncio.sleep(self._keep_alive_seconds - idle_seconds)
            else:
                await self._send(send, _KEEP_ALIVE)


async def fold(events: Events, folding: Folding, *, may_be_empty: bool = False) -> Response:
    """Return the whole stream as one JSON answer, or as the error that it tells of.

    folding: what becomes of each event; the answer has null for what did not happen.
    may_be_empty: whether a stream without any event is `nothing` and no failure.
    Raises the AppError of a stream that breaks, INTERNAL for one that never finishes.
    """
    answer = Answer(folding)
    async with contextlib.aclosing(events):
        async for batch in events:
            for event in batch:
                answer.add(event)
    if (failure := answer.failure) is not None:
        failure = failure if failure["error"] else failures.body(AppError("INTERNAL"))
        if not 400 <= failure["error"]["code"] <= 599:
            raise AppError("INTERNAL", cause="an error event came without an HTTP status")
        return failures.response_of(failure, retry_after_seconds=_retry_after_seconds(failure))
    if answer.is_empty and may_be_empty:
        return nothing()
    if not answer.is_finished:
        raise AppError("INTERNAL", cause="a stream ended before its last event")
    content = orjson.dumps(answer.to_json())
    return Response(content, media_type="application/json", headers={"cache-control": "no-store"})


def _retry_after_seconds(failure: Mapping[str, Any]) -> float | None:
    for detail in failure["error"]["details"]:
        try:
            return float(int(detail["metadata"]["retry_after_seconds"]))
        except (KeyError, ValueError):
            continue
    return None


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
