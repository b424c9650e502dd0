"""Around every request: its id, log entry, metrics and span; security headers; no exception's text for the client."""

import time
from typing import Any

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway import failures
from gateway.openai import errors as openai_errors
from gateway.web import export
from servicekit.errors import AppError
from servicekit.rpc import identity
from servicekit.rpc import request as current_request
from servicekit.telemetry import observing

_LOG = structlog.stdlib.get_logger(__name__)

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
"""Sent with every answer that does not bring its own value."""

_SECURITY_HEADERS = tuple((name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items())
_ID_HEADER = current_request.REQUEST_ID_HEADER.encode()
_QUIET = frozenset({"/healthz", "/readyz", export.ROUTE_PATH})


class RequestMiddleware:
    """The outermost layer of the gateway."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        watch = observing.receiving(scope["method"], scope["path"], scope["headers"])
        wanted = next((value.decode("latin-1") for name, value in scope["headers"] if name == _ID_HEADER), None)
        request_id = current_request.begin(wanted, None)
        identity.set_current_caller(None)
        own_headers = ((_ID_HEADER, request_id.encode()), *_SECURITY_HEADERS)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = [entry for entry in message.get("headers", ()) if entry[0] != _ID_HEADER]
                names = {name.lower() for name, _ in given}
                message["headers"] = [*given, *(entry for entry in own_headers if entry[0] not in names)]
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            status = status or 499
        finally:
            _log(scope, status, started_at)
            if watch is not None:
                failure = _failure_of(scope)
                watch.end(_route_of(scope), status or 499, failure.reason if failure is not None else "")


class CrashMiddleware:
    """The innermost layer: an unforeseen failure becomes an answer here, so that it, too, gets the headers of CORS."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        has_started = False

        async def send_noting(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 (the one place where a failure's own text is kept from the client)
            failure = AppError("INTERNAL", cause=error)
            _LOG.error("request.failed", **failures.log_values(failure))
            if not has_started:
                write = openai_errors.response if openai_errors.speaks_at(scope["path"]) else failures.response
                await write(failure)(scope, receive, send)


def _log(scope: Scope, status: int, started_at: float) -> None:
    route = _route_of(scope)
    caller = identity.current_caller_or_none()
    values: dict[str, Any] = {
        "method": scope["method"][:10] if scope["method"].isalpha() else "-",
        "route": route,
        "status": status,
        "milliseconds": round((time.perf_counter() - started_at) * 1000, 1),
    }
    failure = _failure_of(scope)
    if failure is not None:
        values |= failures.log_values(failure)
    if caller is not None:
        values["user_id"] = caller.user_id
    if status >= 500:
        _LOG.warning("request.finished", **values)
    elif route in _QUIET:
        _LOG.debug("request.finished", **values)
    else:
        _LOG.info("request.finished", **values)


def _route_of(scope: Scope) -> str:
    # The template: a path may hold what is nobody's business.
    return getattr(scope.get("route"), "path", None) or "-"


def _failure_of(scope: Scope) -> AppError | None:
    failure = scope.get("state", {}).get("failure")
    return failure if isinstance(failure, AppError) else None
