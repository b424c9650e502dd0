import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from gateway.app import build
from gateway.attempts import LIMITED, client_network
from gateway.rest import contract
from gateway.tests.fakes import Neighbours, client_of, error_of, gateway, gateway_settings, serving
from servicekit.errors import AppError


async def log_in(client: httpx.AsyncClient, email: str = "ada@example.com", **headers: str) -> httpx.Response:
    return await client.post("/auth/login", json={"email": email, "password": "pw"}, headers=headers)


async def test_attempts_per_email_are_limited_however_it_is_spelt() -> None:
    neighbours = Neighbours()
    neighbours.answers["LogIn"] = AppError("INVALID_CREDENTIALS")
    async with gateway(neighbours, login_limit_per_email="2/minute") as client:
        assert (await log_in(client)).status_code == 401
        assert (await log_in(client, "ADA@Example.com")).status_code == 401
        refused = await log_in(client, "Ada@example.COM")
        status, reason, metadata = error_of(refused)
        assert (status, reason) == (429, "TOO_MANY_ATTEMPTS")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert metadata["retry_after_seconds"] == refused.headers["retry-after"]
        assert (await log_in(client, "grace@example.com")).status_code == 401
    assert len(neighbours.calls) == 3


async def test_attempts_per_address_are_limited() -> None:
    async with gateway(Neighbours(), login_limit_per_address="3/minute") as client:
        statuses = [(await log_in(client, f"person-{number}@example.com")).status_code for number in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/auth/signup", {"email": "ada@example.com", "password": "pw"}),
        ("/auth/password/reset", {"email": "ada@example.com"}),
        ("/auth/verify", {"type": "recovery", "email": "ada@example.com", "token": "123456"}),
    ],
)
async def test_sign_ups_resets_and_codes_are_limited_by_themselves(path: str, body: dict[str, Any]) -> None:
    async with gateway(Neighbours(), login_limit_per_email="1/minute") as client:
        assert (await client.post(path, json=body)).is_success
        assert (await client.post(path, json=body)).status_code == 429
        assert (await log_in(client)).status_code == 200


async def test_links_of_mails_name_no_account_and_are_limited_per_address() -> None:
    body = {"type": "recovery", "token_hash": "x"}
    async with gateway(Neighbours(), login_limit_per_email="1/minute", login_limit_per_address="3/minute") as client:
        statuses = [(await client.post("/auth/verify", json=body)).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]


async def test_an_address_has_tried_before_its_body_is_read_and_an_account_only_by_what_can_be_an_attempt() -> None:
    read: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(len(read))
        yield json.dumps({"email": "ada@example.com", "password": "pw"}).encode()

    async with gateway(Neighbours(), login_limit_per_address="3/minute", login_limit_per_email="1/minute") as client:
        wrong = {"email": "ada@example.com", "password": "pw", "more": 1}
        assert (await client.post("/auth/login", json=wrong)).status_code == 400
        assert (await log_in(client)).status_code == 200
        headers = {"content-type": "application/json"}
        statuses = [(await client.post("/auth/login", content=body(), headers=headers)).status_code for _ in range(3)]
        assert statuses == [429, 429, 429]
    # The first of them was one too many for the account, which its body names; the others were so for the address.
    assert read == [0]


async def test_a_forwarded_address_is_believed_only_from_a_trusted_proxy() -> None:
    # The client within the process has the address 127.0.0.1.
    for trusted, expected in (("", [200, 429]), ("10.0.0.0/8", [200, 429]), ("127.0.0.1", [200, 200])):
        async with gateway(Neighbours(), login_limit_per_address="1/minute", trusted_proxies=trusted) as client:
            answers = [
                await log_in(client, f"p{number}@example.com", **{"x-forwarded-for": f"203.0.113.{number}"})
                for number in range(2)
            ]
        assert [answer.status_code for answer in answers] == expected


async def test_a_client_cannot_forge_its_way_past_a_trusted_proxy() -> None:
    async with gateway(Neighbours(), login_limit_per_address="1/minute", trusted_proxies="127.0.0.1") as client:
        answers = [
            await log_in(client, f"p{number}@example.com", **{"x-forwarded-for": f"198.51.100.{number}, 203.0.113.9"})
            for number in range(2)
        ]
    assert [answer.status_code for answer in answers] == [200, 429]


async def test_clients_with_addresses_of_their_own_do_not_share_a_limit() -> None:
    async with (
        serving(Neighbours()) as target,
        build(gateway_settings(target, login_limit_per_address="1/minute")) as app,
        client_of(app, client=("203.0.113.1", 1)) as one,
        client_of(app, client=("203.0.113.2", 1)) as other,
    ):
        assert (await log_in(one, "a@example.com")).status_code == 200
        assert (await log_in(other, "b@example.com")).status_code == 200
        assert (await log_in(one, "c@example.com")).status_code == 429


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("testclient", "testclient"),
    ],
)
def test_an_ipv6_customer_is_one_client(host: str, network: str) -> None:
    assert client_network(SimpleNamespace(client=SimpleNamespace(host=host))) == network  # type: ignore[arg-type]


def test_the_limited_operations_are_operations_with_an_email() -> None:
    found = {one.operation_id: one.request_type for one in contract.bindings(contract.SERVICES)}
    assert all("email" in found[name].DESCRIPTOR.fields_by_name for name in LIMITED)
    with_email = {name for name, kind in found.items() if "email" in kind.DESCRIPTOR.fields_by_name}
    assert with_email == LIMITED
