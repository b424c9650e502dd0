"""Calls to neighbours: one channel per service, the caller's token and request id on each call, deadlines, retries."""

from collections.abc import AsyncGenerator
from functools import cache
from typing import Any, TypeVar
from uuid import uuid4

import grpc
import orjson
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from pydantic import SecretStr

from servicekit.errors import AppError, from_rpc_error
from servicekit.rpc import identity, request
from servicekit.rpc.inprocess import transport
from servicekit.rpc.inprocess.calls import Retry
from servicekit.telemetry import observing, watches
from servicekit.tls.channel import TlsChannel
from servicekit.tls.credentials import Certificates

R = TypeVar("R", bound=Message)

CALL_TIMEOUT_SECONDS = 15.0
STREAM_TIMEOUT_SECONDS = 900.0
# A silent stream is probed this often; servers allow it (servicekit.rpc.server), which by default they would not.
KEEPALIVE_SECONDS = 60
# How often a name is looked up at most: when a connection is lost or has reached its age, or none can be made.
RESOLVE_SECONDS = 1

SERVICE_KEY_HEADER = "x-concerto-service-key"
"""Metadata in which a service shows the key that ours share."""

ACCEPTING = "concerto.accepting"
"""The health that a client watches on each connection: whether the server takes calls, whatever it can do with them.

One that is about to stop says no before it closes, so that no call is on its way to it then. Servers that know no
health are sent calls as ever."""


def connect(target: str, service: ServiceDescriptor, *, tls: Certificates | None = None) -> grpc.aio.Channel:
    """Return a channel to a service; it need not be reachable yet and is found again when it comes back.

    target: `host:port`; `dns:///name:port` to spread calls over all addresses of a name, looked up again whenever a
        connection ends; `ipv4:host:port,host:port` to spread them over a list; or `inprocess:` for a service that a
        server of this process serves.
    service: whose idempotent rpcs (by the contract's idempotency_level) are tried up to 4 times within about 2 s
        while the service is unavailable.
    tls: with authorities among them, the service must show a certificate by one of them for the target's name (or
        address). Calls within the process need none.
    """
    if target == transport.TARGET:
        return transport.Channel(
            service.full_name,
            repeatable=[f"/{service.full_name}/{name}" for name in repeatable(service)],
        )
    options: list[tuple[str, Any]] = [
        ("grpc.service_config", orjson.dumps(service_config(service)).decode()),
        ("grpc.keepalive_time_ms", KEEPALIVE_SECONDS * 1000),
        ("grpc.enable_http_proxy", 0),  # neighbours are never behind a proxy for the world outside
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),  # well within the time that retries last
        ("grpc.dns_min_time_between_resolutions_ms", RESOLVE_SECONDS * 1000),
        *authority(target),
    ]
    if tls is None or tls.client_mode == "off":
        return grpc.aio.insecure_channel(target, options=options)
    return TlsChannel(tls, lambda credentials: grpc.aio.secure_channel(target, credentials, options=options))


def authority(target: str) -> list[tuple[str, str]]:
    """Return the channel option that says which server's name is expected; none where the target says it itself."""
    # Of a list gRPC would take all of it for the server's name; so the first stands for all, in certificates too.
    scheme, _, addresses = target.partition(":")
    return [("grpc.default_authority", addresses.split(",")[0])] if scheme in ("ipv4", "ipv6") else []


def service_config(service: ServiceDescriptor) -> dict[str, Any]:
    """Return gRPC's service config: round robin over servers that take calls, and retries of idempotent rpcs."""
    safe = [{"service": service.full_name, "method": name} for name in repeatable(service)]
    config: dict[str, Any] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": ACCEPTING},
    }
    if safe:
        config["methodConfig"] = [
            {
                "name": safe,
                "retryPolicy": {
                    "maxAttempts": Retry.MOST_ATTEMPTS,
                    "initialBackoff": f"{Retry.FIRST_PAUSE_SECONDS}s",
                    "maxBackoff": f"{Retry.LONGEST_PAUSE_SECONDS}s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    return config


def repeatable(service: ServiceDescriptor) -> list[str]:
    """Return the names of the rpcs that may be sent again, by the contract's idempotency_level."""
    return [
        method.name
        for method in service.methods
        if method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN
    ]


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[Any, R],
    message: Message,
    *,
    timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    service_key: SecretStr | None = None,
) -> R:
    """Call a neighbour's rpc for the current request and return its answer.

    timeout_seconds: at most this long, and never longer than the current request has left.
    service_key: shown to an rpc whose policy is `services_only`.
    Raises the neighbour's AppError, SERVICE_UNAVAILABLE (also when it stops before it has answered) or
    DEADLINE_EXCEEDED.
    """
    _make_repeatable(message)
    with observing.calling(method) as watch:
        try:
            return await method(
                message,
                metadata=_metadata(watch, service_key),
                timeout=request.remaining_seconds(timeout_seconds),
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, service=_service_of(method)) from error


async def stream(
    method: grpc.aio.UnaryStreamMultiCallable[Any, R],
    message: Message,
    *,
    timeout_seconds: float = STREAM_TIMEOUT_SECONDS,
) -> AsyncGenerator[R, None]:
    """Call a neighbour's streaming rpc for the current request and yield its answers; like `call` otherwise.

    Closing the generator cancels the call, so close it (`contextlib.aclosing`) where it may not be read to its end.
    """
    with observing.calling(method) as watch:
        responses = method(message, metadata=_metadata(watch), timeout=request.remaining_seconds(timeout_seconds))
        try:
            async for response in responses:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, service=_service_of(method)) from error
        finally:
            responses.cancel()


def _metadata(watch: watches.Watch, service_key: SecretStr | None = None) -> tuple[tuple[str, str], ...]:
    entries = [(request.REQUEST_ID_HEADER, request.current_id() or str(uuid4()))]
    caller = identity.current_caller_or_none()
    if caller is not None:
        entries.append(("authorization", f"Bearer {caller.token}"))
    if traceparent := watch.traceparent:
        entries.append((watches.TRACEPARENT, traceparent))
    if service_key is not None:
        entries.append((SERVICE_KEY_HEADER, service_key.get_secret_value()))
    return tuple(entries)


def _make_repeatable(message: Message) -> None:
    # gRPC may send the call again after an answer was lost; with a request_id that does nothing twice.
    for name in _holders_of_request_id(message.DESCRIPTOR):
        holder: Any = getattr(message, name) if name else message
        if not holder.request_id:
            holder.request_id = str(uuid4())


@cache
def _holders_of_request_id(descriptor: Descriptor) -> tuple[str, ...]:
    """Return the fields whose messages hold the call's request_id; an empty name stands for the call's own message."""
    if "request_id" in descriptor.fields_by_name:
        return ("",)
    return tuple(
        field.name
        for field in descriptor.fields
        if field.message_type is not None
        and not field.is_repeated
        and "request_id" in field.message_type.fields_by_name
    )


def _service_of(method: Any) -> str:
    # "/concerto.things.v1.ThingsService/GetThing" -> "things"
    path = getattr(method, "_method", b"")
    parts = (path.decode() if isinstance(path, bytes) else str(path)).strip("/").split(".")
    return parts[1] if len(parts) > 1 else "neighbour"


def find_service(full_name: str) -> ServiceDescriptor:
    """Return a service's descriptor by its full name, once its generated module is imported."""
    return descriptor_pool.Default().FindServiceByName(full_name)


__all__ = ["AppError", "call", "connect", "find_service", "from_rpc_error", "service_config", "stream"]
