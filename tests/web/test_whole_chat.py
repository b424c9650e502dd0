"""A whole chat: copied, saved as a file, and as a page that prints to its last message."""

import io
import json
import re

from playwright.async_api import expect
from pypdf import PdfReader

from tests.web import filled
from tests.web.pages import Chat
from tests.web.world import Web

TABLE = "| Town | People |\n|---|--:|\n| Ulm | 126000 |"


async def test_a_chat_is_copied_and_saved_as_a_file(web: Web) -> None:
    person = await web.person()
    session = await web.chat(
        person, ("Wie heißt der Fluß?", "Die **Donau**."), ("And a table?", TABLE), name="Ulm: a/b"
    )
    page = await web.visit(
        person, f"/chat/?id={session['id']}", permissions=["clipboard-read", "clipboard-write"], accept_downloads=True
    )
    await expect(Chat(page).log).to_contain_text("126000")
    menu = page.get_by_role("button", name="Chat menu")
    text = (
        "# Ulm: a/b\n\n## You\n\nWie heißt der Fluß?\n\n## Assistant\n\nDie **Donau**.\n\n"
        f"## You\n\nAnd a table?\n\n## Assistant\n\n{TABLE}\n"
    )
    await menu.click()
    await page.get_by_role("menuitem", name="Copy chat").click()
    await expect(page.get_by_text("The chat is copied.")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == text

    async def saved(choice: str) -> tuple[str, str]:
        async with page.expect_download() as download:
            await menu.click()
            await page.get_by_role("menuitem", name=choice).click()
        file = await download.value
        await expect(page.get_by_role("menu")).to_have_count(0)  # a menu that closes takes the focus once more
        return file.suggested_filename, (await file.path()).read_text(encoding="utf-8")

    assert await saved("Export as Markdown") == ("Ulm a b.md", text)
    name, written = await saved("Export as JSON")
    assert name == "Ulm a b.json"
    read = json.loads(written)
    assert read["session"]["id"] == session["id"]
    assert [message["content"] for message in read["messages"]][::2] == ["Wie heißt der Fluß?", "And a table?"]


async def test_a_chat_that_cannot_be_read_is_told_in_words(web: Web) -> None:
    person = await web.person()
    session = await web.chat(person, ("Hello", "Hello."), name="Soon out of reach")
    page = await web.visit(person, f"/chat/?id={session['id']}")
    await expect(Chat(page).log).to_contain_text("Hello.")
    web.watch.allow("net::ERR_|503")
    await page.route(re.compile("/messages"), lambda route: route.abort())
    await page.get_by_role("button", name="Chat menu").click()
    await page.get_by_role("menuitem", name="Export as Markdown").click()
    await expect(page.get_by_text("The chat could not be read to its end.")).to_be_visible()


async def test_a_page_holds_the_whole_chat_for_print_and_search(web: Web) -> None:
    person = await web.person()
    session_id = await filled.long_chat(web.stack, person.user["id"], 200, name="A long talk")
    page = await web.visit(person, f"/chat/?id={session_id}", color_scheme="dark")
    await page.get_by_role("button", name="Chat menu").click()
    await page.get_by_role("menuitem", name="Whole chat, to print").click()
    await expect(page.get_by_role("heading", name="A long talk", level=1)).to_be_visible()
    await expect(page.get_by_role("article")).to_have_count(200)
    text = await page.get_by_role("main").inner_text()
    for number in (1, 100, 200):
        assert re.search(rf"\bMessage {number} says", text), number
    paper = PdfReader(io.BytesIO(await page.pdf(format="A4")))
    printed = " ".join(sheet.extract_text() for sheet in paper.pages)
    assert [int(number) for number in re.findall(r"Message\s+(\d+)\s+says", printed)] == list(range(1, 201))
    # What prints is the chat alone, in full height and in light colours.
    await page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    await page.emulate_media(media="print")
    await expect(page.get_by_role("navigation")).to_be_hidden()
    await expect(page.get_by_role("link", name="Back to the chat")).to_be_hidden()
    last = await page.get_by_role("article").last.bounding_box()
    height = await page.evaluate("document.documentElement.scrollHeight")
    assert last is not None
    assert height >= last["y"] + last["height"] > 5000
    assert not await page.evaluate("document.documentElement.classList.contains('dark')")
    await page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    await page.emulate_media(media="screen")
    assert await page.evaluate("document.documentElement.classList.contains('dark')")
    await page.get_by_role("link", name="Back to the chat").click()
    await expect(Chat(page).log).to_contain_text("Message 200 says")
