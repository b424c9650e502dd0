"""The web app as the tests see it: a browser, the suite it looks at, its people, and what must never happen."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Request, WebError
from playwright.async_api import Error as PlaywrightError

from tests.support.api import PASSWORD, Person, ok
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import RunningStack
from tests.web.pages import AccountPages

PATIENCE_SECONDS = 120
WIDE = {"width": 1280, "height": 800}
NARROW = {"width": 360, "height": 740}

MODEL_SETTINGS = {
    "CONCERTO_MODEL": "test-model",
    "CONCERTO_MODELS": "other-model",
    "CONCERTO_TITLE_MODEL": "off",
    "CONCERTO_MODEL_PRICES": json.dumps({"test-model": {"prompt": 1_000_000, "completion": 4_000_000}}),
}
"""How a suite is started whose answers come from the tests' own model server."""

# Which name the web app gives its sign-in in localStorage is its own affair: found out at the first log-in.
_storage_names: list[str] = []
_SAVED_SIGN_IN = """() => Object.keys(localStorage).find((name) => {
  try { return Boolean(JSON.parse(localStorage.getItem(name)).access_token); } catch { return false; }
})"""
_REPORT_VIOLATIONS = """document.addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`);
});"""


class Watch:
    """Collects what no page may do: errors in the console, uncaught ones, failed requests, requests to strangers."""

    def __init__(self, *origins: str) -> None:
        self.origins = set(origins)
        self.problems: list[str] = []
        self.requests: list[str] = []
        """Method and address of each request, in order."""
        self._allowed: list[re.Pattern[str]] = []

    def allow(self, *patterns: str) -> None:
        """Expect problems that match one of these; a test calls it before or after they happen."""
        self._allowed += [re.compile(pattern) for pattern in patterns]

    def follow(self, context: BrowserContext) -> None:
        """Watch all pages of a browser context."""
        context.on("console", self._on_console)
        context.on("weberror", self._on_error)
        context.on("request", self._on_request)
        context.on("requestfailed", self._on_failed)

    def count(self, pattern: str) -> int:
        """Return how many requests there were whose method and address match."""
        return sum(bool(re.search(pattern, request)) for request in self.requests)

    @property
    def unexpected(self) -> list[str]:
        """What happened and was not allowed."""
        return [each for each in self.problems if not any(allowed.search(each) for allowed in self._allowed)]

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text} ({message.location['url']})")

    def _on_error(self, error: WebError) -> None:
        self.problems.append(f"uncaught: {error.error}")

    def _on_request(self, request: Request) -> None:
        self.requests.append(f"{request.method} {request.url}")
        address = urlsplit(request.url)
        origin = f"{address.scheme.replace('ws', 'http', 1)}://{address.netloc}"
        if address.scheme not in ("data", "blob") and origin not in self.origins:
            self.problems.append(f"request to a stranger: {request.url}")

    def _on_failed(self, request: Request) -> None:
        # Left pages and stopped streams abort what they had asked for.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed: {request.method} {request.url}: {request.failure}")


class Web:
    """One test's view of a running suite: people, pages in browser contexts of their own, answers of the model."""

    def __init__(
        self, browser: Browser, stack: RunningStack, model: ModelServer | None, client: httpx.AsyncClient
    ) -> None:
        self.browser = browser
        self.stack = stack
        self.model = model
        self.client = client
        self.watch = Watch(stack.gateway_url, stack.supabase_url)
        self._contexts: list[BrowserContext] = []
        self._answers: dict[str, deque[Behaviour]] = {}
        if model is not None:
            model.choose = self._choose

    async def close(self) -> None:
        """Close every page. A problem that was not expected fails the test."""
        if self.model is not None:
            self.model.choose = None
        for context in self._contexts:
            await context.close()

    async def keep_pictures(self, folder: Path) -> None:
        """Write down what the open pages look like, for whoever reads why a test failed."""
        pages = [page for context in self._contexts for page in context.pages]
        for number, page in enumerate(pages[:4]):
            with contextlib.suppress(PlaywrightError):
                await page.screenshot(path=folder / f"page-{number}.png", timeout=5000)
                sys.stdout.write(f"{page.url}\n{folder / f'page-{number}.png'}\n")
        sys.stdout.write("\n".join(["The last requests:", *self.watch.requests[-15:], *self.watch.problems]) + "\n")

    def answer(self, question: str, *behaviours: Behaviour | str) -> None:
        """Answer a message with these words; several are for one request each, and the last of them for the rest."""
        made = [Behaviour(text=each) if isinstance(each, str) else each for each in behaviours]
        self._answers[question] = deque(made)

    async def person(self, **fields: str) -> Person:
        """Create an account, past the pages."""
        return await Person.sign_up(self.client, **fields)

    async def chat(self, person: Person, *turns: tuple[str, Behaviour | str], name: str = "") -> dict[str, Any]:
        """Make a session with these questions and answers, past the pages; return it as it is then."""
        session = await person.create_session(**({"name": name} if name else {}))
        for question, behaviour in turns:
            self.answer(question, behaviour)
            events = [event async for event in person.turn(session["id"], question)]
            assert events[-1].data == {"state": "SUCCEEDED"}, events[-1]
        return dict(ok(await person.call("GET", f"/sessions/{session['id']}")))

    async def context(self, person: Person | None = None, **options: Any) -> BrowserContext:
        """Open a browser profile of its own, signed in as the person."""
        options = {"viewport": WIDE, "locale": "en-US", "base_url": self.stack.gateway_url, **options}
        if person is not None:
            name = await self._storage_name(person)
            saved = {"name": name, "value": json.dumps(await self._sign_in_of(person))}
            options["storage_state"] = {
                "cookies": [],
                "origins": [{"origin": self.stack.gateway_url, "localStorage": [saved]}],
            }
        context = await self.browser.new_context(**options)
        self._contexts.append(context)
        context.set_default_timeout(PATIENCE_SECONDS * 1000)
        await context.add_init_script(_REPORT_VIOLATIONS)
        self.watch.follow(context)
        return context

    async def visit(self, person: Person | None = None, path: str = "/chat/", **options: Any) -> Page:
        """Open a page in a browser profile of its own, signed in as the person."""
        context = await self.context(person, **options)
        page = await context.new_page()
        await page.goto(path)
        return page

    async def expire(self, page: Page, *, known: bool = True, press: Locator | None = None) -> None:
        """Make the access token that the browser holds one that has expired, as if the machine had been asleep.

        known: whether the browser can tell by itself; otherwise the servers refuse what it takes for valid.
        press: a button that is pressed in the same moment, before the page can notice by itself.
        """
        (name,) = _storage_names
        saved = json.loads(await page.evaluate("(name) => localStorage.getItem(name)", name))
        claims = jwt.decode(saved["access_token"], options={"verify_signature": False})
        if known:
            then = int(time.time()) - 3600
            claims |= {"iat": then - 3600, "exp": then}
            saved["expires_at"] = then
        token = self.stack.sign(claims)
        saved["access_token"] = token if known else f"{token[:-6]}{'A' * 6}"
        button = await press.element_handle() if press else None
        await page.evaluate(
            "([name, value, button]) => { localStorage.setItem(name, value); button?.click(); }",
            [name, json.dumps(saved), button],
        )

    async def _storage_name(self, person: Person) -> str:
        """Return the name under which the web app keeps its sign-in; the first test of a process logs in to see it."""
        if not _storage_names:
            async with await self.browser.new_context(base_url=self.stack.gateway_url, locale="en-US") as context:
                page = await context.new_page()
                await page.goto("/login/")
                await AccountPages(page).log_in(person.user["email"], PASSWORD)
                await page.wait_for_url("**/chat/**")
                name = await page.evaluate(_SAVED_SIGN_IN)
            assert name, "the sign-in is not in localStorage"
            _storage_names.append(name)
        return _storage_names[0]

    async def _sign_in_of(self, person: Person) -> dict[str, Any]:
        """Return what supabase-js stores: a further sign-in of the person, so that tests share no refresh token."""
        answer = await self.client.post(
            f"{self.stack.supabase_url}/auth/v1/token?grant_type=password",
            headers={"apikey": self.stack.publishable_key},
            json={"email": person.user["email"], "password": PASSWORD},
        )
        return dict(ok(answer))

    def _choose(self, body: dict[str, Any]) -> Behaviour | None:
        answers = self._answers.get(_last_question(body))
        if answers is None:
            return None
        return answers.popleft() if len(answers) > 1 else answers[0]


def _last_question(body: dict[str, Any]) -> str:
    content = next((each["content"] for each in reversed(body.get("messages", [])) if each["role"] == "user"), "")
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def counted(count: int) -> list[str]:
    """Return the words of an answer of `count` tokens."""
    return [f"t{index}" for index in range(count)]


async def counted_in(answer: Locator) -> list[str]:
    """Return the counted words that an answer shows, in order; buttons and notes beside them are passed over."""
    return re.findall(r"\bt\d+\b", await answer.inner_text())


async def no_sideways_scroll(page: Page) -> bool:
    """Return whether everything fits the width of the window."""
    return bool(await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
