from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.tests.fakes import SESSION_ID, Neighbours, gateway
from servicekit.errors import AppError
from servicekit.testing import mint_token
from tests.support.telemetry import Watched, watched

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ORIGIN = "https://app.example.org"


@pytest.fixture
async def observed(neighbours: Neighbours) -> AsyncIterator[tuple[Watched, httpx.AsyncClient]]:
    """A gateway whose telemetry stays here, and a client of it that somebody is signed in to."""
    with watched() as seen:
        async with gateway(neighbours, cors_origins=ORIGIN) as client:
            client.headers["authorization"] = f"Bearer {mint_token()}"
            yield seen, client


async def test_a_request_goes_on_with_the_browsers_trace_and_is_named_by_its_route(
    observed: tuple[Watched, httpx.AsyncClient], neighbours: Neighbours
) -> None:
    seen, client = observed
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "swordfish=1", "x-request-id": "walk-3"}
    answer = await client.get(f"/sessions/{SESSION_ID}?unused", headers=headers)
    assert (answer.status_code, answer.headers["x-request-id"]) == (400, "walk-3")
    answer = await client.get(f"/sessions/{SESSION_ID}", headers=headers)
    assert answer.status_code == 200
    refused, served = [span for span in seen.spans if span.name == "GET /sessions/{session_id}"]
    assert refused.attributes is not None
    assert refused.attributes["error.type"] == "UNKNOWN_FIELD"
    assert dict(served.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/sessions/{session_id}",
        "http.response.status_code": 200,
    }
    assert served.parent is not None
    assert (f"{served.parent.trace_id:032x}", f"{served.parent.span_id:016x}") == (TRACE, PARENT)
    call = seen.span("concerto.sessions.v1.SessionsService/GetSession", "CLIENT")
    assert call.parent == served.context
    sent = neighbours.last[2]
    assert sent["traceparent"] == f"00-{TRACE}-{call.context.span_id:016x}-01"
    assert "tracestate" not in sent


async def test_what_somebody_wrote_is_in_no_span_and_no_metric(
    observed: tuple[Watched, httpx.AsyncClient], neighbours: Neighbours
) -> None:
    seen, client = observed
    neighbours.answers["LogIn"] = AppError("INVALID_CREDENTIALS")
    neighbours.answers["GetSession"] = AppError("SESSION_NOT_FOUND", metadata={"session_id": "swordfish"})
    await client.get("/sessions?query=swordfish")
    await client.get("/sessions?swordfish=1")
    await client.get("/swordfish/swordfish@example.com")
    await client.request("SWORDFISH", "/sessions")
    await client.post("/auth/login", json={"email": "swordfish@example.com", "password": "swordfish"})
    await client.post("/auth/login", content=b'{"email": "swordfish', headers={"content-type": "application/json"})
    await client.post(f"/sessions/{SESSION_ID}/turns", json={"content": "Where do swordfish sleep?"})
    await client.get(f"/sessions/{SESSION_ID}")
    assert "swordfish" not in seen.exported.lower()
    for secret in (SESSION_ID, client.headers["authorization"].removeprefix("Bearer ")):
        assert secret not in seen.exported


async def test_requests_are_counted_by_route_and_status(observed: tuple[Watched, httpx.AsyncClient]) -> None:
    seen, client = observed
    for path in (f"/sessions/{SESSION_ID}", f"/sessions/{SESSION_ID.replace('6', '7')}", "/nothing", "/healthz"):
        await client.get(path)
    await client.request("BREW", "/nothing")
    await client.post(f"/sessions/{SESSION_ID}/turns", json={"content": "Hello"})
    assert seen.samples("concerto_http_request_duration_seconds_count") == {
        ("GET", "/sessions/{session_id}", "200"): 2,
        ("GET", "-", "404"): 1,
        ("GET", "/healthz", "200"): 1,
        ("other", "-", "404"): 1,
        ("POST", "/sessions/{session_id}/turns", "200"): 1,
    }
    assert seen.value("concerto_http_active") == 0
    assert "GET /healthz" not in [span.name for span in seen.spans]


async def test_a_crash_is_a_failed_span_without_its_text(
    observed: tuple[Watched, httpx.AsyncClient], neighbours: Neighbours
) -> None:
    seen, client = observed

    async def crash(_: Any) -> Any:
        raise ValueError("swordfish")

    neighbours.answers["GetSession"] = crash
    assert (await client.get(f"/sessions/{SESSION_ID}")).status_code == 500
    span = seen.span("GET /sessions/{session_id}")
    assert (span.status.status_code.name, span.status.description) == ("ERROR", None)
    assert "swordfish" not in seen.exported


async def test_pages_of_other_origins_may_send_a_trace(observed: tuple[Watched, httpx.AsyncClient]) -> None:
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization, traceparent",
    }
    answer = await observed[1].options("/sessions", headers=headers)
    assert answer.status_code == 200
    assert "traceparent" in answer.headers["access-control-allow-headers"]


async def test_the_public_port_serves_no_metrics(observed: tuple[Watched, httpx.AsyncClient]) -> None:
    answer = await observed[1].get("/metrics")
    assert answer.status_code == 404
    assert "concerto_" not in answer.text
