"""The same address or password in another Unicode form is the same one."""

from typing import Any
from unicodedata import normalize

import asyncpg
import httpx
import pytest

from servicekit.errors import AppError
from services.auth.tests.support import PASSWORD, Client, new_email
from services.auth.tests.test_passwords import mail_to

SECRET = "Pa\u0308ssw\u00f6rt-sehr-geheim"
FORMS = [normalize(form, SECRET) for form in ("NFC", "NFD")] + [SECRET]


def typed(email: str) -> list[str]:
    """Spellings of an address whose domain has umlauts."""
    local, _, domain = email.partition("@")
    upper = f"{local.upper()}@{domain.upper()}"
    return [normalize(form, each) for each in (email, upper) for form in ("NFC", "NFD")]


def with_umlauts() -> str:
    return new_email("juergen").replace("example.com", "b\u00fccher.example")


async def test_an_account_is_found_by_any_form_of_its_address_and_password(client: Client) -> None:
    email = with_umlauts()
    first = await client.sign_up(normalize("NFD", email), normalize("NFD", SECRET))
    assert first.user.email == normalize("NFC", email).replace("b\u00fccher", "xn--bcher-kva")
    for spelt, secret in zip([*typed(email), first.user.email], [*FORMS, *FORMS], strict=False):
        assert (await client.log_in(spelt, secret)).user.id == first.user.id
    for spelt in (*typed(email), first.user.email):
        with pytest.raises(AppError) as refusal:
            await client.sign_up(spelt, PASSWORD)
        assert refusal.value.reason == "EMAIL_TAKEN"


async def test_accounts_of_before_keep_the_spelling_of_their_password(
    client: Client, stack: Any, http: httpx.AsyncClient
) -> None:
    """As they were made when what was typed was kept: straight at Supabase."""
    email, decomposed = new_email(), normalize("NFD", SECRET)
    made = await http.post(
        f"{stack.supabase_url}/auth/v1/signup",
        json={"email": email, "password": decomposed},
        headers={"apikey": stack.publishable_key},
    )
    assert made.is_success, made.text
    session = (await client.log_in(email, decomposed)).session
    with pytest.raises(AppError) as refusal:
        await client.log_in(email, f"{decomposed}!")
    assert refusal.value.reason == "INVALID_CREDENTIALS"
    # Once it is chosen anew, every form is taken.
    await client.update_password(session.access_token, f"{decomposed}!")
    for secret in FORMS:
        await client.log_in(email, f"{secret}!")
    await client.request_reset(email)
    mail = await mail_to(stack.home, email)
    assert (await client.verify_otp("RECOVERY", email=email, token=mail.code or "")).user.email == email


async def test_an_account_of_before_is_found_whose_domain_was_kept_as_typed(client: Client, stack: Any) -> None:
    """The embedded Supabase took such addresses once; no auth server does today."""
    email = with_umlauts()
    signed_up = await client.sign_up(email)
    connection = await asyncpg.connect(stack.admin_db_url)
    await connection.execute("update auth.users set email = $1 where email = $2", email, signed_up.user.email)
    await connection.close()
    assert (await client.log_in(email)).user.id == signed_up.user.id


@pytest.mark.parametrize("local", ["j\u00fcrgen", "\u7530\u4e2d"])
async def test_letters_beyond_ascii_before_the_at_are_refused(client: Client, local: str) -> None:
    """As by the auth server of every hosted project."""
    with pytest.raises(AppError) as refusal:
        await client.sign_up(new_email(local))
    assert refusal.value.reason == "EMAIL_REJECTED"


async def test_a_reset_and_its_code_find_the_account_by_any_form(client: Client, stack: Any) -> None:
    email = with_umlauts()
    kept = (await client.sign_up(email)).user.email
    await client.request_reset(normalize("NFD", email.upper()))
    mail = await mail_to(stack.home, kept)
    assert (await client.verify_otp("RECOVERY", email=email, token=mail.code or "")).user.email == kept


async def test_a_password_that_is_too_long_in_its_one_form_is_refused(client: Client) -> None:
    # Of the few whose one form is the longer one: 2 bytes become 4.
    grown = "\u0344" * 30
    assert len(grown.encode()) <= 72 < len(normalize("NFC", grown).encode())
    with pytest.raises(AppError) as refusal:
        await client.sign_up(new_email(), grown)
    assert (refusal.value.reason, refusal.value.metadata["field"]) == ("FIELD_TOO_LARGE", "password")
