"""What must never happen: other people's chats, scripts in answers, requests to strangers, policies that allow them."""

import re

import pytest
from playwright.async_api import expect

from tests.web.pages import Chat, Search, Sidebar
from tests.web.world import Web

HOSTILE = """Look: <img src=x onerror="window.ran = 'img'"> <script>window.ran = 'script'</script>

<svg onload="window.ran = 'svg'"></svg><iframe srcdoc="<script>parent.ran = 'frame'</script>"></iframe>

<a href="javascript:window.ran='raw link'">raw</a> [marked up](javascript:window.ran='link')
[data](data:text/html,<script>window.ran=1</script>) [mixed](JaVaScRiPt:window.ran='mixed')
[entity](&#106;avascript:window.ran='entity') <javascript:window.ran='auto'> [vb](vbscript:window.ran=1)

![picture](https://evil.example/seen.png) ![spy](javascript:window.ran='image')

| a | b |
|---|---|
| <img src=x onerror="window.ran = 'cell'"> | `<script>window.ran='code'</script>` |

<details open ontoggle="window.ran = 'toggle'">
<summary>hostile</summary>
</details>

<details open>
<summary onclick="window.ran = 'summary'">tag</summary> <kbd onclick="window.ran = 'key'">key</kbd>

<sub><img src=x onerror="window.ran = 'sub'"></sub> <mark><script>window.ran = 'mark'</script></mark>

</details>

```html
<img src=x onerror="window.ran = 'block'"><script>window.ran = 'block script'</script>
```

$\\href{javascript:window.ran='math'}{x}$ $\\htmlData{onclick=window.ran}{y}$ $\\includegraphics{https://evil.example/m.png}$

The end of it."""


@pytest.fixture
def prompt(web: Web) -> str:
    web.answer("Attack me.", HOSTILE)
    return "Attack me."


async def test_nothing_in_an_answer_runs_or_is_fetched(web: Web, prompt: str) -> None:
    person = await web.person()
    page = await web.visit(person)
    chat = Chat(page)
    await chat.ask(prompt)
    for _ in range(2):  # as it came, and as it is loaded
        await expect(chat.answer).to_contain_text("The end of it.")
        await expect(chat.answer.locator("code").first).to_be_visible()
        assert await chat.answer.locator("script, iframe, object, embed, svg[onload], [onclick]").count() == 0
        assert await chat.answer.locator("img[src^=http], img[src^=javascript], img[onerror]").count() == 0
        links = await chat.answer.get_by_role("link").all()
        for link in links:
            target = str(await link.get_attribute("href"))
            assert re.match(r"(https?|mailto):", target), target
        for name in ("raw", "marked up", "data", "mixed", "entity", "vb", "tag", "key"):
            word = chat.answer.get_by_text(name, exact=True).first
            if await word.count():
                await word.click()
        await page.wait_for_timeout(200)  # that no script runs has no event
        assert await page.evaluate("window.ran") is None
        assert len(page.context.pages) == 1
        await page.reload()
        await expect(chat.answers).to_have_count(1)
    assert web.watch.count("evil.example") == 0


async def test_what_a_person_writes_is_shown_as_it_was_written(web: Web) -> None:
    person = await web.person()
    text = "<b onmouseover=\"window.ran='me'\">bold</b> <img src=x>"
    web.answer(text, "I see.")
    page = await web.visit(person)
    chat, sidebar = Chat(page), Sidebar(page)
    await chat.ask(text)
    await expect(chat.questions.first).to_contain_text(text)
    await expect(chat.title).to_have_text(text)
    await sidebar.chat(text).hover()
    await page.goto("/search/?q=onmouseover")
    await expect(Search(page).main.locator("mark").first).to_be_visible()
    assert await page.evaluate("window.ran") is None


async def test_two_people_in_two_browsers_never_see_each_others_chats(web: Web) -> None:
    ada, bob = await web.person(), await web.person()
    web.watch.allow("404")
    of_ada = await web.chat(ada, ("The duchess sails at dawn.", "I shall tell nobody."), name="Adas plan")
    of_bob = await web.chat(bob, ("The baker bakes at noon.", "Good to know."), name="Bobs plan")
    message = (await ada.messages(of_ada["id"]))[0]
    for person, own, other, words in ((ada, of_ada, of_bob, "baker"), (bob, of_bob, of_ada, "duchess")):
        page = await web.visit(person)
        chat, sidebar, search = Chat(page), Sidebar(page), Search(page)
        await expect(sidebar.chat(own["name"])).to_be_visible()
        await expect(page.get_by_text(other["name"])).to_have_count(0)
        for address in (f"/chat/?id={other['id']}", f"/chat/?id={other['id']}&message={message['id']}&order=1"):
            await page.goto(address)
            await expect(page.get_by_role("main")).to_contain_text(
                re.compile("not found|does not exist|no such|no chat|cannot be found", re.IGNORECASE)
            )
            await expect(page.get_by_text(words)).to_have_count(0)
            await expect(page.get_by_text(other["name"])).to_have_count(0)
        await expect(chat.questions).to_have_count(0)
        await page.goto("/search/")
        await search.box.fill(words)
        await expect(search.main).to_contain_text(re.compile("no |nothing", re.IGNORECASE))
        await expect(search.main.locator("mark")).to_have_count(0)


async def test_every_page_carries_a_policy_without_unsafe_scripts(web: Web) -> None:
    paths = ("/", "/login/", "/signup/", "/forgot-password/", "/reset-password/", "/callback/", "/chat/", "/archive/")
    for path in (*paths, "/search/", "/settings/", "/no-such-page/"):
        response = await web.client.get(path, headers={"Accept": "text/html"})
        assert "text/html" in response.headers["content-type"], path
        policy = response.headers["content-security-policy"]
        directives = {part.split()[0]: part.split()[1:] for part in policy.split(";") if part.strip()}
        assert directives["default-src"] == ["'none'"], path
        assert {"'unsafe-inline'", "'unsafe-eval'", "*", "https:", "http:", "data:"}.isdisjoint(
            directives["script-src"]
        )
        assert directives["frame-ancestors"] == ["'none'"]
        assert directives["base-uri"] == ["'none'"]
        connect = set(directives["connect-src"])
        assert connect <= {"'self'", web.stack.supabase_url, web.stack.supabase_url.replace("http", "ws", 1)}
        assert response.headers["x-content-type-options"] == "nosniff"


async def test_an_address_that_does_not_exist_says_so_and_leads_back(web: Web) -> None:
    web.watch.allow("404")
    person = await web.person()
    page = await web.visit(person, "/no-such-page/")
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await page.get_by_role("main").get_by_role("link").first.click()
    await expect(Chat(page).box).to_be_visible()
