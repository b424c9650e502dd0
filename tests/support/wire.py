"""A proxy in front of Postgres that counts what a service sends: how many times a call waits for the database."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

STARTUP, CODE_BYTES = 196608, 8
BIND, EXECUTE, SYNC = "B", "E", "S"
PASSWORD = "p"
QUERY = "Q"
PREPARE = ["P", "D", "H"]
# What a client sends for one statement that the connection has prepared: one Sync is one wait for the server.
ONE_ROUND_TRIP = [BIND, EXECUTE, SYNC]


@dataclass
class Wire:
    """A proxy in front of Postgres that notes the kind of each message from clients."""

    url: str
    sent: list[str] = field(default_factory=list)
    connections: int = 0

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what one connection sends, both ways, until either side ends."""
        address = urlsplit(self.url)
        database_reader, database_writer = await asyncio.open_connection(address.hostname, address.port)
        self.connections += 1
        backwards = asyncio.create_task(_copy(database_reader, writer))
        try:
            while True:
                database_writer.write(await self._message(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            database_writer.close()
            await backwards

    async def _message(self, reader: asyncio.StreamReader) -> bytes:
        # Until its startup message, a connection's messages have no kind: they begin with their length.
        if reader not in _STARTED:
            head = await reader.readexactly(CODE_BYTES)
            if int.from_bytes(head[4:]) == STARTUP:
                _STARTED.add(reader)
            return head + await reader.readexactly(int.from_bytes(head[:4]) - CODE_BYTES)
        head = await reader.readexactly(5)
        self.sent.append(chr(head[0]))
        return head + await reader.readexactly(int.from_bytes(head[1:]) - 4)


_STARTED: set[asyncio.StreamReader] = set()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
    writer.close()


@contextlib.asynccontextmanager
async def in_front_of(url: str) -> AsyncIterator[tuple[Wire, str]]:
    """Relay to the database of that URL while the block runs; yields the proxy and the URL that leads through it."""
    wire = Wire(url)
    proxy = await asyncio.start_server(wire.relay, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    through = url.replace(f":{urlsplit(url).port}/", f":{port}/")
    assert through != url
    yield wire, through
    proxy.close()
    await proxy.wait_closed()
