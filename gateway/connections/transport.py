"""What a connection writes to: it joins what is written in one turn of the loop, and loses no last answer."""

import asyncio
from collections.abc import Callable
from typing import Any

BUFFER_BYTES = 65_536


class Joining:
    """A transport that holds what is written until the loop's next turn, and then writes it at once.

    Each write is a call into the kernel. It never holds more than BUFFER_BYTES: beyond that the real transport has to
    say when the client is too slow.
    lingers: says, when the connection is to be closed, whether the client may still be sending. It is then only told
    that nothing more comes: what it sends into a closed connection would make its system drop the last answer unread.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, lingers: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._lingers = lingers
        self._buffered: list[bytes] = []
        self._size = 0
        self._is_ending = False
        self.written_bytes = 0
        """All that was written to this connection."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @property
    def is_ending(self) -> bool:
        """Whether all is said, but the client may still be sending."""
        return self._is_ending

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
        return self._is_ending or self._transport.is_closing()

    def close(self) -> None:
        """Write what is held, and close; told a second time, without waiting for the client."""
        self._flush()
        if not self.is_closing() and self._lingers():
            self._is_ending = True
            self._transport.write_eof()
        else:
            self._transport.close()

    def _flush(self) -> None:
        buffered, self._buffered, size, self._size = self._buffered, [], self._size, 0
        if buffered and not self._is_ending and not self._transport.is_closing():
            self.written_bytes += size
            self._transport.write(b"".join(buffered))
