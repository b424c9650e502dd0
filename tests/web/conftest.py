import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Browser, async_playwright, expect

from local.setup.browser import FLAGS, find_chromium
from tests.support.model_server import ModelServer
from tests.support.suites import RunningStack
from tests.web.world import MODEL_SETTINGS, PATIENCE_SECONDS, Web

expect.set_options(timeout=PATIENCE_SECONDS * 1000)

FAILED = pytest.StashKey[bool]()
View = Callable[[RunningStack], Web]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Note which tests failed, for the pictures that are taken of their pages."""
    report = yield
    if report.failed:  # type: ignore[attr-defined]
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A real Chromium, one for all tests; each page has a profile of its own in it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(find_chromium()), args=list(FLAGS))
        yield browser
        await browser.close()


@pytest.fixture(scope="session")
async def model() -> AsyncIterator[ModelServer]:
    """The model, which answers what a test says that it answers."""
    async with ModelServer.running() as server:
        yield server


@pytest.fixture(scope="session")
async def suite(launch: Callable[..., RunningStack], model: ModelServer) -> RunningStack:
    """A suite whose answers come from the tests' model, in the test run's mode."""
    return await asyncio.to_thread(launch, OPENAI_BASE_URL=model.base_url, **MODEL_SETTINGS)


@pytest.fixture(scope="session")
async def short_tokens(launch: Callable[..., RunningStack], model: ModelServer) -> RunningStack:
    """The same with access tokens that live for five seconds, and for the ten of leeway that servers give."""
    settings = {**MODEL_SETTINGS, "OPENAI_BASE_URL": model.base_url, "CONCERTO_ACCESS_TOKEN_SECONDS": "5"}
    return await asyncio.to_thread(launch, **settings)


@pytest.fixture
async def view(
    browser: Browser, model: ModelServer, request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[View]:
    """Look at a running suite; whatever goes wrong in its pages unasked fails the test."""
    async with httpx.AsyncClient(timeout=60) as client:
        opened: list[Web] = []

        def look(stack: RunningStack) -> Web:
            client.base_url = httpx.URL(stack.gateway_url)
            opened.append(Web(browser, stack, model, client))
            return opened[-1]

        yield look
        failed = request.node.stash.get(FAILED, False)
        for web in opened:
            if failed:
                await web.keep_pictures(tmp_path)
            await web.close()
        unexpected = [problem for web in opened for problem in web.watch.unexpected]
        assert unexpected == []


@pytest.fixture
async def web(view: View, suite: RunningStack) -> Web:
    """The usual suite as a test sees it."""
    return view(suite)
