"""Server-Sent Events over plain sockets, cheap enough for hundreds of streams, and a run followed through breaks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.support.api import Event

READ_BYTES = 65536
SILENCE_SECONDS = 40.0
RETRY_SECONDS = 0.1
BROKEN = (ConnectionError, asyncio.IncompleteReadError, TimeoutError, OSError)


class RefusedError(Exception):
    """The server answered with another status than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body[:500]!r}")
        self.status = status
        self.body = body

    @property
    def is_retryable(self) -> bool:
        """True when a later attempt may go better."""
        return self.status in (502, 503, 504)


class EventStream:
    """One request and its stream of events. `abort` cuts the connection as the death of the client would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._chunked = False

    @classmethod
    async def open(
        cls, url: str, *, headers: Mapping[str, str], body: Any = None, method: str | None = None
    ) -> EventStream:
        """Send the request and read the head of the answer; raises RefusedError or an error of the connection."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        stream = cls(reader, writer)
        try:
            content = b"" if body is None else json.dumps(body).encode()
            fields = {"Host": parts.netloc, "Accept": "text/event-stream", **headers}
            if body is not None:
                fields |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            verb = method or ("GET" if body is None else "POST")
            writer.write(f"{verb} {target} HTTP/1.1\r\n{head}\r\n".encode() + content)
            await stream._read_head()
        except BaseException:
            stream.abort()
            raise
        return stream

    def abort(self) -> None:
        """Cut the connection at once, without any farewell."""
        self._writer.transport.abort()

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events until the server ends the stream; raises an error of BROKEN when it does not end it."""
        async for number, kind, data in self.raw_events():
            yield Event(id=number, type=kind, data=json.loads(data))

    async def raw_events(self) -> AsyncIterator[tuple[str | None, str, bytes]]:
        """Yield id, type and data as they were sent; comments are passed over."""
        text = bytearray()
        async for piece in self._pieces():
            text += piece
            while (end := text.find(b"\n\n")) >= 0:
                block = bytes(text[:end])
                del text[: end + 2]
                number, kind, data = None, "", b""
                for line in block.split(b"\n"):
                    name, _, value = line.partition(b": ")
                    if name == b"id":
                        number = value.decode()
                    elif name == b"event":
                        kind = value.decode()
                    elif name == b"data":
                        data = value
                if kind:
                    yield number, kind, data

    async def _read_head(self) -> None:
        async with asyncio.timeout(SILENCE_SECONDS):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            status = int(head.split(" ", 2)[1])
            lines = dict(line.partition(": ")[::2] for line in head.split("\r\n")[1:])
            self._chunked = lines.get("transfer-encoding") == "chunked"
            if status == 200 and lines.get("content-type", "").startswith("text/event-stream"):
                return
            length = int(lines.get("content-length", "0"))
            body = await self._reader.readexactly(length)
        raise RefusedError(status, body)

    async def _pieces(self) -> AsyncIterator[bytes]:
        if not self._chunked:
            raise AssertionError("a stream of events is sent in chunks")
        held = bytearray()
        while True:
            while (line := held.find(b"\r\n")) >= 0:
                size = int(held[:line], 16)
                if len(held) < line + 2 + size + 2:
                    break
                if size == 0:
                    self._writer.close()
                    return
                yield bytes(held[line + 2 : line + 2 + size])
                del held[: line + 2 + size + 2]
            async with asyncio.timeout(SILENCE_SECONDS):
                more = await self._reader.read(READ_BYTES)
            if not more:
                raise ConnectionResetError("the stream broke")
            held += more


@dataclass
class Follower:
    """A client that sees a run through to its end, whatever breaks: it comes back with Last-Event-ID.

    `on_event` sees each event once it is kept. `cut` breaks the connection that is open now, if any.
    """

    base_url: str
    headers: Mapping[str, str]
    run_id: str = ""
    events: list[Event] = field(default_factory=list)
    connections: int = 0
    on_event: Callable[[Event], None] | None = None
    _stream: EventStream | None = None

    @property
    def ended(self) -> bool:
        """True when the last event is there."""
        return bool(self.events) and self.events[-1].type == "run.finished"

    @property
    def text(self) -> str:
        """The answer as far as it is there, put together from its pieces."""
        return "".join(event.data["text"] for event in self.events if event.type == "message.delta")

    def cut(self) -> bool:
        """Break the connection; False when there is none."""
        stream, self._stream = self._stream, None
        if stream is None:
            return False
        stream.abort()
        return True

    async def turn(self, session_id: str, body: Mapping[str, Any]) -> None:
        """Start a run with POST …/turns (`body` needs a request_id) and follow it to its end."""
        while not self.run_id:
            await self._attempt(f"/sessions/{session_id}/turns", dict(body))
        await self.follow()

    async def follow(self) -> None:
        """Follow the run `run_id` to its end."""
        while not self.ended:
            await self._attempt(f"/runs/{self.run_id}/events")

    async def _attempt(self, path: str, body: Any = None) -> None:
        headers = dict(self.headers)
        if body is None and self.events:
            headers["Last-Event-ID"] = str(self.events[-1].id)
        stream: EventStream | None = None
        try:
            stream = await EventStream.open(self.base_url + path, headers=headers, body=body)
            self._stream = stream
            self.connections += 1
            async with contextlib.aclosing(stream.events()) as events:  # type: ignore[type-var]
                async for event in events:
                    self._keep(event)
                    if self._stream is not stream:
                        break  # cut: what had arrived unread is lost, as for a client that died
        except RefusedError as refusal:
            if not refusal.is_retryable:
                raise
            await asyncio.sleep(RETRY_SECONDS)  # a client waits before it asks again
        except BROKEN:
            await asyncio.sleep(RETRY_SECONDS)  # a client waits before it asks again
        finally:
            self._stream = None
            if stream is not None:
                stream.abort()

    def _keep(self, event: Event) -> None:
        # An event without an id is no part of the run: the gateway says so that the stream broke.
        if event.id is None:
            return
        self.events.append(event)
        if event.type == "run.started":
            self.run_id = event.data["run_id"]
        if self.on_event is not None:
            self.on_event(event)


def faults_of(events: list[Event]) -> tuple[int, int]:
    """Return how many events are missing and how many came twice, by their ids; they should count from 1."""
    numbers = [int(event.id or 0) for event in events]
    duplicates = len(numbers) - len(set(numbers))
    gaps = (max(numbers, default=0)) - len(set(numbers))
    return gaps, duplicates


def is_in_order(events: list[Event]) -> bool:
    """True when each event's id is one more than that of the event before it, from 1 on."""
    return [int(event.id or 0) for event in events] == list(range(1, len(events) + 1))
