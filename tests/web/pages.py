"""The pages by the roles and names that people (and screen readers) know them by; nothing of their markup."""

import re
from dataclasses import dataclass

from playwright.async_api import Locator, Page, expect

RESTS = """(list) => new Promise((resolve) => {
    let still = 0, before = ""
    const look = () => {
        const now = `${list.scrollTop} ${list.scrollHeight}`
        still = now === before ? still + 1 : 0
        before = now
        if (still === 15) resolve(); else requestAnimationFrame(look)
    }
    look()
})"""
"""Waits until a list has neither moved nor grown for fifteen frames; its rows are measured some frames after a move."""


@dataclass(frozen=True)
class AccountPages:
    """Log-in, sign-up and the pages around passwords."""

    page: Page

    def heading(self, name: str) -> Locator:
        """The page's title."""
        return self.page.get_by_role("heading", level=1, name=name, exact=True)

    def field(self, name: str) -> Locator:
        """A text field. Password fields have no role, so their label names them."""
        return self.page.get_by_label(name, exact=True)

    def button(self, name: str) -> Locator:
        """A button."""
        return self.page.get_by_role("button", name=name, exact=True)

    @property
    def alert(self) -> Locator:
        """What went wrong, in words."""
        return self.page.get_by_role("main").get_by_role("alert")

    async def log_in(self, email: str, password: str) -> None:
        """Fill in the log-in form and send it."""
        await expect(self.heading("Log in")).to_be_visible()
        await self.field("E-mail").fill(email)
        await self.field("Password").fill(password)
        await self.button("Log in").click()

    async def enter_code(self, code: str, *, submit: str, email: str = "") -> None:
        """Type in the code of a mail, with the address where the page asks for it, and send it."""
        if email:
            await self.field("E-mail").fill(email)
        await self.field("Code").fill(code)
        await self.button(submit).click()

    async def sign_up(self, email: str, password: str, name: str = "") -> None:
        """Fill in the sign-up form and send it."""
        await expect(self.heading("Create your account")).to_be_visible()
        if name:
            await self.page.get_by_role("textbox", name=re.compile("^Name")).fill(name)
        await self.field("E-mail").fill(email)
        await self.field("Password").fill(password)
        await self.button("Sign up").click()


@dataclass(frozen=True)
class Sidebar:
    """The list of chats and what can be done with them."""

    page: Page

    @property
    def nav(self) -> Locator:
        """The list as a whole."""
        return self.page.get_by_role("navigation", name="Chats", exact=True)

    @property
    def filter(self) -> Locator:
        """The search by name."""
        return self.nav.get_by_role("searchbox", name="Filter chats", exact=True)

    @property
    def undo(self) -> Locator:
        """The button of the notice after a deletion."""
        return self.page.get_by_role("button", name="Undo", exact=True)

    def chat(self, name: str) -> Locator:
        """The link to a chat. The list stands in the sidebar, or in the archive's main part."""
        return self.page.get_by_role("link", name=name, exact=True)

    def options(self, name: str) -> Locator:
        """The button of a chat's menu."""
        return self.page.get_by_role("button", name=f"Options for {name}", exact=True)

    async def open_chats(self) -> None:
        """Bring the list into view where the window is too narrow to show it always."""
        opener = self.page.get_by_role("button", name="Open chats", exact=True)
        await expect(opener.or_(self.nav).first).to_be_visible()
        if await opener.is_visible() and not await self.nav.is_visible():
            await opener.click()
        await expect(self.nav).to_be_visible()

    async def choose(self, name: str, action: str) -> None:
        """Pick an entry of a chat's menu."""
        await self.chat(name).hover()
        await self.options(name).click()
        await self.page.get_by_role("menuitem", name=action, exact=True).click()

    async def rename(self, name: str, new_name: str) -> None:
        """Give a chat another name."""
        await self.choose(name, "Rename")
        field = self.page.get_by_role("textbox", name="Chat name", exact=True)
        await expect(field).to_be_focused()
        await field.fill(new_name)
        await field.press("Enter")

    async def new_chat(self) -> None:
        """Begin a new chat."""
        await (
            self.nav.get_by_role("link", name="New chat", exact=True)
            .or_(self.nav.get_by_role("button", name="New chat", exact=True))
            .first.click()
        )

    async def account(self, action: str) -> None:
        """Pick an entry of the account's menu."""
        await self.page.get_by_role("button", name="Account menu").click()
        await self.page.get_by_role("menuitem", name=action).click()


@dataclass(frozen=True)
class Chat:
    """A conversation and where one writes."""

    page: Page

    @property
    def title(self) -> Locator:
        """The chat's name."""
        return self.page.get_by_role("heading", level=1)

    @property
    def log(self) -> Locator:
        """All messages."""
        return self.page.get_by_role("log", name="Conversation", exact=True)

    @property
    def questions(self) -> Locator:
        """What the person said."""
        return self.log.get_by_role("article", name="You", exact=True)

    @property
    def answers(self) -> Locator:
        """What the assistant said."""
        return self.log.get_by_role("article", name="Assistant", exact=True)

    @property
    def answer(self) -> Locator:
        """The last answer."""
        return self.answers.last

    @property
    def box(self) -> Locator:
        """Where one writes."""
        return self.page.get_by_role("textbox", name="Message", exact=True)

    @property
    def send_button(self) -> Locator:
        """Sends what is written."""
        return self.button("Send")

    @property
    def stop_button(self) -> Locator:
        """Stops the answer."""
        return self.button("Stop")

    @property
    def reconnecting(self) -> Locator:
        """Says that the connection is lost."""
        return self.page.get_by_role("status").filter(has_text="Connection lost. Reconnecting…")

    def button(self, name: str) -> Locator:
        """A button of the page."""
        return self.page.get_by_role("button", name=name, exact=True)

    async def send(self, text: str) -> None:
        """Write a message and send it."""
        await self.box.fill(text)
        await self.send_button.click()

    async def ask(self, text: str) -> Locator:
        """Send a message and wait until its answer has ended; return the answer."""
        before = await self.answers.count()
        await self.send(text)
        await expect(self.answers).to_have_count(before + 1)
        await self.ended()
        return self.answer

    async def ended(self) -> None:
        """Wait until nothing is being answered."""
        await expect(self.answer.get_by_role("button", name="Regenerate", exact=True)).to_be_attached()
        await expect(self.stop_button).to_be_hidden()

    async def act(self, message: Locator, action: str) -> None:
        """Press one of the buttons of a message, once the list rests: one that moves may lose the click."""
        button = message.get_by_role("button", name=action, exact=True)
        await button.scroll_into_view_if_needed()
        await self.log.evaluate(RESTS)
        await button.click()

    async def session_id(self) -> str:
        """Wait for the chat's own address and return the id in it."""
        await self.page.wait_for_url(re.compile(r"/chat/\?id=[0-9a-f-]{36}"))
        return str(await self.page.evaluate("new URLSearchParams(location.search).get('id')"))


@dataclass(frozen=True)
class Search:
    """The search over all messages."""

    page: Page

    @property
    def box(self) -> Locator:
        """The words that are looked for."""
        return self.page.get_by_role("searchbox", name="Search messages", exact=True)

    @property
    def main(self) -> Locator:
        """The page without the sidebar."""
        return self.page.get_by_role("main")

    def results(self, name: str) -> Locator:
        """The hits in a chat of that name; each has a link to its place."""
        return self.main.get_by_role("listitem").filter(has=self.page.get_by_role("link", name=name, exact=True))


@dataclass(frozen=True)
class Settings:
    """The settings."""

    page: Page

    def field(self, name: str) -> Locator:
        """A text field."""
        return self.page.get_by_label(name, exact=True)

    def button(self, name: str) -> Locator:
        """A button of the page."""
        return self.page.get_by_role("main").get_by_role("button", name=name, exact=True)

    async def tab(self, name: str) -> None:
        """Open one of the parts."""
        await self.page.get_by_role("tab", name=name, exact=True).click()
        await expect(self.page.get_by_role("tabpanel", name=name, exact=True)).to_be_visible()
