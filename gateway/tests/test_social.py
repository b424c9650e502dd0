from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from concerto.auth.v1 import auth_pb2
from cryptography.fernet import Fernet

from gateway.tests.fakes import Neighbours, error_of, gateway, signed_in
from gateway.web import social
from servicekit.errors import AppError

ADDRESS = "https://provider.example/authorize?x=1"
HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
JSON = {"accept": "application/json"}


@pytest.fixture
def auth(neighbours: Neighbours) -> Neighbours:
    """The auth service, ready for a sign-in with a provider."""
    neighbours.answers["StartSocialLogIn"] = auth_pb2.StartSocialLogInResponse(
        authorization_url=ADDRESS, st="the-st", code_verifier="the-verifier"
    )
    neighbours.answers["CompleteSocialLogIn"] = auth_pb2.CompleteSocialLogInResponse(**signed_in())
    return neighbours


async def start(client: httpx.AsyncClient, redirect_to: str = "/chat?tab=1") -> httpx.Response:
    return await client.get("/auth/social", params={"provider": "github", "redirect_to": redirect_to})


def cookie_of(response: httpx.Response) -> Any:
    return SimpleCookie(response.headers["set-cookie"])[social.COOKIE]


def assert_cleared(response: httpx.Response) -> None:
    cookie = cookie_of(response)
    assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", "/auth")


async def test_a_sign_in_begins_with_a_redirect_and_an_encrypted_cookie(
    client: httpx.AsyncClient, auth: Neighbours
) -> None:
    response = await start(client)
    assert response.status_code == 302
    assert response.headers["location"] == ADDRESS
    assert response.headers["cache-control"] == "no-store"
    cookie = cookie_of(response)
    assert (cookie["path"], cookie["max-age"], cookie["samesite"]) == ("/auth", "600", "lax")
    assert cookie["httponly"]
    assert not cookie["secure"]
    for secret in ("the-st", "the-verifier", "/chat"):
        assert secret not in response.headers["set-cookie"]
    asked = auth.last[1]
    assert asked.provider == auth_pb2.SOCIAL_PROVIDER_GITHUB
    assert asked.callback_url == "http://127.0.0.1:8000/auth/callback"


async def test_the_cookie_is_secure_where_the_gateway_is(auth: Neighbours) -> None:
    async with gateway(auth, public_url="https://api.example.org/") as client:
        response = await start(client)
    assert cookie_of(response)["secure"]
    assert auth.last[1].callback_url == "https://api.example.org/auth/callback"


async def test_the_callback_sends_a_browser_on_with_the_tokens_in_the_fragment(
    client: httpx.AsyncClient, auth: Neighbours
) -> None:
    await start(client)
    response = await client.get("/auth/callback", params={"st": "the-st", "code": "c0de", "extra": "1"}, headers=HTML)
    assert response.status_code == 303
    target = urlsplit(response.headers["location"])
    assert (target.scheme, target.netloc, target.path, target.query) == ("", "", "/chat", "tab=1")
    assert parse_qs(target.fragment) == {
        "access_token": ["at"],
        "refresh_token": ["rt"],
        "token_type": ["bearer"],
        "expires_in": ["3600"],
        "expires_at": ["1900000000"],
    }
    assert response.headers["cache-control"] == "no-store"
    assert_cleared(response)
    asked = auth.last[1]
    assert (asked.code, asked.code_verifier) == ("c0de", "the-verifier")


async def test_the_callback_answers_json_to_who_asks_for_it(client: httpx.AsyncClient, auth: Neighbours) -> None:
    await start(client)
    response = await client.get("/auth/callback", params={"st": "the-st", "code": "c0de"}, headers=JSON)
    assert response.status_code == 200
    assert response.json().keys() == {"user", "session"}
    assert response.json()["session"]["access_token"] == "at"
    assert_cleared(response)


async def test_a_code_works_in_the_browser_that_began_only(client: httpx.AsyncClient, auth: Neighbours) -> None:
    response = await client.get("/auth/callback", params={"st": "the-st", "code": "c0de"})
    assert error_of(response)[:2] == (401, "SOCIAL_LOGIN_FAILED")
    assert [call[0] for call in auth.calls] == []


@pytest.mark.parametrize("st", [None, "", "another", "the-st ", "thé-st"])
async def test_another_sign_ins_callback_is_refused(
    client: httpx.AsyncClient, auth: Neighbours, st: str | None
) -> None:
    await start(client)
    params = {"code": "c0de"} if st is None else {"code": "c0de", "st": st}
    response = await client.get("/auth/callback", params=params)
    assert error_of(response)[:2] == (401, "SOCIAL_LOGIN_FAILED")
    assert_cleared(response)
    assert auth.last[0] == "StartSocialLogIn"


@pytest.mark.parametrize(
    "cookie",
    ["garbage", "gAAAAA==", pytest.param(Fernet(Fernet.generate_key()).encrypt(b"{}").decode(), id="other key"), ""],
)
async def test_a_cookie_that_is_not_ours_is_refused(client: httpx.AsyncClient, auth: Neighbours, cookie: str) -> None:
    response = await client.get(
        "/auth/callback", params={"code": "c", "st": "the-st"}, headers={"cookie": f"{social.COOKIE}={cookie}"}
    )
    assert error_of(response)[:2] == (401, "SOCIAL_LOGIN_FAILED")
    assert auth.calls == []


async def test_the_cookie_is_found_among_others_which_nobody_reads(
    client: httpx.AsyncClient, auth: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Python unescapes a cookie of 64 KiB in seconds, in which it does nothing else.
    monkeypatch.setattr("starlette.requests.cookie_parser", None)
    started = await start(client)
    own = started.headers["set-cookie"].partition(";")[0]
    client.cookies.clear()
    escapes = chr(92) * 60_000
    cookies = f'a="{escapes}"; {own}; b; =c; ;'
    answer = await client.get("/auth/callback", params={"code": "c", "st": "the-st"}, headers={"cookie": cookies})
    assert (answer.status_code, auth.last[0]) == (303, "CompleteSocialLogIn")


async def test_a_cookie_that_is_too_old_is_refused(
    client: httpx.AsyncClient, auth: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(client)
    monkeypatch.setattr(social, "COOKIE_SECONDS", -1)
    response = await client.get("/auth/callback", params={"code": "c", "st": "the-st"})
    assert error_of(response)[:2] == (401, "SOCIAL_LOGIN_FAILED")


@pytest.mark.parametrize("params", [{"error": "access_denied", "error_description": "<b>no</b>"}, {"error_code": "x"}])
async def test_a_refusal_of_the_provider_is_a_failed_sign_in(
    client: httpx.AsyncClient, auth: Neighbours, params: dict[str, str]
) -> None:
    await start(client)
    response = await client.get("/auth/callback", params={"st": "the-st", **params})
    assert error_of(response) == (401, "SOCIAL_LOGIN_FAILED", {})
    assert_cleared(response)


async def test_a_callback_without_a_code_names_it(client: httpx.AsyncClient, auth: Neighbours) -> None:
    await start(client)
    response = await client.get("/auth/callback", params={"st": "the-st"})
    assert error_of(response) == (400, "MISSING_FIELD", {"field": "code"})


async def test_a_refusal_of_the_auth_service_clears_the_cookie(client: httpx.AsyncClient, auth: Neighbours) -> None:
    await start(client)
    auth.answers["CompleteSocialLogIn"] = AppError("SOCIAL_LOGIN_FAILED")
    response = await client.get("/auth/callback", params={"st": "the-st", "code": "used"})
    assert error_of(response)[:2] == (401, "SOCIAL_LOGIN_FAILED")
    assert_cleared(response)


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "javascript:alert(1)",
        "chat",
        "",
        " /chat",
        "/\x00",
    ],
)
async def test_a_redirect_never_leaves_the_application(
    client: httpx.AsyncClient, auth: Neighbours, target: str
) -> None:
    response = await start(client, target)
    assert error_of(response) == (400, "REDIRECT_NOT_ALLOWED", {"field": "redirect_to"})
    assert auth.calls == []


@pytest.mark.parametrize(
    ("query", "reason", "field"),
    [
        ("", "MISSING_FIELD", "provider"),
        ("provider=", "INVALID_FIELD", "provider"),
        ("provider=gitlab", "INVALID_FIELD", "provider"),
        ("provider=github&provider=google", "INVALID_FIELD", "provider"),
        ("provider=github&next=/", "UNKNOWN_FIELD", "next"),
        ("provider=github&redirect_to=/%23x", "INVALID_FIELD", "redirect_to"),
        (f"provider=github&redirect_to=/{'x' * 1024}", "FIELD_TOO_LARGE", "redirect_to"),
        ("provider=%ff", "INVALID_FIELD", "The query string"),
    ],
)
async def test_a_bad_start_names_the_field(
    client: httpx.AsyncClient, auth: Neighbours, query: str, reason: str, field: str
) -> None:
    status, found, metadata = error_of(await client.get(f"/auth/social?{query}"))
    assert (status, found, metadata["field"]) == (400, reason, field)
    assert auth.calls == []


async def test_a_provider_that_is_off_says_so(client: httpx.AsyncClient, auth: Neighbours) -> None:
    auth.answers["StartSocialLogIn"] = AppError("PROVIDER_DISABLED", metadata={"provider": "github"})
    assert error_of(await start(client))[:2] == (400, "PROVIDER_DISABLED")


PAGE = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_a_person_whose_sign_in_fails_comes_back_to_a_page_that_says_so(
    client: httpx.AsyncClient, auth: Neighbours
) -> None:
    await client.get("/auth/social?provider=github&redirect_to=/callback/%3Fnext%3D%252Fchat%252F")
    response = await client.get("/auth/callback", params={"st": "the-st", "error": "access_denied"}, headers=PAGE)
    assert response.status_code == 303
    assert response.headers["location"] == (
        "/callback/?next=%2Fchat%2F#error=access_denied&error_code=SOCIAL_LOGIN_FAILED"
    )
    assert_cleared(response)


async def test_a_person_without_the_cookie_comes_to_the_page_for_sign_ins(
    client: httpx.AsyncClient, auth: Neighbours
) -> None:
    response = await client.get("/auth/callback", params={"st": "the-st", "code": "c0de"}, headers=PAGE)
    assert response.headers["location"] == "/callback/#error=access_denied&error_code=SOCIAL_LOGIN_FAILED"
    assert auth.calls == []


async def test_a_person_who_chose_a_provider_that_is_off_comes_back(
    client: httpx.AsyncClient, auth: Neighbours
) -> None:
    auth.answers["StartSocialLogIn"] = AppError("PROVIDER_DISABLED", metadata={"provider": "github"})
    response = await client.get("/auth/social?provider=github&redirect_to=/callback/", headers=PAGE)
    assert response.headers["location"] == "/callback/#error=access_denied&error_code=PROVIDER_DISABLED"
