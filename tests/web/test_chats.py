"""The list of chats: names, the filter, the archive, deletion, days; search and its jump to the place."""

import re

from playwright.async_api import expect

from tests.support.api import Person, ok
from tests.support.waiting import until
from tests.web import filled
from tests.web.pages import Chat, Search, Sidebar
from tests.web.world import Web


async def test_chats_stand_under_their_days_newest_first(web: Web) -> None:
    person = await web.person()
    for days, name in ((0, "Of today"), (1, "Of yesterday"), (3, "Of this week"), (40, "Of last month")):
        session = await person.create_session(name=name)
        await filled.backdate(web.stack, session["id"], days=days)
    page = await web.visit(person)
    sidebar = Sidebar(page)
    await expect(sidebar.chat("Of last month")).to_be_visible()
    headings = await sidebar.nav.get_by_role("heading").all_inner_texts()
    shown = [heading for heading in headings if heading.casefold() != "chats"]
    assert [day.casefold() for day in shown[:2]] == ["today", "yesterday"]
    assert len(shown) == 4
    text = await sidebar.nav.inner_text()
    positions = [text.index(name) for name in ("Of today", "Of yesterday", "Of this week", "Of last month")]
    assert positions == sorted(positions)


async def test_the_list_loads_more_while_it_is_scrolled(web: Web) -> None:
    person = await web.person()
    await filled.many_sessions(web.stack, person.user["id"], 180)
    page = await web.visit(person)
    sidebar = Sidebar(page)
    await expect(sidebar.chat("Session 180")).to_be_visible()
    await sidebar.chat("Session 170").hover()

    async def reaches_the_end() -> bool:
        await page.mouse.wheel(0, 3000)
        return await sidebar.chat("Session 1").is_visible()

    await until(reaches_the_end, "the oldest chat")
    await sidebar.filter.fill("session 42")
    await expect(sidebar.chat("Session 42")).to_be_visible()
    await expect(sidebar.chat("Session 1")).to_have_count(0)
    await sidebar.filter.fill("there is no such chat")
    await expect(sidebar.nav).to_contain_text(re.compile("no chat|nothing|found", re.IGNORECASE))


async def name_of(person: Person, session_id: str) -> str:
    return str(ok(await person.call("GET", f"/sessions/{session_id}"))["name"])


async def test_a_chat_is_renamed_in_its_place(web: Web) -> None:
    person = await web.person()
    session = await web.chat(person, ("Hello", "Hello."), name="Old name")
    page = await web.visit(person, f"/chat/?id={session['id']}")
    sidebar = Sidebar(page)
    await sidebar.rename("Old name", "New name")
    await expect(sidebar.chat("New name")).to_be_visible()
    await expect(Chat(page).title).to_have_text("New name")

    async def is_renamed() -> bool:
        return await name_of(person, session["id"]) == "New name"

    await until(is_renamed, "the new name")
    await sidebar.choose("New name", "Rename")
    field = page.get_by_role("textbox", name="Chat name", exact=True)
    await field.fill("Never mind")
    await field.press("Escape")
    await expect(sidebar.chat("New name")).to_be_visible()
    assert await name_of(person, session["id"]) == "New name"


async def test_a_name_that_is_refused_is_taken_back_with_a_word(web: Web) -> None:
    person = await web.person()
    await person.create_session(name="Old name")
    web.watch.allow("net::ERR_")
    page = await web.visit(person)
    sidebar = Sidebar(page)
    await sidebar.choose("Old name", "Rename")
    await page.keyboard.press("Escape")
    await page.context.set_offline(True)
    await sidebar.rename("Old name", "New name")
    await expect(sidebar.chat("Old name")).to_be_visible()
    await expect(page.get_by_text("Concerto cannot be reached").first).to_be_visible()


async def test_a_chat_is_archived_and_restored(web: Web) -> None:
    person = await web.person()
    session = await web.chat(person, ("Hello", "Hello."), name="To be kept")
    page = await web.visit(person)
    sidebar = Sidebar(page)
    await sidebar.choose("To be kept", "Archive")
    await expect(sidebar.chat("To be kept")).to_have_count(0)
    await page.get_by_role("link", name="Archive", exact=True).click()
    await expect(page.get_by_role("heading", level=1, name="Archive")).to_be_visible()
    await expect(sidebar.chat("To be kept")).to_be_visible()
    assert ok(await person.call("GET", f"/sessions/{session['id']}"))["is_archived"]
    await sidebar.choose("To be kept", "Restore")
    await expect(sidebar.nav.get_by_role("link", name="To be kept", exact=True)).to_be_visible()
    await expect(page.get_by_role("main").get_by_role("link", name="To be kept", exact=True)).to_have_count(0)


async def exists(person: Person, session_id: str) -> bool:
    return (await person.call("GET", f"/sessions/{session_id}")).is_success


async def test_a_deletion_is_undone(web: Web) -> None:
    person = await web.person()
    session = await web.chat(person, ("Hello", "Hello."), name="Nearly gone")
    page = await web.visit(person)
    sidebar = Sidebar(page)
    await sidebar.choose("Nearly gone", "Delete")
    await expect(sidebar.chat("Nearly gone")).to_have_count(0)
    await sidebar.undo.click()
    await expect(sidebar.chat("Nearly gone")).to_be_visible()
    await page.wait_for_timeout(7500)  # longer than a deletion can be undone; that nothing is deleted has no event
    assert web.watch.count(r"^DELETE .*/sessions/") == 0
    assert await exists(person, session["id"])


async def test_a_chat_is_deleted_for_good_also_when_the_tab_is_closed(web: Web) -> None:
    person = await web.person()
    open_one = await web.chat(person, ("Hello", "Hello."), name="Open one")
    other = await web.chat(person, ("Hello", "Hello."), name="Other one")
    page = await web.visit(person, f"/chat/?id={open_one['id']}")
    sidebar = Sidebar(page)
    await expect(Chat(page).answers).to_have_count(1)
    await sidebar.choose("Open one", "Delete")
    await expect(Chat(page).title).to_have_text("New chat")

    async def first_is_gone() -> bool:
        return not await exists(person, open_one["id"])

    await until(first_is_gone, "the deletion")
    await sidebar.choose("Other one", "Delete")
    await expect(sidebar.chat("Other one")).to_have_count(0)
    await page.goto("about:blank")

    async def other_is_gone() -> bool:
        return not await exists(person, other["id"])

    # The page that would have waited for the end of the time to undo is gone, so it was told at its leaving.
    await until(other_is_gone, "the deletion of the second one")


async def test_search_finds_words_and_jumps_to_their_place(web: Web) -> None:
    person = await web.person()
    session_id = await filled.long_chat(web.stack, person.user["id"], 600, name="A long talk")
    page = await web.visit(person, "/search/")
    search, chat = Search(page), Chat(page)
    await search.box.fill("message 57")
    hit = search.results("A long talk").filter(has_text="says a few words")
    await expect(hit).to_have_count(1)
    assert "57" in " ".join(await hit.locator("mark").all_inner_texts())
    await hit.get_by_role("link").click()
    await page.wait_for_url(f"**/chat/?id={session_id}**")
    found = chat.log.get_by_role("article").filter(has_text="Message 57 says")
    await expect(found).to_be_in_viewport()
    await expect(chat.log.get_by_text("Message 600 says")).to_have_count(0)
    await chat.button("Jump to latest").click()
    await expect(chat.log.get_by_role("article").filter(has_text="Message 600 says")).to_be_in_viewport()
    await page.go_back()
    await page.wait_for_url("**/search/**")
    await expect(search.box).to_have_value("message 57")
    await search.box.fill("zebra")
    await expect(search.main).to_contain_text(re.compile("no |nothing", re.IGNORECASE))


async def test_a_hit_on_a_version_that_is_not_shown_is_shown(web: Web) -> None:
    person = await web.person()
    web.answer("Name a fruit.", "Persimmon.", "Quince.")
    page = await web.visit(person)
    chat = Chat(page)
    await chat.ask("Name a fruit.")
    await chat.act(chat.answer, "Regenerate")
    await expect(chat.answer).to_contain_text("Quince.")
    await chat.ended()
    await page.goto("/search/?q=persimmon")
    await Search(page).results("Name a fruit.").filter(has_text="Persimmon").get_by_role("link").click()
    await expect(chat.answer).to_contain_text("Persimmon.")
