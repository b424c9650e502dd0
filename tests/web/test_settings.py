"""The settings: what others see, how it looks, what one is told, what was used."""

import re
import struct
import zlib

from playwright.async_api import Page, expect

from tests.support.api import ok
from tests.support.waiting import until
from tests.web import filled
from tests.web.pages import Chat, Settings
from tests.web.world import Web

DARK = "document.documentElement.classList.contains('dark')"


async def test_the_profile_is_changed_and_shown_again(web: Web) -> None:
    person = await web.person()
    page = await web.visit(person, "/settings/?section=profile")
    settings = Settings(page)
    values = {
        "Display name": "Jürgen 张伟",
        "Full name": "Jürgen Müller-Lüdenscheidt",
        "Username": f"juergen-{person.user['id'][-12:]}",
        "Status": "In Ulm, um Ulm",
        "Status emoji": "🌊",
    }
    for name, value in values.items():
        await settings.field(name).fill(value)
    await settings.button("Save").click()

    async def is_saved() -> bool:
        me = ok(await person.call("GET", "/auth/me"))
        return bool(me["display_name"] == values["Display name"] and me["profile"]["username"] == values["Username"])

    await until(is_saved, "the profile")
    await page.reload()
    for name, value in values.items():
        await expect(settings.field(name)).to_have_value(value)


async def test_a_name_that_is_taken_is_said_at_its_field(web: Web) -> None:
    first, second = await web.person(), await web.person()
    username = f"taken-{first.user['id'][-12:]}"
    ok(await first.call("PATCH", "/auth/me", {"profile": {"username": username}}))
    web.watch.allow("409")
    page = await web.visit(second, "/settings/?section=profile")
    settings = Settings(page)
    await settings.field("Username").fill(username)
    await settings.button("Save").click()
    await expect(page.get_by_role("main")).to_contain_text(re.compile("taken|already", re.IGNORECASE))
    await expect(settings.field("Username")).to_have_value(username)


def picture(side: int) -> bytes:
    """Return a PNG of one colour."""
    raw = b"".join(b"\x00" + b"\x30\x60\xa0" * side for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


async def test_a_picture_is_made_small_and_kept(web: Web) -> None:
    person = await web.person()
    page = await web.visit(person, "/settings/?section=profile")
    await expect(Settings(page).field("Display name")).to_be_visible()
    await page.locator("input[type=file]").set_input_files(
        {"name": "me.png", "mimeType": "image/png", "buffer": picture(1500)}
    )
    kept: list[str] = []

    async def is_kept() -> bool:
        kept[:] = [ok(await person.call("GET", "/auth/me"))["profile"]["avatar_url"]]
        return bool(kept[0])

    await until(is_kept, "the picture")
    assert kept[0].startswith(f"{web.stack.supabase_url}/storage/v1/object/public/avatars/{person.user['id']}/")
    response = await web.client.get(kept[0])
    assert response.headers["content-type"] == "image/webp"
    assert response.content[8:12] == b"WEBP"
    assert len(response.content) < 30_000
    await page.reload()
    shown = page.get_by_role("main").locator(f"img[src='{kept[0]}']")
    await expect(shown.first).to_be_visible()
    assert await shown.first.evaluate("(image) => image.naturalWidth") == 256


async def becomes(page: Page, *, dark: bool) -> None:
    """Wait for the colours."""

    async def is_so() -> bool:
        return bool(await page.evaluate(DARK)) == dark

    await until(is_so, "the dark colours" if dark else "the light colours")


async def test_the_colours_follow_the_choice_the_device_and_the_account(web: Web) -> None:
    person = await web.person()
    page = await web.visit(person, "/settings/?section=appearance", color_scheme="light")
    choice = page.get_by_role("radiogroup", name="Theme")
    await expect(choice.get_by_role("radio", name="System", exact=True)).to_be_checked()
    assert not await page.evaluate(DARK)
    await page.emulate_media(color_scheme="dark")
    await becomes(page, dark=True)
    await choice.get_by_role("radio", name="Light", exact=True).click()
    await becomes(page, dark=False)
    await choice.get_by_role("radio", name="Dark", exact=True).click()
    await becomes(page, dark=True)

    async def is_kept() -> bool:
        return bool(ok(await person.call("GET", "/auth/me"))["settings"]["theme"] == "dark")

    await until(is_kept, "the theme")
    await page.emulate_media(color_scheme="light")
    # Before the first paint, so that nobody is dazzled.
    await page.reload(wait_until="commit")
    await page.locator("body").wait_for(state="attached")
    assert await page.evaluate(DARK)
    await becomes(await web.visit(person, color_scheme="light"), dark=True)


async def test_what_one_is_told_is_kept(web: Web) -> None:
    person = await web.person()
    page = await web.visit(person, "/settings/?section=notifications", permissions=["notifications"])
    for name in ("Tell me when an answer is ready", "Play a sound"):
        switch = page.get_by_role("switch", name=name, exact=True)
        before = await switch.is_checked()
        await switch.click()
        await expect(switch).to_be_checked(checked=not before)

    async def is_kept() -> bool:
        preferences = ok(await person.call("GET", "/auth/me"))["settings"]["notification_preferences"]
        return set(preferences) == {"answer_ready", "sound"}

    await until(is_kept, "the preferences")


async def test_what_was_used_stands_by_day_and_model(web: Web) -> None:
    person = await web.person()
    await filled.usage_of_weeks(web.stack, person.user["id"])
    page = await web.visit(person, "/settings/?section=usage")
    main = page.get_by_role("main")
    await expect(main.get_by_role("figure").or_(main.get_by_role("table")).first).to_be_visible()
    for model in ("test-model", "other-model"):
        await expect(main.get_by_text(model).first).to_be_visible()
    newcomer = await web.visit(await web.person(), "/settings/?section=usage")
    await expect(newcomer.get_by_role("main")).to_contain_text(re.compile("No answers", re.IGNORECASE))


async def test_the_display_name_and_the_way_back(web: Web) -> None:
    person = await web.person(display_name="Ada Lovelace")
    page = await web.visit(person, "/settings/?section=profile")
    await expect(Settings(page).field("Display name")).to_have_value("Ada Lovelace")
    await Settings(page).tab("Usage")
    await page.reload()
    await expect(page.get_by_role("tab", name="Usage", exact=True)).to_have_attribute("aria-selected", "true")
    await page.get_by_role("navigation", name="Chats").get_by_text("New chat").first.click()
    await expect(Chat(page).box).to_be_visible()
