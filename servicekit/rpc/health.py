"""A server's health, as probes ask for it and as its own clients watch it."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from grpc_health.v1 import health, health_pb2

from servicekit.rpc.channel import ACCEPTING

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

LAST_CALLS_SECONDS = 0.4
"""How long calls are still served once clients were told to send no more: those are on their way already."""


class Health(health.aio.HealthServicer):  # type: ignore[misc] # it has no types
    """Tells probes whether each service can do its work, and clients (by the name ACCEPTING) whether to send calls.

    The two differ: while a database is away a service is not ready, and still says so itself in its answers.
    services: full names of what the server serves.
    """

    def __init__(self, services: Iterable[str]) -> None:
        super().__init__()
        self._services = tuple(services)
        self._clients = 0
        self._without_clients = asyncio.Event()
        self._without_clients.set()

    async def begin(self) -> None:
        """Take calls from now on; the server is not ready until what it needs has been looked at."""
        await self.set("", NOT_SERVING)
        await self.set(ACCEPTING, SERVING)

    async def leave(self, delay_seconds: float) -> None:
        """Return when the server may close without losing a call.

        First probes are told that it is not ready, and calls are served as before for `delay_seconds`, in which names
        and balancers forget it; then its clients are told to send nothing more.
        """
        for name in ("", *self._services):
            await self.set(name, NOT_SERVING)
        await asyncio.sleep(delay_seconds)
        await self.enter_graceful_shutdown()
        # gRPC cancels a call that arrives after a server has begun to stop (grpc/grpc#41785).
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_CALLS_SECONDS):
                await self._without_clients.wait()

    async def Watch(self, request: Any, context: Any) -> None:
        """Tell a service's health now and whenever it changes."""
        if request.service != ACCEPTING:
            await super().Watch(request, context)
            return
        self._clients += 1
        self._without_clients.clear()
        try:
            await super().Watch(request, context)
        finally:
            self._clients -= 1
            if not self._clients:
                self._without_clients.set()
