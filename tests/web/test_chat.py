"""A conversation: answers as they are said, stopped, asked again, edited; tools, usage, drafts, failures."""

import re

from playwright.async_api import Locator, expect

from tests.support.api import Person, ok
from tests.support.model_server import FAULTS, Behaviour, ToolUse
from tests.support.waiting import until
from tests.web.pages import Chat, Sidebar
from tests.web.world import Web, counted, counted_in

RICH = """# A plan

Some **bold** words, a [link](https://example.com/a) and `code`.

| Town | People |
|------|-------:|
| Ulm  | 126000 |

```python
def double(x):
    return 2 * x
```

Euler said $e^{i\\pi} + 1 = 0$, and

$$\\sum_{k=1}^{n} k = \\frac{n(n+1)}{2}$$
"""


async def stored_texts(person: Person, session_id: str) -> list[str]:
    return [message["content"] for message in await person.messages(session_id)]


async def test_stop_keeps_what_was_said_and_says_so(web: Web) -> None:
    person = await web.person()
    web.answer("Count on.", Behaviour(tokens=2000, delay_seconds=0.02))
    web.answer("Then this.", "Gladly.")
    page = await web.visit(person)
    chat = Chat(page)
    await chat.send("Count on.")
    await expect(chat.answer).to_contain_text("t10")
    await chat.box.fill("Then this.")
    await chat.stop_button.click()
    await expect(chat.stop_button).to_be_hidden()
    await expect(chat.answer).to_contain_text(re.compile("stopped", re.IGNORECASE))
    await expect(chat.box).to_have_value("Then this.")
    session_id = await chat.session_id()

    async def is_stored() -> bool:
        return len(await stored_texts(person, session_id)) == 2

    await until(is_stored, "the partial answer")
    _, partial = await stored_texts(person, session_id)
    await chat.ended()
    assert await counted_in(chat.answer) == partial.split()
    assert len(partial.split()) < 500
    await chat.send_button.click()
    await expect(chat.answer).to_contain_text("Gladly.")


async def stores(person: Person, session_id: str, texts: list[str]) -> None:
    """Wait until the shown branch holds these; the page shows a choice before it is stored."""

    async def is_stored() -> bool:
        return await stored_texts(person, session_id) == texts

    await until(is_stored, f"{texts} to be stored")


async def versions(message: Locator, text: str) -> None:
    await expect(message).to_contain_text(text)


async def test_an_answer_is_made_again_and_both_stay_readable(web: Web) -> None:
    person = await web.person()
    web.answer("Say a word.", "Apple.", "Banana.")
    page = await web.visit(person)
    chat = Chat(page)
    await chat.ask("Say a word.")
    await expect(chat.answer).to_contain_text("Apple.")
    await chat.act(chat.answer, "Regenerate")
    await expect(chat.answer).to_contain_text("Banana.")
    await chat.ended()
    await versions(chat.answer, "2 of 2")
    await expect(chat.answers).to_have_count(1)
    await chat.act(chat.answer, "Previous version")
    await expect(chat.answer).to_contain_text("Apple.")
    await versions(chat.answer, "1 of 2")
    session_id = await chat.session_id()
    await stores(person, session_id, ["Say a word.", "Apple."])
    await page.reload()
    await expect(chat.answer).to_contain_text("Apple.")
    await chat.act(chat.answer, "Next version")
    await expect(chat.answer).to_contain_text("Banana.")
    await stores(person, session_id, ["Say a word.", "Banana."])


async def test_a_question_is_edited_and_the_old_one_stays_readable(web: Web) -> None:
    person = await web.person()
    web.answer("What is red?", "A tomato.")
    web.answer("What is yellow?", "A lemon.")
    web.answer("Thanks.", "You are welcome.")
    page = await web.visit(person)
    chat = Chat(page)
    await chat.ask("What is red?")
    await chat.ask("Thanks.")
    question = chat.questions.first
    await chat.act(question, "Edit")
    field = page.get_by_role("textbox", name="Edit message", exact=True)
    await expect(field).to_have_value("What is red?")
    await field.fill("What is blue?")
    await chat.button("Cancel").click()
    await expect(question).to_contain_text("What is red?")
    await chat.act(question, "Edit")
    await field.fill("What is yellow?")
    await chat.button("Save and send").click()
    await expect(chat.answer).to_contain_text("A lemon.")
    await chat.ended()
    await expect(chat.questions).to_have_count(1)
    await versions(chat.questions.first, "2 of 2")
    await chat.act(chat.questions.first, "Previous version")
    await expect(chat.answer).to_contain_text("You are welcome.")
    await expect(chat.questions).to_have_count(2)
    await stores(person, await chat.session_id(), [
        "What is red?", "A tomato.", "Thanks.", "You are welcome.",
    ])  # fmt: skip


async def test_a_tool_is_shown_folded_and_opens(web: Web) -> None:
    person = await web.person()
    await web.chat(person, ("The duchess sails at dawn.", "Noted."), name="At sea")
    call = ToolUse(name="search_messages", arguments={"query": "duchess"})
    web.answer("When does she sail?", Behaviour(tool_calls=(call,)), "At dawn.")
    page = await web.visit(person)
    chat = Chat(page)
    await page.get_by_role("combobox", name="Agent").or_(page.get_by_role("button", name="Agent")).first.click()
    search = re.compile("^search")
    await (
        page.get_by_role("option", name=search)
        .or_(page.get_by_role("menuitemradio", name=search))
        .or_(page.get_by_role("menuitem", name=search))
        .first.click()
    )
    await chat.ask("When does she sail?")
    for _ in range(2):  # as it came, and as it is loaded
        await expect(chat.log).to_contain_text("At dawn.")
        tool = chat.log.locator("details")
        await expect(tool).to_have_count(1)
        assert await tool.get_attribute("open") is None, "it is open by itself"
        await expect(tool.locator("summary")).to_contain_text(re.compile("search.messages", re.IGNORECASE))
        await tool.locator("summary").click()
        await expect(tool).to_contain_text("The duchess sails at dawn.")
        await page.reload()
    await expect(chat.log).to_contain_text("At dawn.")


async def test_an_agent_is_chosen_for_one_chat(web: Web) -> None:
    person = await web.person()
    web.answer("Who are you?", "The one that you chose.")
    page = await web.visit(person)
    chat = Chat(page)
    agent = page.get_by_role("button", name="Agent")
    usual = await agent.text_content() or ""
    assert "search" not in usual
    await agent.click()
    await page.get_by_role("menuitemradio", name=re.compile("^search")).click()
    await chat.ask("Who are you?")
    await expect(agent).to_contain_text("search")
    first = page.url
    await Sidebar(page).new_chat()
    await expect(agent).to_have_text(usual)
    await page.goto(first)
    await expect(chat.log).to_contain_text("The one that you chose.")
    await expect(agent).to_contain_text("search")


async def test_what_is_sent_during_an_answer_follows_it(web: Web) -> None:
    person = await web.person()
    web.answer("Count on.", Behaviour(tokens=60, delay_seconds=0.02))
    web.answer("Then this.", "Gladly.")
    page = await web.visit(person)
    chat = Chat(page)
    await chat.send("Count on.")
    await expect(chat.answer).to_contain_text("t5")
    await chat.box.fill("Then this.")
    await chat.box.press("Enter")
    await expect(page.get_by_text("This is sent when the answer has ended.")).to_be_visible()
    await expect(chat.log).to_contain_text("Gladly.")
    await chat.ended()
    await expect(chat.box).to_have_value("")
    texts = await stored_texts(person, await chat.session_id())
    assert texts[0::2] == ["Count on.", "Then this."]
    assert "t59" in texts[1]
    assert texts[3] == "Gladly."


async def test_the_chosen_model_answers_and_what_it_used_stands_at_the_answer(web: Web) -> None:
    person = await web.person()
    web.answer("Which one are you?", Behaviour(tokens=128))
    page = await web.visit(person)
    chat = Chat(page)
    await page.get_by_role("combobox", name="Model").or_(page.get_by_role("button", name="Model")).first.click()
    await (
        page.get_by_role("option", name="other-model")
        .or_(page.get_by_role("menuitemradio", name="other-model"))
        .first.click()
    )
    await chat.ask("Which one are you?")
    assert web.model is not None
    assert web.model.chats[-1]["model"] == "other-model"
    await expect(chat.answer).to_contain_text(re.compile(r"\d+ tokens"))
    session_id = await chat.session_id()
    run = ok(await person.call("GET", f"/runs?session_id={session_id}"))["runs"][0]
    used = run["usage"]["completion_tokens"]
    assert re.search(
        rf"\b({used}|{int(used) + int(run['usage']['prompt_tokens'])}) tokens", await chat.answer.inner_text()
    )
    await page.reload()
    await expect(chat.answer).to_contain_text(re.compile(r"\d+ tokens"))


async def test_marked_up_answers_are_set_and_code_is_copied(web: Web) -> None:
    person = await web.person()
    web.answer("Show me all of it.", Behaviour(text=RICH, delay_seconds=0.005))
    page = await web.visit(person, permissions=["clipboard-read", "clipboard-write"])
    chat = Chat(page)
    answer = await chat.ask("Show me all of it.")
    await expect(answer.get_by_role("heading", name="A plan")).to_be_visible()
    await expect(answer.get_by_role("cell", name="126000")).to_be_visible()
    link = answer.get_by_role("link", name="link")
    await expect(link).to_have_attribute("target", "_blank")
    assert {"noopener", "noreferrer"} <= set(str(await link.get_attribute("rel")).split())
    await expect(answer.locator("pre code span").first).to_be_visible()
    await expect(answer.locator("math").first).to_be_attached()
    await answer.locator("pre").hover()
    await answer.get_by_role("button", name=re.compile("^Copy")).first.click()
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert copied.strip() == "def double(x):\n    return 2 * x"
    await chat.act(answer, "Copy")
    assert (await page.evaluate("navigator.clipboard.readText()")).strip() == RICH.strip()


async def test_drafts_survive_a_reload_and_stay_with_their_chat(web: Web) -> None:
    person = await web.person()
    session = await web.chat(person, ("First.", "Yes."), name="The first chat")
    page = await web.visit(person)
    chat, sidebar = Chat(page), Sidebar(page)
    await chat.box.fill("for a new chat")
    await sidebar.chat("The first chat").click()
    await expect(chat.answers).to_have_count(1)
    await expect(chat.box).to_have_value("")
    await chat.box.fill("for the first chat\nin two lines")
    await page.reload()
    await expect(chat.box).to_have_value("for the first chat\nin two lines")
    await sidebar.new_chat()
    await expect(chat.box).to_have_value("for a new chat")
    await page.goto(f"/chat/?id={session['id']}")
    web.answer("for the first chat\nin two lines", "Thank you.")
    await chat.send_button.click()
    await chat.ended()
    await page.reload()
    await expect(chat.answers).to_have_count(2)
    await expect(chat.box).to_have_value("")


async def test_names_in_all_scripts_are_kept_found_and_shown(web: Web) -> None:
    question = "Grüße an Jürgen, 你好世界"
    person = await web.person()
    web.answer(question, "谢谢，Jürgen läßt grüßen.")
    page = await web.visit(person)
    chat, sidebar = Chat(page), Sidebar(page)
    await chat.ask(question)
    await expect(chat.title).to_have_text(question)
    await sidebar.filter.fill("你好")
    await expect(sidebar.chat(question)).to_be_visible()
    await sidebar.filter.fill("jürgen")
    await expect(sidebar.chat(question)).to_be_visible()
    await sidebar.filter.fill("")
    await sidebar.rename(question, "Ärger über Öl — 石油")
    await expect(chat.title).to_have_text("Ärger über Öl — 石油")
    await page.goto("/search/?q=" + "世界")
    await expect(page.get_by_role("main").get_by_role("link").filter(has_text="石油")).to_be_visible()


async def test_a_failing_model_is_told_in_words_and_tried_again(web: Web) -> None:
    person = await web.person()
    web.answer("Try.", FAULTS["rate_limited"], "Now it works.")
    page = await web.visit(person)
    chat = Chat(page)
    await chat.send("Try.")
    await expect(chat.log.get_by_text(re.compile("slow down|limit", re.IGNORECASE)).first).to_be_visible()
    await chat.button("Try again").click()
    await expect(chat.answer).to_contain_text("Now it works.")
    await chat.ended()
    await stores(person, await chat.session_id(), ["Try.", "Now it works."])


async def test_an_answer_that_breaks_off_keeps_its_text_and_is_tried_again(web: Web) -> None:
    person = await web.person()
    web.answer("Go on.", Behaviour(tokens=20, fault="cut", fault_after=8), Behaviour(text="All of it."))
    page = await web.visit(person)
    chat = Chat(page)
    await chat.send("Go on.")
    await expect(chat.button("Try again")).to_be_visible()
    assert await counted_in(chat.answer) == counted(8)
    await page.reload()
    await expect(chat.button("Try again")).to_be_visible()
    assert await counted_in(chat.answer) == counted(8)
    await chat.button("Try again").click()
    await expect(chat.answer).to_contain_text("All of it.")
    await chat.ended()
    await versions(chat.answer, "2 of 2")


async def test_a_message_that_cannot_be_sent_is_kept(web: Web) -> None:
    person = await web.person()
    web.watch.allow("net::ERR_")
    web.answer("Hello?", "Hello.")
    page = await web.visit(person)
    chat = Chat(page)
    await expect(chat.box).to_be_visible()
    await page.context.set_offline(True)
    await chat.send("Hello?")
    await page.wait_for_timeout(1500)  # that what was written is not lost later has no event
    assert await chat.box.input_value() == "Hello?" or await chat.questions.count() == 1, "what was written is lost"
    await page.context.set_offline(False)
    if await chat.box.input_value() == "Hello?":
        await chat.send_button.click()
    elif await chat.button("Try again").is_visible():
        await chat.button("Try again").click()
    await chat.ended()
    await expect(chat.questions).to_have_count(1)
    await stores(person, await chat.session_id(), ["Hello?", "Hello."])
