"""Several tabs of one browser: one sign-in, renewed once, and each sees what the others do."""

import asyncio

import psutil
import pytest
from playwright.async_api import Page, expect

from tests.support.measured import Note
from tests.support.model_server import Behaviour
from tests.web.pages import AccountPages, Chat, Settings, Sidebar
from tests.web.world import Web, counted, counted_in

BYTES_PER_TAB = 150 * 1024 * 1024
LOAD_MS = 60_000
"""So many pages at once take their time."""


async def test_a_second_tab_sees_the_turn_and_the_name(web: Web) -> None:
    person = await web.person()
    web.answer("Count here.", Behaviour(tokens=80, delay_seconds=0.02))
    first = await web.visit(person)
    chat = Chat(first)
    second = await first.context.new_page()
    await second.goto("/chat/")
    await expect(Chat(second).box).to_be_visible()
    await chat.send("Count here.")
    session_id = await chat.session_id()
    await expect(Sidebar(second).chat("Count here.")).to_be_visible()
    await second.goto(f"/chat/?id={session_id}")
    await expect(Chat(second).answer).to_contain_text("t5 ")
    for each in (chat, Chat(second)):
        await each.ended()
        assert await counted_in(each.answer) == counted(80)

    web.answer("Once more.", Behaviour(tokens=30, delay_seconds=0.02))
    await chat.send("Once more.")
    await expect(Chat(second).answers).to_have_count(2)
    await Chat(second).ended()
    assert await counted_in(Chat(second).answer) == counted(30)

    await Sidebar(first).rename("Count here.", "Numbers")
    await expect(Sidebar(second).chat("Numbers")).to_be_visible()
    await expect(Chat(second).title).to_have_text("Numbers")


async def test_a_log_out_in_one_tab_is_one_in_all(web: Web) -> None:
    person = await web.person()
    first = await web.visit(person)
    second = await first.context.new_page()
    await second.goto("/settings/?section=profile")
    await expect(Settings(second).button("Save")).to_be_visible()
    await Sidebar(first).account("Log out")
    await expect(AccountPages(first).heading("Log in")).to_be_visible()
    await expect(AccountPages(second).heading("Log in")).to_be_visible()


@pytest.mark.parametrize(
    ("tabs", "known"),
    [
        pytest.param(8, True, id="known by its time"),
        pytest.param(8, False, id="refused by the server"),
        pytest.param(50, True, id="very many", marks=pytest.mark.long),
    ],
)
async def test_many_tabs_renew_one_expired_sign_in_once(web: Web, note: Note, tabs: int, known: bool) -> None:
    """All tabs are loaded anew at the same moment; there are fewer where this machine has no memory for so many."""
    person = await web.person()
    tabs = max(4, min(tabs, psutil.virtual_memory().available // 2 // BYTES_PER_TAB))
    # A tab that asks at the very moment when another one renews may be refused once; it then takes the new token.
    web.watch.allow("401")
    first = await web.visit(person, "/settings/?section=appearance")
    pages = [first, *[await first.context.new_page() for _ in range(tabs - 1)]]
    for page in pages[1:]:
        await page.goto("/settings/?section=appearance", wait_until="commit")
    for page in pages:
        await is_signed_in(page)
    await web.expire(first, known=known)
    before = web.watch.count("POST .*/auth/v1/token")
    await asyncio.gather(*(page.reload(wait_until="commit", timeout=LOAD_MS) for page in pages))
    for page in pages:
        await is_signed_in(page)
    renewals = web.watch.count("POST .*/auth/v1/token") - before
    note(f"{tabs} tabs, {renewals} renewal")
    assert renewals == 1


async def is_signed_in(page: Page) -> None:
    await expect(page.get_by_role("radio", name="Dark", exact=True)).to_be_visible(timeout=LOAD_MS)
