"""Sign-in with a provider and confirmation by mail, on a Supabase project that asks for both."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

from local.embedded.credentials import read_credentials
from local.embedded.mailbox import Mail, read_mails
from local.settings import ROOT
from local.suite.processes import Mode, node_program
from tests.support.api import PASSWORD
from tests.support.provider import SignInProvider
from tests.support.suites import RunningStack, free_base_port, start_stack, stop_stack
from tests.support.waiting import until, until_in_thread
from tests.web.conftest import View
from tests.web.pages import AccountPages, Chat
from tests.web.world import Web


@dataclass(frozen=True)
class Project:
    """A project with GitHub switched on and addresses to be confirmed, and the suite that uses it as its own."""

    stack: RunningStack
    home: Path
    github: SignInProvider

    def mails(self, email: str) -> list[Mail]:
        return [mail for mail in read_mails(self.home) if mail.to == email]


@pytest.fixture(scope="module")
def project(suite: RunningStack, mode: Mode) -> Iterator[Project]:
    """A second auth server on the suite's database, and our own parts configured with it as a hosted project."""
    folder = Path(tempfile.mkdtemp(prefix="concerto-"))
    base_port = free_base_port()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url, site = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{base_port}"
    github = SignInProvider()
    provider = {
        "enabled": True,
        "client_id": "client",
        "secret": "secret",
        "url": github.url,
        "redirect_uri": f"{url}/auth/v1/callback",
    }
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251
        "HOST_DATABASE_URL": suite.admin_db_url,
        "HOST_JWT_SECRET": suite.jwt_secret,
        "HOST_PUBLISHABLE_KEY": suite.publishable_key,
        "HOST_SECRET_KEY": suite.secret_key,
        "HOST_SIGNING_KEY": read_credentials(suite.home).signing_key,
        "HOST_API_URL": url,
        "HOST_SITE_URL": site,
        "HOST_REDIRECT_URLS": json.dumps([f"{site}/**"]),
        "HOST_PROVIDERS": json.dumps({"github": provider}),
        "HOST_CONFIRM_EMAIL": "true",
        "HOST_ACCESS_TOKEN_SECONDS": "3600",
        "HOST_HOME": str(folder),
        "HOST_PORT": str(port),
    }
    hosted = {
        "SUPABASE_URL": url,
        "SUPABASE_PUBLISHABLE_KEY": suite.publishable_key,
        "SUPABASE_DB_URL": suite.db_url,
        "SUPABASE_JWT_SECRET": suite.jwt_secret,
        "GATEWAY_COOKIE_SECRET": "c" * 48,
    }
    with (folder / "host.log").open("wb") as log, github.running():
        command = [str(node_program()), str(ROOT / "local" / "embedded" / "host" / "main.mjs")]
        host = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:

            def has_come() -> bool:
                if host.poll() is not None:
                    pytest.fail((folder / "host.log").read_text(), pytrace=False)
                return is_up(url, suite.publishable_key)

            until_in_thread(has_come, "the host")
            variables: dict[str, Any] = hosted
            stack = start_stack(folder, port=base_port, mode=mode, **variables)
            stack.env.update(hosted | {"SUPABASE_SIGNING_KEY": environment["HOST_SIGNING_KEY"]})
            try:
                yield Project(stack, folder, github)
            finally:
                stop_stack(stack)
        finally:
            host.terminate()
            host.wait(timeout=60)
            shutil.rmtree(folder, ignore_errors=True)


def is_up(url: str, key: str) -> bool:
    try:
        return httpx.get(f"{url}/auth/v1/health", headers={"apikey": key}).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def hosted(view: View, project: Project) -> Web:
    """The suite on that project; its pages may also lead to the provider."""
    web = view(project.stack)
    web.watch.origins.add(project.github.url)
    return web


async def test_buttons_stand_only_for_providers_that_are_switched_on(web: Web, hosted: Web) -> None:
    for each, count in ((web, 0), (hosted, 1)):
        for path in ("/login/", "/signup/"):
            page = await each.visit(path=path)
            account = AccountPages(page)
            await page.wait_for_load_state("networkidle")
            await expect(account.button("Continue with GitHub")).to_have_count(count)
            await expect(account.button("Continue with Google")).to_have_count(0)


async def test_a_person_signs_in_with_github(hosted: Web, project: Project) -> None:
    page = await hosted.visit(path="/login/?next=%2Fsettings%2F%3Fsection%3Dprofile")
    await AccountPages(page).button("Continue with GitHub").click()
    await page.get_by_role("link", name="Authorize").click()
    await expect(page.get_by_role("heading", level=1, name="Settings")).to_be_visible()
    assert "access_token" not in page.url
    await page.goto("/chat/")
    await expect(Chat(page).box).to_be_visible()
    await page.go_back()
    assert "access_token" not in page.url


async def test_a_refusal_at_the_provider_is_said_in_words(hosted: Web) -> None:
    hosted.watch.allow("400", "401", "403", "502")
    page = await hosted.visit(path="/login/")
    await AccountPages(page).button("Continue with GitHub").click()
    await page.get_by_role("link", name="Cancel").click()
    await expect(page.get_by_role("main").get_by_role("alert")).to_be_visible()
    await page.get_by_role("link", name="log in").or_(page.get_by_role("link", name="Log in")).first.click()
    await expect(AccountPages(page).heading("Log in")).to_be_visible()


async def signs_up(hosted: Web, project: Project) -> tuple[Page, Mail]:
    """Sign up on the page; return it, as it waits for the mail, and the mail."""
    email = f"confirm-{time.monotonic_ns()}@example.com"
    page = await hosted.visit(path="/signup/")
    await AccountPages(page).sign_up(email, PASSWORD)
    await expect(AccountPages(page).field("Code")).to_be_visible()
    await expect(page.get_by_role("main")).to_contain_text(email)

    async def came() -> bool:
        return bool(project.mails(email))

    await until(came, "the mail")
    (mail,) = project.mails(email)
    return page, mail


async def test_an_address_is_confirmed_through_the_mails_link(hosted: Web, project: Project) -> None:
    page, mail = await signs_up(hosted, project)
    link = mail.links[0]
    for method in ("HEAD", "GET"):
        await hosted.client.request(method, link, follow_redirects=True)
    await page.goto(link)
    await AccountPages(page).button("Confirm").click()
    await expect(Chat(page).box).to_be_visible()
    assert "token" not in page.url
    await page.goto(link)
    await expect(Chat(page).box).to_be_visible()
    # On another device that knows nothing of it: confirmed by name, and signed in as whom the link names.
    hosted.watch.allow("401")
    elsewhere = await hosted.visit(path=link)
    await AccountPages(elsewhere).button("Confirm").click()
    await expect(AccountPages(elsewhere).alert).to_contain_text("used before")


async def test_an_address_is_confirmed_in_another_browser_than_the_sign_up(hosted: Web, project: Project) -> None:
    _, mail = await signs_up(hosted, project)
    elsewhere = await hosted.visit(path=mail.links[0])
    await expect(elsewhere.get_by_role("main")).to_contain_text(mail.to)
    await AccountPages(elsewhere).button("Confirm").click()
    await expect(Chat(elsewhere).box).to_be_visible()


async def test_an_address_is_confirmed_by_the_code_that_is_typed_in(hosted: Web, project: Project) -> None:
    page, mail = await signs_up(hosted, project)
    assert mail.code is not None
    await AccountPages(page).enter_code(mail.code, submit="Confirm")
    await expect(Chat(page).box).to_be_visible()


async def test_who_has_not_confirmed_is_led_to_the_code_by_the_log_in(hosted: Web, project: Project) -> None:
    _, mail = await signs_up(hosted, project)
    hosted.watch.allow("400", "401", "403")
    page = await hosted.visit(path="/login/")
    account = AccountPages(page)
    await account.log_in(mail.to, PASSWORD)
    await page.get_by_role("main").get_by_role("link", name="Enter a code").click()
    await expect(account.heading("Enter a code")).to_be_visible()
    await account.enter_code(mail.code or "", email=mail.to, submit="Confirm")
    await expect(Chat(page).box).to_be_visible()


async def test_a_sign_in_with_a_provider_that_this_browser_did_not_begin_is_refused(
    hosted: Web, project: Project
) -> None:
    """Somebody else's way back from the provider, whose code this browser has no verifier for."""
    hosted.watch.allow("400", "401", "403")
    eve = await hosted.visit(path="/login/")
    back: list[str] = []
    eve.on("request", lambda request: back.append(request.url) if "/auth/callback?" in request.url else None)
    await eve.route("**/auth/callback?**", lambda route: route.abort())
    await AccountPages(eve).button("Continue with GitHub").click()
    await eve.get_by_role("link", name="Authorize").click()

    async def is_on_the_way() -> bool:
        return bool(back)

    await until(is_on_the_way, "the way back")
    page = await hosted.visit(path=back[0])
    await expect(page.get_by_role("main").get_by_role("alert")).to_be_visible()
    await page.goto("/chat/")
    await expect(AccountPages(page).heading("Log in")).to_be_visible()
