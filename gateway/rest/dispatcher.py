"""Leads a request to its endpoint, past what FastAPI does for endpoints that declare parameters: ours declare none."""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from servicekit.errors import AppError

OnError = Callable[[Request, AppError], Response]


@dataclass(frozen=True, slots=True)
class _Entry:
    route: Route
    pattern: re.Pattern[str]
    segments: int | None
    """How many parts between slashes the path has; None when a parameter may hold slashes."""
    takes_request: bool | None
    """Whether the endpoint wants the request; None when it needs FastAPI to be called."""


class Dispatcher:
    """Answers requests to the routes; whatever it has no endpoint for goes to `otherwise`.

    Routes are tried in their order, as Starlette does, but only those that share the method and the first part of the
    path. on_error: makes the answer for an AppError.
    """

    def __init__(self, routes: Iterable[BaseRoute], otherwise: ASGIApp, *, on_error: OnError) -> None:
        self._otherwise = otherwise
        self._on_error = on_error
        self._entries: dict[tuple[str, str], list[_Entry]] = {}
        for route in routes:
            if not isinstance(route, Route) or "{" in _first_part(route.path):
                break  # It may answer any path, so it and whatever stands behind it are left to the router.
            self._add(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        found = self._find(scope) if scope["type"] == "http" and not scope.get("root_path") else None
        if found is None:
            await self._otherwise(scope, receive, send)
            return
        entry, parameters = found
        scope["route"], scope["path_params"] = entry.route, parameters
        request = Request(scope, receive, send)
        endpoint: Callable[..., Awaitable[Response]] = entry.route.endpoint
        try:
            response = await (endpoint(request) if entry.takes_request else endpoint())
        except AppError as error:
            response = self._on_error(request, error)
        await response(scope, receive, send)

    def _find(self, scope: Scope) -> tuple[_Entry, Mapping[str, Any]] | None:
        path: str = scope["path"]
        segments = path.count("/")
        for entry in self._entries.get((scope["method"], _first_part(path)), ()):
            if entry.segments is not None and entry.segments != segments:
                continue
            match = entry.pattern.match(path)
            if match is not None:
                if entry.takes_request is None:
                    return None
                convertors = entry.route.param_convertors
                return entry, {name: convertors[name].convert(text) for name, text in match.groupdict().items()}
        return None

    def _add(self, route: Route) -> None:
        has_plain_parameters = all(convertor.regex == "[^/]+" for convertor in route.param_convertors.values())
        entry = _Entry(
            route,
            route.path_regex,
            route.path.count("/") if has_plain_parameters else None,
            _takes_request(route.endpoint),
        )
        for method in route.methods or ():
            self._entries.setdefault((method, _first_part(route.path)), []).append(entry)


def _first_part(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else path


def _takes_request(endpoint: Any) -> bool | None:
    if not inspect.iscoroutinefunction(endpoint):
        return None
    parameters = [one.annotation for one in inspect.signature(endpoint).parameters.values()]
    if parameters in ([], [Request]):
        return bool(parameters)
    return None
