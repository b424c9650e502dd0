"""Runs servicers: listens, reports health, reflects in development, drains on SIGTERM."""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from servicekit.errors import AppError
from servicekit.rpc import loop, reflection
from servicekit.rpc.channel import STREAM_TIMEOUT_SECONDS
from servicekit.rpc.health import Health
from servicekit.rpc.identity import Verifier
from servicekit.rpc.inprocess import transport
from servicekit.rpc.interceptor import RpcInterceptor
from servicekit.rpc.reading import ReadingInterceptor
from servicekit.rpc.sizes import MAX_REQUEST_BYTES
from servicekit.settings import ServiceKeySettings, ServiceSettings
from servicekit.telemetry import logs, process
from servicekit.tls import credentials

_LOG = structlog.stdlib.get_logger(__name__)

READINESS_INTERVAL_SECONDS = 2.0
RECOVERY_INTERVAL_SECONDS = 0.25  # while something is missing, as at a start where all begin at once
# Longer than any stream may take, so that none is cut because its connection is old.
AGED_SECONDS = STREAM_TIMEOUT_SECONDS + 60
# A client may ping this often, with or without a call; one that pings more often is sent away (too_many_pings). gRPC's
# own bounds, 5 minutes and 2 hours, would meet ordinary clients: those of Go and Java may ping every 10 s.
PING_SECONDS = 1.0
DRAIN_LIMIT_SECONDS = 30.0
FINAL_STATUS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Registration:
    """One servicer, as a server needs it."""

    service: ServiceDescriptor
    """The service that the servicer serves."""
    add: Callable[[Any, Any], None]
    """The generated add_…Servicer_to_server."""
    servicer: Any
    """Handles the rpcs."""
    ready: Callable[[], Awaitable[None]] | None = None
    """Raises AppError while something that the servicer cannot do without is missing."""
    drain: Callable[[float], Awaitable[None]] | None = None
    """Called when the server is to stop, with the seconds that what is under way may take; ends what outlives calls.
    Calls that are open stay open meanwhile."""
    verifier: Verifier | None = None
    """Verifies the callers of all that the server serves, and knows whom to ask about their sign-ins; one gives it.
    Until it can, nothing that the server serves is ready."""


S = TypeVar("S", bound=ServiceSettings)
Build = Callable[[S], AbstractAsyncContextManager[Sequence[Registration]]]


def run(settings: S, build: Build[S], *, name: str) -> None:
    """Serve until SIGTERM or SIGINT; the body of every service's `__main__`.

    build: makes the servicers and, on leaving, closes what it opened.
    name: the service in logs and traces.
    """
    process.configure(settings, service=name)
    try:
        loop.run(loop.until_stopped(functools.partial(serve, settings, build)))
    finally:
        process.close()


async def serve(
    settings: S,
    build: Build[S],
    *,
    started: asyncio.Event,
    stop: asyncio.Event,
    left_seconds: Callable[[], float] | None = None,
) -> None:
    """Build the servicers and serve them until `stop` is set, then drain; `started` is set when calls are taken.

    left_seconds: how long draining may take, asked when it begins; absent means `settings.drain_seconds`.
    """
    certificates = credentials.load(settings)
    async with (
        build(settings) as registrations,
        serving(settings, registrations, left_seconds=left_seconds, certificates=certificates) as port,
    ):
        _LOG.info("server.started", address=f"{settings.host}:{port}", **certificates.describe())
        started.set()
        await stop.wait()
        _LOG.info(
            "server.draining",
            delay_seconds=settings.drain_delay_seconds,
            seconds=round(left_seconds() if left_seconds else settings.drain_seconds, 1),
        )
    _LOG.info("server.stopped")


@contextlib.asynccontextmanager
async def serving(
    settings: S,
    registrations: Sequence[Registration],
    *,
    verifier: Verifier | None = None,
    left_seconds: Callable[[], float] | None = None,
    certificates: credentials.Certificates | None = None,
) -> AsyncIterator[int]:
    """Serve the registrations on the settings' address and within this process while the block runs; yield the port.

    On leaving, readiness says no for `settings.drain_delay_seconds`, in which calls are served as before. Then clients
    are told to go elsewhere, new calls are refused, and running ones get `settings.drain_seconds` (or what
    `left_seconds` says by then) to end, and after that as long as the registrations' `drain` takes.
    certificates: absent, they are loaded as the settings say.
    Raises SystemExit with what to do when the port is taken or the certificates cannot be used.
    """
    secure = (certificates or credentials.load(settings)).server_credentials()
    registered = next((each.verifier for each in registrations if each.verifier is not None), None)
    given = verifier or registered
    own_verifier = given or Verifier(settings)
    service_key = settings.service_key if isinstance(settings, ServiceKeySettings) else None
    interceptor = RpcInterceptor(own_verifier, service_key=service_key)
    within = transport.Server([interceptor])
    server = grpc.aio.server(
        interceptors=[ReadingInterceptor(), interceptor],
        options=[
            ("grpc.so_reuseport", 0),  # a second process on the port must fail, not share it
            ("grpc.http2.min_ping_interval_without_data_ms", round(PING_SECONDS * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            # gRPC varies the age by a tenth, so that not all clients come back at once.
            ("grpc.max_connection_age_ms", round(settings.connection_age_seconds * 1000)),
            ("grpc.max_connection_age_grace_ms", round(AGED_SECONDS * 1000)),
        ],
    )
    names = [registration.service.full_name for registration in registrations]
    health_servicer = Health(names)
    for each in (server, within):
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, each)
        for registration in registrations:
            registration.add(registration.servicer, each)
    if settings.environment == "development":
        reflection.enable(server, (*names, health.SERVICE_NAME))
    address = f"{settings.host}:{settings.port}"
    try:
        port = server.add_secure_port(address, secure) if secure else server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if port == 0:
        raise SystemExit(f"{address} cannot be listened on. Set another port, or stop what is there.")
    await health_servicer.begin()
    await server.start()
    within.start()
    watch = asyncio.create_task(_watch_readiness(health_servicer, registrations, registered))
    try:
        yield port
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await health_servicer.leave(settings.drain_delay_seconds)
        await _drain(server, within, left_seconds() if left_seconds else settings.drain_seconds, registrations)
        if given is None:
            await own_verifier.close()


async def _drain(
    server: grpc.aio.Server, within: transport.Server, seconds: float, registrations: Sequence[Registration]
) -> None:
    async def stop(grace_seconds: float) -> None:
        await asyncio.gather(server.stop(grace_seconds), within.stop(grace_seconds))

    drains = [registration.drain for registration in registrations if registration.drain is not None]
    if not drains:
        await stop(seconds)
        return
    started_at = time.monotonic()
    stopping = asyncio.create_task(stop(seconds + DRAIN_LIMIT_SECONDS))
    for error in await asyncio.gather(*(drain(seconds) for drain in drains), return_exceptions=True):
        if isinstance(error, BaseException):
            _LOG.error("server.not_drained", cause=logs.describe(error))
    # Who listens hears the end of what was ended just now.
    left_seconds = max(FINAL_STATUS_SECONDS, started_at + seconds - time.monotonic())
    await asyncio.wait({stopping}, timeout=left_seconds)
    await stop(0)
    await stopping


async def _watch_readiness(servicer: Any, registrations: Sequence[Registration], verifier: Verifier | None) -> None:
    known: dict[str, bool] = {}
    while True:
        for registration in registrations:
            name = registration.service.full_name
            try:
                if verifier is not None:
                    await verifier.ready()
                if registration.ready is not None:
                    await registration.ready()
                ready = True
            except AppError as error:
                ready = False
                if known.get(name) is not False:
                    _LOG.warning("service.not_ready", rpc_service=name, reason=error.reason)
            if known.get(name) != ready:
                known[name] = ready
                state = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
                await servicer.set(name, state)
        # The server as a whole, which is what a plain health check asks about.
        is_whole = all(known.values())
        whole = health_pb2.HealthCheckResponse.SERVING if is_whole else health_pb2.HealthCheckResponse.NOT_SERVING
        await servicer.set("", whole)
        await asyncio.sleep(READINESS_INTERVAL_SECONDS if is_whole else RECOVERY_INTERVAL_SECONDS)
