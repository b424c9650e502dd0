"""An answer outlives reloads, lost networks and killed servers; its text is compared whole with what the model said."""

import asyncio
import os
import signal
from collections.abc import Callable

import httpx
import pytest
from playwright.async_api import Route, expect

from tests.support.api import Person
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import RunningStack
from tests.support.waiting import until
from tests.web.conftest import View
from tests.web.pages import Chat
from tests.web.world import MODEL_SETTINGS, Web, counted, counted_in

TOKENS = 250
SLOWLY = Behaviour(tokens=TOKENS, delay_seconds=0.02)


async def is_whole(chat: Chat, person: Person) -> None:
    """Check that the page shows, and the server stores, each word once and in order."""
    await chat.ended()
    assert await counted_in(chat.answer) == counted(TOKENS)
    await expect(chat.questions).to_have_count(1)
    _, answer = await person.messages(await chat.session_id())
    assert answer["content"].split() == counted(TOKENS)
    await chat.page.reload()
    await expect(chat.answers).to_have_count(1)
    assert await counted_in(chat.answer) == counted(TOKENS)


async def asked(web: Web, person: Person) -> Chat:
    """Ask for a long answer and return in its middle."""
    web.answer("Count.", SLOWLY)
    chat = Chat(await web.visit(person))
    await chat.send("Count.")
    await expect(chat.answer).to_contain_text("t20 ")
    return chat


async def test_a_reload_in_mid_stream_loses_and_doubles_nothing(web: Web) -> None:
    person = await web.person()
    chat = await asked(web, person)
    await chat.session_id()
    for _ in range(2):
        await chat.page.reload()
        await expect(chat.answer).to_contain_text("t20 ")
        assert len(await counted_in(chat.answer)) < TOKENS, "the answer had ended before the reload"
        await expect(chat.stop_button).to_be_visible()
    await is_whole(chat, person)


async def test_an_answer_under_way_is_there_before_its_stream(web: Web) -> None:
    person = await web.person()
    chat = await asked(web, person)
    held = asyncio.Event()

    async def hold(route: Route) -> None:
        await held.wait()
        await route.continue_()

    await chat.page.route("**/runs/*/events", hold)
    await chat.page.reload()
    await expect(chat.answer).to_contain_text("t20 ")
    await expect(chat.stop_button).to_be_visible()
    held.set()
    await is_whole(chat, person)


async def test_a_chat_that_is_left_and_opened_again_goes_on(web: Web) -> None:
    person = await web.person()
    chat = await asked(web, person)
    session_id = await chat.session_id()
    await chat.page.get_by_role("link", name="Search", exact=True).click()
    await expect(chat.page.get_by_role("heading", level=1, name="Search")).to_be_visible()
    await chat.page.get_by_role("link", name="Count.", exact=True).click()
    await expect(chat.answer).to_contain_text("t20 ")
    assert await chat.session_id() == session_id
    await is_whole(chat, person)


async def test_a_lost_network_in_mid_stream_loses_and_doubles_nothing(web: Web) -> None:
    person = await web.person()
    chat = await asked(web, person)
    web.watch.allow("net::ERR_")
    for _ in range(2):
        await chat.page.context.set_offline(True)
        await expect(chat.reconnecting).to_be_visible()
        await chat.page.context.set_offline(False)
        await expect(chat.reconnecting).to_be_hidden()
    await is_whole(chat, person)


async def killed(stack: RunningStack, number: signal.Signals) -> None:
    """Kill the gateway and wait until its successor answers."""
    old = stack.process("gateway")
    os.kill(old, number)

    async def is_replaced() -> bool:
        if stack.process("gateway") == old:
            return False
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{stack.gateway_url}/readyz")).is_success
        except httpx.TransportError:
            return False

    await until(is_replaced, "the restart")


@pytest.fixture(scope="module")
async def parts(launch: Callable[..., RunningStack], model: ModelServer) -> RunningStack:
    """A suite with a process for each part, so that the gateway can die alone."""
    settings = {**MODEL_SETTINGS, "OPENAI_BASE_URL": model.base_url}
    return await asyncio.to_thread(lambda: launch(mode="processes", **settings))


@pytest.mark.own_mode
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "restarted"])
async def test_a_gateway_that_goes_in_mid_stream_costs_no_text(
    view: View, parts: RunningStack, number: signal.Signals
) -> None:
    web = view(parts)
    person = await web.person()
    chat = await asked(web, person)
    web.watch.allow("net::ERR_", "50[0-9]")
    draft = "What I write meanwhile"
    killing = asyncio.create_task(killed(parts, number))
    if number == signal.SIGKILL:
        await expect(chat.reconnecting).to_be_visible()
    await chat.box.fill(draft)
    await killing
    await is_whole(chat, person)
    await expect(chat.reconnecting).to_be_hidden()
    await expect(chat.box).to_have_value(draft)


@pytest.mark.own_mode
async def test_when_everything_of_ours_is_killed_the_text_so_far_stays_and_can_be_asked_again(
    view: View, launch: Callable[..., RunningStack], model: ModelServer, suite: RunningStack
) -> None:
    if suite.mode == "one-process":
        stack = suite
    else:
        settings = {**MODEL_SETTINGS, "OPENAI_BASE_URL": model.base_url}
        stack = await asyncio.to_thread(lambda: launch(mode="one-process", **settings))
    web = view(stack)
    person = await web.person()
    web.answer("Count.", Behaviour(tokens=5000, delay_seconds=0.02), "Done counting.")
    chat = Chat(await web.visit(person))
    await chat.send("Count.")
    await expect(chat.answer).to_contain_text("t20 ")
    web.watch.allow("net::ERR_", "50[0-9]")
    seen = await counted_in(chat.answer)
    killing = asyncio.create_task(killed(stack, signal.SIGKILL))
    await expect(chat.reconnecting).to_be_visible()
    await killing
    await expect(chat.button("Try again")).to_be_visible(timeout=30_000)
    _, answer = await person.messages(await chat.session_id())
    words = answer["content"].split()
    assert words[: len(seen)] == seen
    assert words == counted(len(words))
    assert await counted_in(chat.answer) == words
    await chat.button("Try again").click()
    await expect(chat.answer).to_contain_text("Done counting.")
