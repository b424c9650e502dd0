"""How much is loaded first, how smooth typing stays while an answer comes, and how 10,000 messages behave."""

import asyncio
import gzip
import re
from itertools import pairwise
from statistics import quantiles
from typing import Any

import pytest
from playwright.async_api import Page, Response, expect

from tests.support.measured import Note
from tests.support.model_server import Behaviour
from tests.support.waiting import until
from tests.web import filled
from tests.web.pages import Chat
from tests.web.test_chat import RICH
from tests.web.world import WIDE, Web

MAX_FIRST_LOAD_BYTES = 250_000
MAX_FRAME_MS = 50.0
MESSAGES = 10_000
MAX_ARTICLES = 150
MAX_NODES = 6_000

PARAGRAPH = (
    "Words come **one by one** here, some of them `as code`, some *slanted*, and they go on for a while so that "
    "there is something to lay out and to read while one types the next question into the box below.\n\n"
    "- a list of things\n- that has two entries\n\n"
)
CODE = "```python\ndef double(value):\n    return 2 * value\n```\n\n"

MEASURE = """() => {
  const seen = { frames: [], tasks: [], keys: [] };
  window.measured = seen;
  let last = performance.now();
  const tick = (now) => {
    seen.frames.push(now - last);
    last = now;
    if (!seen.ended) requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
  const watch = (options, keep) =>
    new PerformanceObserver((list) => list.getEntries().forEach(keep)).observe(options);
  watch({ type: "longtask" }, (entry) => seen.tasks.push(entry.duration));
  watch({ type: "event", durationThreshold: 16 }, (entry) => {
    if (entry.name === "keydown") seen.keys.push(entry.duration);
  });
}"""


async def test_the_first_load_of_the_chat_page_is_small(web: Web, note: Note) -> None:
    person = await web.person()
    context = await web.context(person)
    page = await context.new_page()
    responses: list[Response] = []
    page.on("response", lambda response: responses.append(response))
    await page.goto("/chat/")
    await expect(Chat(page).box).to_be_visible()
    await page.wait_for_load_state("networkidle")
    scripts = [each for each in responses if each.request.resource_type == "script"]
    bodies = {each.url: await each.body() for each in scripts}
    sent = sum([(await each.request.sizes())["responseBodySize"] for each in scripts])
    packed = {url: len(gzip.compress(body, 9)) for url, body in bodies.items()}
    total = sum(packed.values())
    note(
        f"first load of /chat/: {len(packed)} scripts, {total / 1000:.1f} kB gzipped, {sent / 1000:.1f} kB sent, "
        f"{sum(map(len, bodies.values())) / 1000:.1f} kB unpacked"
    )
    for url, size in sorted(packed.items(), key=lambda item: -item[1])[:6]:
        note(f"  {size / 1000:6.1f} kB {url.rsplit('/', 1)[-1]}")
    assert total <= MAX_FIRST_LOAD_BYTES
    assert sent <= MAX_FIRST_LOAD_BYTES, "the gateway does not send scripts compressed"
    late = b"KaTeX parse error"
    assert not any(late in body for body in bodies.values()), "LaTeX is loaded before there is any"
    web.answer("Show me.", RICH)
    responses.clear()
    await Chat(page).ask("Show me.")
    await expect(Chat(page).answer.locator("math").first).to_be_attached()
    later = [await each.body() for each in responses if each.request.resource_type == "script"]
    assert any(late in body for body in later)


def spread(values: list[float]) -> str:
    """Return a few words about the distribution of some durations."""
    if len(values) < 2:
        return f"{len(values)} values"
    cuts = quantiles(values, n=100, method="inclusive")
    over = sum(value > MAX_FRAME_MS for value in values)
    return (
        f"{len(values)} values, median {cuts[49]:.1f}, p95 {cuts[94]:.1f}, p99 {cuts[98]:.1f}, "
        f"largest {max(values):.1f} ms, {over} over {MAX_FRAME_MS:.0f} ms"
    )


async def typed(page: Page, chat: Chat, text: str) -> dict[str, list[float]]:
    """Type into the box, and return the durations of what the browser did meanwhile, in milliseconds."""
    await page.evaluate(MEASURE)
    await chat.box.click()
    await page.keyboard.type(text, delay=50)
    await page.evaluate("window.measured.ended = true")
    return dict(await page.evaluate("window.measured"))


def p95(values: list[float]) -> float:
    return quantiles(values, n=100, method="inclusive")[94]


@pytest.mark.long
@pytest.mark.alone
async def test_typing_stays_smooth_while_a_long_answer_streams(web: Web, note: Note) -> None:
    """Measured with the machine to itself; what typing costs while nothing streams is told beside it."""
    person = await web.person()
    words = 0
    answer = ""
    while words < 2000:
        answer += PARAGRAPH + (CODE if words % 3 else "")
        words = len(answer.split())
    web.answer("Tell me everything.", Behaviour(text=answer, delay_seconds=0.008))
    page = await web.visit(person)
    chat = Chat(page)
    text = "While it tells me everything I am writing down what I want to know next, and no letter is lost. "
    text += "Nothing stutters either."
    alone = await typed(page, chat, text)
    await chat.box.fill("")
    await chat.send("Tell me everything.")
    await expect(chat.answer).to_contain_text("Words come one by one")
    measured = await typed(page, chat, text)
    assert await chat.stop_button.is_visible(), "the answer had ended before the typing"
    await expect(chat.box).to_have_value(text)
    note(f"typing while nothing streams: frames: {spread(alone['frames'])}")
    for name, what in (("frames", "frames"), ("tasks", "tasks over 50 ms"), ("keys", "from key to picture")):
        note(f"typing while {words} tokens stream: {what}: {spread(measured[name])}")
    assert p95(measured["frames"]) < MAX_FRAME_MS
    await chat.stop_button.click()
    await expect(chat.stop_button).to_be_hidden()


async def first_shown(chat: Chat) -> int:
    """Return the number of the topmost message in sight."""
    text = await chat.log.evaluate(
        """(log) => [...log.querySelectorAll("article")]
          .filter((each) => each.getBoundingClientRect().bottom > 120)
          .map((each) => each.innerText)
          .find((text) => /Message \\d+ says/.test(text)) ?? """
        '""'
    )
    found = re.search(r"Message (\d+) says", str(text))
    return int(found.group(1)) if found else 0


async def test_ten_thousand_messages_open_at_the_end_and_load_backward(web: Web, note: Note) -> None:
    person = await web.person()
    session_id = await filled.long_chat(web.stack, person.user["id"], MESSAGES, name="A very long talk")
    page = await web.visit(person, f"/chat/?id={session_id}")
    chat = Chat(page)
    last = chat.log.get_by_role("article").filter(has_text=f"Message {MESSAGES} says")
    await expect(last).to_be_in_viewport()
    # Over the messages, and not where the button that leads back to the latest will appear.
    await page.mouse.move(WIDE["width"] * 0.6, WIDE["height"] * 0.4)
    await page.evaluate(MEASURE)
    positions = [await first_shown(chat)]

    async def has_scrolled_far() -> bool:
        """However long the pages of earlier messages take to come."""
        await page.mouse.wheel(0, -1500)
        await page.wait_for_timeout(120)  # a person scrolls, looks and scrolls on
        positions.append(await first_shown(chat))
        return positions[-1] < MESSAGES - 350

    await until(has_scrolled_far, "earlier messages")
    await until(lambda: settled(chat, positions), "the scrolling to settle")
    measured: dict[str, Any] = await page.evaluate("window.measured.ended = true, window.measured")
    steps = [before - after for before, after in pairwise(positions)]
    articles = await chat.log.get_by_role("article").count()
    nodes = await page.evaluate("document.querySelectorAll('*').length")
    note(
        f"10,000 messages: scrolled from {positions[0]} to {positions[-1]}, {articles} articles, {nodes} nodes, "
        f"frames: {spread(measured['frames'])}"
    )
    # 1500 pixels hold at most so many messages; a lost place would jump by a whole page of them.
    assert max(steps) <= 45
    assert min(steps) >= -2
    assert articles <= MAX_ARTICLES
    assert nodes <= MAX_NODES
    web.answer("And what was that?", "A long talk.")
    await chat.send("And what was that?")
    await expect(chat.log.get_by_role("article").filter(has_text="A long talk.").last).to_be_in_viewport()


async def settled(chat: Chat, positions: list[int]) -> bool:
    before = await first_shown(chat)
    await asyncio.sleep(0.3)  # that nothing moves any more has no event
    positions.append(await first_shown(chat))
    return before == positions[-1]
