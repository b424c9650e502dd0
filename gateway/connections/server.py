"""uvicorn's server with our connections: their limits, and an end in which no request is lost."""

import asyncio
import contextlib
import socket
from collections.abc import Collection, Iterator

import uvicorn

from gateway.connections.limits import Limits
from gateway.connections.protocol import Protocol
from gateway.connections.state import State

LAST_REQUESTS_SECONDS = 0.4
"""How long connections without a request stay open once the process stops: one may be on its way."""


class Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process with the signal instead of code 0.

    config: its connections are made `Protocol`s. trusted_proxies: see `State`.
    """

    def __init__(
        self, config: uvicorn.Config, limits: Limits | None = None, *, trusted_proxies: Collection[str] = ()
    ) -> None:
        config.http = Protocol
        super().__init__(config)
        self.state = State(limits or Limits(), trusted_proxies)
        self.server_state = self.state
        self._watching: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the server."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Take connections."""
        await super().startup(sockets)
        self._watching = asyncio.create_task(self.state.watch())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, answer what is on its way on those that are there, and let requests end."""
        self.state.is_leaving = True
        for server in self.servers:
            server.close()
        if self.server_state.connections:
            await asyncio.sleep(LAST_REQUESTS_SECONDS)
        try:
            await super().shutdown(sockets)
        finally:
            if self._watching is not None:
                self._watching.cancel()
