"""Routes: each answers the methods that it names, and no others."""

import re
from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from gateway.rest.contract import ContractError


def route(path: str, endpoint: Callable[[Request], Awaitable[Response]], *methods: str, name: str = "") -> Route:
    """Return a route for exactly these methods; Starlette itself would let HEAD through to a GET."""
    made = Route(path, endpoint, methods=methods, name=name or None)
    made.methods = set(methods)
    return made


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
