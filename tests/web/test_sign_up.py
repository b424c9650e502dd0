"""Where not everybody may sign up, the page says so and leads to the log-in."""

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from playwright.async_api import expect

from tests.support.api import PASSWORD
from tests.web.pages import AccountPages, Chat
from tests.web.world import Web


@pytest.fixture
async def admin(web: Web) -> AsyncIterator[asyncpg.Connection]:
    """The suite's database, whose rule admits everybody again afterwards."""
    connection = await asyncpg.connect(web.stack.admin_db_url)
    yield connection
    await connection.execute("update private.sign_up_rule set admits = 'open'")
    await connection.execute("delete from private.invitations")
    await connection.close()


async def test_a_closed_sign_up_says_so_and_offers_the_log_in(web: Web, admin: asyncpg.Connection) -> None:
    person = await web.person()
    await admin.execute("update private.sign_up_rule set admits = 'closed'")
    web.watch.allow("403")
    page = await web.visit(path="/signup/")
    account = AccountPages(page)
    await account.sign_up(f"late-{uuid4()}@example.com", PASSWORD)
    await expect(account.alert).to_contain_text("New accounts are not accepted here.")
    await page.get_by_role("main").get_by_role("link", name="Log in", exact=True).click()
    await account.log_in(person.user["email"], PASSWORD)
    await expect(Chat(page).box).to_be_visible()


async def test_who_is_not_invited_is_told_so_at_the_address_and_who_is_gets_in(
    web: Web, admin: asyncpg.Connection
) -> None:
    email = f"guest-{uuid4()}@example.com"
    await admin.execute("update private.sign_up_rule set admits = 'invitations'")
    await admin.execute("insert into private.invitations (email) values ($1)", email)
    web.watch.allow("403")
    page = await web.visit(path="/signup/")
    account = AccountPages(page)
    await account.sign_up(f"x{email}", PASSWORD)
    await expect(account.field("E-mail")).to_have_accessible_description(
        "New accounts are by invitation, and this address has none."
    )
    await account.field("E-mail").fill(email.upper())
    await account.button("Sign up").click()
    await expect(Chat(page).box).to_be_visible()
