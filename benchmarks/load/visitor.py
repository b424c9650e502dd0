"""A person at work beside a load: one connection, one request after the other, and how long each took."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from benchmarks.rows import MeasurementError

PATIENCE_SECONDS = 30.0


class Visitor:
    """One connection that is kept, over which the same request is sent again and again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes) -> None:
        self._reader = reader
        self._writer = writer
        self._request = head + body

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, url: str, path: str, *, token: str, body: object = None) -> AsyncIterator["Visitor"]:
        """Connect; with a body the request is POST."""
        parts = urlsplit(url)
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**24)
        try:
            yield cls(reader, writer, head.encode(), content)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def request(self) -> float:
        """Send the request and read the whole answer; return the seconds. Raises MeasurementError for any refusal."""
        began = time.perf_counter()
        self._writer.write(self._request)
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            fields = dict(
                line.split(": ", 1) for line in head.decode("latin-1").lower().split("\r\n")[1:] if ": " in line
            )
            content = await self._reader.readexactly(int(fields["content-length"]))
        seconds = time.perf_counter() - began
        if not head.startswith(b"HTTP/1.1 2"):
            raise MeasurementError(f"{head.splitlines()[0].decode()}: {content[:300].decode(errors='replace')}")
        return seconds

    async def work(self, *, for_seconds: float, pause_seconds: float) -> list[float]:
        """Send requests, each so long after the answer before it; return the seconds of each."""
        taken = []
        ends_at = time.monotonic() + for_seconds
        while time.monotonic() < ends_at:
            taken.append(await self.request())
            await asyncio.sleep(pause_seconds)
        return taken
