"""Attacks on what all share: one account's searches, appends, pages and turns, as many at once as it may send."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from tests.attacks.frame import MB, Attack, Outcome, Target
from tests.support.api import Person, ok

AT_ONCE = 60
ROUNDS = 10
HELD = {"200", "201", "429", "503"}
"""A flood is served, or told to slow down; it never makes a server fail."""

Call = Callable[[], Awaitable[httpx.Response]]


async def _flood(call: Call, *, at_once: int = AT_ONCE, rounds: int = ROUNDS) -> Outcome:
    """Return the statuses of so many callers, each of whom asks again as soon as they are answered."""
    outcome = Outcome()

    async def caller() -> None:
        for _ in range(rounds):
            response = await call()
            outcome.counts[str(response.status_code)] += 1
            if response.status_code == httpx.codes.TOO_MANY_REQUESTS:
                outcome.expect(int(response.headers.get("retry-after", 0)) > 0, "a refusal without a Retry-After")

    await asyncio.gather(*(caller() for _ in range(at_once)))
    unexpected = set(outcome.counts) - HELD
    outcome.expect(not unexpected, f"met {unexpected}, expected {HELD}")
    return outcome


async def _with_messages(target: Target, count: int, content: str) -> tuple[Person, str]:
    """Return somebody with a session of so many messages of this content."""
    person = await target.person()
    session = (await person.create_session())["id"]
    at_once = max(1, 3 * MB // len(content))
    while count > 0:
        messages: list[Any] = [{"role": "user", "content": content}] * min(count, at_once)
        ok(await person.call("POST", f"/sessions/{session}/messages", {"messages": messages}))
        count -= at_once
    return person, session


async def broad_searches(target: Target) -> Outcome:
    """Searches of many words over forty messages of 240 kB."""
    person, _ = await _with_messages(target, 40, "needle " + "hay " * 60_000)
    query = "+".join(["needle", "hay"] * 12)
    return await _flood(lambda: person.call("GET", f"/messages/search?query={query}&page_size=50"))


async def appends(target: Target) -> Outcome:
    """Appends to one session, which has one row that all of them lock."""
    person, session = await _with_messages(target, 1, "x")
    body = {"messages": [{"role": "user", "content": "x" * 1000}] * 20}
    return await _flood(lambda: person.call("POST", f"/sessions/{session}/messages", body))


async def large_pages(target: Target) -> Outcome:
    """Pages of 5 MB, which are read."""
    person, session = await _with_messages(target, 50, "x" * 100_000)
    return await _flood(lambda: person.call("GET", f"/sessions/{session}/messages?page_size=50"), rounds=3)


async def turns(target: Target) -> Outcome:
    """Turns without end, each in a session of its own."""
    person = await target.person()

    async def turn() -> httpx.Response:
        created = await person.call("POST", "/sessions", {})
        if created.is_error:
            return created
        return await person.call("POST", f"/sessions/{created.json()['id']}/runs", {"content": "word " * 50})

    return await _flood(turn, rounds=3)


async def many_values(target: Target) -> Outcome:
    """Bodies of a million values, which take far longer to read than their megabytes."""
    person, session = await _with_messages(target, 1, "x")
    value = b"[" + b"[]," * 20_000 + b"0]"
    messages = b",".join([b'{"role": "user", "metadata": {"x": ' + value + b"}}"] * 50)
    bodies = {
        f"/sessions/{session}/messages": b'{"messages": [' + messages + b"]}",
        f"/sessions/{session}/turns": b'{"content": "x", "metadata": {"x": ' + value + b"}}",
        "/v1/chat/completions": b'{"model": "x", "messages": ' + b"[" + b"{}," * 1_000_000 + b"0]}",
    }
    headers = {**person.headers, "content-type": "application/json"}
    outcome = Outcome()

    async def send(path: str, body: bytes) -> None:
        response = await target.client.post(path, content=body, headers=headers)
        outcome.counts[str(response.status_code)] += 1

    for path, body in bodies.items():
        await asyncio.gather(*(send(path, body) for _ in range(20)))
    unexpected = set(outcome.counts) - {"400", "429"}
    outcome.expect(not unexpected, f"met {unexpected}")
    return outcome


ATTACKS = (
    Attack("many_values", many_values),
    Attack("broad_searches", broad_searches),
    Attack("appends", appends),
    Attack("large_pages", large_pages, most_growth_bytes=400 * MB),
    Attack("turns", turns),
)
