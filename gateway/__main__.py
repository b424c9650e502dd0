"""Runs the gateway: settings -> application -> uvicorn; also the container's command."""

import asyncio
import functools
import math
import socket

import structlog
import uvicorn

from gateway import app
from gateway.connections.limits import Limits
from gateway.connections.server import Server
from gateway.settings import Settings
from servicekit.rpc import loop
from servicekit.telemetry import process
from servicekit.tls import credentials

_LOG = structlog.stdlib.get_logger(__name__)


async def serve(settings: Settings, *, started: asyncio.Event, stop: asyncio.Event) -> None:
    """Serve until `stop` is set.

    Then /readyz says no for `settings.drain_delay_seconds`, in which requests are taken as before and each answer ends
    its connection; after that, running requests get `settings.drain_seconds` to end.
    started: set once requests are taken.
    Raises SystemExit with what to do when the port is taken or the certificates cannot be used.
    """
    certificates = credentials.load(settings)
    listener = listen(settings.host, settings.port)
    listeners = [listener, *inherited(settings.socket_fd)]
    async with app.build(settings, certificates=certificates) as application:
        config = uvicorn.Config(
            application,
            access_log=False,
            date_header=True,
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
            ws="none",
        )
        server = Server(config, Limits.of(settings), trusted_proxies=settings.trusted_proxies)
        serving = asyncio.create_task(server.serve(sockets=listeners))
        address = f"{settings.host}:{listener.getsockname()[1]}"
        _LOG.info("server.started", address=address, tls_to_services=certificates.client_mode)
        started.set()
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        delay_seconds = settings.drain_delay_seconds
        _LOG.info("server.draining", delay_seconds=delay_seconds, seconds=settings.drain_seconds)
        server.state.is_leaving = True
        application.state.health.leave()
        await asyncio.wait({serving}, timeout=delay_seconds)
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


def inherited(number: int | None) -> list[socket.socket]:
    """Return the listening socket with this file descriptor; empty for None. Raises SystemExit when it is none."""
    if number is None:
        return []
    try:
        shared = socket.socket(fileno=number)
        if not shared.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            raise OSError("it does not listen")
    except OSError as error:
        raise SystemExit(
            f"GATEWAY_SOCKET_FD={number} is no listening socket ({error.strerror or error}). "
            "Unset it, unless what starts the gateway hands one over."
        ) from None
    return [shared]


def main() -> None:
    """Read the settings and serve."""
    settings = Settings.load()
    process.configure(settings, service="gateway")
    try:
        loop.run(loop.until_stopped(functools.partial(serve, settings)))
    finally:
        process.close()


if __name__ == "__main__":
    main()
