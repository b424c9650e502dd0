"""A client of the running suite, as a frontend would be one: REST and Server-Sent Events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx

PASSWORD = "correct-horse-battery-staple"


@dataclass(frozen=True)
class Event:
    """One Server-Sent Event."""

    id: str | None
    type: str
    data: Any


class Person:
    """Somebody with an account, signed in at a gateway."""

    def __init__(self, client: httpx.AsyncClient, answer: dict[str, Any]) -> None:
        self.client = client
        self.user = answer["user"]
        self.tokens = answer["session"]

    @property
    def headers(self) -> dict[str, str]:
        """What each request of this person carries."""
        return {"Authorization": f"Bearer {self.tokens['access_token']}"}

    @classmethod
    async def sign_up(cls, client: httpx.AsyncClient, **fields: str) -> Person:
        """Create an account with an address of its own, or the one given."""
        body = {"email": f"person-{uuid4()}@example.com", "password": PASSWORD, **fields}
        return cls(client, ok(await client.post("/auth/signup", json=body)))

    @classmethod
    async def log_in(cls, client: httpx.AsyncClient, email: str) -> Person:
        """Sign in somebody who has an account."""
        return cls(client, ok(await client.post("/auth/login", json={"email": email, "password": PASSWORD})))

    async def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send one request."""
        return await self.client.request(method, path, headers=self.headers, json=body)

    async def create_session(self, **fields: Any) -> dict[str, Any]:
        """Create a session and return it."""
        answer: dict[str, Any] = ok(await self.call("POST", "/sessions", fields))
        return answer

    async def messages(self, session_id: str) -> list[dict[str, Any]]:
        """Return the first page of a session's messages."""
        answer = ok(await self.call("GET", f"/sessions/{session_id}/messages?page_size=100"))
        return list(answer["messages"])

    async def turn(self, session_id: str, content: str, **fields: Any) -> AsyncGenerator[Event, None]:
        """Send a message and yield the events of the answer."""
        body = {"content": content, **fields}
        path = f"/sessions/{session_id}/turns"
        async with self.client.stream("POST", path, headers=self.headers, json=body) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise AssertionError(f"{response.status_code}: {response.text}")
            async for event in read_events(response):
                yield event


async def read_events(response: httpx.Response) -> AsyncIterator[Event]:
    """Yield the events of a text/event-stream answer; comments are passed over."""
    assert response.headers["content-type"].startswith("text/event-stream")
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if fields:
            yield Event(id=fields.get("id"), type=fields["event"], data=json.loads(fields["data"]))
        fields = {}


def text_of(events: list[Event]) -> str:
    """Return the answer's text, put together from its deltas."""
    return "".join(event.data["text"] for event in events if event.type == "message.delta")


def ok(response: httpx.Response) -> Any:
    """Return the JSON of a good answer; fail with the body of a bad one."""
    assert response.is_success, f"{response.status_code}: {response.text}"
    return response.json() if response.content else None


def reason(response: httpx.Response) -> str:
    """Return the reason of a bad answer."""
    return str(response.json()["error"]["details"][0]["reason"])
