"""A walk through every page and each of its main states, for the checks of accessibility and for the pictures."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Page, expect

from local.embedded.mailbox import read_mails
from tests.support.api import Person, ok
from tests.support.model_server import FAULTS, Behaviour, ToolUse
from tests.support.waiting import until
from tests.web import filled
from tests.web.pages import RESTS, AccountPages, Chat, Search, Sidebar
from tests.web.world import Web

RICH = """## Three days in Ulm

The minster's tower is **161.53 m** high; from the top one sees the Alps on a clear day. Plan about two hours.

| Day | Morning | Afternoon | Costs |
|-----|---------|-----------|------:|
| Fri | Minster and market | Fischerviertel | 12 € |
| Sat | Museum of bread | Danube by bicycle | 25 € |
| Sun | Wiblingen monastery | Train back at 16:20 | 9 € |

1. Book the train early.
2. Take good shoes: the tower has 768 steps.
   - Water is sold at the foot of it.

```python
def total(costs: list[float]) -> float:
    \"\"\"Add up what three days cost.\"\"\"
    return sum(costs) * 1.07  # with the city's tax, rounded by whoever collects it at the counter of the hotel
```

> Wer von Ulm kommt, hat Zeit. — so sagt man, 慢慢来。

The mean is $\\bar{x} = \\frac{1}{n}\\sum_{i=1}^{n} x_i$, and a [link](https://example.com/ulm) leads further.
"""
THOUGHTS = """Der Nutzer fragt nach dem Turm des Ulmer Münsters. Bekannte Zahlen:

- **161,53 m** bis zur Spitze, 768 Stufen;
- `143 m` bis zur obersten Plattform für Besucher.

Gemeint ist wohl die *ganze* Höhe; ein Wort zur Plattform hilft dem, der hinaufsteigen möchte. 塔の高さ。
"""
LONG_NAME = (
    "A conversation about the history of the tower, its builders, their tools and the long pauses between the "
    "centuries in which nobody built anything at all"
)


@dataclass(frozen=True)
class House:
    """Somebody who has used everything, and somebody who has just come."""

    person: Person
    newcomer: Person
    rich: str
    tools: str
    versions: str
    stopped: str
    thoughtful: str


async def furnished(web: Web) -> House:
    """Make two people, and chats of several days, an archive, usage and a profile for one of them."""
    person = await web.person(display_name="Jürgen Müller-Lüdenscheidt")
    changes = {
        "full_name": "Jürgen Müller-Lüdenscheidt",
        "username": f"juergen-{person.user['id'][-12:]}",
        "status_text": "In Ulm, um Ulm und um Ulm herum",
        "status_emoji": "🌊",
    }
    ok(await person.call("PATCH", "/auth/me", {"profile": changes}))
    for days, name in ((70, "Winter tyres"), (20, LONG_NAME), (9, "乌尔姆之旅 旅行计划"), (3, "Tomatoes on a balcony")):
        session = await web.chat(person, (f"About {name[:20]}", "As you like."), name=name)
        await filled.backdate(web.stack, session["id"], days=days)
    for name in ("Old notes", "A recipe for Maultaschen"):
        session = await web.chat(person, ("Keep this.", "Kept."), name=name)
        ok(await person.call("PATCH", f"/sessions/{session['id']}", {"is_archived": True}))

    call = ToolUse(name="search_messages", arguments={"query": "tyres"})
    tools = await person.create_session(name="What did we say about tyres?")
    web.answer("What did we say?", Behaviour(tool_calls=(call,)), "You wanted to change them in October.")
    async for _ in person.turn(tools["id"], "What did we say?", agent="search"):
        pass
    await filled.backdate(web.stack, tools["id"], days=1)

    versions = await web.chat(person, ("Say a word.", "Apple."), name="Words")
    question = (await person.messages(versions["id"]))[0]
    web.answer("Say a word.", "Banana, and a few more words with it.")
    run = ok(await person.call("POST", f"/sessions/{versions['id']}/runs", {"regenerate_message_id": question["id"]}))
    await ended(person, run["id"])

    stopped = await person.create_session(name="Interrupted")
    web.answer("Go on.", Behaviour(tokens=40, fault="cut", fault_after=30))
    async for _ in person.turn(stopped["id"], "Go on."):
        pass
    thoughtful = await web.chat(
        person,
        (
            "Wie hoch ist der Turm?",
            Behaviour(text="Der Turm ist **161,53 m** hoch, und", thoughts=THOUGHTS, finish_reason="length"),
        ),
        name="Der Turm",
    )
    rich = await web.chat(
        person,
        ("Plan three days in Ulm for us, please.", RICH),
        ("Thank you!", "Have a good journey."),
        name="Reise nach Ulm",
    )
    await filled.usage_of_weeks(web.stack, person.user["id"])
    return House(
        person=person,
        newcomer=await web.person(),
        rich=rich["id"],
        tools=tools["id"],
        versions=versions["id"],
        stopped=stopped["id"],
        thoughtful=thoughtful["id"],
    )


async def ended(person: Person, run_id: str) -> None:
    """Wait until a run has ended."""

    async def has_ended() -> bool:
        return ok(await person.call("GET", f"/runs/{run_id}"))["state"] not in ("QUEUED", "RUNNING")

    await until(has_ended, "the run")


@dataclass(frozen=True)
class Walk:
    """Where the walk is: the suite, its people, and one open page for each of them."""

    web: Web
    house: House
    known: Page
    new: Page
    signed_out: Page


Step = Callable[[Walk], Awaitable[Page]]
STEPS: list[tuple[str, Step]] = []


def state(name: str) -> Callable[[Step], Step]:
    """Add a state to the walk. Its function brings a page there and returns it."""

    def add(step: Step) -> Step:
        STEPS.append((name, step))
        return step

    return add


async def walk(web: Web, house: House, **options: Any) -> AsyncIterator[tuple[str, Page]]:
    """Yield each state's name and a page that shows it. Options are those of a browser context."""
    options = {"reduced_motion": "reduce", **options}
    web.watch.allow("net::ERR_", "40[0-9]", "429")
    pages = [await web.visit(person, "/login/", **options) for person in (house.person, house.newcomer, None)]
    at = Walk(web, house, *pages)
    for name, step in STEPS:
        yield name, await step(at)


@state("log-in")
async def _(at: Walk) -> Page:
    await at.signed_out.goto("/login/")
    await expect(AccountPages(at.signed_out).heading("Log in")).to_be_visible()
    return at.signed_out


@state("log-in-refused")
async def _(at: Walk) -> Page:
    account = AccountPages(at.signed_out)
    await account.log_in(at.house.person.user["email"], "not-the-password")
    await expect(account.alert).to_be_visible()
    return at.signed_out


@state("log-in-ended")
async def _(at: Walk) -> Page:
    await at.signed_out.goto("/settings/?section=usage")
    await expect(AccountPages(at.signed_out).heading("Log in")).to_be_visible()
    return at.signed_out


@state("sign-up")
async def _(at: Walk) -> Page:
    await at.signed_out.goto("/signup/")
    await expect(AccountPages(at.signed_out).heading("Create your account")).to_be_visible()
    return at.signed_out


@state("sign-up-refused")
async def _(at: Walk) -> Page:
    account = AccountPages(at.signed_out)
    await account.sign_up(at.house.person.user["email"], "a-good-password-1")
    await expect(account.alert).to_be_visible()
    return at.signed_out


@state("forgot-password")
async def _(at: Walk) -> Page:
    await at.signed_out.goto("/forgot-password/")
    await expect(AccountPages(at.signed_out).heading("Forgot your password?")).to_be_visible()
    return at.signed_out


@state("forgot-password-sent")
async def _(at: Walk) -> Page:
    email = at.house.newcomer.user["email"]
    account = AccountPages(at.signed_out)
    await account.field("E-mail").fill(email)
    await account.button("Send link").click()
    await expect(at.signed_out.get_by_role("main")).to_contain_text(email)
    return at.signed_out


@state("reset-password-link")
async def _(at: Walk) -> Page:
    email = at.house.newcomer.user["email"]

    async def came() -> bool:
        return any(mail.to == email for mail in read_mails(at.web.stack.home))

    await until(came, "the mail")
    await at.signed_out.goto(
        next(mail.links[0] for mail in reversed(read_mails(at.web.stack.home)) if mail.to == email)
    )
    await expect(AccountPages(at.signed_out).button("Go on")).to_be_visible()
    return at.signed_out


@state("reset-password")
async def _(at: Walk) -> Page:
    await AccountPages(at.signed_out).button("Go on").click()
    await expect(AccountPages(at.signed_out).button("Save password")).to_be_visible()
    return at.signed_out


@state("reset-password-used-link")
async def _(at: Walk) -> Page:
    # Whoever followed the link is signed in; this is somebody else's browser.
    page = await (await at.web.context(reduced_motion="reduce", viewport=at.signed_out.viewport_size)).new_page()
    await page.emulate_media(color_scheme=await colours(at.signed_out))
    await page.goto("/reset-password/#error=access_denied&error_code=otp_expired&error_description=Link+has+expired")
    await expect(page.get_by_role("main").get_by_role("alert")).to_be_visible()
    return page


async def fresh(at: Walk, path: str) -> Page:
    """Open a page in the browser of somebody who is not signed in."""
    page = await (await at.web.context(reduced_motion="reduce", viewport=at.signed_out.viewport_size)).new_page()
    await page.emulate_media(color_scheme=await colours(at.signed_out))
    await page.goto(path)
    return page


@state("callback-asks-a-stranger")
async def _(at: Walk) -> Page:
    tokens = at.house.newcomer.tokens
    fragment = f"access_token={tokens['access_token']}&refresh_token={tokens['refresh_token']}"
    page = await fresh(at, f"/callback/#{fragment}")
    await expect(AccountPages(page).button("Not now")).to_be_visible()
    return page


@state("callback-asks-somebody-else")
async def _(at: Walk) -> Page:
    await at.new.goto("/callback/#token_hash=x&type=signup&email=" + f"a-rather-long-name.{'x' * 60}%40example.com")
    await expect(AccountPages(at.new).heading("Confirm your e-mail")).to_be_visible()
    await expect(at.new.get_by_role("button", name=re.compile("^Stay"))).to_be_visible()
    return at.new


@state("callback-link")
async def _(at: Walk) -> Page:
    page = await fresh(at, "/callback/#token_hash=x&type=signup&email=ada%40example.com")
    await expect(AccountPages(page).button("Confirm")).to_be_visible()
    return page


@state("callback-link-used")
async def _(at: Walk) -> Page:
    page = await fresh(at, "/callback/#token_hash=x&type=signup&email=ada%40example.com")
    await AccountPages(page).button("Confirm").click()
    await expect(AccountPages(page).alert).to_contain_text("used before")
    return page


@state("confirm")
async def _(at: Walk) -> Page:
    page = await fresh(at, "/confirm/")
    await expect(page.get_by_role("link", name="To confirm a new account")).to_be_visible()
    return page


@state("confirm-code")
async def _(at: Walk) -> Page:
    page = await fresh(at, "/confirm/?type=signup")
    await expect(AccountPages(page).field("Code")).to_be_visible()
    return page


@state("confirm-code-wrong")
async def _(at: Walk) -> Page:
    page = await fresh(at, "/confirm/?type=signup")
    await AccountPages(page).enter_code("123456", email="ada@example.com", submit="Confirm")
    await expect(AccountPages(page).alert).to_contain_text("wrong")
    return page


@state("callback-refused")
async def _(at: Walk) -> Page:
    page = await (await at.web.context(reduced_motion="reduce", viewport=at.signed_out.viewport_size)).new_page()
    await page.emulate_media(color_scheme=await colours(at.signed_out))
    await page.goto("/callback/#error=access_denied&error_description=The+user+has+denied+access")
    await expect(page.get_by_role("main").get_by_role("alert")).to_be_visible()
    return page


@state("chat-first")
async def _(at: Walk) -> Page:
    await at.new.goto("/chat/")
    await expect(Chat(at.new).box).to_be_visible()
    return at.new


@state("archive-empty")
async def _(at: Walk) -> Page:
    await at.new.goto("/archive/")
    await expect(at.new.get_by_role("heading", level=1, name="Archive")).to_be_visible()
    await at.new.wait_for_load_state("networkidle")
    return at.new


@state("usage-empty")
async def _(at: Walk) -> Page:
    await at.new.goto("/settings/?section=usage")
    await expect(at.new.get_by_role("tabpanel")).to_be_visible()
    await at.new.wait_for_load_state("networkidle")
    return at.new


@state("chat-new")
async def _(at: Walk) -> Page:
    await at.known.goto("/chat/")
    await expect(Chat(at.known).box).to_be_visible()
    await at.known.wait_for_load_state("networkidle")
    return at.known


async def opened(at: Walk, session_id: str) -> Chat:
    chat = Chat(at.known)
    await at.known.goto(f"/chat/?id={session_id}")
    await expect(chat.answer).to_be_visible()
    await at.known.wait_for_load_state("networkidle")
    return chat


@state("chat")
async def _(at: Walk) -> Page:
    chat = await opened(at, at.house.rich)
    await expect(chat.log.locator("math").first).to_be_attached()
    return at.known


@state("chat-top")
async def _(at: Walk) -> Page:
    await Chat(at.known).questions.first.scroll_into_view_if_needed()
    return at.known


@state("chat-menu")
async def _(at: Walk) -> Page:
    await at.known.get_by_role("button", name="Chat menu").click()
    await expect(at.known.get_by_role("menuitem", name="Copy chat")).to_be_visible()
    return at.known


@state("chat-whole")
async def _(at: Walk) -> Page:
    await at.known.get_by_role("menuitem", name="Whole chat, to print").click()
    await expect(at.known.get_by_role("button", name="Print")).to_be_visible()
    return at.known


@state("chat-edit")
async def _(at: Walk) -> Page:
    await at.known.get_by_role("link", name="Back to the chat").click()
    chat = Chat(at.known)
    await expect(chat.answer).to_be_visible()
    await chat.log.evaluate(RESTS)
    await chat.act(chat.questions.first, "Edit")
    await expect(at.known.get_by_role("textbox", name="Edit message")).to_be_visible()
    return at.known


@state("chat-versions")
async def _(at: Walk) -> Page:
    chat = await opened(at, at.house.versions)
    await expect(chat.answer).to_contain_text("2 of 2")
    await chat.answer.hover()
    return at.known


@state("chat-tool")
async def _(at: Walk) -> Page:
    chat = await opened(at, at.house.tools)
    await chat.log.locator("details summary").first.click()
    return at.known


@state("chat-interrupted")
async def _(at: Walk) -> Page:
    chat = await opened(at, at.house.stopped)
    await expect(chat.button("Try again")).to_be_visible()
    return at.known


@state("chat-thought")
async def _(at: Walk) -> Page:
    chat = await opened(at, at.house.thoughtful)
    await expect(chat.button("Continue")).to_be_visible()
    return at.known


@state("chat-thought-unfolded")
async def _(at: Walk) -> Page:
    chat = Chat(at.known)
    await chat.answer.locator("summary").click()
    await expect(chat.answer).to_contain_text("Bekannte Zahlen")
    return at.known


@state("chat-not-found")
async def _(at: Walk) -> Page:
    await at.known.goto("/chat/?id=7e0a7b5e-3c1f-4b86-9f0e-1d2c3b4a5f60")
    await expect(at.known.get_by_role("main")).to_contain_text(re.compile("not|no ", re.IGNORECASE))
    await at.known.wait_for_load_state("networkidle")
    return at.known


@state("chat-thinking")
async def _(at: Walk) -> Page:
    at.web.answer("Think first.", Behaviour(text="Done.", thoughts=THOUGHTS * 5, delay_seconds=0.2))
    await at.new.goto("/chat/")
    chat = Chat(at.new)
    await chat.send("Think first.")
    await expect(chat.answer.locator("summary")).to_have_text("Thinking…")
    return at.new


@state("chat-streaming")
async def _(at: Walk) -> Page:
    at.web.answer("Tell me a story.", Behaviour(text=RICH * 3, delay_seconds=0.2))
    await at.new.goto("/chat/")
    chat = Chat(at.new)
    await chat.send("Tell me a story.")
    await expect(chat.answer).to_contain_text("Alps")
    return at.new


@state("chat-reconnecting")
async def _(at: Walk) -> Page:
    await at.new.context.set_offline(True)
    await expect(Chat(at.new).reconnecting).to_be_visible()
    return at.new


@state("chat-stopped")
async def _(at: Walk) -> Page:
    chat = Chat(at.new)
    await at.new.context.set_offline(False)
    await expect(chat.reconnecting).to_be_hidden()
    await chat.stop_button.click()
    await expect(chat.stop_button).to_be_hidden()
    return at.new


@state("chat-failed")
async def _(at: Walk) -> Page:
    at.web.answer("Fail, please.", FAULTS["no_quota"])
    await at.new.goto("/chat/")
    chat = Chat(at.new)
    await chat.send("Fail, please.")
    await expect(chat.button("Try again")).to_be_visible()
    return at.new


@state("sidebar")
async def _(at: Walk) -> Page:
    await at.known.goto("/archive/")
    await expect(at.known.get_by_role("main").get_by_role("link", name="Old notes")).to_be_visible()
    await Sidebar(at.known).open_chats()
    await expect(Sidebar(at.known).chat("Reise nach Ulm")).to_be_visible()
    return at.known


@state("chat-options")
async def _(at: Walk) -> Page:
    sidebar = Sidebar(at.known)
    await sidebar.chat("Reise nach Ulm").hover()
    await sidebar.options("Reise nach Ulm").click()
    await expect(at.known.get_by_role("menuitem", name="Rename")).to_be_visible()
    return at.known


@state("chat-rename")
async def _(at: Walk) -> Page:
    await at.known.get_by_role("menuitem", name="Rename").click()
    field = at.known.get_by_role("textbox", name="Chat name", exact=True)
    await expect(field).to_be_focused()
    return at.known


@state("chat-deleted")
async def _(at: Walk) -> Page:
    sidebar = Sidebar(at.known)
    await at.known.keyboard.press("Escape")
    await sidebar.choose("Words", "Delete")
    await expect(sidebar.undo).to_be_visible()
    return at.known


@state("account-menu")
async def _(at: Walk) -> Page:
    sidebar = Sidebar(at.known)
    await sidebar.undo.click()
    await at.known.goto("/archive/")
    await sidebar.open_chats()
    await at.known.get_by_role("button", name="Account menu").click()
    await expect(at.known.get_by_role("menuitem", name="Log out")).to_be_visible()
    return at.known


@state("palette")
async def _(at: Walk) -> Page:
    await at.known.goto("/chat/")
    await expect(Chat(at.known).box).to_be_visible()
    await at.known.keyboard.press("Control+k")
    await expect(at.known.get_by_role("dialog").get_by_role("combobox")).to_be_visible()
    return at.known


@state("shortcuts")
async def _(at: Walk) -> Page:
    await at.known.goto("/archive/")
    await expect(at.known.get_by_role("main").get_by_role("link", name="Old notes")).to_be_visible()
    await at.known.keyboard.press("?")
    await expect(at.known.get_by_role("dialog")).to_be_visible()
    return at.known


@state("archive")
async def _(at: Walk) -> Page:
    await at.known.goto("/archive/")
    await expect(at.known.get_by_role("main").get_by_role("link", name="Old notes")).to_be_visible()
    return at.known


@state("search-empty")
async def _(at: Walk) -> Page:
    await at.known.goto("/search/")
    await expect(Search(at.known).box).to_be_visible()
    return at.known


@state("search")
async def _(at: Walk) -> Page:
    await Search(at.known).box.fill("ulm")
    await expect(Search(at.known).main.locator("mark").first).to_be_visible()
    return at.known


@state("search-nothing")
async def _(at: Walk) -> Page:
    await Search(at.known).box.fill("hippopotamus")
    await expect(Search(at.known).main.locator("mark")).to_have_count(0)
    await at.known.wait_for_load_state("networkidle")
    return at.known


def _settings(section: str, name: str) -> None:
    @state(f"settings-{section}")
    async def _(at: Walk) -> Page:
        await at.known.goto(f"/settings/?section={section}")
        await expect(at.known.get_by_role("tabpanel", name=name, exact=True)).to_be_visible()
        await at.known.wait_for_load_state("networkidle")
        return at.known


for _section in ("Profile", "Appearance", "Notifications", "Usage", "Account"):
    _settings(_section.lower(), _section)


@state("not-found")
async def _(at: Walk) -> Page:
    await at.known.goto("/no-such-page/")
    await expect(at.known.get_by_role("heading", level=1)).to_be_visible()
    return at.known


async def colours(page: Page) -> Any:
    """Return the colours that a page prefers."""
    return await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'")
