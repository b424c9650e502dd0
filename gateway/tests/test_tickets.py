import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
import structlog

from gateway.rest import tickets
from gateway.tests import fakes
from gateway.tests.fakes import RUN_ID, Neighbours, error_of
from servicekit.errors import AppError
from servicekit.testing import mint_token
from tests.support.telemetry import watched

Header = dict[str, str]
TICKET = f"/runs/{RUN_ID}/ticket"
EVENTS = f"/runs/{RUN_ID}/events"
INVALID = (401, "TICKET_INVALID")


async def ticket_of(client: httpx.AsyncClient, bearer: Header) -> str:
    response = await client.post(TICKET, headers=bearer)
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    assert response.json().keys() == {"ticket", "expires_at"}
    expires_in = datetime.fromisoformat(response.json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(seconds=50) < expires_in <= timedelta(seconds=60)
    return str(response.json()["ticket"])


async def test_a_stream_needs_no_header_where_its_address_has_a_ticket(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    ticket = await ticket_of(client, bearer)
    assert ticket == httpx.QueryParams(a=ticket)["a"]
    assert ticket.replace("-", "").replace("_", "").isalnum(), "nothing needs to be percent-encoded"
    response = await client.get(EVENTS, params={"after_seq": 2, "ticket": ticket}, headers={"last-event-id": "4"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["referrer-policy"] == "no-referrer"
    name, message, metadata = neighbours.last
    assert (name, message.run_id, message.after_seq) == ("StreamRun", RUN_ID, 4)
    assert metadata["authorization"] == bearer["authorization"], "the services see the user's own token"


async def test_another_replica_knows_the_ticket(neighbours: Neighbours, bearer: Header) -> None:
    secret = "s" * 32
    async with (
        fakes.gateway(neighbours, cookie_secret=secret) as one,
        fakes.gateway(neighbours, cookie_secret=secret) as other,
        fakes.gateway(neighbours, cookie_secret="t" * 32) as stranger,
    ):
        ticket = await ticket_of(one, bearer)
        assert (await other.get(EVENTS, params={"ticket": ticket})).status_code == 200
        assert error_of(await stranger.get(EVENTS, params={"ticket": ticket}))[:2] == INVALID


async def test_a_ticket_is_for_its_run_and_its_minute_only(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = await ticket_of(client, bearer)
    neighbours.calls.clear()
    refused = await client.get(f"/runs/{uuid4()}/events", params={"ticket": ticket})
    assert error_of(refused)[:2] == INVALID
    for path in (f"/runs/{RUN_ID}", "/sessions", "/auth/me"):
        assert error_of(await client.get(path, params={"ticket": ticket}))[:2] == (401, "TOKEN_MISSING")
    assert error_of(await client.post(TICKET, params={"ticket": ticket}))[:2] == (401, "TOKEN_MISSING")
    monkeypatch.setattr(tickets, "LIFE_SECONDS", -1)
    assert error_of(await client.get(EVENTS, params={"ticket": ticket}))[:2] == INVALID
    assert neighbours.calls == []


FORGERIES: list[Callable[[str], str]] = [
    lambda _: "",
    lambda _: "x",
    lambda _: "ä%00",
    lambda _: "A" * 60_000,
    lambda ticket: ticket[:-1],
    lambda ticket: ticket[:40] + ("A" if ticket[40] != "A" else "B") + ticket[41:],
    lambda ticket: f"{ticket}&ticket={ticket}",
]


@pytest.mark.parametrize("forge", FORGERIES)
async def test_a_forged_ticket_is_refused(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, forge: Callable[[str], str]
) -> None:
    ticket = await ticket_of(client, bearer)
    neighbours.calls.clear()
    assert error_of(await client.get(f"{EVENTS}?ticket={forge(ticket)}"))[:2] == INVALID
    assert neighbours.calls == []


async def test_a_ticket_is_given_for_ones_own_run_alone(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    assert error_of(await client.post(TICKET))[:2] == (401, "TOKEN_MISSING")
    assert error_of(await client.post("/runs/7/ticket", headers=bearer))[:2] == (400, "INVALID_FIELD")
    neighbours.answers["GetRun"] = AppError("RUN_NOT_FOUND", metadata={"run_id": RUN_ID})
    assert error_of(await client.post(TICKET, headers=bearer))[:2] == (404, "RUN_NOT_FOUND")


async def test_a_ticket_is_no_better_than_its_token(client: httpx.AsyncClient, bearer: Header) -> None:
    ticket = await ticket_of(client, bearer)
    response = await client.get(EVENTS, params={"ticket": ticket}, headers={"authorization": "Bearer no-token"})
    assert error_of(response)[:2] == (401, "TOKEN_INVALID"), "the header wins"


async def test_a_ticket_is_in_no_log_and_no_trace(neighbours: Neighbours) -> None:
    token = mint_token()
    with watched() as seen, structlog.testing.capture_logs() as entries:
        async with fakes.gateway(neighbours) as client:
            ticket = await ticket_of(client, {"authorization": f"Bearer {token}"})
            for query in (f"ticket={ticket}", f"ticket={ticket}&unknown=1", f"ticket={ticket[:-2]}"):
                await client.get(f"{EVENTS}?{query}")
    spans = json.dumps([[span.name, {**(span.attributes or {})}] for span in seen.spans], default=str)
    assert "GET /runs/{run_id}/events" in spans
    for secret in (ticket, ticket[:60], token):
        assert secret not in repr(entries)
        assert secret not in spans
