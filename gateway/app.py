"""The gateway's application: everything it needs is opened here, put together, and closed in reverse order."""

import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Mapping

import httpx
from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from google.protobuf.descriptor import ServiceDescriptor
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway import document, failures, reasons
from gateway.attempts import Attempts
from gateway.health import Health
from gateway.middleware import CrashMiddleware, RequestMiddleware
from gateway.openai import door
from gateway.openai import errors as openai_errors
from gateway.openai.door import OpenAIDoor
from gateway.rest import contract, sse
from gateway.rest.bridge import Bridge
from gateway.rest.contract import Binding, ContractError
from gateway.rest.dispatcher import Dispatcher
from gateway.settings import Settings
from gateway.web import pages
from gateway.web.export import WebApp
from gateway.web.social import SocialLogIn
from servicekit import parts
from servicekit.errors import AppError
from servicekit.rpc import channel, contracts
from servicekit.rpc.identity import Verifier
from servicekit.telemetry import watches
from servicekit.tls import credentials


class Application(FastAPI):
    """FastAPI with fewer layers: ours, and a dispatcher in front of its router.

    FastAPI puts five around each request whose work (crashes, limits of bodies, dependencies, spans) ours do already.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        else:  # FastAPI would look for a tracer with each request, and put paths and queries into its spans
            await Starlette.__call__(self, scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Return the layers; called once, by the first request."""
        router = ExceptionMiddleware(AsyncExitStackMiddleware(self.router), handlers=self.exception_handlers)
        layers: ASGIApp = Dispatcher(self.routes, router, on_error=_fail)
        for layer, args, kwargs in reversed(self.user_middleware):
            layers = layer(layers, *args, **kwargs)
        return layers


@contextlib.asynccontextmanager
async def build(
    settings: Settings,
    *,
    keep_alive_seconds: float = sse.KEEP_ALIVE_SECONDS,
    certificates: credentials.Certificates | None = None,
) -> AsyncIterator[FastAPI]:
    """Yield the application with its connections; close them on leaving.

    certificates: for the calls to the services; absent, they are loaded as the settings say.
    The services behind it need not run yet. Raises ContractError when the contract cannot be served,
    SystemExit with what to do when the certificates cannot be used.
    """
    reasons.register()
    known = certificates or credentials.load(settings)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(httpx.AsyncClient())
        verifier = Verifier(settings, client)
        channels = {
            service.full_name: await stack.enter_async_context(
                channel.connect(settings.target_of(part.name), service, tls=known)
            )
            for part in parts.SERVICES
            for service in contracts.public_services(part)
        }
        bridge = Bridge(settings, channels, verifier, Attempts(settings), keep_alive_seconds=keep_alive_seconds)
        app = _bare_app(settings)
        bindings = contract.bindings(contract.SERVICES)
        contract.check_internal(contract.INTERNAL_SERVICES)
        door = OpenAIDoor(settings, bridge, keep_alive_seconds=keep_alive_seconds)
        add_contract_routes(app, bindings, bridge, SocialLogIn(settings, bridge.stub), door)
        door.add_model_routes(app, bindings)
        app.state.health = Health(channels)
        app.state.health.add_routes(app)
        providers = pages.Providers(settings, client)
        pages.add_routes(app, settings, providers, document.document(bindings), version=document.version())
        refuse_doubles(app)
        app.router.default = WebApp(settings)
        yield app


def add_contract_routes(
    app: FastAPI, bindings: Iterable[Binding], bridge: Bridge, *by_hand: SocialLogIn | OpenAIDoor
) -> None:
    """Add every route of the contract. Raises ContractError for a hand-written one that nobody has written."""
    for binding in bindings:
        if not binding.policy.handwritten_reason:
            bridge.add_route(app, binding)
            continue
        for writer in by_hand:
            if binding.operation_id in writer.operations:
                writer.add_route(app, binding)
                break
        else:
            raise ContractError(f"{binding.method.full_name} is served by hand, but nothing serves it")


def refuse_doubles(app: FastAPI) -> None:
    """Raise ContractError when two routes answer the same method and path, whoever has added them."""
    seen: set[tuple[str, str]] = set()
    for route in app.routes:
        for method in getattr(route, "methods", None) or ():
            key = (method, re.sub(r"\{[^{}]*\}", "{}", getattr(route, "path", "")))
            if key in seen:
                raise ContractError(f"{key[0]} {key[1]} has two routes")
            seen.add(key)


def public_rpcs(services: Iterable[ServiceDescriptor] = contract.SERVICES) -> list[str]:
    """Return the full names of the rpcs that must have a route."""
    return [binding.method.full_name for binding in contract.bindings(services)]


def _bare_app(settings: Settings) -> FastAPI:
    middleware = [Middleware(RequestMiddleware)]
    if settings.trusted_proxies:
        # Outermost: everything after it sees the client's own address.
        proxies = Middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies))
        middleware.insert(0, proxies)
    if settings.cors_origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(settings.cors_origins),
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=[
                    "Authorization",
                    "Content-Type",
                    "X-Request-Id",
                    "Last-Event-ID",
                    watches.TRACEPARENT,
                    *door.REQUEST_HEADERS,
                ],
                expose_headers=["X-Request-Id", "Retry-After"],
                max_age=600,
            )
        )
    middleware.append(Middleware(CrashMiddleware))
    # The documents are served by pages.py: FastAPI's own pages load scripts from elsewhere.
    app = Application(
        title="Concerto",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=middleware,
    )
    app.add_exception_handler(AppError, _on_app_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    return app


async def _on_app_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, AppError):
        raise error
    return _fail(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path[:200]
    if error.status_code == 404:
        return _fail(request, AppError("ROUTE_NOT_FOUND", metadata={"path": path}))
    if error.status_code == 405:
        failure = AppError("METHOD_NOT_ALLOWED", metadata={"path": path, "method": request.method[:20]})
        # A path without a route is a file of the web app.
        return _fail(request, failure, headers={"allow": ", ".join(_methods_at(request) or ("GET", "HEAD"))})
    return _fail(request, AppError("INVALID_REQUEST" if error.status_code < 500 else "INTERNAL", cause=error))


def _fail(request: Request, error: AppError, *, headers: Mapping[str, str] | None = None) -> Response:
    request.state.failure = error  # for the log entry
    write = openai_errors.response if openai_errors.speaks_at(request.url.path) else failures.response
    return write(error, headers=headers)


def _methods_at(request: Request) -> list[str]:
    # Each method of a path is a route of its own, so Starlette names only those of the first one.
    found: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches({**request.scope, "method": "OPTIONS"})
        if match != Match.NONE:
            found |= route.methods or set()
    return sorted(found)
