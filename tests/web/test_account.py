"""Signing up, in and out, and passwords, as a person does it."""

import re
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import Page, expect

from local.embedded.mailbox import read_mails
from tests.support.api import PASSWORD, Person
from tests.support.model_server import Behaviour
from tests.support.suites import RunningStack
from tests.support.waiting import until
from tests.web.conftest import View
from tests.web.pages import AccountPages, Chat, Settings, Sidebar
from tests.web.world import Web, counted, counted_in

NEW_PASSWORD = "another-correct-horse-7"


async def test_a_person_signs_up_talks_leaves_comes_back_and_goes_on(web: Web) -> None:
    web.answer("Count for me.", Behaviour(tokens=40, delay_seconds=0.02))
    web.answer("And now?", "Welcome back.")
    context = await web.context()
    page = await context.new_page()
    account, chat, sidebar = AccountPages(page), Chat(page), Sidebar(page)
    await page.goto("/")
    await page.wait_for_url("**/login/**")
    await page.get_by_role("link", name="Sign up", exact=True).click()
    email = f"juergen-{uuid4()}@example.com"
    await account.sign_up(email, PASSWORD, "Jürgen Müller")
    await expect(chat.box).to_be_focused()

    await chat.send("Count for me.")
    await expect(chat.answer).to_contain_text("t5")
    assert await counted_in(chat.answer) != counted(40), "the answer came whole and not as it was said"
    await chat.ended()
    assert await counted_in(chat.answer) == counted(40)
    session_id = await chat.session_id()
    person = await Person.log_in(web.client, email)
    stored = await person.messages(session_id)
    assert [message["content"] for message in stored] == ["Count for me.", "".join(f"{t} " for t in counted(40))]
    assert person.user["display_name"] == "Jürgen Müller"
    await expect(sidebar.chat("Count for me.")).to_be_visible()

    await sidebar.account("Log out")
    await expect(account.heading("Log in")).to_be_visible()
    await expect(page.get_by_text("Count for me.")).to_have_count(0)
    await page.go_back()
    await expect(account.heading("Log in")).to_be_visible()

    await account.log_in(email, PASSWORD)
    await sidebar.chat("Count for me.").click()
    await expect(chat.answers).to_have_count(1)
    assert await counted_in(chat.answer) == counted(40)
    await chat.ask("And now?")
    await expect(chat.answer).to_contain_text("Welcome back.")
    assert await chat.session_id() == session_id


async def test_a_wrong_password_is_said_in_words_and_the_form_stays_filled(web: Web) -> None:
    person = await web.person()
    web.watch.allow("401")
    page = await web.visit(path="/login/")
    account = AccountPages(page)
    await account.log_in(person.user["email"], "not-the-password")
    await expect(account.alert).to_contain_text(re.compile("password", re.IGNORECASE))
    await expect(account.field("Email")).to_have_value(person.user["email"])
    await account.log_in(person.user["email"], PASSWORD)
    await expect(Chat(page).box).to_be_visible()


async def test_a_taken_address_and_a_short_password_are_said_in_words(web: Web) -> None:
    person = await web.person()
    web.watch.allow("409", "400", "422")
    page = await web.visit(path="/signup/")
    account = AccountPages(page)
    await account.sign_up(person.user["email"], PASSWORD)
    await expect(account.alert).to_contain_text(re.compile("already|exists", re.IGNORECASE))
    await account.field("Password").fill("short")
    await account.button("Sign up").click()
    await expect(page.get_by_role("main")).to_contain_text(re.compile("8|longer|too short", re.IGNORECASE))
    assert urlsplit(page.url).path == "/signup/"


async def mailed_link(stack: RunningStack, email: str) -> str:
    """Wait for the newest mail to the address and return the link in it."""
    found: list[str] = []

    async def came() -> bool:
        found[:] = [link for mail in read_mails(stack.home) if mail.to == email for link in mail.links]
        return bool(found)

    await until(came, "the mail")
    return found[-1]


async def test_a_forgotten_password_is_set_anew_through_the_mail(web: Web) -> None:
    person = await web.person()
    email = person.user["email"]
    web.watch.allow("401")
    page = await web.visit(path="/login/")
    account = AccountPages(page)
    await page.get_by_role("link", name="Forgot password?").click()
    await expect(account.heading("Forgot your password?")).to_be_visible()
    await account.field("Email").fill(email)
    await account.button("Send link").click()
    await expect(page.get_by_role("main")).to_contain_text(email)
    link = await mailed_link(web.stack, email)

    other = await web.visit(path=link)
    account = AccountPages(other)
    await expect(account.field("New password")).to_be_visible()
    assert "access_token" not in other.url, "tokens stay in the address"
    await account.field("New password").fill(NEW_PASSWORD)
    await account.button("Save password").click()
    await expect(Chat(other).box).to_be_visible()

    await page.goto("/login/")
    account = AccountPages(page)
    await account.log_in(email, PASSWORD)
    await expect(account.alert).to_be_visible()
    await account.log_in(email, NEW_PASSWORD)
    await expect(Chat(page).box).to_be_visible()


async def test_a_used_link_says_so_and_offers_another(web: Web) -> None:
    person = await web.person()
    email = person.user["email"]
    await web.client.post(
        "/auth/password/reset", json={"email": email, "redirect_to": f"{web.stack.gateway_url}/reset-password/"}
    )
    link = await mailed_link(web.stack, email)
    await web.client.get(link)
    page = await web.visit(path=link)
    await expect(page.get_by_role("main").get_by_role("alert")).to_be_visible()
    await page.get_by_role("main").get_by_role("link", name=re.compile("link|password", re.IGNORECASE)).first.click()
    await expect(AccountPages(page).heading("Forgot your password?")).to_be_visible()


async def test_the_password_is_changed_in_the_settings(web: Web) -> None:
    person = await web.person()
    page = await web.visit(person, "/settings/?section=account")
    settings = Settings(page)
    await settings.field("New password").fill(NEW_PASSWORD)
    await settings.button("Change password").click()
    await expect(settings.field("New password")).to_have_value("")

    async def is_changed() -> bool:
        answer = await web.client.post("/auth/login", json={"email": person.user["email"], "password": NEW_PASSWORD})
        return answer.is_success

    await until(is_changed, "the new password")


@pytest.mark.parametrize("wanted", ["/settings/?section=usage", "/search/?q=duchess"])
async def test_the_log_in_leads_to_where_the_person_wanted_to_go(web: Web, wanted: str) -> None:
    person = await web.person()
    page = await web.visit(path=wanted)
    await page.wait_for_url("**/login/**")
    assert parse_qs(urlsplit(page.url).query)["next"] == [wanted]
    await AccountPages(page).log_in(person.user["email"], PASSWORD)
    await page.wait_for_url(f"**{wanted}")


@pytest.mark.parametrize("elsewhere", ["//evil.example/", "https://evil.example/", "/\\evil.example/"])
async def test_the_log_in_leads_nowhere_else(web: Web, elsewhere: str) -> None:
    person = await web.person()
    page = await web.visit(path=str(httpx.URL("/login/", params={"next": elsewhere})))
    await AccountPages(page).log_in(person.user["email"], PASSWORD)
    await expect(Chat(page).box).to_be_visible()
    assert page.url.startswith(f"{web.stack.gateway_url}/chat/")


async def signed_out_on_page(page: Page) -> None:
    await page.wait_for_url("**/login/**")
    await expect(page.get_by_text("Your sign-in has ended")).to_be_visible()


@pytest.mark.parametrize("known", [True, False], ids=["known by its time", "refused by the server"])
async def test_an_expired_token_in_an_open_tab_is_renewed_without_notice(web: Web, known: bool) -> None:
    person = await web.person()
    web.answer("Are you there?", "Of course.")
    web.answer("Still?", "Yes.")
    if not known:
        web.watch.allow("401")
    page = await web.visit(person)
    chat = Chat(page)
    await chat.ask("Are you there?")
    await web.expire(page, known=known)
    before = web.watch.count("POST .*/auth/v1/token")
    await chat.ask("Still?")
    await expect(chat.answer).to_contain_text("Yes.")
    assert web.watch.count("POST .*/auth/v1/token") == before + 1
    assert page.url.endswith(await chat.session_id())


async def test_a_revoked_sign_in_leads_to_the_log_in_and_back_to_where_the_person_was(web: Web) -> None:
    person = await web.person()
    session = await web.chat(person, ("What did I say?", "That you will be back."))
    web.watch.allow("401", "400", "403")
    page = await web.visit(person, f"/chat/?id={session['id']}")
    chat = Chat(page)
    await expect(chat.answer).to_contain_text("you will be back")
    # A request of the page's own would notice it first and lead away before the message is sent.
    await page.wait_for_load_state("networkidle")
    await chat.box.fill("Am I still here?")
    await person.call("POST", "/auth/logout", {"scope": "global"})
    await web.expire(page)
    await chat.send_button.click()
    await signed_out_on_page(page)
    await AccountPages(page).log_in(person.user["email"], PASSWORD)
    await page.wait_for_url(f"**/chat/?id={session['id']}")
    await expect(chat.answer).to_contain_text("you will be back")
    await expect(chat.box).to_have_value("Am I still here?")


@pytest.mark.long
async def test_tokens_that_live_for_seconds_are_renewed_while_an_answer_goes_on(
    view: View, short_tokens: RunningStack
) -> None:
    web = view(short_tokens)
    web.watch.allow("401")
    person = await web.person()
    # Longer than the token and the ten seconds of leeway that the servers give.
    web.answer("Count slowly.", Behaviour(tokens=400, delay_seconds=0.04))
    web.answer("Still there?", "Yes.")
    page = await web.visit(person)
    chat = Chat(page)
    await chat.ask("Count slowly.")
    assert await counted_in(chat.answer) == counted(400)
    await page.reload()
    await expect(chat.answers).to_have_count(1)
    await chat.ask("Still there?")
    await expect(chat.answer).to_contain_text("Yes.")


async def test_logging_out_everywhere_else_ends_the_other_browsers_only(web: Web) -> None:
    person = await web.person()
    this_browser = await web.visit(person, "/settings/?section=account")
    other_browser = await web.visit(person)
    await expect(Chat(other_browser).box).to_be_visible()
    await Settings(this_browser).button("Log out everywhere else").click()
    web.watch.allow("401", "400", "403")

    async def is_revoked() -> bool:
        return web.watch.count("POST .*/logout") > 0

    await until(is_revoked, "the request")
    await this_browser.wait_for_timeout(500)  # the answer ends sessions at the provider, which tells no one
    await web.expire(other_browser)
    await other_browser.reload()
    await other_browser.wait_for_url("**/login/**")
    await web.expire(this_browser)
    await this_browser.reload()
    await expect(Settings(this_browser).button("Log out everywhere else")).to_be_visible()


async def test_one_persons_things_are_gone_from_the_browser_after_the_log_out(web: Web) -> None:
    ada, bob = await web.person(), await web.person()
    session = await web.chat(ada, ("The duchess sails at dawn.", "I shall not tell."))
    page = await web.visit(ada, f"/chat/?id={session['id']}")
    chat, sidebar = Chat(page), Sidebar(page)
    await expect(chat.answers).to_have_count(1)
    await chat.box.fill("a half-written secret")
    await sidebar.account("Log out")
    await AccountPages(page).log_in(bob.user["email"], PASSWORD)
    await expect(chat.box).to_have_value("")
    await expect(page.get_by_text("duchess")).to_have_count(0)
    held = await page.evaluate("JSON.stringify([localStorage, sessionStorage])")
    assert "duchess" not in held
    assert "half-written" not in held
