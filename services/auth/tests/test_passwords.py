from typing import Any

import pytest
from concerto.auth.v1 import auth_pb2

from local.embedded.mailbox import Mail, read_mails
from servicekit.errors import AppError
from services.auth.tests.support import PASSWORD, Client, new_email, read_link
from tests.support.waiting import until

NEW_PASSWORD = "an even longer new password"


def mails_to(home: Any, email: str) -> list[Mail]:
    return [mail for mail in read_mails(home) if mail.to == email]


async def mail_to(home: Any, email: str) -> Mail:
    """Wait for the one mail to the address: it is sent after the answer."""
    await until(lambda: mails_to(home, email), "the mail")
    [mail] = mails_to(home, email)
    return mail


async def test_forgotten_password_is_set_anew_by_mail(client: Client, stack: Any) -> None:
    email = new_email()
    await client.sign_up(email)
    await client.request_reset(email, redirect_to=f"{stack.gateway_url}/reset")
    mail = await mail_to(stack.home, email)
    target, fragment = read_link(mail.links[0])
    assert target == f"{stack.gateway_url}/reset"
    assert (fragment["type"], fragment["email"]) == ("recovery", email)
    redeemed = await client.verify_otp("RECOVERY", token_hash=fragment["token_hash"])
    assert redeemed.user.email == email
    await client.update_password(redeemed.session.access_token, NEW_PASSWORD)
    with pytest.raises(AppError) as refusal:
        await client.log_in(email, PASSWORD)
    assert refusal.value.reason == "INVALID_CREDENTIALS"
    assert (await client.log_in(email, NEW_PASSWORD)).user.email == email
    with pytest.raises(AppError) as refusal:
        await client.verify_otp("RECOVERY", token_hash=fragment["token_hash"])
    assert refusal.value.reason == "OTP_INVALID"


async def test_the_code_of_the_mail_does_what_its_link_does_once(client: Client, stack: Any) -> None:
    email = new_email()
    await client.sign_up(email)
    await client.request_reset(email)
    mail = await mail_to(stack.home, email)
    assert mail.code is not None
    assert mail.code in mail.text
    for proof in ({"email": email, "token": "000000x"}, {"email": f"x{email}", "token": mail.code}):
        with pytest.raises(AppError) as refusal:
            await client.verify_otp("RECOVERY", **proof)
        assert refusal.value.reason == "OTP_INVALID"
    assert (await client.verify_otp("RECOVERY", email=email.upper(), token=mail.code)).user.email == email
    for proof in ({"email": email, "token": mail.code}, {"token_hash": read_link(mail.links[0])[1]["token_hash"]}):
        with pytest.raises(AppError) as refusal:
            await client.verify_otp("RECOVERY", **proof)
        assert refusal.value.reason == "OTP_INVALID"


@pytest.mark.parametrize(
    ("proof", "reason", "field"),
    [
        ({}, "MISSING_FIELD", "token_hash"),
        ({"token": "123456"}, "MISSING_FIELD", "token_hash"),
        ({"email": "ada@example.com"}, "MISSING_FIELD", "token"),
        ({"token_hash": "x", "email": "ada@example.com"}, "INVALID_FIELD", "email"),
        ({"token_hash": "x", "token": "123456"}, "INVALID_FIELD", "token"),
        ({"token_hash": "x" * 513}, "FIELD_TOO_LARGE", "token_hash"),
        ({"email": "no address", "token": "123456"}, "INVALID_FIELD", "email"),
    ],
)
async def test_a_mail_is_redeemed_by_its_link_or_by_its_code(
    client: Client, proof: dict[str, str], reason: str, field: str
) -> None:
    with pytest.raises(AppError) as refusal:
        await client.verify_otp("RECOVERY", **proof)
    assert (refusal.value.reason, refusal.value.metadata["field"]) == (reason, field)


async def test_reset_for_an_unknown_address_is_answered_the_same_and_sends_nothing(client: Client, stack: Any) -> None:
    known, unknown = new_email(), new_email()
    await client.sign_up(known)
    for email in (unknown, known):
        assert await client.request_reset(email.upper()) == auth_pb2.RequestPasswordResetResponse(email=email)
    await mail_to(stack.home, known)
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
    token = stack.mint_token(user.id, expires_in=-5)
    with pytest.raises(AppError) as refusal:
        await client.update_password(token, NEW_PASSWORD)
    assert refusal.value.reason == "TOKEN_EXPIRED"


async def test_password_of_a_deleted_account_cannot_be_changed(client: Client, stack: Any) -> None:
    token = stack.mint_token()
    with pytest.raises(AppError) as refusal:
        await client.update_password(token, NEW_PASSWORD)
    assert refusal.value.reason == "SIGN_IN_ENDED"
