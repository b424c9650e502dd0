import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from concerto.auth.v1 import auth_pb2

from servicekit.errors import AppError
from services.auth.tests.support import AnsweringServer, Client, new_email, served_without_database

CALLBACK = "http://127.0.0.1:9/auth/callback"


def github_knows(email: str, *, verified: bool = True) -> Callable[[str, str, bytes], tuple[int, Any]]:
    """Answer as GitHub does for the owner of an address."""
    number = uuid4().int % 10**9

    def answer(method: str, path: str, body: bytes) -> tuple[int, Any]:
        match path:
            case "/login/oauth/access_token":
                return 200, {"access_token": "of-github", "token_type": "bearer", "scope": "user:email"}
            case "/api/v3/user":
                return 200, {"id": number, "login": "ada", "name": "Ada Lovelace", "avatar_url": "https://a.example/a"}
            case "/api/v3/user/emails":
                return 200, [{"email": email, "verified": verified, "primary": True}]
        return 404, {}

    return answer


async def visit(http: httpx.AsyncClient, start: auth_pb2.StartSocialLogInResponse, host: str) -> dict[str, str]:
    """Go the browser's way: authorization address, provider, callback; return the last address's parameters."""
    first = await http.get(start.authorization_url)
    assert first.status_code == 302
    at_provider = parse_qs(urlsplit(first.headers["location"]).query)
    back = await http.get(f"{host}/auth/v1/callback", params={"code": "1234", "state": at_provider["state"][0]})
    assert back.status_code == 302
    target = urlsplit(back.headers["location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == CALLBACK
    return {name: values[0] for name, values in parse_qs(target.query).items()}


async def test_sign_in_with_a_provider_end_to_end(
    confirming_client: Client, second_host: Any, http: httpx.AsyncClient
) -> None:
    email = new_email()
    second_host.github.answer = github_knows(email)
    start = await confirming_client.start_social("GITHUB", CALLBACK)
    arrived = await visit(http, start, second_host.url)
    assert arrived["st"] == start.st
    answer = await confirming_client.complete_social(arrived["code"], start.code_verifier)
    assert answer.user.email == email
    assert answer.user.HasField("profile")
    assert (await confirming_client.get_me(answer.session.access_token)).id == answer.user.id
    assert (await confirming_client.refresh(answer.session.refresh_token)).user.id == answer.user.id
    with pytest.raises(AppError) as refusal:
        await confirming_client.complete_social(arrived["code"], start.code_verifier)
    assert refusal.value.reason == "SOCIAL_LOGIN_FAILED"


async def test_code_is_worth_nothing_with_another_verifier(
    confirming_client: Client, second_host: Any, http: httpx.AsyncClient
) -> None:
    second_host.github.answer = github_knows(new_email())
    mine = await confirming_client.start_social("GITHUB", CALLBACK)
    theirs = await confirming_client.start_social("GITHUB", CALLBACK)
    arrived = await visit(http, mine, second_host.url)
    with pytest.raises(AppError) as refusal:
        await confirming_client.complete_social(arrived["code"], theirs.code_verifier)
    assert refusal.value.reason == "SOCIAL_LOGIN_FAILED"


@pytest.mark.parametrize("code", ["garbage", "172dc959-2319-49b0-8156-d86f1093a886", "ü"])
async def test_unknown_code_is_refused(confirming_client: Client, code: str) -> None:
    with pytest.raises(AppError) as refusal:
        await confirming_client.complete_social(code, "v" * 64)
    assert refusal.value.reason == "SOCIAL_LOGIN_FAILED"


async def test_start_answers_fresh_secrets_that_fit_the_address(confirming_client: Client, second_host: Any) -> None:
    starts = [await confirming_client.start_social("GITHUB", f"{CALLBACK}?next=%2Fa%26b&st=old#x") for _ in range(5)]
    assert len({start.st for start in starts}) == len({start.code_verifier for start in starts}) == 5
    for start in starts:
        address = urlsplit(start.authorization_url)
        query = {name: values[0] for name, values in parse_qs(address.query, strict_parsing=True).items()}
        assert f"{address.scheme}://{address.netloc}{address.path}" == f"{second_host.url}/auth/v1/authorize"
        assert query.keys() == {"provider", "redirect_to", "code_challenge", "code_challenge_method"}
        assert (query["provider"], query["code_challenge_method"]) == ("github", "s256")
        redirect = urlsplit(query["redirect_to"])
        assert parse_qs(redirect.query) == {"next": ["/a&b"], "st": [start.st]}
        assert redirect.fragment == ""
        assert 43 <= len(start.code_verifier) <= 128
        digest = hashlib.sha256(start.code_verifier.encode()).digest()
        assert query["code_challenge"] == base64.urlsafe_b64encode(digest).decode().rstrip("=")


@pytest.mark.parametrize("provider", ["GITHUB", "GOOGLE"])
async def test_provider_that_is_not_switched_on_is_refused(client: Client, provider: str) -> None:
    with pytest.raises(AppError) as refusal:
        await client.start_social(provider)
    assert refusal.value.reason == "PROVIDER_DISABLED"
    assert refusal.value.metadata == {"provider": provider.lower()}


async def test_provider_settings_are_read_once_a_minute(http: httpx.AsyncClient) -> None:
    with AnsweringServer().running() as auth_server:
        auth_server.answer = lambda *_: (200, {"external": {"github": True, "google": False}})
        async with served_without_database(auth_server.url, http) as client:
            await client.start_social("GITHUB")
            with pytest.raises(AppError) as refusal:
                await client.start_social("GOOGLE")
            await client.start_social("GITHUB")
    assert refusal.value.reason == "PROVIDER_DISABLED"
    assert [path for _, path, _ in auth_server.requests if path.endswith("/settings")] == ["/auth/v1/settings"]


async def test_server_without_settings_decides_for_itself(http: httpx.AsyncClient) -> None:
    with AnsweringServer().running() as auth_server:
        async with served_without_database(auth_server.url, http) as client:
            assert (await client.start_social("GOOGLE")).authorization_url
