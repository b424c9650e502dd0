"""People who use a suite at once as well-behaved clients do: what may be repeated is repeated, and nothing else."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from tests.support.api import Person
from tests.support.streams import Follower

RETRYABLE = (502, 503, 504)
MOST_TRIES = 10
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 1.0


@dataclass
class Tally:
    """What a crowd did, and what it met."""

    requests: Counter[str] = field(default_factory=Counter)
    """Requests that were answered in the end, by kind."""
    retries: Counter[str] = field(default_factory=Counter)
    """Why requests were sent again: an error of the connection, or a status with its reason."""
    failed: list[str] = field(default_factory=list)
    """Requests that failed for good."""
    slowest_seconds: float = 0.0
    """The longest that a request took, all its tries together."""

    def describe(self) -> str:
        """Return the figures in a line."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.requests.items()))
        retries = ", ".join(f"{count} × {why}" for why, count in sorted(self.retries.items())) or "none"
        return (
            f"{self.requests.total()} requests ({kinds}), {self.retries.total()} retries ({retries}), "
            f"{len(self.failed)} failed, the slowest took {self.slowest_seconds:.1f} s"
        )


class Client:
    """One person's client. Every request here is idempotent: reads, and appends with a request_id."""

    def __init__(self, person: Person, tally: Tally) -> None:
        self.person = person
        self._tally = tally

    async def ask(self, kind: str, method: str, path: str, body: Any = None) -> Any:
        """Send a request, again where that may help, and return the answer's JSON; None when it failed for good."""
        began = time.monotonic()
        pause_seconds, why = FIRST_PAUSE_SECONDS, ""
        for attempt in range(MOST_TRIES):
            if attempt:
                self._tally.retries[why] += 1
                # A client waits before it asks again.
                await asyncio.sleep(pause_seconds * random.uniform(0.8, 1.2))
                pause_seconds = min(pause_seconds * 2, LONGEST_PAUSE_SECONDS)
            try:
                response = await self.person.call(method, path, body)
            except httpx.TransportError as error:
                why = type(error).__name__
                continue
            if response.status_code in RETRYABLE:
                why = f"{response.status_code} {reason_of(response)}"
                continue
            if not response.is_success:
                why = f"{response.status_code} {reason_of(response)}"
                break
            self._tally.requests[kind] += 1
            self._tally.slowest_seconds = max(self._tally.slowest_seconds, time.monotonic() - began)
            return response.json()
        self._tally.failed.append(f"{kind}: {why}")
        return None


def reason_of(response: httpx.Response) -> str:
    """Return the reason of a bad answer; the beginning of its text when it is not one of ours."""
    try:
        return str(response.json()["error"]["details"][0]["reason"])
    except (ValueError, KeyError, IndexError, TypeError):
        return response.text[:80]


@dataclass
class Reader:
    """Somebody who reads and writes, with a short pause between."""

    client: Client
    session_id: str
    pause_seconds: float
    appended: dict[str, int] = field(default_factory=dict)
    """The order of each message that was acknowledged, by its content."""

    async def live(self, is_over: Callable[[], bool]) -> None:
        """Go on until it is over, and once at least."""
        path = f"/sessions/{self.session_id}"
        chance = random.Random(self.session_id)
        first = True
        while first or not is_over():
            first = False
            content = f"note {uuid4()}"
            body = {"messages": [{"role": "user", "content": content}], "request_id": str(uuid4())}
            answer = await self.client.ask("append", "POST", f"{path}/messages", body)
            if answer is not None:
                self.appended[content] = answer["messages"][0]["order"]
            await self._pause(chance)
            listed = await self.client.ask("list", "GET", f"{path}/messages?page_size=50&from_end=true")
            if answer is not None and listed is not None:
                assert content in [message["content"] for message in listed["messages"]], "what was stored is not there"
            await self._pause(chance)
            await self.client.ask("session", "GET", path)
            await self._pause(chance)
            await self.client.ask("me", "GET", "/auth/me")
            await self._pause(chance)

    async def _pause(self, chance: random.Random) -> None:
        # A person reads and thinks.
        await asyncio.sleep(self.pause_seconds * chance.uniform(0.5, 1.5))


@dataclass
class Talker:
    """Somebody who lets the model answer again and again, and reads along."""

    person: Person
    base_url: str
    session_id: str
    name: str
    turns: list[tuple[str, Follower]] = field(default_factory=list)
    """What was asked, and what was seen of the answer."""

    async def live(self, is_over: Callable[[], bool]) -> None:
        """Go on until it is over, and once at least; each answer is seen through to its end."""
        while not self.turns or not is_over():
            prompt = f"{self.name}.{len(self.turns)}"
            follower = Follower(self.base_url, self.person.headers)
            self.turns.append((prompt, follower))
            await follower.turn(self.session_id, {"content": prompt, "request_id": str(uuid4())})
