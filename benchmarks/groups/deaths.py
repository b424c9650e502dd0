"""How long an answer whose process was killed is shown as if it went on."""

import asyncio
import os
import signal
import time
from typing import Any

import httpx

from benchmarks.load import model_server
from benchmarks.progress import say
from benchmarks.rows import MeasurementError, Row
from benchmarks.suites import Suite
from tests.support.api import Person, ok
from tests.support.waiting import until

AT_MOST_SECONDS = 3.0
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.02


async def measure(suite: Suite, *, quick: bool) -> list[Row]:
    """Return the seconds from SIGKILL of the process that answers until a list of messages holds the partial answer.

    In one process the gateway dies with it, and its start is part of the time.
    """
    rounds = 2 if quick else 5
    person = await suite.person()
    taken = []
    for number in range(rounds):
        say(f"{suite.mode}: death {number + 1} of {rounds}")
        taken.append(await _die(suite, person))
    return [
        Row.absolute(
            "death to INTERRUPTED in a GET", suite.mode, taken, unit="s", at_most=AT_MOST_SECONDS,
            note="from SIGKILL; the supervisor tells the database, a sessions service ends the run.",
        )
    ]  # fmt: skip


async def _die(suite: Suite, person: Person) -> float:
    session = await person.create_session()
    content = model_server.prompt(tokens=5000, milliseconds=20)
    ok(await person.call("POST", f"/sessions/{session['id']}/runs", {"content": content}))
    path = f"/sessions/{session['id']}/messages?include_answer_under_way=true"

    async def has_words() -> bool:
        return bool(((await _page(person, path)).get("answer_under_way") or {}).get("text"))

    await until(has_words, "the answer's first words")
    began = time.monotonic()
    os.kill(suite.stack.process("orchestrator"), signal.SIGKILL)
    while time.monotonic() - began < PATIENCE_SECONDS:
        messages = (await _page(person, path)).get("messages", [])
        if len(messages) == 2 and messages[1]["metadata"].get("error_reason") == "RUN_INTERRUPTED":
            seconds = time.monotonic() - began
            await until(lambda: _is_whole(suite), "the suite")
            return seconds
        await asyncio.sleep(LOOK_SECONDS)
    raise MeasurementError(f"An answer was not interrupted within {PATIENCE_SECONDS:.0f} s of its process's death.")


async def _page(person: Person, path: str) -> dict[str, Any]:
    try:
        response = await person.call("GET", path)
    except httpx.TransportError:
        return {}
    return dict(response.json()) if response.is_success else {}


async def _is_whole(suite: Suite) -> bool:
    try:
        return (await suite.client.get("/readyz")).is_success
    except httpx.TransportError:
        return False
