"""Runs the gateway: settings -> application -> uvicorn; also the container's command."""

import asyncio
import contextlib
import functools
import math
import socket
from collections.abc import Iterator

import structlog
import uvicorn

from gateway import app
from gateway.protocol import Protocol
from gateway.settings import GatewaySettings
from servicekit import loop, telemetry

_LOG = structlog.stdlib.get_logger(__name__)


class Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process with the signal instead of code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `serve`."""
        yield


async def serve(settings: GatewaySettings, *, started: asyncio.Event, stop: asyncio.Event) -> None:
    """Serve until `stop` is set; running requests then get `settings.drain_seconds` to end.

    started: set once requests are taken.
    Raises SystemExit with what to do when the port is taken.
    """
    listener = listen(settings.host, settings.port)
    async with app.build(settings) as application:
        config = uvicorn.Config(
            application,
            access_log=False,
            date_header=True,
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=75,  # longer than load balancers keep idle connections, so that they close first
            timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
            ws="none",
            http=Protocol,
        )
        server = Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        _LOG.info("server.started", address=f"{settings.host}:{listener.getsockname()[1]}")
        started.set()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        _LOG.info("server.draining", seconds=settings.drain_seconds)
        server.should_exit = True
        await serving
        stopping.cancel()
    _LOG.info("server.stopped")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises SystemExit with what to do when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only then; with it, answers wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A restart need not wait for old connections; two processes still cannot share the port.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise SystemExit(
            f"{host}:{port} cannot be listened on ({error.strerror}). "
            "Set GATEWAY_PORT to a free port, or stop what is there."
        ) from None
    return listener


def main() -> None:
    """Read the settings and serve."""
    settings = GatewaySettings.load()
    telemetry.configure(settings, service="gateway")
    try:
        loop.run(loop.until_stopped(functools.partial(serve, settings)))
    finally:
        telemetry.close()


if __name__ == "__main__":
    main()
