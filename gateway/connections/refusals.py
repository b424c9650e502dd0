"""Answers to what is no request yet, or never will be: they are written by the connection, before the application."""

from functools import cache
from http import HTTPStatus

import orjson

from gateway import failures
from gateway.middleware import SECURITY_HEADERS
from servicekit.errors import AppError

RETRY_AFTER_SECONDS = 10
"""What a client is told that may come again."""


@cache
def answer(reason: str) -> bytes:
    """Return a whole HTTP answer that tells of a reason of the gateway's, and ends the connection."""
    error = AppError(reason)
    status = error.http_status
    body = orjson.dumps(failures.body(error))
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "cache-control": "no-store",
        **SECURITY_HEADERS,
        "connection": "close",
    }
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
