import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from local.embedded.mailbox import Mail
from local.tests.conftest import PASSWORD, close_client, mails_to, new_member, read_link
from tests.support.suites import RunningStack

TRIES = 5


@pytest.fixture
async def auth(embedded: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of the auth server, as a program without a library has it."""
    head = {"apikey": embedded.publishable_key}
    async with httpx.AsyncClient(base_url=f"{embedded.supabase_url}/auth/v1", headers=head) as client:
        yield client


async def sign_up(auth: httpx.AsyncClient, stack: RunningStack) -> Mail:
    """Sign somebody up; return the mail that confirms the address."""
    email = f"new-{uuid.uuid4().hex[:12]}@example.com"
    answer = await auth.post("/signup", json={"email": email, "password": PASSWORD})
    assert answer.is_success, answer.text
    (mail,) = mails_to(stack, email)
    return mail


async def verify(auth: httpx.AsyncClient, kind: str, **proof: Any) -> httpx.Response:
    return await auth.post("/verify", json={"type": kind, **proof})


def token_hash(mail: Mail) -> str:
    return read_link(mail.links[0])[1]["token_hash"]


def wrong_codes(mail: Mail, count: int) -> list[str]:
    return [f"{(int(mail.code or 0) + step) % 10**6:06}" for step in range(1, count + 1)]


async def is_spent(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json().get("error_code")) == (403, "otp_expired")


async def test_looking_at_a_link_spends_nothing_and_signs_nobody_in(
    embedded: RunningStack, auth: httpx.AsyncClient
) -> None:
    mail = await sign_up(auth, embedded)
    address = f"{embedded.supabase_url}/auth/v1/verify"
    query = {"token": token_hash(mail), "type": "signup", "redirect_to": f"{embedded.gateway_url}/callback/"}
    for method in ("HEAD", "GET") * 5:
        looked = await auth.request(method, address, params=query)
        assert looked.status_code == 303
        target, fragment = read_link(looked.headers["location"])
        assert target == f"{embedded.gateway_url}/callback/"
        assert dict(fragment) == {"token_hash": token_hash(mail), "type": "signup"}
        assert looked.content == b""
    assert (await verify(auth, "signup", token_hash=token_hash(mail))).json()["access_token"]
    assert await is_spent(await verify(auth, "signup", token_hash=token_hash(mail)))


async def test_a_link_that_is_looked_at_leads_to_no_foreign_place(
    embedded: RunningStack, auth: httpx.AsyncClient
) -> None:
    for target in ("https://elsewhere.example/", "//elsewhere.example", "javascript:alert(1)", "\x00"):
        looked = await auth.get("/verify", params={"token": "x", "type": "signup", "redirect_to": target})
        assert read_link(looked.headers["location"])[0] == embedded.gateway_url
    assert (await auth.get("/verify", params={"token": "x"})).status_code == 400


async def test_a_code_is_spent_after_five_wrong_tries_and_its_link_is_not(
    embedded: RunningStack, auth: httpx.AsyncClient
) -> None:
    mail = await sign_up(auth, embedded)
    for code in wrong_codes(mail, TRIES):
        assert await is_spent(await verify(auth, "signup", email=mail.to, token=code))
    assert await is_spent(await verify(auth, "signup", email=mail.to, token=mail.code))
    assert await is_spent(await verify(auth, "signup", email=mail.to.upper(), token=mail.code))
    assert await is_spent(await verify(auth, "magiclink", email=mail.to, token=mail.code))
    # A stranger who tries codes keeps nobody from their account.
    assert (await verify(auth, "signup", token_hash=token_hash(mail))).is_success


@pytest.mark.parametrize("moved", [-1, 1, 5])
async def test_an_address_and_a_code_that_are_split_elsewhere_are_no_further_tries(
    embedded: RunningStack, auth: httpx.AsyncClient, moved: int
) -> None:
    mail = await sign_up(auth, embedded)
    together = f"{mail.to}{mail.code}"
    index = len(mail.to) - moved
    assert await is_spent(await verify(auth, "signup", email=together[:index], token=together[index:]))
    assert (await verify(auth, "signup", email=mail.to, token=mail.code)).is_success


async def test_the_fifth_try_may_be_the_right_one(embedded: RunningStack, auth: httpx.AsyncClient) -> None:
    mail = await sign_up(auth, embedded)
    for code in wrong_codes(mail, TRIES - 1):
        await verify(auth, "signup", email=mail.to, token=code)
    assert (await verify(auth, "signup", email=mail.to, token=mail.code)).is_success


async def test_tries_at_once_are_counted_one_by_one(embedded: RunningStack, auth: httpx.AsyncClient) -> None:
    mail = await sign_up(auth, embedded)
    kinds = ("signup", "magiclink", "email", "invite")
    tries = [
        verify(auth, kinds[number % 4], email=mail.to, token=code)
        for number, code in enumerate(wrong_codes(mail, 2 * TRIES))
    ]
    await asyncio.gather(*tries)
    assert await is_spent(await verify(auth, "signup", email=mail.to, token=mail.code))


async def test_a_new_mail_has_tries_of_its_own(embedded: RunningStack, auth: httpx.AsyncClient) -> None:
    first = await sign_up(auth, embedded)
    for code in wrong_codes(first, TRIES):
        await verify(auth, "signup", email=first.to, token=code)
    assert (await auth.post("/resend", json={"type": "signup", "email": first.to})).json() == {}
    second = mails_to(embedded, first.to)[-1]
    assert second.code is not None
    assert second.links != first.links
    assert await is_spent(await verify(auth, "signup", token_hash=token_hash(first)))
    assert (await verify(auth, "signup", email=second.to, token=second.code)).is_success


async def test_wrong_tries_at_one_mail_leave_another_kind_alone(
    embedded: RunningStack, auth: httpx.AsyncClient
) -> None:
    confirmation = await sign_up(auth, embedded)
    assert (await auth.post("/recover", json={"email": confirmation.to})).is_success
    recovery = mails_to(embedded, confirmation.to)[-1]
    for code in wrong_codes(recovery, TRIES):
        await verify(auth, "recovery", email=recovery.to, token=code)
    assert await is_spent(await verify(auth, "recovery", email=recovery.to, token=recovery.code))
    assert (await verify(auth, "signup", email=confirmation.to, token=confirmation.code)).is_success


async def test_what_anybody_can_compute_of_a_code_opens_nothing(
    embedded: RunningStack, auth: httpx.AsyncClient
) -> None:
    mail = await sign_up(auth, embedded)
    computed = hashlib.sha256(f"{mail.to}{mail.code}".encode()).hexdigest()
    assert token_hash(mail).partition(".")[0] == computed
    for forged in (computed, f"{computed}.", f"{computed}.{'A' * 43}", f"{computed}.{token_hash(mail)}"):
        assert await is_spent(await verify(auth, "signup", token_hash=forged))
    assert (await verify(auth, "signup", token_hash=token_hash(mail))).is_success


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"type": "signup"},
        {"type": "constructor", "token_hash": "x"},
        {"type": ["signup"], "token_hash": "x"},
        {"type": "signup", "token_hash": {"a": 1}},
        {"type": "signup", "token_hash": "x" * 600},
        {"type": "signup", "email": "a@example.com", "token": 123456},
        {"type": "signup", "email": ["a@example.com"], "token": "123456"},
        {"type": "sms", "phone": "1", "token": "123456"},
    ],
)
async def test_a_body_that_proves_nothing_is_refused(auth: httpx.AsyncClient, body: Any) -> None:
    answer = await auth.post("/verify", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed")


async def test_an_expired_code_and_its_link_are_worth_nothing(embedded: RunningStack, auth: httpx.AsyncClient) -> None:
    mail = await sign_up(auth, embedded)
    connection = await asyncpg.connect(embedded.admin_db_url)
    statement = "update auth.users set confirmation_sent_at = now() - interval '61 minutes' where email = $1"
    await connection.execute(statement, mail.to)
    await connection.close()
    assert await is_spent(await verify(auth, "signup", email=mail.to, token=mail.code))
    assert await is_spent(await verify(auth, "signup", token_hash=token_hash(mail)))


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("proof", ["link", "code"])
async def test_a_change_of_address_wants_the_consent_of_both(
    embedded: RunningStack, auth: httpx.AsyncClient, first: int, proof: str
) -> None:
    member = await new_member(embedded)
    session = await member.auth.get_session()
    assert session is not None
    present, wanted = session.user.email or "", f"changed-{uuid.uuid4().hex[:12]}@example.com"
    await member.auth.update_user({"email": wanted})
    mails = [mails_to(embedded, present)[-1], mails_to(embedded, wanted)[-1]]

    async def agree(mail: Mail) -> httpx.Response:
        if proof == "link":
            return await verify(auth, "email_change", token_hash=token_hash(mail))
        return await verify(auth, "email_change", email=mail.to, token=mail.code)

    half = await agree(mails[first])
    assert half.status_code == 200
    assert (half.json()["code"], "access_token" in half.json()) == ("200", False)
    answer = await member.auth.get_user()
    assert answer is not None
    assert answer.user.email == present
    assert await is_spent(await agree(mails[first]))
    whole = await agree(mails[1 - first])
    assert whole.json()["user"]["email"] == wanted
    await close_client(member)


async def test_one_address_alone_changes_nothing_however_often_it_agrees(
    embedded: RunningStack, auth: httpx.AsyncClient
) -> None:
    member = await new_member(embedded)
    session = await member.auth.get_session()
    assert session is not None
    present = session.user.email or ""
    for _ in range(2):  # who holds the sign-in and one mailbox asks again
        await member.auth.update_user({"email": f"changed-{uuid.uuid4().hex[:12]}@example.com"})
        mail = mails_to(embedded, present)[-1]
        assert "access_token" not in (await verify(auth, "email_change", token_hash=token_hash(mail))).json()
    answer = await member.auth.get_user()
    assert answer is not None
    assert answer.user.email == present
    await close_client(member)
