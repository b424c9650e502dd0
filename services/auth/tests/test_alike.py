"""Nobody learns from a log-in, a reset or a sign-up who has an account, from the answer or from its time."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from servicekit.errors import AppError
from servicekit.testing import mint_token
from services.auth.gotrue import FAILED_LOG_IN_SECONDS
from services.auth.mails import MOST_UNDER_WAY
from services.auth.tests.support import AnsweringServer, Client, served_without_database
from tests.support.waiting import until

EMAIL = "ada@example.com"
WRONG = (400, {"code": "invalid_credentials", "message": "Invalid login credentials"})


@pytest.fixture
def auth_server() -> Iterator[AnsweringServer]:
    with AnsweringServer().running() as server:
        server.headers = {"X-Supabase-Api-Version": "2024-01-01"}
        yield server


@pytest.fixture
async def client(auth_server: AnsweringServer, http: httpx.AsyncClient) -> AsyncIterator[Client]:
    async with served_without_database(auth_server.url, http) as connected:
        yield connected


def asked(server: AnsweringServer, path: str) -> list[bytes]:
    return [body for _, where, body in server.requests if where.startswith(path)]


async def test_a_log_in_fails_no_sooner_than_a_hash_takes(client: Client, auth_server: AnsweringServer) -> None:
    auth_server.answer = lambda *_: WRONG
    begun = time.monotonic()
    with pytest.raises(AppError) as refusal:
        await client.log_in(EMAIL)
    assert refusal.value.reason == "INVALID_CREDENTIALS"
    assert time.monotonic() - begun >= FAILED_LOG_IN_SECONDS


@pytest.mark.parametrize(
    ("email", "password", "tries"),
    [
        (EMAIL, "plain", 1),
        (EMAIL, "pa\u0308ss", 2),
        ("ada@b\u00fccher.example", "plain", 2),
        ("ada@b\u00fccher.example", "pa\u0308ss", 4),
    ],
)
async def test_how_often_a_log_in_is_tried_follows_from_what_was_given(
    client: Client, auth_server: AnsweringServer, email: str, password: str, tries: int
) -> None:
    auth_server.answer = lambda *_: WRONG
    with pytest.raises(AppError):
        await client.log_in(email, password)
    assert len(asked(auth_server, "/auth/v1/token")) == tries


@pytest.mark.parametrize("code", ["over_request_rate_limit", "user_banned"])
async def test_what_is_no_wrong_password_is_not_tried_again(
    client: Client, auth_server: AnsweringServer, code: str
) -> None:
    auth_server.answer = lambda *_: (400, {"code": code, "message": "…"})
    with pytest.raises(AppError) as refusal:
        await client.log_in(EMAIL, "pa\u0308ss")
    assert refusal.value.reason != "INVALID_CREDENTIALS"
    assert len(asked(auth_server, "/auth/v1/token")) == 1


async def test_a_reset_is_answered_before_the_mail_is_sent(client: Client, auth_server: AnsweringServer) -> None:
    is_sent = threading.Event()

    def answer(method: str, path: str, body: bytes) -> Any:
        if path.startswith("/auth/v1/recover"):
            is_sent.wait(60)
        return 200, {}

    auth_server.answer = answer
    try:
        await client.request_reset(EMAIL)
        await until(lambda: asked(auth_server, "/auth/v1/recover"), "the mail to be asked for")
    finally:
        is_sent.set()


@pytest.mark.parametrize(
    "refused",
    [
        (429, {"code": "over_email_send_rate_limit", "message": "For security purposes, …"}),
        (429, {"code": "email_address_not_authorized", "message": "…"}),
        (429, {"code": "over_request_rate_limit", "message": "…"}),
        (500, {"code": "unexpected_failure", "message": "Error sending recovery email"}),
    ],
)
async def test_a_reset_does_not_show_that_no_mail_was_sent(
    client: Client, auth_server: AnsweringServer, refused: Any
) -> None:
    auth_server.answer = lambda _, path, body: refused if path.startswith("/auth/v1/recover") else (200, {})
    await client.request_reset(EMAIL)
    await until(lambda: asked(auth_server, "/auth/v1/recover"), "the mail to be asked for")


async def test_mails_under_way_are_bounded_for_everybody(client: Client, auth_server: AnsweringServer) -> None:
    is_sent = threading.Event()

    def answer(method: str, path: str, body: bytes) -> Any:
        if path.startswith("/auth/v1/recover"):
            is_sent.wait(60)
        return 200, {}

    auth_server.answer = answer
    try:
        answers = await asyncio.gather(
            *(client.request_reset(f"p{number}@example.com") for number in range(MOST_UNDER_WAY + 3)),
            return_exceptions=True,
        )
    finally:
        is_sent.set()
    refusals = [answer for answer in answers if isinstance(answer, AppError)]
    assert [refusal.reason for refusal in refusals] == ["AUTH_RATE_LIMITED"] * 3
    await client.request_reset(EMAIL)


async def test_a_domain_that_cannot_exist_is_refused_by_us(client: Client, auth_server: AnsweringServer) -> None:
    for attempt in (client.sign_up, client.log_in, client.request_reset):
        with pytest.raises(AppError) as refusal:
            await attempt("ada@b\u00fc..example")
        assert refusal.value.reason == "EMAIL_REJECTED"
    assert {path for _, path, _ in auth_server.requests} <= {"/auth/v1/health"}


REGISTERED = (200, {"id": str(uuid4()), "aud": "authenticated", "role": "", "email": EMAIL, "app_metadata": {},
                    "user_metadata": {}, "identities": [], "created_at": "2026-01-01T00:00:00Z"})  # fmt: skip
"""What a project that confirms addresses says of one that has an account: a user who is made up, and no mail."""


@pytest.mark.parametrize("kind", ["confirmation", "magic link"])
@pytest.mark.parametrize("shape", [("code", "message"), ("error_code", "msg")])
async def test_a_sign_up_does_not_show_that_no_mail_was_sent(
    client: Client, auth_server: AnsweringServer, kind: str, shape: tuple[str, str]
) -> None:
    code, message = shape
    failed = 500, {code: "unexpected_failure", message: f"Error sending {kind} email"}
    answers = []
    for answer in (REGISTERED, failed):
        auth_server.answer = lambda *_, answer=answer: answer
        answers.append(await client.sign_up(EMAIL))
    known, new = answers
    assert known.user.id != new.user.id
    new.user.id = known.user.id
    assert new == known
    assert len(asked(auth_server, "/auth/v1/signup")) == 2, "a mail that failed is asked for once"


# What could not be verified is neither made nor spent


HS256_TOKEN = mint_token()
MADE = (200, {"access_token": HS256_TOKEN, "token_type": "bearer", "expires_in": 3600, "refresh_token": "r",
              "user": REGISTERED[1]})  # fmt: skip


async def attempts(client: Client) -> list[str]:
    """Return the reasons for which each way to sign in is refused."""
    found = []
    for attempt in (
        client.sign_up(EMAIL),
        client.log_in(EMAIL),
        client.refresh("r"),
        client.verify_otp("SIGNUP", email=EMAIL, token="123456"),
        client.complete_social("code", "verifier"),
    ):
        with pytest.raises(AppError) as refusal:
            await attempt
        found.append(refusal.value.reason)
    return found


async def test_a_project_that_signs_with_a_secret_that_is_missing_is_asked_for_no_account(
    auth_server: AnsweringServer, http: httpx.AsyncClient
) -> None:
    auth_server.answer = lambda _, path, body: (200, {"keys": []}) if "jwks" in path else MADE
    async with served_without_database(auth_server.url, http, jwt_secret=None) as client:
        assert await attempts(client) == ["JWT_SECRET_NEEDED"] * 5
    assert {path for _, path, _ in auth_server.requests} == {"/auth/v1/.well-known/jwks.json"}


async def test_where_only_a_token_shows_it_the_second_account_is_not_made(
    auth_server: AnsweringServer, http: httpx.AsyncClient
) -> None:
    public = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
    keys = {"keys": [{**public, "kid": "standby", "alg": "ES256"}]}
    auth_server.answer = lambda _, path, body: (200, keys) if "jwks" in path else MADE
    async with served_without_database(auth_server.url, http, jwt_secret=None) as client:
        assert await attempts(client) == ["JWT_SECRET_NEEDED"] * 5
    assert len(asked(auth_server, "/auth/v1/signup")) == 1
    assert asked(auth_server, "/auth/v1/token") == []
