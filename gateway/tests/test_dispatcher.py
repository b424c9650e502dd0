from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from gateway import failures
from gateway.app import Application
from gateway.rest.dispatcher import Dispatcher
from servicekit.errors import AppError

PATHS = [
    "/a", "/a/", "//a", "/a/new", "/a/1", "/a/1/", "/a/%2F", "/a/1/b", "/a/1/b/2", "/a/new/b/2", "/files", "/files/",
    "/files/x/y/z", "/f", "/", "", "/b", "/a%0A", "/a/1%0A", "/%61/new", "/a/1?x=/a/new", "/a//b/2", "/*",
]  # fmt: skip


async def named(request: Request) -> Response:
    route = request.scope["route"].path
    return PlainTextResponse(f"{request.method} {route} {dict(request.path_params)}")


async def nameless() -> Response:
    return PlainTextResponse("nameless")


async def wants_fastapi(request: Request, n: int = 0) -> Response:
    return PlainTextResponse(f"{request.url.path} {n + 1}")


def add_routes(app: FastAPI) -> None:
    for path, method in (
        ("/a", "GET"), ("/a/new", "GET"), ("/a/{id}", "GET"), ("/a/{id}", "DELETE"), ("/a/new", "POST"),
        ("/a/{id}/b/{other}", "GET"), ("/files/{path:path}", "GET"), ("/a/{id}/{rest:path}", "GET"),
    ):  # fmt: skip
        app.add_api_route(path, named, methods=[method])
    app.add_api_route("/", nameless, methods=["GET", "HEAD"])
    app.add_api_route("/b", wants_fastapi, methods=["GET"])


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway.test")


@pytest.fixture
async def clients() -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """The same routes as FastAPI serves them, and as the gateway does."""
    plain, ours = (
        FastAPI(openapi_url=None, redirect_slashes=False),
        Application(openapi_url=None, redirect_slashes=False),
    )
    for app in (plain, ours):
        add_routes(app)
    async with client_of(plain) as theirs, client_of(ours) as own:
        yield theirs, own


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS", "BREW"])
@pytest.mark.parametrize("path", PATHS)
async def test_requests_find_the_endpoint_that_fastapi_finds(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient], path: str, method: str
) -> None:
    theirs, own = [await client.request(method, path) for client in clients]
    assert (own.status_code, own.text, own.headers) == (theirs.status_code, theirs.text, theirs.headers)


async def test_an_endpoint_that_declares_parameters_is_left_to_fastapi(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient],
) -> None:
    theirs, own = [await client.get("/b?n=4") for client in clients]
    assert own.text == theirs.text == "/b 5"


async def test_what_stands_behind_a_route_for_any_path_is_left_to_the_router() -> None:
    async def router(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("router")(scope, receive, send)

    def refuse(_: Request, error: AppError) -> Response:
        return failures.response(error)

    routes = [Route("/first", named), Mount("/", PlainTextResponse("mounted")), Route("/behind", named)]
    dispatcher = Dispatcher(routes, router, on_error=refuse)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(dispatcher), base_url="http://gateway.test") as client:
        assert (await client.get("/first")).text == "GET /first {}"
        assert (await client.get("/behind")).text == "router"
