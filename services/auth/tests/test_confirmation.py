from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from servicekit.errors import AppError
from services.auth.tests.conftest import SecondHost
from services.auth.tests.support import PASSWORD, Client, new_email
from services.auth.tests.test_passwords import mails_to, token_from_link
from tests.support.suites import RunningStack


async def test_account_waits_until_the_mails_link_is_followed(
    confirming_client: Client, second_host: SecondHost, http: httpx.AsyncClient
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
    _, fragment = await token_from_link(mail.links[0], http)
    assert (await confirming_client.get_me(fragment["access_token"])).display_name == "Ada"
    signed_in = await confirming_client.log_in(email)
    assert signed_in.user.id == answer.user.id
    assert signed_in.user.HasField("profile")


@pytest.mark.parametrize("is_confirmed", [False, True])
async def test_registered_address_is_answered_as_a_new_one(
    confirming_client: Client, second_host: SecondHost, http: httpx.AsyncClient, is_confirmed: bool
) -> None:
    email = new_email()
    first = await confirming_client.sign_up(email)
    if is_confirmed:
        [mail] = mails_to(second_host.home, email)
        await token_from_link(mail.links[0], http)
    second = await confirming_client.sign_up(email.upper(), "another long password")
    assert [field.name for field, _ in second.ListFields()] == [field.name for field, _ in first.ListFields()]
    assert [field.name for field, _ in second.user.ListFields()] == [field.name for field, _ in first.user.ListFields()]
    assert second.user.email == email
    assert second.user.id != first.user.id
    assert len(mails_to(second_host.home, email)) == 1


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
