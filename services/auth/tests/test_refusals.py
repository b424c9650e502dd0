import asyncio
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from concerto.auth.v1 import auth_pb2
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.reasons import REASONS
from servicekit.testing import make_caller, mint_token
from services.auth.gotrue import GoTrue
from services.auth.refusals import REASONS_BY_CALL, REASONS_BY_CODE, Call
from services.auth.tests.support import AnsweringServer, Client, served_without_database

EMAIL = "ada@example.com"
SECRET = "a-secret-that-must-not-show"
MESSAGES = {
    Call.SIGN_UP: ("SignUp", auth_pb2.SignUpRequest(email=EMAIL, password=SECRET)),
    Call.LOG_IN: ("LogIn", auth_pb2.LogInRequest(email=EMAIL, password=SECRET)),
    Call.REFRESH: ("RefreshSession", auth_pb2.RefreshSessionRequest(refresh_token=SECRET)),
    Call.LOG_OUT: ("LogOut", auth_pb2.LogOutRequest(scope=auth_pb2.LOG_OUT_SCOPE_GLOBAL)),
    Call.PASSWORD_RESET: ("RequestPasswordReset", auth_pb2.RequestPasswordResetRequest(email=EMAIL)),
    Call.PASSWORD_UPDATE: ("UpdatePassword", auth_pb2.UpdatePasswordRequest(password=SECRET)),
    Call.VERIFICATION: (
        "VerifyOtp",
        auth_pb2.VerifyOtpRequest(type=auth_pb2.OTP_TYPE_RECOVERY, email=EMAIL, token=SECRET),
    ),
    Call.CODE_EXCHANGE: (
        "CompleteSocialLogIn",
        auth_pb2.CompleteSocialLogInRequest(code=SECRET, code_verifier=SECRET),
    ),
    Call.INSPECTION: (
        "StartSocialLogIn",
        auth_pb2.StartSocialLogInRequest(provider=auth_pb2.SOCIAL_PROVIDER_GITHUB, callback_url="http://127.0.0.1:9/c"),
    ),
}
SENDING_MAIL = ("over_email_send_rate_limit", "email_address_not_authorized")


@pytest.fixture
def auth_server() -> Iterator[AnsweringServer]:
    with AnsweringServer().running() as server:
        server.headers = {"X-Supabase-Api-Version": "2024-01-01"}
        yield server


@pytest.fixture
async def client(auth_server: AnsweringServer, http: httpx.AsyncClient) -> AsyncIterator[Client]:
    async with served_without_database(auth_server.url, http) as connected:
        yield connected


async def refused(client: Client, call: Call) -> AppError:
    method, message = MESSAGES[call]
    with pytest.raises(AppError) as refusal:
        await client.call(method, message, token=mint_token())
    assert SECRET not in str(refusal.value.to_json())
    return refusal.value


def hosted(status: int, code: str, text: str = "…", **more: Any) -> tuple[int, Any]:
    return status, {"code": code, "message": text, **more}


def older(status: int, code: str, text: str = "…", **more: Any) -> tuple[int, Any]:
    return status, {"code": status, "error_code": code, "msg": text, **more}


@pytest.mark.parametrize("shape", [hosted, older])
@pytest.mark.parametrize("code", sorted(set(REASONS_BY_CODE) - {"weak_password"}))
async def test_each_code_of_the_auth_server_has_its_reason(
    client: Client, auth_server: AnsweringServer, code: str, shape: Any
) -> None:
    auth_server.answer = lambda *_: shape(400, code)
    assert (await refused(client, Call.LOG_IN)).reason == REASONS_BY_CODE[code]


@pytest.mark.parametrize(("call", "code"), sorted(REASONS_BY_CALL))
async def test_each_code_with_a_meaning_of_its_own_in_one_call_has_its_reason(
    client: Client, auth_server: AnsweringServer, call: Call, code: str
) -> None:
    auth_server.answer = lambda *_: hosted(422, code)
    assert (await refused(client, call)).reason == REASONS_BY_CALL[(call, code)]


def test_every_reason_of_the_tables_exists() -> None:
    assert {*REASONS_BY_CODE.values(), *REASONS_BY_CALL.values()} <= REASONS.keys()


@pytest.mark.parametrize(
    ("reasons", "text", "problem"),
    [
        (["length"], "Password should be at least 10 characters.", "it has fewer than 10 characters"),
        (["length"], "Too short", "it is too short"),
        (["characters"], "Password should contain at least one character of each: abc", "it lacks required kinds of "
         "characters"),
        (["length", "characters"], "Password should be at least 8 characters. …", "it has fewer than 8 characters and "
         "it lacks required kinds of characters"),
        (["pwned"], "Password is known to be weak and easy to guess", "it is known from leaked passwords"),
        (["of the future"], "…", "it does not meet the rules"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", [Call.SIGN_UP, Call.PASSWORD_UPDATE])
async def test_weak_password_says_why(
    client: Client, auth_server: AnsweringServer, call: Call, reasons: list[str], text: str, problem: str
) -> None:
    auth_server.answer = lambda *_: hosted(422, "weak_password", text, weak_password={"reasons": reasons})
    refusal = await refused(client, call)
    assert (refusal.reason, refusal.metadata) == ("WEAK_PASSWORD", {"problem": problem})


@pytest.mark.parametrize(
    ("status", "content", "reason", "metadata"),
    [
        (422, {"code": "captcha_failed", "message": "…"}, "AUTH_SERVER_REFUSED", {"auth_code": "captcha_failed"}),
        (422, {"code": SECRET, "message": SECRET}, "AUTH_SERVER_REFUSED", {"auth_code": "HTTP 422"}),
        (401, {"message": "Invalid API key"}, "AUTH_SERVER_REFUSED", {"auth_code": "HTTP 401"}),
        (404, b"<html>nothing here</html>", "AUTH_SERVER_REFUSED", {"auth_code": "HTTP 404"}),
        (302, b"", "AUTH_SERVER_REFUSED", {"auth_code": "HTTP 302"}),
        (400, {"code": "validation_failed", "message": "Bad"}, "AUTH_SERVER_REFUSED",
         {"auth_code": "validation_failed"}),
        (429, b"slow down", "AUTH_RATE_LIMITED", {}),
        (500, {"error": "server_error"}, "AUTH_SERVER_UNAVAILABLE", {}),
        (500, b"oops", "AUTH_SERVER_UNAVAILABLE", {}),
        (502, b"<html>bad gateway</html>", "AUTH_SERVER_UNAVAILABLE", {}),
        (503, {"message": "no upstream"}, "AUTH_SERVER_UNAVAILABLE", {}),
        (504, {"code": "request_timeout", "message": "…"}, "AUTH_SERVER_UNAVAILABLE", {}),
        (200, b"<html>hello</html>", "AUTH_SERVER_UNAVAILABLE", {}),
        (200, {"access_token": SECRET, "user": None}, "AUTH_SERVER_UNAVAILABLE", {}),
        (200, [], "AUTH_SERVER_UNAVAILABLE", {}),
        (422, {"code": "weak_password", "message": "…"}, "AUTH_SERVER_REFUSED", {"auth_code": "HTTP 422"}),
    ],
)  # fmt: skip
async def test_answers_without_a_known_code_have_a_reason_too(
    client: Client, auth_server: AnsweringServer, status: int, content: Any, reason: str, metadata: dict[str, str]
) -> None:
    auth_server.answer = lambda *_: (status, content)
    refusal = await refused(client, Call.LOG_IN)
    assert (refusal.reason, refusal.metadata) == (reason, metadata)


@pytest.mark.parametrize("content", [b"<html></html>", [], {}, {"external": []}])
async def test_unreadable_settings_are_no_crash(client: Client, auth_server: AnsweringServer, content: Any) -> None:
    auth_server.answer = lambda *_: (200, content)
    assert (await refused(client, Call.INSPECTION)).reason == "AUTH_SERVER_UNAVAILABLE"


@pytest.mark.parametrize(
    ("text", "seconds"), [("For security purposes, you can only request this after 37 seconds.", 37), ("…", 60)]
)
async def test_rate_limit_says_how_long_to_wait(
    client: Client, auth_server: AnsweringServer, text: str, seconds: float
) -> None:
    auth_server.answer = lambda *_: hosted(429, "over_request_rate_limit", text)
    assert (await refused(client, Call.LOG_IN)).retry_after_seconds == seconds


async def test_expired_token_is_told_from_an_invalid_one(client: Client, auth_server: AnsweringServer) -> None:
    auth_server.answer = lambda *_: hosted(403, "bad_jwt", "invalid JWT: token is expired")
    assert (await refused(client, Call.LOG_OUT)).reason == "TOKEN_EXPIRED"
    auth_server.answer = lambda *_: hosted(403, "bad_jwt", "invalid JWT: signature is invalid")
    assert (await refused(client, Call.LOG_OUT)).reason == "TOKEN_INVALID"


async def test_address_of_the_wrong_form_is_told_from_other_bad_input(
    client: Client, auth_server: AnsweringServer
) -> None:
    auth_server.answer = lambda *_: hosted(400, "validation_failed", "Unable to validate email address: invalid format")
    assert (await refused(client, Call.SIGN_UP)).reason == "EMAIL_REJECTED"


async def test_sign_up_with_a_waiting_address_looks_like_a_new_one(
    client: Client, auth_server: AnsweringServer
) -> None:
    text = "For security purposes, you can only request this after 59 seconds."
    auth_server.answer = lambda *_: hosted(429, "over_email_send_rate_limit", text)
    answer = await client.sign_up("Ada@Example.com")
    assert (answer.user.email, answer.HasField("session")) == ("ada@example.com", False)


async def test_sign_up_fails_when_the_project_may_send_no_more_mails(
    client: Client, auth_server: AnsweringServer
) -> None:
    auth_server.answer = lambda *_: hosted(429, "over_email_send_rate_limit", "email rate limit exceeded")
    assert (await refused(client, Call.SIGN_UP)).reason == "AUTH_RATE_LIMITED"


async def test_sign_in_is_kept_when_the_database_is_down(client: Client, auth_server: AnsweringServer) -> None:
    token = mint_token()
    user = {"id": make_caller().user_id, "aud": "authenticated", "email": EMAIL, "app_metadata": {},
            "user_metadata": {}, "created_at": "2026-11-20T10:00:00Z"}  # fmt: skip
    auth_server.answer = lambda *_: (
        200,
        {"access_token": token, "refresh_token": "next", "expires_in": 3600, "token_type": "bearer", "user": user},
    )
    for answer in (await client.log_in(EMAIL), await client.refresh("before"), await client.complete_social("c", "v")):
        assert answer.session.refresh_token == "next"
        assert (answer.user.id, answer.user.email) == (user["id"], EMAIL)
        assert not answer.user.HasField("profile")


async def test_token_of_another_project_is_our_fault_not_the_clients(
    client: Client, auth_server: AnsweringServer
) -> None:
    user = {"id": "1", "aud": "", "app_metadata": {}, "user_metadata": {}, "created_at": "2026-11-20T10:00:00Z"}
    token = mint_token(secret="the secret of some other project")
    auth_server.answer = lambda *_: (
        200,
        {"access_token": token, "refresh_token": "r", "expires_in": 3600, "token_type": "bearer", "user": user},
    )
    assert (await refused(client, Call.LOG_IN)).reason == "INTERNAL"


@pytest.mark.parametrize("call", list(Call))
async def test_unreachable_auth_server_has_its_own_reason(http: httpx.AsyncClient, call: Call) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with served_without_database(url, http) as client:
            assert (await refused(client, call)).reason == "AUTH_SERVER_UNAVAILABLE"


async def test_connection_cut_in_the_middle_has_the_same_reason(http: httpx.AsyncClient) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        writer.close()

    async with await asyncio.start_server(cut, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with served_without_database(url, http) as client:
            assert (await refused(client, Call.LOG_IN)).reason == "AUTH_SERVER_UNAVAILABLE"


@dataclass
class SilentServer:
    """Takes requests and never answers."""

    url: str
    left: asyncio.Event
    """Set when a client has closed its connection."""


@pytest.fixture
async def silent_server() -> AsyncIterator[SilentServer]:
    left = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        left.set()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        yield SilentServer(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", left)


async def test_slow_auth_server_is_left_when_the_callers_time_is_over(
    http: httpx.AsyncClient, silent_server: SilentServer
) -> None:
    async with served_without_database(silent_server.url, http) as client:
        with pytest.raises(AppError) as refusal:
            await client.call("LogIn", MESSAGES[Call.LOG_IN][1], timeout_seconds=0.5)
        assert refusal.value.reason == "DEADLINE_EXCEEDED"
        await asyncio.wait_for(silent_server.left.wait(), 60)


async def test_slow_auth_server_is_left_after_our_own_limit(
    http: httpx.AsyncClient, silent_server: SilentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.gotrue.HEALTH_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(AppError) as refusal:
        await GoTrue(silent_server.url, SecretStr("key"), http).ping()
    assert refusal.value.reason == "AUTH_SERVER_UNAVAILABLE"
    await asyncio.wait_for(silent_server.left.wait(), 60)


async def test_browsers_begin_a_social_log_in_at_the_address_that_they_can_reach(
    auth_server: AnsweringServer, http: httpx.AsyncClient
) -> None:
    auth_server.answer = lambda *_: (200, {"external": {"github": True}})
    gotrue = GoTrue(auth_server.url, SecretStr("key"), http, browser_url="https://auth.example")
    start = await gotrue.start_social("github", "https://app.example/callback")
    assert start.authorization_url.startswith("https://auth.example/auth/v1/authorize?")


async def test_no_exception_carries_a_password_or_a_token(
    auth_server: AnsweringServer, http: httpx.AsyncClient
) -> None:
    gotrue = GoTrue(auth_server.url, SecretStr(SECRET), http)
    caller = make_caller()
    for status, content in (
        (400, {"code": "invalid_credentials", "message": SECRET}),
        (200, {"access_token": SECRET, "refresh_token": SECRET, "user": SECRET}),
        (500, SECRET.encode()),
    ):
        auth_server.answer = lambda *_, status=status, content=content: (status, content)
        for attempt in (
            gotrue.log_in(EMAIL, SECRET),
            gotrue.sign_up(EMAIL, SECRET),
            gotrue.refresh(SECRET),
            gotrue.update_password(caller, SECRET),
            gotrue.exchange_code(SECRET, SECRET),
        ):
            with pytest.raises(AppError) as refusal:
                await attempt
            assert refusal.value.__cause__ is None
            assert refusal.value.__context__ is None
            shown = "".join(traceback.format_exception(refusal.value)) + repr(refusal.value.cause)
            assert SECRET not in shown
            assert caller.token not in shown


async def test_calls_carry_the_key_and_only_their_own_users_token(
    auth_server: AnsweringServer, http: httpx.AsyncClient
) -> None:
    seen: list[tuple[str, str | None, str | None]] = []
    caller = make_caller()

    async def note(request: httpx.Request) -> None:
        path = request.url.path + (f"?{request.url.query.decode()}" if request.url.query else "")
        seen.append((path, request.headers.get("apikey"), request.headers.get("authorization")))

    http.event_hooks = {"request": [note]}
    try:
        gotrue = GoTrue(auth_server.url, SecretStr("key"), http)
        auth_server.answer = lambda *_: hosted(400, "invalid_credentials")
        for attempt in (
            gotrue.log_out(caller, "local"),
            gotrue.update_password(caller, SECRET),
            gotrue.log_in(EMAIL, SECRET),
            gotrue.refresh(SECRET),
        ):
            with pytest.raises(AppError):
                await attempt
    finally:
        http.event_hooks = {"request": []}
    assert seen == [
        ("/auth/v1/logout?scope=local", "key", f"Bearer {caller.token}"),
        ("/auth/v1/user", "key", f"Bearer {caller.token}"),
        ("/auth/v1/token?grant_type=password", "key", None),
        ("/auth/v1/token?grant_type=refresh_token", "key", None),
    ]


async def test_service_is_not_ready_while_the_auth_server_is_away_or_ill(
    auth_server: AnsweringServer, http: httpx.AsyncClient
) -> None:
    auth_server.answer = lambda *_: (503, b"")
    gotrue = GoTrue(auth_server.url, SecretStr("key"), http)
    with pytest.raises(AppError) as refusal:
        await gotrue.ping()
    assert refusal.value.reason == "AUTH_SERVER_UNAVAILABLE"
    auth_server.answer = lambda *_: (200, {"name": "GoTrue"})
    await gotrue.ping()
    await gotrue.ping()
    assert [path for _, path, _ in auth_server.requests] == ["/auth/v1/health"] * 2
