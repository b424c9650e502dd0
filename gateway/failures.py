"""Errors of HTTP: every failure becomes the contract's body with its HTTP status and headers."""

import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from servicekit.errors import AppError
from servicekit.telemetry import logs

# For a 429 of a neighbour that does not know how long to wait.
DEFAULT_RETRY_AFTER_SECONDS = 60


def body(error: AppError) -> dict[str, Any]:
    """Return the JSON body of an error: `{"error": {code, status, message, details}}`."""
    return {"error": error.to_json()}


def response(error: AppError, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer of a failed request: status, body, Retry-After and WWW-Authenticate where they belong."""
    return response_of(body(error), retry_after_seconds=error.retry_after_seconds, headers=headers)


def response_of(
    content: Mapping[str, Any],
    *,
    retry_after_seconds: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the answer for a body that already has the shape of an error; its `code` is the HTTP status."""
    status = int(content["error"]["code"])
    sent = {"cache-control": "no-store", **(headers or {})}
    if retry_after_seconds is None and status == 429:
        retry_after_seconds = DEFAULT_RETRY_AFTER_SECONDS
    if retry_after_seconds is not None:
        sent["retry-after"] = str(max(1, math.ceil(retry_after_seconds)))
    if status == 401:
        sent["www-authenticate"] = "Bearer"
    if status in (408, 413):
        # The rest of the body is not read, so the connection cannot carry another request.
        sent["connection"] = "close"
    return Response(orjson.dumps(content), status_code=status, headers=sent, media_type="application/json")


def log_values(error: AppError) -> dict[str, str]:
    """Return what a log entry says of an error: its reason and cause, never its message."""
    values = {"reason": error.reason}
    if error.cause is not None:
        values["cause"] = logs.describe(error.cause)
    return values
