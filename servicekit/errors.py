"""Errors on their one path: AppError inside, gRPC status with ErrorInfo between processes, JSON at the door."""

import math
from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from servicekit.reasons import DOMAIN, HTTP_STATUS, REASONS


class AppError(Exception):
    """A failure with a public reason and a private cause.

    reason: a key of `servicekit.reasons.REASONS`.
    metadata: strings that go to the client; must hold every value that the reason's message mentions.
    cause: what really happened; logged, never sent.
    retry_after_seconds: how long the client should wait; becomes google.rpc.RetryInfo and Retry-After.
    Raises KeyError for an unknown reason or a missing value, so that a wrong use fails in its first test.
    """

    def __init__(
        self,
        reason: str,
        *,
        metadata: Mapping[str, str] | None = None,
        cause: BaseException | str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        entry = REASONS[reason]
        self.reason = reason
        self.code = entry.code
        self.metadata = dict(metadata or {})
        self.message = entry.message.format_map(self.metadata)
        self.cause = cause
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{reason}: {self.message}")

    @property
    def http_status(self) -> int:
        """HTTP status that fits the code."""
        return HTTP_STATUS[self.code]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `error` in a REST body: code, status, message, details."""
        return {
            "code": self.http_status,
            "status": self.code.name,
            "message": self.message,
            "details": [{"reason": self.reason, "domain": DOMAIN, "metadata": self.metadata}],
        }

    def to_status(self) -> grpc.Status:
        """Return the gRPC status: code, message, ErrorInfo and, where known, RetryInfo."""
        details = [any_pb2.Any()]
        details[0].Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata))
        if self.retry_after_seconds is not None:
            delay = duration_pb2.Duration(seconds=math.ceil(self.retry_after_seconds))
            details.append(any_pb2.Any())
            details[1].Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=details)
        result: grpc.Status = rpc_status.to_status(status)
        return result


def from_rpc_error(error: grpc.RpcError, *, service: str) -> AppError:
    """Return the AppError that a neighbour raised, or the one that fits how the call failed.

    service: the neighbour's name for people, used when it cannot be reached.
    """
    status = rpc_status.from_call(error) if isinstance(error, grpc.Call) or hasattr(error, "details") else None
    if status is not None:
        known = _from_status(status)
        if known is not None:
            return known
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    match code:
        case grpc.StatusCode.UNAVAILABLE:
            return AppError("SERVICE_UNAVAILABLE", metadata={"service": service}, cause=error)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return AppError("DEADLINE_EXCEEDED", cause=error)
        case grpc.StatusCode.CANCELLED:
            # Whoever cancels a call asks for no answer, so it was the neighbour, which stops.
            return AppError("SERVICE_UNAVAILABLE", metadata={"service": service}, cause=error)
        case grpc.StatusCode.UNIMPLEMENTED:
            return AppError("UNIMPLEMENTED", cause=error)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            # Without our ErrorInfo it is gRPC's own limit on the size of a message.
            return AppError("INVALID_REQUEST", cause=error)
        case _:
            return AppError("INTERNAL", cause=error)


def _from_status(status: status_pb2.Status) -> AppError | None:
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    retry_after_seconds: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) and detail.Unpack(retry):
            retry_after_seconds = float(retry.retry_delay.seconds)
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
    if info.domain != DOMAIN or info.reason not in REASONS:
        return None
    try:
        return AppError(info.reason, metadata=dict(info.metadata), retry_after_seconds=retry_after_seconds)
    except KeyError:  # a newer neighbour with another table
        return None
