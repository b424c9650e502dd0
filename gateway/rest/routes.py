"""Routes: each answers the methods that it names, and no others."""

import re
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route, Router
from starlette.types import Receive, Scope, Send

from gateway.rest.contract import ContractError
from gateway.web.export import WebApp


def route(path: str, endpoint: Callable[[Request], Awaitable[Response]], *methods: str, name: str = "") -> Route:
    """Return a route for exactly these methods; Starlette itself would let HEAD through to a GET."""
    made = Route(path, endpoint, methods=methods, name=name or None)
    made.methods = set(methods)
    return made


def methods_of(verb: str) -> tuple[str, ...]:
    """Return the methods of a route for a verb: what can be got answers HEAD too, with the same headers."""
    return ("GET", "HEAD") if verb == "GET" else (verb,)


class Fallback:
    """Serves what is no route: a route's path with a slash behind it as that route, all else as the web app does.

    A page of the web app comes first, as its path ends with a slash; a route of that name is found without one.
    """

    def __init__(self, router: Router, web_app: WebApp) -> None:
        self._router = router
        self._web_app = web_app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises HTTPException (404, 405) where there is nothing to serve."""
        path: str = scope["path"]
        if len(path) > 1 and path.endswith("/") and await self._is_route(scope, path[:-1]):
            # The same scope: what surrounds the request reads the route from it.
            scope["path"], scope["raw_path"] = path[:-1], scope.get("raw_path", b"").removesuffix(b"/")
            await self._router(scope, receive, send)
        else:
            await self._web_app(scope, receive, send)

    async def _is_route(self, scope: Scope, path: str) -> bool:
        trimmed = {**scope, "path": path}
        if all(one.matches(trimmed)[0] == Match.NONE for one in self._router.routes):
            return False
        return scope["method"] not in ("GET", "HEAD") or not await self._web_app.has(scope["path"])


def refuse_doubles(routes: Iterable[Route]) -> None:
    """Raise ContractError when two routes answer the same method and path."""
    seen: set[tuple[str, str]] = set()
    for one in routes:
        for method in one.methods or ():
            key = (method, re.sub(r"\{[^{}]*\}", "{}", one.path))
            if key in seen:
                raise ContractError(f"{key[0]} {key[1]} has two routes")
            seen.add(key)


def methods_at(routes: Iterable[Route], scope: Scope) -> list[str]:
    """Return the methods that a request's path has, sorted: each is a route of its own; empty for no route."""
    found: set[str] = set()
    for one in routes:
        match, _ = one.matches(scope)
        if match != Match.NONE:
            found |= one.methods or set()
    return sorted(found)
