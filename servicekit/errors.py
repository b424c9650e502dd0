"""Errors on their one path: AppError inside, gRPC status with ErrorInfo between processes, JSON over HTTP."""

import math
from collections.abc import Mapping
from typing import Any, Self

import grpc
from concerto.errors.v1 import errors_pb2
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from servicekit.reasons import DOMAIN, HTTP_STATUS, REASONS

MOST_RETRY_SECONDS = 86_400
"""Longest wait that another process may tell; a longer one counts as this."""
_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


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
        self.metadata = dict(metadata or {})
        self._fill(reason, entry.code, entry.http_status, entry.message.format_map(self.metadata))
        self.cause = cause
        self.retry_after_seconds = retry_after_seconds

    @classmethod
    def received(
        cls,
        reason: str,
        *,
        code: grpc.StatusCode,
        message: str,
        metadata: Mapping[str, str],
        http_status: int | None = None,
        retry_after_seconds: float | None = None,
    ) -> Self:
        """Return an error that another process has worded; its reason need not be in this process's table.

        http_status: None, or one outside of 400 to 599, for the one that fits the code.
        """
        error = cls.__new__(cls)
        error.metadata = dict(metadata)
        if http_status is None or not 400 <= http_status <= 599:
            http_status = HTTP_STATUS[code]
        error._fill(reason, code, http_status, message)
        error.cause = None
        error.retry_after_seconds = retry_after_seconds
        return error

    def _fill(self, reason: str, code: grpc.StatusCode, http_status: int, message: str) -> None:
        self.reason = reason
        self.code = code
        self.http_status = http_status
        self.message = message
        super().__init__(f"{reason}: {message}")

    def to_json(self) -> dict[str, Any]:
        """Return the content of `error` in a REST body: code (the HTTP status), status, message, details."""
        return {
            "code": self.http_status,
            "status": self.code.name,
            "message": self.message,
            "details": [{"reason": self.reason, "domain": DOMAIN, "metadata": self.metadata}],
        }

    def to_message(self) -> errors_pb2.Error:
        """Return the same as a message of the contract."""
        detail = errors_pb2.ErrorDetail(reason=self.reason, domain=DOMAIN, metadata=self.metadata)
        return errors_pb2.Error(code=self.http_status, status=self.code.name, message=self.message, details=[detail])

    def to_status(self) -> grpc.Status:
        """Return the gRPC status: code, message, ErrorInfo and, where known, RetryInfo.

        Where the HTTP status is not the code's, the error as REST clients see it goes along.
        """
        details = [_packed(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata))]
        if self.retry_after_seconds is not None:
            delay = duration_pb2.Duration(seconds=math.ceil(self.retry_after_seconds))
            details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
        if self.http_status != HTTP_STATUS[self.code]:
            details.append(_packed(self.to_message()))
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=details)
        result: grpc.Status = rpc_status.to_status(status)
        return result


def from_message(error: errors_pb2.Error) -> AppError:
    """Return the AppError that an event or a row tells of; INTERNAL for one that is none of ours."""
    code = grpc.StatusCode.__members__.get(error.status)
    for detail in error.details:
        if code not in (None, grpc.StatusCode.OK) and detail.domain == DOMAIN and detail.reason:
            return AppError.received(
                detail.reason, code=code, message=error.message, metadata=detail.metadata, http_status=error.code
            )
    return AppError("INTERNAL", cause="an error came without a reason of ours")


def from_rpc_error(error: grpc.RpcError, *, service: str) -> AppError:
    """Return the AppError that a neighbour raised, as it has worded it, or the one that fits how the call failed.

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
    body = errors_pb2.Error()
    retry_after_seconds: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) and detail.Unpack(retry):
            retry_after_seconds = float(min(max(retry.retry_delay.seconds, 0), MOST_RETRY_SECONDS))
        elif detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(errors_pb2.Error.DESCRIPTOR):
            detail.Unpack(body)
    code = _CODES.get(status.code)
    if info.domain != DOMAIN or not info.reason or code in (None, grpc.StatusCode.OK):
        return None
    return AppError.received(
        info.reason,
        code=code,
        message=status.message,
        metadata=info.metadata,
        http_status=body.code,
        retry_after_seconds=retry_after_seconds,
    )


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
