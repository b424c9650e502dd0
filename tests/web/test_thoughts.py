"""What a model thinks, and what was cut off, as the page shows them."""

import asyncio
import re

from playwright.async_api import Locator, expect

from tests.support.model_server import Behaviour
from tests.web.pages import Chat
from tests.web.world import Web

QUESTION = "6 mal 2?"
THOUGHTS = "Sechs mal zwei, *überlegen* wir … <img src=x onerror=alert(1)> **zwölf**."
TOOK = re.compile(r"^Thought( for (a moment|\d+ s|\d+ min \d+ s))?$")


def thinks(**fields: object) -> Behaviour:
    return Behaviour(text="Es sind **zwölf**.", thoughts=THOUGHTS, **fields)  # type: ignore[arg-type]


async def is_unfolded(answer: Locator) -> bool:
    return bool(await answer.locator("details").evaluate("(details) => details.open"))


async def expect_thought(answer: Locator) -> None:
    """Expect the thought to be folded, and to unfold by the keyboard."""
    summary = answer.locator("summary")
    await expect(summary).to_have_text(TOOK)
    assert not await is_unfolded(answer)
    await expect(answer).not_to_contain_text("überlegen")
    await summary.focus()
    await summary.press("Enter")
    await expect(answer.locator("em")).to_have_text("überlegen")
    assert await answer.locator("details img[onerror]").count() == 0
    await summary.press("Enter")
    await expect(answer).not_to_contain_text("überlegen")


async def test_a_thought_is_told_while_it_goes_on_and_folded_then_also_after_a_reload(web: Web) -> None:
    person, rest = await web.person(), asyncio.Event()
    web.answer(QUESTION, thinks(rest=rest, fault_after=0))
    page = await web.visit(person)
    chat = Chat(page)
    await chat.send(QUESTION)
    thinking = chat.answer.locator("summary").filter(has_text="Thinking…")
    await expect(thinking).to_be_visible()
    await expect(page.get_by_text("The assistant is thinking.", exact=True)).to_have_count(1)
    await thinking.click()
    await expect(chat.answer.locator("em")).to_have_text("überlegen")
    await page.reload()
    await expect(thinking).to_be_visible()
    rest.set()
    await chat.ended()
    await expect_thought(chat.answer)
    await expect(chat.answer).to_contain_text("Es sind zwölf.")
    await page.reload()
    await chat.ended()
    await expect_thought(chat.answer)


async def test_a_copy_of_an_answer_leaves_its_thought_out(web: Web) -> None:
    person = await web.person()
    session = await web.chat(person, (QUESTION, thinks()))
    page = await web.visit(person, f"/chat/?id={session['id']}", permissions=["clipboard-read", "clipboard-write"])
    chat = Chat(page)
    await chat.act(chat.answer, "Copy")
    assert await page.evaluate("navigator.clipboard.readText()") == "Es sind **zwölf**."


async def test_stopping_in_mid_thought_keeps_it(web: Web) -> None:
    person = await web.person()
    web.answer(QUESTION, thinks(rest=asyncio.Event(), fault_after=0))
    chat = Chat(await web.visit(person))
    await chat.send(QUESTION)
    await expect(chat.answer.locator("summary")).to_have_text("Thinking…")
    await chat.stop_button.click()
    await chat.ended()
    await expect(chat.answer).to_contain_text("You stopped this answer.")
    await expect_thought(chat.answer)


async def test_what_was_cut_off_says_so_and_goes_on(web: Web) -> None:
    person = await web.person()
    web.answer("Tell me a story.", Behaviour(text="Once upon a", finish_reason="length"))
    web.answer("Go on exactly where your last answer stopped, in its language.", " time.")
    page = await web.visit(person)
    chat = Chat(page)
    await chat.ask("Tell me a story.")
    await expect(chat.answer).to_contain_text("The answer was cut off at the limit of its length.")
    await chat.answer.get_by_role("button", name="Continue", exact=True).click()
    await expect(chat.answers).to_have_count(2)
    await chat.ended()
    await expect(chat.answer).to_contain_text("time.")
    await expect(chat.button("Continue")).to_have_count(0)
    assert web.model is not None
    answers = [message["content"] for message in web.model.chats[-1]["messages"] if message["role"] == "assistant"]
    assert answers == ["Once upon a"]


async def test_a_filtered_answer_says_so_and_keeps_its_words(web: Web) -> None:
    person = await web.person()
    web.answer("Tell me.", Behaviour(text="Some words", finish_reason="content_filter"))
    chat = Chat(await web.visit(person))
    await chat.send("Tell me.")
    await chat.ended()
    for words in ("Some words", "The model provider's content filter stopped the answer.", "is kept."):
        await expect(chat.answer).to_contain_text(words)
    await expect(chat.answer.get_by_role("button", name="Try again", exact=True)).to_be_visible()
