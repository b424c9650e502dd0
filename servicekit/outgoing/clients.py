"""Makes every HTTP client of ours, so that all of them leave this machine in the same way.

HTTPX reads the environment itself, and refuses to start over a proxy or an entry of NO_PROXY that it does not know.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, cast

import httpx

from servicekit.outgoing.settings import Outgoing, ProxyError

Library = Literal["httpx", "httpx2"]
"""The two that our libraries use; OpenAI's is made for the second."""


def client(**options: Any) -> httpx.AsyncClient:
    """Return a client of HTTPX, to be closed by the caller. options: HTTPX's own, such as `timeout` and `limits`."""
    return httpx.AsyncClient(**routing(**options))


def routing(
    library: Library = "httpx",
    *,
    environment: Mapping[str, str] | None = None,
    wrap: Callable[[Any], Any] | None = None,
    limits: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """Return the options by which an asynchronous client of a library goes as the environment says.

    environment: absent, this process's. wrap: makes of the transport the one that is used.
    limits: of the connections to each proxy, and of those without one.
    """
    transport: Any = _AsyncTransport(import_module(library), Outgoing.read(environment), limits)
    if wrap is not None:
        transport = wrap(transport)
    return {"transport": transport, "trust_env": False, **options}


def blocking_routing(library: Library = "httpx") -> dict[str, Any]:
    """Return the same for a client that blocks."""
    return {"transport": _Transport(import_module(library), Outgoing.read(), None), "trust_env": False}


class _Routes:
    """The transports of a client, each made when the first request goes that way."""

    def __init__(self, library: ModuleType, outgoing: Outgoing, limits: Any) -> None:
        self._library = library
        self._outgoing = outgoing
        context = outgoing.tls_context()
        self._options: dict[str, Any] = {"trust_env": False, "verify": True if context is None else context}
        if limits is not None:
            self._options["limits"] = limits
        self._transports: dict[str | None, Any] = {}

    def _transport_for(self, request: Any, kind: str) -> Any:
        """Return the transport that leads to the request's address. Raises the library's ConnectError without one."""
        url = request.url
        try:
            proxy = self._outgoing.proxy_for(url.scheme, url.host, url.port)
        except ProxyError as error:
            raise cast("Exception", self._library.ConnectError(str(error), request=request)) from None
        if proxy not in self._transports:
            own = {} if proxy is None else {"proxy": self._library.Proxy(proxy)}
            self._transports[proxy] = getattr(self._library, kind)(**self._options, **own)
        return self._transports[proxy]


class _AsyncTransport(_Routes, httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: Any) -> Any:
        return await self._transport_for(request, "AsyncHTTPTransport").handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()


class _Transport(_Routes, httpx.BaseTransport):
    def handle_request(self, request: Any) -> Any:
        return self._transport_for(request, "HTTPTransport").handle_request(request)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()
