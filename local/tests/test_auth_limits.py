import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from local.tests.conftest import PASSWORD, mails_to
from tests.support.suites import RunningStack

BURST = 30
PASSWORDS = ("POST", "/token?grant_type=password", {"email": "nobody@example.com", "password": PASSWORD})
LIMITED = {
    "password": PASSWORDS,
    "refresh": ("POST", "/token?grant_type=refresh_token", {"refresh_token": "x"}),
    "code of a provider": ("POST", "/token?grant_type=pkce", {"auth_code": "x", "code_verifier": "y"}),
    "any other grant": ("POST", "/token?grant_type=PASSWORD", {}),
    "sign-up": ("POST", "/signup", {"email": "a", "password": "b"}),
    "reset": ("POST", "/recover", {"email": "@"}),
    "one-time password": ("POST", "/otp", {"email": "@"}),
    "magic link": ("POST", "/magiclink", {"email": "@"}),
    "resend": ("POST", "/resend", {"type": "signup", "email": "@"}),
    "code": ("POST", "/verify", {"type": "recovery", "email": "a@example.com", "token": "123456"}),
    "account": ("PUT", "/user", {"data": {}}),
    "reauthentication": ("GET", "/reauthenticate", None),
}


@pytest.fixture(scope="module")
def limited(launch: Callable[..., RunningStack]) -> RunningStack:
    """The embedded Supabase with the limits that it has by itself."""
    names = ("SIGN_IN_LIMIT", "CODE_LIMIT", "REFRESH_LIMIT", "MAIL_SECONDS")
    return launch(only="postgres,supabase", **{f"CONCERTO_EMBEDDED_{name}": "" for name in names})


_addresses = iter(range(2, 255))


def caller(stack: RunningStack, **headers: str) -> httpx.AsyncClient:
    """A caller with an address of its own: the whole of 127.0.0.0/8 is this machine."""
    transport = httpx.AsyncHTTPTransport(local_address=f"127.0.1.{next(_addresses)}")
    head = {"apikey": stack.publishable_key, **headers}
    return httpx.AsyncClient(base_url=f"{stack.supabase_url}/auth/v1", headers=head, transport=transport)


async def send(client: httpx.AsyncClient, request: tuple[str, str, Any]) -> httpx.Response:
    method, path, body = request
    return await client.request(method, path, **({} if body is None else {"json": body}))


async def statuses(client: httpx.AsyncClient, request: tuple[str, str, Any], count: int) -> list[int]:
    return [(await send(client, request)).status_code for _ in range(count)]


@pytest.mark.parametrize("name", LIMITED)
async def test_an_address_is_slowed_down_after_a_burst(limited: RunningStack, name: str) -> None:
    async with caller(limited) as client:
        assert 429 not in await statuses(client, LIMITED[name], BURST)
        # Some are taken meanwhile, as the bucket fills while it is emptied.
        refused = next(
            (
                answer
                for answer in [await send(client, LIMITED[name]) for _ in range(BURST)]
                if answer.status_code == 429
            ),
            None,
        )
        assert refused is not None
        assert 1 <= int(refused.headers["retry-after"]) <= 10
        assert refused.headers["x-sb-error-code"] == "over_request_rate_limit"
        assert refused.json()["error_code"] == "over_request_rate_limit"
        # Nothing else is: what one does too often is no reason to refuse the rest.
        assert (await client.get("/health")).is_success
        assert (await client.get("/settings")).is_success
    async with caller(limited) as other:
        assert (await send(other, LIMITED[name])).status_code != 429


async def test_kinds_that_can_be_guessed_are_counted_apart(limited: RunningStack) -> None:
    async with caller(limited) as client:
        assert 429 in await statuses(client, LIMITED["password"], 2 * BURST)
        for name in ("refresh", "sign-up", "code", "reset"):
            assert (await send(client, LIMITED[name])).status_code != 429


async def test_a_route_spelt_otherwise_is_no_way_around(limited: RunningStack) -> None:
    async with caller(limited) as client:
        for path in ("/%74oken", "/t%6Fken", "/token/", "//token", "/TOKEN"):
            method, _, body = PASSWORDS
            answer = await client.request(method, f"{path}?grant_type=password", json=body)
            assert answer.status_code in (401, 404, 405), path

        for path in (
            "/%61uth/v1/token",
            "/auth/%761/token",
            "/auth%2fv1/token",
            "/auth/v1/%74oken",
            "/%2561uth/v1/token",
        ):
            raw = httpx.URL(limited.supabase_url).copy_with(raw_path=f"{path}?grant_type=password".encode())
            assert (await client.post(raw, json=PASSWORDS[2])).status_code == 404, path


@pytest.mark.parametrize(
    "query",
    [
        "grant_type=password&grant_type=refresh_token",
        "grant_type=refresh_token&grant_type=password",
        "grant%5Ftype=refresh_token&grant_type=password",
        "grant_type=pkce&grant%5Ftype=password",
    ],
)
async def test_a_password_beside_another_grant_is_counted_as_one(limited: RunningStack, query: str) -> None:
    async with caller(limited) as client:
        found = await statuses(client, ("POST", f"/token?{query}", PASSWORDS[2]), BURST + 12)
    assert 429 in found
    assert 200 not in found


@pytest.mark.parametrize("path", ["/reauthenticate", "/callback?code=1&state=2", "/authorize?provider=github", "/user"])
async def test_head_does_nothing(limited: RunningStack, path: str) -> None:
    async with caller(limited) as client:
        answer = await client.head(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


async def test_a_body_that_is_no_accounts_is_refused_unread(limited: RunningStack) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"email": "a@example.com"}'

    async with caller(limited) as client:
        large = await client.post("/signup", content=b'{"email": "' + b"a" * 70_000 + b'"}')
        unknown = await client.post("/signup", content=chunks())
    assert (large.status_code, unknown.status_code) == (413, 411)


@pytest.mark.parametrize(
    ("path", "most_bytes"),
    [
        ("/rest/v1/rpc/anything", 20 * 1024 * 1024),
        ("/storage/v1/object/sign/avatars", 1024 * 1024),
        ("/storage/v1/object/list/avatars", 1024 * 1024),
        ("/storage/v1/object/li%73t/avatars", 1024 * 1024),
        ("/storage/v1/object/copy", 1024 * 1024),
        ("/storage/v1/object/move", 1024 * 1024),
        ("/storage/v1/bucket", 1024 * 1024),
    ],
)
async def test_a_stranger_has_no_large_body_read(embedded: RunningStack, path: str, most_bytes: int) -> None:
    async with httpx.AsyncClient(
        base_url=embedded.supabase_url, headers={"apikey": embedded.publishable_key}
    ) as client:
        large = await client.post(path, content=b" " * (most_bytes + 1))
        most = await client.post(path, content=b" " * most_bytes)
    assert large.status_code == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    assert most.status_code not in (411, 413)


async def test_the_auth_service_speaks_for_many(limited: RunningStack) -> None:
    key = json.loads((limited.home / "secrets.json").read_text())["forwarding_key"]
    async with caller(limited, **{"x-concerto-forwarding-key": key}) as service:
        assert 429 not in await statuses(service, PASSWORDS, 2 * BURST)
    for wrong in ("", key[:-1], f"{key}x"):
        async with caller(limited, **{"x-concerto-forwarding-key": wrong}) as client:
            assert 429 in await statuses(client, PASSWORDS, 2 * BURST)


@pytest.mark.parametrize("route", ["recover", "otp", "magiclink"])
async def test_one_address_gets_a_mail_of_a_kind_a_minute(limited: RunningStack, route: str) -> None:
    known, unknown = (f"{word}-{uuid.uuid4().hex[:12]}@example.com" for word in ("known", "unknown"))
    async with caller(limited) as client:
        assert (await client.post("/signup", json={"email": known, "password": PASSWORD})).is_success
        before = len(mails_to(limited, known))
        for email in (known, unknown) if route == "recover" else (known,):
            assert (await client.post(f"/{route}", json={"email": email})).is_success
            for spelling in (email, email.upper()):
                again = await client.post(f"/{route}", json={"email": spelling})
                assert (again.status_code, again.json()["error_code"]) == (429, "over_email_send_rate_limit")
                assert again.json()["msg"].startswith("For security purposes, you can only request this after ")
        assert len(mails_to(limited, known)) == before + 1
    async with caller(limited) as elsewhere:  # the pause is the address's, whoever asks
        assert (await elsewhere.post("/recover", json={"email": known})).status_code == 429


async def test_many_requests_at_once_send_one_mail(limited: RunningStack) -> None:
    email = f"known-{uuid.uuid4().hex[:12]}@example.com"
    async with caller(limited) as client:
        assert (await client.post("/signup", json={"email": email, "password": PASSWORD})).is_success
        before = len(mails_to(limited, email))
        answers = await asyncio.gather(*(client.post("/recover", json={"email": email}) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [429] * 9
    assert len(mails_to(limited, email)) == before + 1


async def test_a_request_that_sends_no_mail_makes_nobody_wait(limited: RunningStack) -> None:
    email = f"known-{uuid.uuid4().hex[:12]}@example.com"
    async with caller(limited) as client:
        assert (await client.post("/signup", json={"email": email, "password": PASSWORD})).is_success
        refused = await client.post("/recover", json={"email": email}, headers={"apikey": "none"})
        assert refused.status_code == 401
        refused = await client.put("/user", json={"email": f"new-{email}"}, headers={"authorization": "Bearer x"})
        assert refused.status_code in (401, 403)
        assert (await client.post("/recover", json={"email": email})).is_success


async def test_a_change_of_address_is_asked_of_the_same_one_once_a_minute(limited: RunningStack) -> None:
    async with caller(limited) as client:
        answer = await client.post(
            "/signup", json={"email": f"known-{uuid.uuid4().hex[:12]}@example.com", "password": PASSWORD}
        )
        head = {"authorization": f"Bearer {answer.json()['access_token']}"}
        wanted = f"new-{uuid.uuid4().hex[:12]}@example.com"
        assert (await client.put("/user", json={"email": wanted}, headers=head)).is_success
        assert (await client.put("/user", json={"email": wanted.upper()}, headers=head)).status_code == 429
        assert (await client.put("/user", json={"data": {"a": 1}}, headers=head)).is_success
        assert (await client.get("/reauthenticate", headers=head)).is_success
        assert (await client.get("/reauthenticate", headers=head)).status_code == 429
    assert len(mails_to(limited, wanted)) == 1
