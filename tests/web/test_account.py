"""Signing up, in and out, and passwords, as a person does it."""

import re
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import httpx
import jwt
import pytest
from playwright.async_api import Page, expect

from local.embedded.mailbox import Mail, read_mails
from tests.support.api import PASSWORD, Person, ok
from tests.support.model_server import Behaviour
from tests.support.suites import RunningStack
from tests.support.waiting import until
from tests.web.conftest import View
from tests.web.pages import AccountPages, Chat, Settings, Sidebar
from tests.web.world import NARROW, Web, counted, counted_in, no_sideways_scroll

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
    await expect(account.field("E-mail")).to_have_value(person.user["email"])
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


async def newest_mail(stack: RunningStack, email: str) -> Mail:
    """Wait for a mail to the address and return the newest one."""
    found: list[Mail] = []

    async def came() -> bool:
        found[:] = [mail for mail in read_mails(stack.home) if mail.to == email]
        return bool(found)

    await until(came, "the mail")
    return found[-1]


async def mailed_link(stack: RunningStack, email: str) -> str:
    """Wait for a mail to the address and return the link in the newest one."""
    return (await newest_mail(stack, email)).links[0]


async def ask_for_reset(web: Web, email: str) -> str:
    """Ask past the pages for a mail with which the password is reset; return its link."""
    body = {"email": email, "redirect_to": f"{web.stack.gateway_url}/reset-password/"}
    ok(await web.client.post("/auth/password/reset", json=body))
    return await mailed_link(web.stack, email)


def hash_in(link: str) -> str:
    """Return what a link's page sends to the API."""
    return parse_qs(urlsplit(link).fragment)["token_hash"][0]


async def test_a_forgotten_password_is_set_anew_through_the_mail(web: Web) -> None:
    person = await web.person()
    email = person.user["email"]
    web.watch.allow("401")
    page = await web.visit(path="/login/")
    account = AccountPages(page)
    await page.get_by_role("link", name="Forgot password?").click()
    await expect(account.heading("Forgot your password?")).to_be_visible()
    await account.field("E-mail").fill(email)
    await account.button("Send link").click()
    await expect(page.get_by_role("main")).to_contain_text(email)
    link = await mailed_link(web.stack, email)

    other = await web.visit(path=link)
    account = AccountPages(other)
    await account.button("Go on").click()
    await expect(account.field("New password")).to_be_visible()
    assert hash_in(link) not in other.url, "the link stays in the address"
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
    link = await ask_for_reset(web, person.user["email"])
    web.watch.allow("401")
    ok(await web.client.post("/auth/verify", json={"type": "recovery", "token_hash": hash_in(link)}))
    page = await web.visit(path=link)
    account = AccountPages(page)
    await account.button("Go on").click()
    await expect(account.alert).to_contain_text("used before")
    await page.get_by_role("main").get_by_role("link", name=re.compile("password", re.IGNORECASE)).first.click()
    await expect(account.heading("Forgot your password?")).to_be_visible()


async def test_a_link_that_is_only_opened_is_not_used_up(web: Web) -> None:
    person = await web.person()
    link = await ask_for_reset(web, person.user["email"])
    for method in ("HEAD", "GET"):  # as programs do that look through mails
        await web.client.request(method, link, follow_redirects=True)
    for _ in range(2):  # and those that run what is on the page
        page = await web.visit(path=link)
        await expect(AccountPages(page).button("Go on")).to_be_visible()
        await page.reload()
    page = await web.visit(path=link)
    await AccountPages(page).button("Go on").click()
    await expect(AccountPages(page).field("New password")).to_be_visible()
    await expect(page.get_by_role("main")).to_contain_text(person.user["email"])


async def test_a_link_opened_again_while_signed_in_leads_to_the_chat(web: Web) -> None:
    person = await web.person()
    link = await ask_for_reset(web, person.user["email"])
    page = await web.visit(path=link)
    await AccountPages(page).button("Go on").click()
    await expect(AccountPages(page).field("New password")).to_be_visible()
    await page.goto(link)
    await expect(Chat(page).box).to_be_visible()
    await expect(page.get_by_text("has done its work already")).to_be_visible()
    # In another browser, which has not seen the link yet, only the server knows.
    web.watch.allow("401")
    elsewhere = await web.visit(person, link)
    await AccountPages(elsewhere).button("Go on").click()
    await expect(Chat(elsewhere).box).to_be_visible()


async def test_the_code_of_the_mail_is_typed_in_where_it_was_asked_for(web: Web) -> None:
    person = await web.person()
    email = person.user["email"]
    web.watch.allow("401")
    page = await web.visit(path="/forgot-password/")
    account = AccountPages(page)
    await account.field("E-mail").fill(email)
    await account.button("Send link").click()
    mail = await newest_mail(web.stack, email)
    assert mail.code is not None
    await account.enter_code("12 34", submit="Go on")
    await expect(account.alert).to_contain_text("at least six")
    await account.enter_code(f"{(int(mail.code) + 1) % 10**6:06}", submit="Go on")
    await expect(account.alert).to_contain_text("wrong")
    await expect(account.field("Code")).to_be_focused()
    await account.enter_code(f"{mail.code[:3]} {mail.code[3:]}", submit="Go on")
    await account.field("New password").fill(NEW_PASSWORD)
    await account.button("Save password").click()
    await expect(Chat(page).box).to_be_visible()


async def test_the_code_of_the_mail_is_typed_in_where_the_mail_says_by_keyboard(web: Web) -> None:
    person = await web.person()
    email = person.user["email"]
    await ask_for_reset(web, email)
    mail = await newest_mail(web.stack, email)
    (address,) = re.findall(r"enter this code at (\S+)", mail.text)
    page = await web.visit(path=address, viewport=NARROW)
    account = AccountPages(page)
    await account.field("E-mail").focus()
    await page.keyboard.type(email)
    await page.keyboard.press("Tab")
    await expect(account.field("Code")).to_be_focused()
    await page.keyboard.type(mail.code or "")
    await page.keyboard.press("Enter")
    await expect(account.field("New password")).to_be_visible()
    assert await no_sideways_scroll(page)


def fragment_of(person: Person, **more: str) -> str:
    """Return what a link carries that signs in as the person."""
    return str(httpx.QueryParams({**{name: str(value) for name, value in person.tokens.items()}, **more}))


async def signed_in_as(page: Page) -> str | None:
    """Return whose sign-in the browser keeps."""
    tokens = await page.evaluate(
        """() => Object.values(localStorage).flatMap((value) => {
          try { return JSON.parse(value)?.access_token ?? []; } catch { return []; }
        })"""
    )
    claims = [jwt.decode(token, options={"verify_signature": False}) for token in tokens]
    return claims[0]["email"] if claims else None


@pytest.mark.parametrize(
    "path", ["/callback/", "/callback/?mark=0123456789abcdef", "/reset-password/", "/confirm/", "/"]
)
@pytest.mark.parametrize("kind", ["signup", "recovery"])
async def test_somebody_elses_link_signs_nobody_in_unasked(web: Web, path: str, kind: str) -> None:
    eve = await web.person()
    page = await web.visit(path=f"{path}#{fragment_of(eve, type=kind)}")
    account = AccountPages(page)
    await expect(account.button("Not now")).to_be_visible()
    await expect(page.get_by_role("main")).to_contain_text(eve.user["email"])
    assert eve.tokens["access_token"] not in page.url
    assert await signed_in_as(page) is None
    await account.button("Not now").click()
    await expect(account.heading("Log in")).to_be_visible()
    assert await signed_in_as(page) is None


@pytest.mark.parametrize("path", ["/callback/", "/reset-password/", "/confirm/"])
async def test_a_link_of_somebody_else_asks_before_it_replaces_who_is_signed_in(web: Web, path: str) -> None:
    ada, eve = await web.person(), await web.person()
    page = await web.visit(ada, f"{path}#{fragment_of(eve)}")
    for name in (ada, eve):
        await expect(page.get_by_role("main")).to_contain_text(name.user["email"])
    await page.get_by_role("button", name=f"Stay {ada.user['email']}").click()
    await expect(Chat(page).box).to_be_visible()
    assert await signed_in_as(page) == ada.user["email"]
    await page.goto(f"{path}#{fragment_of(eve)}")
    await page.get_by_role("button", name=f"Continue as {eve.user['email']}").click()
    await expect(Chat(page).box.or_(AccountPages(page).field("New password"))).to_be_visible()
    assert await signed_in_as(page) == eve.user["email"]


async def test_a_mails_link_of_somebody_else_asks_before_it_is_used(web: Web) -> None:
    ada, eve = await web.person(), await web.person()
    link = await ask_for_reset(web, eve.user["email"])
    page = await web.visit(ada, link)
    await page.get_by_role("button", name=f"Stay {ada.user['email']}").click()
    await expect(Chat(page).box).to_be_visible()
    assert await signed_in_as(page) == ada.user["email"]
    await page.goto(link)
    await page.get_by_role("button", name=f"Continue as {eve.user['email']}").click()
    await expect(AccountPages(page).field("New password")).to_be_visible()
    assert await signed_in_as(page) == eve.user["email"]


@pytest.mark.parametrize("is_signed_in", [False, True])
async def test_a_link_that_names_another_account_than_its_own_asks_with_the_true_name(
    web: Web, is_signed_in: bool
) -> None:
    ada, eve = await web.person(), await web.person()
    link = await ask_for_reset(web, eve.user["email"])
    forged = link.replace(quote(eve.user["email"]), quote(ada.user["email"]))
    assert forged != link
    page = await web.visit(ada if is_signed_in else None, forged)
    await AccountPages(page).button("Go on").click()
    await expect(page.get_by_role("button", name=f"Continue as {eve.user['email']}")).to_be_visible()
    assert await signed_in_as(page) == (ada.user["email"] if is_signed_in else None)


async def test_ones_own_link_leaves_the_sign_in_as_it_is(web: Web) -> None:
    ada = await web.person()
    page = await web.visit(ada, "/settings/?section=account")
    before = await page.evaluate("JSON.stringify(localStorage)")
    await page.goto(f"/callback/?next=%2Fsettings%2F%3Fsection%3Daccount#{fragment_of(ada)}")
    await expect(Settings(page).field("New password")).to_be_visible()
    assert jwt.decode(ada.tokens["access_token"], options={"verify_signature": False})["session_id"] not in before
    assert await signed_in_as(page) == ada.user["email"]
    assert ada.tokens["refresh_token"] not in await page.evaluate("JSON.stringify(localStorage)")


@pytest.mark.parametrize("path", ["/callback/", "/confirm/", "/reset-password/"])
async def test_a_code_of_a_sign_in_that_began_elsewhere_does_nothing(web: Web, path: str) -> None:
    page = await web.visit(path=f"{path}?code=0c2ef4d6-8a7b-4f66-9f3e-0d9cf3f7d9a1")
    await expect(AccountPages(page).alert).to_contain_text("not begun in this browser")
    assert "code=" not in page.url
    assert await signed_in_as(page) is None


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
    await web.expire(page, press=chat.send_button)
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
