import asyncio
import signal
import socket
import sys
from typing import Any

import httpx
import pytest
import structlog
from grpc_health.v1 import health_pb2

from gateway import middleware
from gateway.app import build
from gateway.health import Health
from gateway.rest import contract
from gateway.tests import fakes
from gateway.tests.fakes import (
    SESSION_ID,
    Neighbours,
    client_of,
    error_of,
    gateway,
    gateway_settings,
    listening,
    serving,
)
from gateway.web import pages
from servicekit import parts
from servicekit.rpc.identity import Verifier
from servicekit.testing import mint_token
from tests.support.waiting import until

Header = dict[str, str]
ORIGIN = "https://app.example.org"
API_POLICY = middleware.SECURITY_HEADERS["content-security-policy"]
EVERYWHERE = [("GET", "/"), ("GET", "/nothing"), ("GET", "/auth/me"), ("PUT", "/sessions"), ("GET", "/healthz")]


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
async def test_every_answer_has_the_security_headers_and_a_request_id(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await client.request(method, path)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["content-security-policy"] == API_POLICY
    assert len(response.headers["x-request-id"]) == 36


@pytest.mark.parametrize(("method", "path"), EVERYWHERE)
async def test_a_clients_request_id_comes_back(client: httpx.AsyncClient, method: str, path: str) -> None:
    response = await client.request(method, path, headers={"x-request-id": "walk/7.a"})
    assert response.headers["x-request-id"] == "walk/7.a"


@pytest.mark.parametrize("unfit", ["a b", "x" * 129, '"><script>', ""])
async def test_an_unfit_request_id_is_replaced(client: httpx.AsyncClient, unfit: str) -> None:
    response = await client.get("/healthz", headers={"x-request-id": unfit})
    assert len(response.headers["x-request-id"]) == 36


async def test_one_log_entry_per_request_tells_who_and_how_but_not_what(
    client: httpx.AsyncClient, neighbours: Neighbours
) -> None:
    user_id = "3f0c6a1e-8b1d-4a63-9a55-1c1f5e1d2c3b"
    token = mint_token(user_id)
    headers = {"authorization": f"Bearer {token}", "x-request-id": "walk-2"}
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as entries:
        await client.get(f"/sessions/{SESSION_ID}", headers=headers)
        await client.get("/sessions?query=secret-plans", headers=headers)
        await client.post("/auth/login", json={"email": "ada@example.com", "password": "swordfish"})
        await client.get("/nothing/secret-plans")
    entries = [entry for entry in entries if entry["event"] == "request.finished"]
    assert len(entries) == 4
    first = entries[0]
    assert (first["method"], first["route"], first["status"]) == ("GET", "/sessions/{session_id}", 200)
    assert (first["user_id"], first["request_id"]) == (user_id, "walk-2")
    assert first["milliseconds"] >= 0
    assert "user_id" not in entries[2]
    assert entries[3]["route"] == "-"
    assert entries[3]["reason"] == "ROUTE_NOT_FOUND"
    for secret in (token, "secret-plans", "swordfish", "ada@example.com", SESSION_ID):
        assert secret not in repr(entries)


async def test_other_origins_are_shut_out_unless_they_are_named(client: httpx.AsyncClient) -> None:
    assert "access-control-allow-origin" not in (await client.get("/healthz", headers={"origin": ORIGIN})).headers
    async with gateway(Neighbours(), cors_origins=f"{ORIGIN}/, http://localhost:3000") as named:
        response = await named.get("/auth/me", headers={"origin": ORIGIN})
        assert response.status_code == 401
        assert response.headers["access-control-allow-origin"] == ORIGIN
        exposed = set(response.headers["access-control-expose-headers"].split(", "))
        assert exposed == {"X-Request-Id", "Retry-After", "X-Should-Retry"}
        assert "access-control-allow-credentials" not in response.headers
        stranger = await named.get("/healthz", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in stranger.headers


@pytest.mark.parametrize(
    "asked",
    [
        {"access-control-request-method": "PATCH", "access-control-request-headers": "authorization, x-request-id"},
        {
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type,openai-organization,user-agent,"
            "x-stainless-arch,x-stainless-helper-method,x-stainless-retry-count,x-of-next-year",
        },
        {"access-control-request-method": "HEAD"},
        {"access-control-request-method": "GET", "access-control-request-private-network": "true"},
    ],
)
async def test_a_preflight_of_an_allowed_origin_gets_what_it_asks_for(asked: dict[str, str]) -> None:
    async with gateway(Neighbours(), cors_origins=ORIGIN) as client:
        response = await client.options("/v1/chat/completions", headers={"origin": ORIGIN, **asked})
        assert response.status_code == 200
        allowed = {name: value for name, value in response.headers.items() if name.startswith("access-control-allow-")}
        assert asked["access-control-request-method"] in allowed["access-control-allow-methods"]
        for name in ("headers", "private-network"):
            if f"access-control-request-{name}" in asked:
                assert allowed[f"access-control-allow-{name}"] == asked[f"access-control-request-{name}"]
        stranger = await client.options("/v1/chat/completions", headers={"origin": "https://evil.example", **asked})
        assert stranger.status_code == 400
        assert "access-control-allow-origin" not in stranger.headers


async def test_liveness_needs_no_service() -> None:
    async with build(gateway_settings()) as app, client_of(app) as client:
        assert (await client.get("/healthz")).json() == {"status": "serving"}
        assert (await client.head("/healthz")).status_code == 200


async def test_readiness_tells_each_services_state() -> None:
    serving_all = {part.name: "serving" for part in parts.SERVICES}
    async with fakes.key_set() as project, gateway(Neighbours(), supabase_url=project.url) as client:
        response = await client.get("/readyz")
        assert response.status_code == 200
        assert response.json() == {"status": "serving", "keys": "serving", "services": serving_all}


async def test_it_is_ready_once_it_has_keys_whether_or_not_anybody_calls() -> None:
    async def is_ready() -> bool:
        return (await client.get("/readyz")).is_success

    async with fakes.key_set() as project, gateway(Neighbours(), supabase_url=project.url) as client:
        project.is_down = True
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["keys"]) == (503, "unreachable")
        project.is_down = False
        await until(is_ready, "the keys")
        project.is_down = True
        assert await is_ready(), "the keys that it has are good"


class CountingChannel:
    """A channel to a service that is ready, and is asked so often."""

    def __init__(self) -> None:
        self.asked = 0

    def unary_unary(self, *_: object, **__: object) -> Any:
        async def check(*_: object, **__: object) -> health_pb2.HealthCheckResponse:
            self.asked += 1
            await asyncio.sleep(0)
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

        return check

    unary_stream = unary_unary


async def test_many_who_ask_for_readiness_at_once_cost_no_more_than_one() -> None:
    channel = CountingChannel()
    verifier = Verifier(gateway_settings())
    health = Health({service.full_name: channel for service in contract.SERVICES}, verifier)  # type: ignore[misc]
    answers = await asyncio.gather(*(health.states() for _ in range(50)))
    assert all(set(states.values()) == {"serving"} for states in answers)
    assert channel.asked == len(contract.SERVICES)
    await health.states()
    assert channel.asked == 2 * len(contract.SERVICES)


async def test_readiness_tells_a_service_that_is_not_ready_from_one_that_is_gone() -> None:
    neighbours = Neighbours()
    neighbours.ready = False
    async with (
        serving(neighbours) as target,
        build(gateway_settings(target, orchestrator_target="127.0.0.1:9")) as app,
        client_of(app) as client,
    ):
        response = await client.get("/readyz")
    assert response.status_code == 503
    services = {**{part.name: "not_serving" for part in parts.SERVICES}, "orchestrator": "unreachable"}
    assert response.json() == {"status": "not_serving", "keys": "unreachable", "services": services}


async def test_the_web_app_is_configured_from_here() -> None:
    asked = 0

    async def supabase(scope: Any, receive: Any, send: Any) -> None:
        nonlocal asked
        asked += 1
        assert dict(scope["headers"])[b"apikey"] == b"sb_publishable_x"
        body = b'{"external": {"github": true, "google": false, "email": true}}'
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async with listening(supabase) as port:
        url = f"http://127.0.0.1:{port}"
        settings = gateway_settings(supabase_url=url, supabase_publishable_key="sb_publishable_x")
        async with build(settings) as app, client_of(app) as client:
            for _ in range(3):
                response = await client.get("/config.json")
    assert asked == 1
    body = response.json()
    assert body.pop("version")
    assert body == {"supabase_url": url, "supabase_publishable_key": "sb_publishable_x", "providers": ["github"]}


async def test_browsers_are_sent_to_the_address_that_they_can_reach() -> None:
    settings = gateway_settings(supabase_url="http://supabase:8001", supabase_public_url="http://127.0.0.1:8001/")
    async with build(settings) as app, client_of(app) as client:
        assert (await client.get("/config.json")).json()["supabase_url"] == "http://127.0.0.1:8001"


async def test_the_configuration_needs_no_supabase() -> None:
    async with build(gateway_settings()) as app, client_of(app) as client:
        assert (await client.get("/config.json")).json()["providers"] == []


async def test_the_documentation_loads_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert "://" not in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert (await client.get("/docs/start.js")).headers["content-type"].startswith("text/javascript")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"):
        assert f"/docs/{name}" in page.text
        assert (await client.get(f"/docs/{name}")).status_code == 200
    assert error_of(await client.get("/docs/package.json"))[0] == 404
    assert error_of(await client.get("/docs/..%2fpackage.json"))[0] == 404


async def test_without_its_files_the_documentation_points_to_the_document(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(pages, "DOCS_ASSETS", tmp_path)
    response = await client.get("/docs")
    assert response.status_code == 200
    assert 'href="/openapi.json"' in response.text
    assert "<script" not in response.text
    assert (await client.get("/docs/swagger-ui.css")).status_code == 404


async def start_process(port: int, **variables: str) -> asyncio.subprocess.Process:
    environment = {"CONCERTO_ENV_FILE": "/dev/null", "GATEWAY_PORT": str(port)}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", env={**environment, **variables}, stderr=asyncio.subprocess.PIPE
    )


async def test_the_process_serves_until_sigterm_and_ends_with_0() -> None:
    process = await start_process(0, CONCERTO_LOG_FORMAT="json")
    assert process.stderr is not None
    lines: list[bytes] = []
    while not lines or b"server.started" not in lines[-1]:
        lines.append(await process.stderr.readline())
        assert lines[-1], b"".join(lines)
    port = int(lines[-1].split(b"127.0.0.1:")[1].split(b'"')[0])
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        response = await client.get("/sessions?query=secret-plans", headers={"x-request-id": "walk-3"})
        assert response.status_code == 401
        assert "server" not in response.headers
    process.send_signal(signal.SIGTERM)
    log = (await process.stderr.read()).decode()
    assert await process.wait() == 0
    assert '"request_id": "walk-3"' in log
    assert "server.stopped" in log
    assert "secret-plans" not in log
    assert "Traceback" not in log


async def test_a_taken_port_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await start_process(taken.getsockname()[1])
        assert process.stderr is not None
        log = (await process.stderr.read()).decode()
        assert await process.wait() == 1
    assert "Set GATEWAY_PORT to a free port" in log
    assert "Traceback" not in log


async def test_wrong_settings_are_named() -> None:
    process = await start_process(
        8000,
        GATEWAY_CORS_ORIGINS="app.example.org",
        GATEWAY_LOGIN_LIMIT_PER_EMAIL="often",
        GATEWAY_COOKIE_SECRET="short",
        GATEWAY_PUBLIC_URL="example.org",
    )
    assert process.stderr is not None
    log = (await process.stderr.read()).decode()
    assert await process.wait() == 1
    for name in (
        "GATEWAY_CORS_ORIGINS",
        "GATEWAY_LOGIN_LIMIT_PER_EMAIL",
        "GATEWAY_COOKIE_SECRET",
        "GATEWAY_PUBLIC_URL",
    ):
        assert name in log
    assert "Traceback" not in log


def test_production_needs_a_cookie_secret() -> None:
    with pytest.raises(ValueError, match="GATEWAY_COOKIE_SECRET"):
        gateway_settings(environment="production")
    assert gateway_settings(environment="production", cookie_secret="x" * 32).cookie_key() == b"x" * 32
