from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.rest import contract
from gateway.rest.contract import Binding
from gateway.tests import fakes
from gateway.tests.fakes import SESSION_ID, Neighbours, delta, error_of, started
from servicekit.testing import mint_token
from tests.support.waiting import forever

Header = dict[str, str]
BINDINGS = contract.bindings(contract.SERVICES)
IDS = {"session_id": SESSION_ID, "run_id": fakes.RUN_ID}
QUERIES = {"SearchMessages": "?query=a", "StartSocialLogIn": "?provider=github"}
GOT = [binding for binding in BINDINGS if binding.verb == "GET"]
OWN = ["/healthz", "/readyz", "/openapi.json", "/docs", "/docs/start.js", "/config.json", "/v1/models", "/v1/models/a"]
CHANGING = {"date", "x-request-id", "set-cookie"}
"""Headers that two answers to one question need not share."""


def address(binding: Binding) -> str:
    ids = {name: IDS.get(name, SESSION_ID) for name in binding.path_fields}
    return binding.path.format_map(ids)


PATHS = [address(binding) + QUERIES.get(binding.operation_id, "") for binding in GOT] + OWN


@pytest.fixture(scope="module")
async def reached() -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway over a real socket, as only there it shows what is sent behind a head."""
    async with fakes.gateway_over_http(Neighbours()) as client:
        client.headers["authorization"] = f"Bearer {mint_token()}"
        yield client


def lasting(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name not in CHANGING}


def test_there_is_a_route_of_each_kind() -> None:
    assert len(GOT) > 10
    assert any(binding.is_stream for binding in GOT)
    assert any(binding.policy.handwritten_reason for binding in GOT)


@pytest.mark.parametrize("path", PATHS)
async def test_what_can_be_got_answers_head_with_the_same_status_and_headers(
    reached: httpx.AsyncClient, path: str
) -> None:
    got = await reached.get(path)
    asked = await reached.head(path)
    if path.startswith("/auth/callback"):
        # It spends a code, which who only looks must not do.
        assert (asked.status_code, asked.content) == (200, b"")
        return
    assert (asked.status_code, asked.content) == (got.status_code, b"")
    expected = lasting(got)
    if expected.pop("transfer-encoding", None):  # of a body whose length nobody knows
        assert "content-length" not in asked.headers
    assert lasting(asked) == expected
    # The connection is where both sides think it is.
    assert (await reached.get("/healthz")).json() == {"status": "serving"}


@pytest.mark.parametrize("path", PATHS)
async def test_head_is_refused_as_get_is(reached: httpx.AsyncClient, path: str) -> None:
    stranger = {"authorization": "Bearer x"}
    got, asked = [await reached.request(method, path, headers=stranger) for method in ("GET", "HEAD")]
    if not path.startswith("/auth/callback"):
        assert (asked.status_code, asked.content) == (got.status_code, b"")


async def test_head_of_a_stream_is_a_reader_that_leaves() -> None:
    neighbours = Neighbours()

    async def endless(_: object) -> AsyncIterator[Any]:
        yield started()
        yield delta(2, "a")
        await forever()

    neighbours.turn = endless
    async with fakes.gateway_over_http(neighbours) as client:
        headers = {"authorization": f"Bearer {mint_token()}"}
        response = await client.head(f"/runs/{fakes.RUN_ID}/events", headers=headers)
        await neighbours.cancelled.wait()
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/event-stream")


async def test_head_of_the_callback_spends_no_code(client: httpx.AsyncClient, neighbours: Neighbours) -> None:
    response = await client.head("/auth/callback?code=abc&st=x")
    assert response.status_code == 200
    assert neighbours.calls == []


@pytest.mark.parametrize("binding", BINDINGS, ids=lambda one: one.operation_id)
async def test_a_slash_behind_a_path_changes_nothing(
    client: httpx.AsyncClient, bearer: Header, binding: Binding
) -> None:
    query = QUERIES.get(binding.operation_id, "")
    body: dict[str, str] | None = {} if binding.body else None
    plain, slashed = [
        await client.request(binding.verb, f"{address(binding)}{slash}{query}", json=body, headers=bearer)
        for slash in ("", "/")
    ]
    assert slashed.status_code == plain.status_code != 404
    assert lasting(slashed) == lasting(plain)
    assert slashed.content == plain.content


@pytest.mark.parametrize("path", OWN)
async def test_a_slash_behind_the_gateways_own_paths_changes_nothing(
    client: httpx.AsyncClient, bearer: Header, path: str
) -> None:
    plain, slashed = [await client.get(path + slash, headers=bearer) for slash in ("", "/")]
    assert (slashed.status_code, slashed.content) == (plain.status_code, plain.content)


async def test_the_list_of_models_has_a_slash_behind_it_or_not(client: httpx.AsyncClient, bearer: Header) -> None:
    for path in ("/v1/models", "/v1/models/"):
        assert (await client.get(path, headers=bearer)).json()["object"] == "list"
        assert (await client.get(path)).status_code == 401
    assert (await client.post("/v1/models/", headers=bearer)).status_code == 405


async def test_another_method_on_a_path_with_a_slash_is_405_and_two_slashes_are_404(
    client: httpx.AsyncClient, bearer: Header
) -> None:
    refused = await client.put(f"/sessions/{SESSION_ID}/", json={}, headers=bearer)
    assert error_of(refused)[:2] == (405, "METHOD_NOT_ALLOWED")
    assert refused.headers["allow"] == "DELETE, GET, HEAD, PATCH"
    assert error_of(await client.get("/sessions//", headers=bearer))[:2] == (404, "ROUTE_NOT_FOUND")


async def test_the_log_names_the_route_of_a_path_with_a_slash(
    client: httpx.AsyncClient, bearer: Header, capsys: pytest.CaptureFixture[str]
) -> None:
    await client.get("/sessions/", headers=bearer)
    assert "route=/sessions " in capsys.readouterr().out
