"""Raw connections of an attacker, who has addresses of their own beside the one from which everybody else comes."""

import asyncio
import contextlib
import re
import sys
from collections import Counter

from tests.attacks.frame import Target

ATTACKER = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Linux answers on all of 127.0.0.0/8."""
PATIENCE_SECONDS = 75.0
"""After that a connection counts as open for ever."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(target: Target, *, address: str = ATTACKER) -> Connection:
    """Return a connection from this address. A reader that is not read keeps next to nothing."""
    return await asyncio.open_connection(*target.address, local_addr=(address, 0), limit=1024)


async def send(connection: Connection, *pieces: bytes) -> int:
    """Send as much of the pieces as the other side takes; return how many bytes were sent."""
    _, writer = connection
    sent = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        for piece in pieces:
            writer.write(piece)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await writer.drain()
            sent += len(piece)
    return sent


async def outcome_of(connection: Connection, *, seconds: float = PATIENCE_SECONDS) -> str:
    """Return the statuses that came until the connection ended, or that it was cut without one, or is open still."""
    reader, writer = connection
    content = bytearray()
    is_open = False
    try:
        async with asyncio.timeout(seconds):
            while piece := await reader.read(65_536):
                content += piece[:2000]
    except TimeoutError:
        is_open = True
    except ConnectionError:
        pass
    writer.close()
    statuses = Counter(re.findall(rb"HTTP/1\.1 (\d{3}) ", bytes(content)))
    words = [one.decode() for one in statuses] + (["open still"] if is_open else [])
    return " ".join(words) or "cut"


async def ended(target: Target, *pieces: bytes) -> str:
    """Send the pieces over a connection of their own, and return what became of it."""
    connection = await connect(target)
    await send(connection, *pieces)
    return await outcome_of(connection)


def head(method: str, path: str, *fields: str, token: str | None = None) -> bytes:
    """Return the head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway", *fields]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def json_head(path: str, length: int, *fields: str, token: str | None = None) -> bytes:
    """Return the head of a POST with a body of so many bytes."""
    return head("POST", path, "Content-Type: application/json", f"Content-Length: {length}", *fields, token=token)
