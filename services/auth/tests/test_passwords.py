from typing import Any

import httpx
import pytest

from local.embedded.mailbox import Mail, read_mails
from servicekit.errors import AppError
from servicekit.testing import mint_token
from services.auth.tests.support import PASSWORD, Client, new_email

NEW_PASSWORD = "an even longer new password"


def mails_to(home: Any, email: str) -> list[Mail]:
    return [mail for mail in read_mails(home) if mail.to == email]


async def token_from_link(link: str, http: httpx.AsyncClient) -> tuple[str, httpx.QueryParams]:
    """Follow a mail's link as a browser does; return where it leads and what the fragment carries."""
    response = await http.get(link)
    assert response.status_code == 303
    target, _, fragment = response.headers["location"].partition("#")
    return target, httpx.QueryParams(fragment)


async def test_forgotten_password_is_set_anew_by_mail(client: Client, stack: Any, http: httpx.AsyncClient) -> None:
    email = new_email()
    await client.sign_up(email)
    await client.request_reset(email, redirect_to=f"{stack.gateway_url}/reset")
    [mail] = mails_to(stack.home, email)
    target, fragment = await token_from_link(mail.links[0], http)
    assert target == f"{stack.gateway_url}/reset"
    assert fragment["type"] == "recovery"
    await client.update_password(fragment["access_token"], NEW_PASSWORD)
    with pytest.raises(AppError) as refusal:
        await client.log_in(email, PASSWORD)
    assert refusal.value.reason == "INVALID_CREDENTIALS"
    assert (await client.log_in(email, NEW_PASSWORD)).user.email == email
    _, spent = await token_from_link(mail.links[0], http)
    assert spent["error_code"] == "otp_expired"


async def test_reset_for_an_unknown_address_is_answered_the_same_and_sends_nothing(client: Client, stack: Any) -> None:
    known, unknown = new_email(), new_email()
    await client.sign_up(known)
    assert await client.request_reset(known) == await client.request_reset(unknown)
    assert len(mails_to(stack.home, known)) == 1
    assert mails_to(stack.home, unknown) == []


async def test_new_password_must_differ_from_the_old_one(client: Client) -> None:
    session = (await client.sign_up(new_email())).session
    with pytest.raises(AppError) as refusal:
        await client.update_password(session.access_token, PASSWORD)
    assert refusal.value.reason == "SAME_PASSWORD"


async def test_new_password_must_not_be_weak(client: Client) -> None:
    email = new_email()
    session = (await client.sign_up(email)).session
    with pytest.raises(AppError) as refusal:
        await client.update_password(session.access_token, "short")
    assert refusal.value.reason == "WEAK_PASSWORD"
    assert (await client.log_in(email)).user.email == email


async def test_new_password_is_the_callers_only(client: Client) -> None:
    ada, grace = new_email("ada"), new_email("grace")
    session = (await client.sign_up(ada)).session
    await client.sign_up(grace)
    await client.update_password(session.access_token, NEW_PASSWORD)
    assert (await client.log_in(ada, NEW_PASSWORD)).user.email == ada
    assert (await client.log_in(grace, PASSWORD)).user.email == grace


async def test_ended_sign_in_cannot_change_the_password(client: Client) -> None:
    session = (await client.sign_up(new_email())).session
    await client.log_out(session.access_token)
    with pytest.raises(AppError) as refusal:
        await client.update_password(session.access_token, NEW_PASSWORD)
    assert refusal.value.reason == "SIGN_IN_ENDED"


async def test_expired_token_that_the_leeway_lets_pass_is_refused_as_expired(client: Client, stack: Any) -> None:
    user = (await client.sign_up(new_email())).user
    token = mint_token(user.id, secret=stack.jwt_secret, expires_in=-5)
    with pytest.raises(AppError) as refusal:
        await client.update_password(token, NEW_PASSWORD)
    assert refusal.value.reason == "TOKEN_EXPIRED"


async def test_password_of_a_deleted_account_cannot_be_changed(client: Client, stack: Any) -> None:
    token = mint_token(secret=stack.jwt_secret)
    with pytest.raises(AppError) as refusal:
        await client.update_password(token, NEW_PASSWORD)
    assert refusal.value.reason == "ACCOUNT_NOT_FOUND"
