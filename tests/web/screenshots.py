"""Takes a picture of every page and main state, in light, dark and on a narrow screen, from the running suite.

    python -m tests.web.screenshots [--only chat]

starts a suite of its own with filled data, writes web/screenshots/*.png and prints their names.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import async_playwright, expect

from local.settings import ROOT
from local.setup.browser import FLAGS, find_chromium
from tests.support.model_server import ModelServer
from tests.support.suites import start_stack, stop_stack
from tests.web import tour
from tests.web.world import MODEL_SETTINGS, NARROW, PATIENCE_SECONDS, WIDE, Web

FOLDER = ROOT / "web" / "screenshots"
VARIANTS: dict[str, dict[str, Any]] = {
    "light": {"viewport": WIDE, "color_scheme": "light"},
    "dark": {"viewport": WIDE, "color_scheme": "dark"},
    "narrow": {"viewport": NARROW, "color_scheme": "light", "has_touch": True, "is_mobile": True},
    "narrow-dark": {"viewport": NARROW, "color_scheme": "dark", "has_touch": True, "is_mobile": True},
}


async def take(only: str) -> list[Path]:
    """Start a suite, walk through it in each variant, and return the pictures."""
    folder = Path(tempfile.mkdtemp(prefix="concerto-"))
    taken: list[Path] = []
    async with ModelServer.running() as model:
        variables: dict[str, Any] = MODEL_SETTINGS
        stack = await asyncio.to_thread(start_stack, folder, OPENAI_BASE_URL=model.base_url, **variables)
        try:
            async with async_playwright() as playwright, httpx.AsyncClient(base_url=stack.gateway_url) as client:
                browser = await playwright.chromium.launch(executable_path=str(find_chromium()), args=list(FLAGS))
                for variant, options in VARIANTS.items():
                    web = Web(browser, stack, model, client)
                    house = await tour.furnished(web)
                    async for name, page in tour.walk(web, house, **options):
                        if only in name:
                            file = FOLDER / f"{name}.{variant}.png"
                            await page.screenshot(path=file, animations="disabled")
                            taken.append(file)
                            sys.stdout.write(f"{file.relative_to(ROOT)}\n")
                    for problem in web.watch.unexpected:
                        sys.stdout.write(f"  {variant}: {problem}\n")
                    await web.close()
                await browser.close()
        finally:
            await asyncio.to_thread(stop_stack, stack)
            shutil.rmtree(folder, ignore_errors=True)
    return taken


def main() -> None:
    """Take the pictures that the command line asks for."""
    parser = argparse.ArgumentParser(description="Takes pictures of every page of the web app.")
    parser.add_argument("--only", default="", help="only states whose name contains this")
    only = parser.parse_args().only
    expect.set_options(timeout=PATIENCE_SECONDS * 1000)
    if not only:
        shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    taken = asyncio.run(take(only))
    sys.stdout.write(f"{len(taken)} pictures in {FOLDER.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
