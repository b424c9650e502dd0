"""Runs as the tests of the database use them: started by a user, written by their lease."""

import asyncio
import json
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from concerto.sessions.v1 import runs_pb2

from tests.support.database import call, call_system

ERROR = {
    "code": 503,
    "status": "UNAVAILABLE",
    "message": "It was interrupted.",
    "details": [{"reason": "RUN_INTERRUPTED", "domain": "concerto", "metadata": {}}],
}


def start_args(session_id: str, **fields: Any) -> dict[str, Any]:
    """Return the arguments of start_run: fields that are not the request's own are the turn's."""
    own = runs_pb2.StartRunRequest.DESCRIPTOR.fields_by_name
    turn = {name: value for name, value in fields.items() if name not in own}
    return {name: value for name, value in fields.items() if name in own} | {"session_id": session_id, "turn": turn}


def user_message_of(started: dict[str, Any]) -> dict[str, Any]:
    """Return the user's message from what a start, or the begin of a queued run, has answered."""
    [event] = started["events"]
    return dict(event["run_started"]["user_message"])


@dataclass(frozen=True)
class RunsWorld:
    """A user and connections as the services have them."""

    admin: asyncpg.Connection
    pool: asyncpg.Pool
    user: str

    async def call(self, operation: str, **args: Any) -> dict[str, Any]:
        """Run an operation as the user."""
        return await call(self.pool, self.user, operation, **args)

    async def system(self, operation: str, **args: Any) -> dict[str, Any]:
        """Run an operation that acts for no user."""
        return await call_system(self.pool, operation, **args)

    async def new_session(self) -> str:
        """Create a session and return its id."""
        return str((await self.call("create_session"))["session"]["id"])

    async def start(self, session_id: str | None = None, content: str = "hello", **args: Any) -> dict[str, Any]:
        """Start a run, in a new session unless one is named."""
        if "regenerate_message_id" not in args:
            args["content"] = content
        return await self.call("start_run", **start_args(session_id or await self.new_session(), **args))

    async def append(self, lease: object, texts: Iterable[str], first_seq: int = 2) -> list[str]:
        """Append deltas and return the runs whose lease is lost."""
        events = [{"seq": seq, "message_delta": {"text": text}} for seq, text in enumerate(texts, first_seq)]
        answer = await self.system("append_run_events", batches=[{"lease": lease, "events": events}])
        return list(answer["lost_run_ids"])

    async def think(
        self, lease: object, *pieces: dict[str, str], first_seq: int = 2, created_at: str | None = None
    ) -> None:
        """Append pieces, each by the name of its delta: {"reasoning_delta": text} or {"message_delta": text}."""
        events = [
            {"seq": seq, "created_at": created_at, name: {"text": text}}
            for seq, piece in enumerate(pieces, first_seq)
            for name, text in piece.items()
        ]
        answer = await self.system("append_run_events", batches=[{"lease": lease, "events": events}])
        assert answer["lost_run_ids"] == []

    async def finish(
        self, lease: object, state: str = "SUCCEEDED", answer: str | None = "answer", **args: Any
    ) -> dict[str, Any]:
        """End a run with one message, or with none."""
        messages = [] if answer is None else [{"role": "assistant", "content": answer}]
        return await self.system("finish_run", lease=lease, state=state, messages=messages, next_seq=2, **args)

    async def answered(self, session_id: str, content: str, answer: str, **args: Any) -> dict[str, Any]:
        """Start a run and end it with an answer; return what the start returned."""
        started = await self.start(session_id, content, **args)
        await self.finish(started["lease"], answer=answer)
        return started

    async def interrupt(self, run_id: str) -> None:
        """Let a run's lease expire and have it interrupted, here or by a service that is just running."""
        await self.expire(run_id)
        for _ in range(200):
            await self.system("interrupt_expired_runs", limit=1000, error=ERROR)
            if (await self.run(run_id))["finished_at"] is not None:
                return
            await asyncio.sleep(0.02)  # the pause between two looks
        raise AssertionError(f"Run {run_id} was not interrupted.")

    async def expire(self, run_id: str) -> None:
        """Let a run's lease be over."""
        await self.admin.execute(
            "update public.runs set lease_expires_at = now() - interval '1 second' where id = $1", run_id
        )

    async def run(self, run_id: str) -> dict[str, Any]:
        """Read a run."""
        return dict((await self.call("get_run", run_id=run_id))["run"])

    async def events(self, run_id: str) -> list[dict[str, Any]]:
        """Read a run's events."""
        return list((await self.call("read_run_events", run_id=run_id, page_size=1000))["events"])

    async def types(self, run_id: str) -> list[str]:
        """Read the names of a run's events; their seqs are checked to be without gaps."""
        events = await self.events(run_id)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        return [next(name for name in event if name not in ("seq", "created_at")) for event in events]

    async def contents(self, session_id: str, **args: Any) -> list[str]:
        """Read the contents of a session's messages."""
        answer = await self.call("list_messages", session_id=session_id, page_size=100, **args)
        return [message["content"] for message in answer["messages"]]

    async def ledger(self) -> list[dict[str, Any]]:
        """Read the user's rows in the ledger, oldest first."""
        rows = await self.admin.fetch(
            "select * from public.api_usage where user_id = $1 order by created_at", self.user
        )
        return [dict(row) for row in rows]


def forged(lease: dict[str, str]) -> dict[str, str]:
    """Return the lease with a token that is not its own."""
    return {**lease, "token": uuid4().hex * 2}


async def refused(sqlstate: str, reason: str, attempt: Awaitable[object]) -> dict[str, str]:
    """Await what must be refused for that reason, and return the error's metadata."""
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await attempt
    assert (refusal.value.sqlstate, refusal.value.message) == (sqlstate, reason)
    return dict(json.loads(refusal.value.detail))
