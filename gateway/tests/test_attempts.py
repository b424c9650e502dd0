import contextlib
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from concerto.auth.v1 import auth_pb2

from gateway.app import build
from gateway.attempts import LIMITED, client_network
from gateway.devices import MOST_ACCOUNTS
from gateway.rest import contract
from gateway.tests.fakes import SESSION_ID, Neighbours, client_of, error_of, gateway, gateway_settings, serving
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


async def test_attempts_are_counted_by_the_one_spelling_of_an_address() -> None:
    neighbours = Neighbours()
    neighbours.answers["LogIn"] = AppError("INVALID_CREDENTIALS")
    async with gateway(neighbours, login_limit_per_email="2/minute") as client:
        spellings = (
            "jos\u00e9@b\u00fccher.example",
            "JOSE\u0301@BU\u0308CHER.example",
            "jos\u00e9@xn--bcher-kva.example",
        )
        assert [(await log_in(client, email)).status_code for email in spellings] == [401, 401, 429]


@contextlib.asynccontextmanager
async def many_clients(neighbours: Neighbours, **settings: Any) -> AsyncIterator[Callable[[], httpx.AsyncClient]]:
    """Yield what makes clients of one gateway, each with an address of its own."""
    async with contextlib.AsyncExitStack() as stack:
        target = await stack.enter_async_context(serving(neighbours))
        app = await stack.enter_async_context(build(gateway_settings(target, **settings)))
        addresses = [(f"203.0.113.{number}", 1) for number in range(1, 13)]
        opened = [await stack.enter_async_context(client_of(app, client=address)) for address in addresses]
        yield iter(opened).__next__


def signed_in(email: str = "ada@example.com") -> auth_pb2.LogInResponse:
    user = auth_pb2.User(id=SESSION_ID, email=email)
    return auth_pb2.LogInResponse(user=user, session=auth_pb2.AuthSession(access_token="a", token_type="bearer"))


async def test_a_stranger_elsewhere_uses_up_no_attempt_of_the_owner() -> None:
    async with many_clients(Neighbours(), login_limit_per_email="2/minute") as new_client:
        stranger, owner = new_client(), new_client()
        assert [(await log_in(stranger)).status_code for _ in range(4)] == [200, 200, 429, 429]
        assert [(await log_in(owner)).status_code for _ in range(3)] == [200, 200, 429]


async def test_many_addresses_together_are_limited_per_account_and_lock_out_no_known_browser() -> None:
    neighbours = Neighbours()
    neighbours.answers["LogIn"] = signed_in()
    limits = {"login_limit_per_email": "3/minute", "login_limit_per_account": "5/minute"}
    async with many_clients(neighbours, **limits) as new_client:
        owner, other = new_client(), new_client()
        known = await log_in(owner)
        cookie = known.headers["set-cookie"]
        assert all(part in cookie.lower() for part in ("httponly", "samesite=lax", "path=/auth", "max-age="))
        assert "ada" not in cookie
        neighbours.answers["LogIn"] = AppError("INVALID_CREDENTIALS")
        statuses = [(await log_in(new_client())).status_code for _ in range(6)]
        assert statuses == [401, 401, 401, 401, 429, 429]
        # The owner's browser has attempts of its own, from wherever; a browser known to another account has not.
        assert [(await log_in(owner)).status_code for _ in range(4)] == [401, 401, 401, 429]
        other.cookies = owner.cookies
        assert (await log_in(other)).status_code == 429
        assert (await log_in(other, "grace@example.com")).status_code == 401


async def test_a_mark_of_another_account_or_another_gateway_makes_no_browser_known() -> None:
    neighbours = Neighbours()
    neighbours.answers["LogIn"] = signed_in("grace@example.com")
    limits = {"login_limit_per_account": "1/minute"}
    async with many_clients(neighbours, **limits) as new_client:
        grace = new_client()
        assert (await log_in(grace, "grace@example.com")).status_code == 200
        assert (await log_in(grace)).status_code == 200
        assert (await log_in(grace)).status_code == 429
        kept = grace.cookies["concerto_device"]
    async with many_clients(neighbours, **limits) as new_client:
        for number, forged in enumerate((kept, kept[:-2], "x" * 5000, "~" * 5000, "gAAAAAB=")):
            stranger, email = new_client(), f"p{number}@example.com"
            assert (await log_in(stranger, email)).status_code == 200
            stranger.cookies.clear()
            assert (await log_in(stranger, email, cookie=f"concerto_device={forged}")).status_code == 429


async def test_a_browser_is_known_to_the_last_few_accounts_that_it_signed_in_to() -> None:
    neighbours = Neighbours()
    emails = [f"p{number}@example.com" for number in range(MOST_ACCOUNTS + 1)]
    async with many_clients(neighbours, login_limit_per_account="1/minute") as new_client:
        browser = new_client()
        for email in (*emails, emails[-1]):
            neighbours.answers["LogIn"] = signed_in(email)
            assert (await log_in(browser, email)).status_code == 200
        statuses = [(await log_in(browser, email)).status_code for email in emails]
    assert statuses == [429] + [200] * MOST_ACCOUNTS


async def test_only_a_sign_in_makes_a_browser_known() -> None:
    neighbours = Neighbours()
    neighbours.answers["SignUp"] = auth_pb2.SignUpResponse(user=auth_pb2.User(id=SESSION_ID, email="ada@example.com"))
    async with gateway(neighbours) as client:
        for path, body in (
            ("/auth/signup", {"email": "ada@example.com", "password": "pw"}),
            ("/auth/password/reset", {"email": "ada@example.com"}),
        ):
            answer = await client.post(path, json=body)
            assert answer.is_success
            assert "set-cookie" not in answer.headers


async def test_attempts_per_address_are_limited() -> None:
    async with gateway(Neighbours(), login_limit_per_address="3/minute") as client:
        statuses = [(await log_in(client, f"person-{number}@example.com")).status_code for number in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


async def test_renewals_are_limited_per_address_and_make_no_browser_known() -> None:
    neighbours = Neighbours()
    async with gateway(neighbours, login_limit_per_address="3/minute") as client:
        answers = [await client.post("/auth/refresh", json={"refresh_token": f"token-{number}"}) for number in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert error_of(answers[-1])[1] == "TOO_MANY_ATTEMPTS"
        assert all("set-cookie" not in answer.headers for answer in answers)
        assert (await log_in(client)).status_code == 200
    assert len(neighbours.calls) == 4


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
