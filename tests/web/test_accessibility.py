"""Every page and main state: WCAG by axe in both themes and at 360 px, the keyboard alone, no motion unasked."""

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from local.settings import ROOT
from tests.support.api import PASSWORD
from tests.support.measured import Note
from tests.support.model_server import Behaviour
from tests.web import tour
from tests.web.pages import AccountPages, Chat, Sidebar
from tests.web.world import NARROW, WIDE, Web, no_sideways_scroll

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
RUN_AXE = """async (only) => {
  const options = { resultTypes: ["violations"], ...(only ? { runOnly: only } : {}) };
  const { violations } = await window.axe.run(document, options);
  return violations.map(({ id, help, nodes }) =>
    `${id}: ${help}\\n` + nodes.slice(0, 3).map((node) => `    ${node.html.slice(0, 200)}\\n      ${
      [...node.any, ...node.all, ...node.none].map((check) => check.message).join("; ").slice(0, 300)}`).join("\\n"));
}"""
CUT_OFF = """() => [...document.querySelectorAll("button, a, input, textarea, h1, h2, h3, p, label")]
  .filter((each) => each.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && !each.closest(
    "[aria-hidden=true], .sr-only, pre, .katex, table"))
  .filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width > 1 && box.height > 1 && (box.right > innerWidth + 1 || box.left < -1);
  })
  .map((each) => `${each.tagName} ${(each.innerText || each.getAttribute("aria-label") || "").slice(0, 60)}`)"""
SMALL_TARGETS = """() => [...document.querySelectorAll("button, [role=menuitem], [role=tab], [role=switch], input")]
  .filter((each) => each.checkVisibility({ opacityProperty: true, visibilityProperty: true }))
  .map((each) => [each, each.getBoundingClientRect()])
  .filter(([each, box]) => box.width > 1 && box.height > 1 && (box.width < 23.5 || box.height < 23.5)
    && !(each.matches("input") && each.labels?.length && each.labels[0].getBoundingClientRect().height >= 23.5))
  .map(([each, box]) => `${each.getAttribute("aria-label") || each.innerText} ${box.width}x${box.height}`)"""

# What lasts no longer than a frame is no motion: that is how animations are switched off while their ends are told.
MOVING = """() => document.getAnimations()
  .filter((each) => each.playState === "running" && Number(each.effect?.getComputedTiming().duration) > 17)
  .map((each) => `${each.animationName ?? each.transitionProperty} ${each.effect?.target?.className}`.slice(0, 120))"""

DRAWN = "async () => { for (let frame = 0; frame < 2; frame += 1) await new Promise(requestAnimationFrame); }"

# Until every colour has arrived: transitions begin with the next frame, and last one where motion is unwanted.
PAINT = """async (colours) => {
  document.documentElement.classList.toggle("dark", colours === "dark");
  for (let frame = 0; frame < 2; frame += 1) await new Promise(requestAnimationFrame);
  await Promise.allSettled(document.getAnimations().map((each) => each.finished));
}"""


async def violations(page: Page, only: list[str] | None = None) -> list[str]:
    """Return what axe finds on the page as it is now."""
    if not await page.evaluate("Boolean(window.axe)"):
        await page.evaluate(AXE.read_text())
    found: list[str] = await page.evaluate(RUN_AXE, only)
    return found


@pytest.fixture(scope="module")
def houses() -> dict[str, Any]:
    """The furnished house of each suite, made once."""
    return {}


async def house_of(web: Web, houses: dict[str, Any]) -> tour.House:
    url = web.stack.gateway_url
    if url not in houses:
        houses[url] = await tour.furnished(web)
    made: tour.House = houses[url]
    return made


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_no_page_violates_the_rules_in_light_or_dark(web: Web, houses: dict[str, Any], note: Note) -> None:
    house = await house_of(web, houses)
    wrong: list[str] = []
    checked = 0
    async for name, page in tour.walk(web, house, viewport=WIDE, color_scheme="light"):
        moving = await page.evaluate(MOVING)
        wrong += [f"{name}: moves although it should not: {each}" for each in moving]
        wrong += [f"{name}, light: {each}" for each in await violations(page)]
        await page.evaluate(PAINT, "dark")
        wrong += [f"{name}, dark: {each}" for each in await violations(page, ["color-contrast"])]
        await page.evaluate(PAINT, "light")
        wrong += [f"{name}: small target: {each}" for each in await page.evaluate(SMALL_TARGETS)]
        checked += 1
    note(f"{checked} states checked in light and dark")
    assert not wrong, "\n".join(wrong)


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_every_page_fits_a_narrow_window(web: Web, houses: dict[str, Any]) -> None:
    house = await house_of(web, houses)
    wrong: list[str] = []
    async for name, page in tour.walk(web, house, viewport=NARROW, has_touch=True):
        if not await no_sideways_scroll(page):
            wrong.append(f"{name}: scrolls sideways")
        wrong += [f"{name}: cut off: {each}" for each in await page.evaluate(CUT_OFF)]
        wrong += [f"{name}: {each}" for each in await violations(page)]
    assert not wrong, "\n".join(wrong)


async def test_a_turn_on_a_narrow_screen(web: Web) -> None:
    person = await web.person()
    web.answer("Hello from the train.", "Good journey.")
    page = await web.visit(person, viewport=NARROW, has_touch=True, is_mobile=True)
    chat, sidebar = Chat(page), Sidebar(page)
    await chat.ask("Hello from the train.")
    await expect(chat.answer).to_contain_text("Good journey.")
    await expect(sidebar.nav).to_be_hidden()
    await page.get_by_role("button", name="Open chats", exact=True).tap()
    await sidebar.new_chat()
    await expect(sidebar.nav).to_be_hidden()
    await expect(chat.answers).to_have_count(0)
    await page.get_by_role("button", name="Open chats", exact=True).tap()
    await sidebar.chat("Hello from the train.").tap()
    await expect(sidebar.nav).to_be_hidden()
    await expect(chat.answer).to_contain_text("Good journey.")


async def focused(page: Page) -> str:
    """Return the name of what has the focus."""
    return str(
        await page.evaluate(
            "(document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.labels?.[0]?.innerText"
            " ?? document.activeElement?.innerText ?? '').trim()"
        )
    )


async def tab_to(page: Page, name: str) -> None:
    """Press Tab until something of that name has the focus; the focus must be seen all the way."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        if await focused(page) == name:
            return
    pytest.fail(f"Tab never comes to {name}")


async def test_everything_of_a_turn_goes_by_the_keyboard(web: Web) -> None:
    person = await web.person()
    await web.chat(person, ("The duchess sails.", "Noted."), name="At sea")
    web.answer("By the keyboard?", Behaviour(tokens=400, delay_seconds=0.02), "Yes, all of it.")
    page = await web.visit(path="/login/")
    chat = Chat(page)
    await expect(AccountPages(page).heading("Log in")).to_be_visible()
    if await focused(page) != "E-mail":
        await tab_to(page, "E-mail")
    await page.keyboard.type(person.user["email"])
    await tab_to(page, "Password")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(chat.box).to_be_visible()
    await expect(Sidebar(page).chat("At sea")).to_be_visible()

    await page.keyboard.press("Control+k")
    dialog = page.get_by_role("dialog")
    await expect(dialog).to_be_visible()
    await page.keyboard.type("at sea")
    await expect(dialog.get_by_role("option", name="At sea").first).to_be_visible()
    await page.keyboard.press("Enter")
    await expect(chat.title).to_have_text("At sea")
    await expect(chat.answers).to_have_count(1)

    await page.keyboard.press("Control+Shift+o")
    await expect(chat.title).to_have_text("New chat")
    await expect(chat.box).to_be_focused()
    await page.keyboard.type("By the keyboard?")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.press("Backspace")
    await page.keyboard.press("Enter")
    await expect(chat.answer).to_contain_text("t5 ")
    await page.keyboard.press("Escape")
    await expect(chat.stop_button).to_be_hidden()
    await expect(chat.answer).to_contain_text(re.compile("stopped", re.IGNORECASE))
    await page.evaluate("document.activeElement.blur()")
    await tab_to(page, "Regenerate")
    assert await page.evaluate("document.activeElement.matches(':focus-visible')")
    await page.keyboard.press("Enter")
    await expect(chat.answer).to_contain_text("Yes, all of it.")
    # The box takes the focus once more when the turn is over, behind the drawing of it.
    await expect(chat.stop_button).to_be_hidden()
    await page.evaluate(DRAWN)
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("/")
    await expect(chat.box).to_be_focused()
    await expect(chat.box).to_have_value("")
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("?")
    await expect(dialog).to_contain_text(re.compile("shortcuts", re.IGNORECASE))
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    await page.keyboard.press("Control+/")
    await expect(page.get_by_role("searchbox", name="Search messages")).to_be_focused()


async def test_what_streams_is_announced_calmly(web: Web) -> None:
    person = await web.person()
    web.answer("Count.", Behaviour(tokens=60, delay_seconds=0.02))
    page = await web.visit(person)
    chat = Chat(page)
    await chat.send("Count.")
    await expect(chat.answer).to_contain_text("t5 ")
    # role="log" speaks each change by itself; while words stream, that would be one voice over another.
    live = await chat.log.get_attribute("aria-live")
    busy = await chat.log.get_attribute("aria-busy")
    assert live == "off" or busy == "true", "each word of a streaming answer would be read out"
    await chat.ended()
    assert await chat.log.get_attribute("aria-busy") != "true"
