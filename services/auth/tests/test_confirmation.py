from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from servicekit.errors import AppError
from services.auth.tests.conftest import SecondHost
from services.auth.tests.support import PASSWORD, Client, new_email, read_link
from services.auth.tests.test_passwords import mails_to
from tests.support.suites import RunningStack


async def redeem(client: Client, link: str) -> str:
    """Do what the page does that a link opens; return the access token."""
    _, fragment = read_link(link)
    redeemed = await client.verify_otp(fragment["type"].upper(), token_hash=fragment["token_hash"])
    return redeemed.session.access_token


async def test_account_waits_until_the_mails_link_is_redeemed(
    confirming_client: Client, second_host: SecondHost
) -> None:
    email = new_email()
    answer = await confirming_client.sign_up(email, display_name="Ada")
    assert not answer.HasField("session")
    assert answer.user.email == email
    assert answer.user.id
    assert not answer.user.HasField("profile")
    assert not answer.user.HasField("settings")
    with pytest.raises(AppError) as refusal:
        await confirming_client.log_in(email)
    assert refusal.value.reason == "EMAIL_NOT_CONFIRMED"
    [mail] = mails_to(second_host.home, email)
    token = await redeem(confirming_client, mail.links[0])
    assert (await confirming_client.get_me(token)).display_name == "Ada"
    signed_in = await confirming_client.log_in(email)
    assert signed_in.user.id == answer.user.id
    assert signed_in.user.HasField("profile")


async def test_account_is_confirmed_by_the_code_of_the_mail(confirming_client: Client, second_host: SecondHost) -> None:
    email = new_email()
    await confirming_client.sign_up(email)
    [mail] = mails_to(second_host.home, email)
    redeemed = await confirming_client.verify_otp("SIGNUP", email=email, token=mail.code or "")
    assert redeemed.user.HasField("profile")
    assert (await confirming_client.log_in(email)).user.id == redeemed.user.id


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_registered_address_is_answered_as_a_new_one(
    confirming_client: Client, second_host: SecondHost, is_confirmed: bool
) -> None:
    email = new_email()
    first = await confirming_client.sign_up(email)
    if is_confirmed:
        [mail] = mails_to(second_host.home, email)
        await redeem(confirming_client, mail.links[0])
    second = await confirming_client.sign_up(email.upper(), "another long password")
    assert [field.name for field, _ in second.ListFields()] == [field.name for field, _ in first.ListFields()]
    assert [field.name for field, _ in second.user.ListFields()] == [field.name for field, _ in first.user.ListFields()]
    assert second.user.email == email
    assert second.user.id != first.user.id
    # Only who has not confirmed yet gets another mail, as its first one may be lost.
    assert len(mails_to(second_host.home, email)) == (1 if is_confirmed else 2)


async def test_signing_up_again_makes_the_earlier_link_worthless(
    confirming_client: Client, second_host: SecondHost
) -> None:
    email = new_email()
    await confirming_client.sign_up(email)
    await confirming_client.sign_up(email)
    first, second = mails_to(second_host.home, email)
    with pytest.raises(AppError) as refusal:
        await redeem(confirming_client, first.links[0])
    assert refusal.value.reason == "OTP_INVALID"
    assert (await confirming_client.get_me(await redeem(confirming_client, second.links[0]))).email == email


@pytest.fixture(scope="module")
async def admin(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.admin_db_url)
    yield connection
    await connection.close()


async def test_confirmed_without_mail_when_an_operator_does_so(
    confirming_client: Client, admin: asyncpg.Connection
) -> None:
    email = new_email()
    await confirming_client.sign_up(email)
    await admin.execute("update auth.users set email_confirmed_at = now() where email = $1", email)
    assert (await confirming_client.log_in(email, PASSWORD)).user.email == email


async def test_who_has_an_account_does_not_show_while_no_mail_can_be_sent(
    confirming_client: Client, second_host: SecondHost, stack: RunningStack, http: httpx.AsyncClient
) -> None:
    waiting, unknown = new_email(), new_email()
    await confirming_client.sign_up(waiting)
    folder = second_host.home / "mail"
    folder.rename(second_host.home / "mail.before")
    folder.touch()  # where a folder is needed
    try:

        async def answers_for(email: str) -> list[tuple[int, str]]:
            found = []
            for path, body in (
                ("recover", {}),
                ("magiclink", {}),
                ("resend", {"type": "signup"}),
                ("otp", {}),
            ):
                address = f"{second_host.url}/auth/v1/{path}"
                headers = {"apikey": stack.publishable_key}
                answer = await http.post(address, json={"email": email, **body}, headers=headers)
                found.append((answer.status_code, path))
            await confirming_client.request_reset(email)
            signed_up = await confirming_client.sign_up(email)
            assert signed_up.user.email == email
            return [*found, (signed_up.HasField("session"), "sign-up")]

        assert await answers_for(waiting) == await answers_for(unknown)
    finally:
        folder.unlink()
        (second_host.home / "mail.before").rename(folder)
