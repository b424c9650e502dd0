"""HTTP as uvicorn speaks it, with an answer's head and body in one write: each write is a call into the kernel."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState


class State(ServerState):
    """What all connections of a server share."""

    is_leaving = False
    """True once the process is to stop: each connection then ends with its next answer, which says so.

    A client that is told opens another one elsewhere; one whose idle connection is just closed may lose a request."""


class Protocol(HttpToolsProtocol):
    """One connection of a client."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with a connection."""
        super().connection_made(Joining(transport, self.loop))  # type: ignore[arg-type]

    def on_headers_complete(self) -> None:
        """Begin with a request."""
        super().on_headers_complete()
        if getattr(self.server_state, "is_leaving", False) and self.cycle is not None:
            self.cycle.keep_alive = False


BUFFER_BYTES = 65_536


class Joining:
    """A transport that holds what is written until the loop's next turn, and then writes it at once.

    It never holds more than BUFFER_BYTES: beyond that the real transport has to say when the client is too slow.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._buffered: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write soon, in the order of the calls."""
        if not self._buffered:
            self._loop.call_soon(self._flush)
        self._buffered.append(data)
        self._size += len(data)
        if self._size > BUFFER_BYTES:
            self._flush()

    def is_closing(self) -> bool:
        """Say whether nothing more can be written."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Write what is held, and close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        buffered, self._buffered, self._size = self._buffered, [], 0
        if buffered and not self._transport.is_closing():
            self._transport.write(b"".join(buffered))
