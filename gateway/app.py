"""The gateway's application: everything it needs is opened here, put together, and closed in reverse order."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

from google.protobuf.descriptor import ServiceDescriptor
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from gateway import document, failures, reasons, run_tickets, sign_ins
from gateway.attempts import Attempts
from gateway.health import Health
from gateway.middleware import CrashMiddleware, RequestMiddleware
from gateway.openai import errors as openai_errors
from gateway.openai.api import OpenAIApi
from gateway.rest import contract, sse
from gateway.rest.bridge import Bridge
from gateway.rest.contract import Binding, ContractError
from gateway.rest.routes import Fallback, methods_at, methods_of, refuse_doubles, route
from gateway.settings import Settings
from gateway.web import pages
from gateway.web.export import WebApp
from gateway.web.social import SocialLogIn
from servicekit import parts
from servicekit.errors import AppError
from servicekit.outgoing import clients
from servicekit.rpc import channel, contracts
from servicekit.rpc.identity import Verifier
from servicekit.tls import credentials


@contextlib.asynccontextmanager
async def build(
    settings: Settings,
    *,
    keep_alive_seconds: float = sse.KEEP_ALIVE_SECONDS,
    certificates: credentials.Certificates | None = None,
) -> AsyncIterator[Starlette]:
    """Yield the application with its connections; close them on leaving.

    certificates: for the calls to the services; absent, they are loaded as the settings say.
    The services behind it need not run yet. Raises ContractError when the contract cannot be served,
    SystemExit with what to do when the certificates cannot be used.
    """
    reasons.register()
    known = certificates or credentials.load(settings)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(clients.client())
        ask = await stack.enter_async_context(sign_ins.asking(settings.target_of("sessions"), tls=known))
        # The services behind it ask as well, and before they do anything: here nobody waits for an answer.
        verifier = Verifier(settings, client, ask=ask, is_advisory=True)
        stack.push_async_callback(verifier.close)
        channels = {
            service.full_name: await stack.enter_async_context(
                channel.connect(settings.target_of(part.name), service, tls=known)
            )
            for part in parts.SERVICES
            for service in contracts.public_services(part)
        }
        bridge = Bridge(settings, channels, verifier, Attempts(settings), keep_alive_seconds=keep_alive_seconds)
        bindings = contract.bindings(contract.SERVICES)
        contract.check_internal(contract.INTERNAL_SERVICES)
        openai = OpenAIApi(bridge, keep_alive_seconds=keep_alive_seconds)
        health = Health(channels, verifier)
        providers = pages.Providers(settings, client)
        routes = [
            *contract_routes(bindings, bridge, SocialLogIn(settings, bridge.stub), openai),
            run_tickets.ticket_route(bridge, bindings),
            openai.text_completion_route(bindings),
            *openai.model_routes(bindings),
            *health.routes(),
            *pages.routes(settings, providers, document.document(bindings), version=document.version()),
        ]
        refuse_doubles(routes)
        app = Starlette(
            routes=routes,
            middleware=_middleware(settings),
            exception_handlers={AppError: _on_app_error, HTTPException: _on_http_exception},
        )
        app.router.redirect_slashes = False
        app.router.default = Fallback(app.router, WebApp(settings))
        app.state.health = health
        yield app


def contract_routes(bindings: Iterable[Binding], bridge: Bridge, *by_hand: SocialLogIn | OpenAIApi) -> Iterator[Route]:
    """Yield every route of the contract. Raises ContractError for a hand-written one that no code serves."""
    written = {operation: one for one in by_hand for operation in one.operations}
    for binding in bindings:
        server = written.get(binding.operation_id) if binding.policy.handwritten_reason else bridge
        if server is None:
            raise ContractError(f"{binding.method.full_name} is served by hand, but nothing serves it")
        yield route(binding.path, server.endpoint(binding), *methods_of(binding.verb), name=binding.operation_id)


def public_rpcs(services: Iterable[ServiceDescriptor] = contract.SERVICES) -> list[str]:
    """Return the full names of the rpcs that must have a route."""
    return [binding.method.full_name for binding in contract.bindings(services)]


def _middleware(settings: Settings) -> list[Middleware]:
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
                # Clients send headers of their own, and more with each version; what is asked for is allowed.
                allow_methods=["*"],
                allow_headers=["*"],
                allow_private_network=True,
                expose_headers=["X-Request-Id", "Retry-After", openai_errors.RETRY_HEADER],
                max_age=600,
            )
        )
    middleware.append(Middleware(CrashMiddleware))
    return middleware


async def _on_app_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, AppError):
        raise error
    return _fail(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    path = request.scope["path"][:200]
    if error.status_code == 404:
        return _fail(request, AppError("ROUTE_NOT_FOUND", metadata={"path": path}))
    if error.status_code == 405:
        failure = AppError("METHOD_NOT_ALLOWED", metadata={"path": path, "method": request.method[:20]})
        # A path without a route is a file of the web app.
        return _fail(
            request,
            failure,
            headers={"allow": ", ".join(methods_at(request.app.routes, request.scope) or ("GET", "HEAD"))},
        )
    return _fail(request, AppError("INVALID_REQUEST" if error.status_code < 500 else "INTERNAL", cause=error))


def _fail(request: Request, error: AppError, *, headers: Mapping[str, str] | None = None) -> Response:
    request.state.failure = error  # for the log entry
    write = openai_errors.response if openai_errors.speaks_at(request.scope["path"]) else failures.response
    return write(error, headers=headers)
