"""Several tabs of one browser: one sign-in, renewed once, and each sees what the others do."""

import asyncio

import psutil
import pytest
from playwright.async_api import Page, Route, expect

from tests.support.measured import Note
from tests.support.model_server import Behaviour
from tests.support.waiting import until
from tests.web.pages import AccountPages, Chat, Settings, Sidebar
from tests.web.world import Web, counted, counted_in

BYTES_PER_TAB = 150 * 1024 * 1024
LOAD_MS = 120_000
"""So many pages at once take their time."""
APPEARANCE = "/settings/?section=appearance"
EXCHANGE = "POST .*/auth/v1/token"


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
async def test_tabs_loaded_at_once_renew_one_expired_sign_in_once(web: Web, note: Note, tabs: int, known: bool) -> None:
    """As a browser that is started again does; there are fewer where this machine has no memory for so many."""
    # A tab that asks at the very moment when another one renews may be refused once; it then takes the new token.
    web.watch.allow("401")
    pages = await signed_in_tabs(web, max(4, min(tabs, psutil.virtual_memory().available // 2 // BYTES_PER_TAB)))
    # Left before the token expires: a page that is unloaded in the middle of its exchange leaves another one to do.
    await asyncio.gather(*(page.goto("/openapi.json", timeout=LOAD_MS) for page in pages))
    await web.expire(pages[0], known=known)
    before = web.watch.count(EXCHANGE)
    await asyncio.gather(*(page.goto(APPEARANCE, wait_until="commit", timeout=LOAD_MS) for page in pages))
    for page in pages:
        await is_signed_in(page)
    renewals = web.watch.count(EXCHANGE) - before
    note(f"{len(pages)} tabs, {renewals} renewal")
    assert renewals == 1


async def test_open_tabs_renew_one_expired_sign_in_once(web: Web) -> None:
    pages = await signed_in_tabs(web, 4)
    before = web.watch.count(EXCHANGE)
    await web.expire(pages[0])

    async def is_renewed() -> bool:
        return web.watch.count(EXCHANGE) > before

    await until(is_renewed, "an exchange")
    for page in pages:
        await Settings(page).tab("Profile")
        await expect(Settings(page).button("Save")).to_be_visible(timeout=LOAD_MS)
    assert web.watch.count(EXCHANGE) - before == 1


async def test_a_tab_closed_in_the_middle_of_its_exchange_costs_the_others_nothing(web: Web) -> None:
    """The server has given the new tokens to a page that is gone; it forgives who comes with the old one again."""
    web.watch.allow("401")
    first, second = await signed_in_tabs(web, 2)
    for page in (first, second):
        await page.goto("/openapi.json")
    await web.expire(first)
    before = web.watch.count(EXCHANGE)
    closed = asyncio.Event()

    async def close(route: Route) -> None:
        answer = await route.fetch()
        assert answer.ok
        await first.close()
        await route.abort()
        closed.set()

    await first.route("**/auth/v1/token?*", close)
    await first.goto(APPEARANCE, wait_until="commit")
    await closed.wait()
    await second.goto(APPEARANCE)
    await is_signed_in(second)
    assert web.watch.count(EXCHANGE) - before == 2


async def signed_in_tabs(web: Web, number: int) -> list[Page]:
    """Return so many tabs of one browser, all of which show that the person is signed in."""
    first = await web.visit(await web.person(), APPEARANCE)
    pages = [first, *[await first.context.new_page() for _ in range(number - 1)]]
    for page in pages[1:]:
        await page.goto(APPEARANCE, wait_until="commit")
    for page in pages:
        await is_signed_in(page)
    return pages


async def is_signed_in(page: Page) -> None:
    await expect(page.get_by_role("radio", name="Dark", exact=True)).to_be_visible(timeout=LOAD_MS)
