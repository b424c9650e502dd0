import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jwt
import pytest

from local.suite.processes import Mode
from servicekit.rpc.identity import LEEWAY_SECONDS
from tests.support.api import Event, Person, ok, reason, text_of
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import PreparedStarts, RunningStack, stop_stack
from tests.support.waiting import until

STALL_SECONDS = 4
TOKEN_LIFE_SECONDS = 5
PRICES = '{"test-model": {"prompt": 1000000, "completion": 2000000, "cached": 500000}}'


@dataclass(frozen=True)
class Case:
    """A fault of the model server, and what a client is told."""

    fault: str
    status: str
    reason: str
    has_partial_text: bool


CASES = (
    Case("unauthorized", "FAILED_PRECONDITION", "MODEL_CREDENTIALS_REJECTED", has_partial_text=False),
    Case("rate_limited", "RESOURCE_EXHAUSTED", "MODEL_RATE_LIMITED", has_partial_text=False),
    Case("server_error", "UNAVAILABLE", "MODEL_UNAVAILABLE", has_partial_text=False),
    Case("stall", "DEADLINE_EXCEEDED", "MODEL_TIMEOUT", has_partial_text=True),
    Case("cut", "UNAVAILABLE", "MODEL_CONNECTION_LOST", has_partial_text=True),
    Case("invalid_json", "UNAVAILABLE", "MODEL_ANSWER_MALFORMED", has_partial_text=True),
)


@dataclass
class Suite:
    """A suite with little patience for its model, the model, and one user."""

    stack: RunningStack
    model: ModelServer
    person: Person
    database: asyncpg.Connection

    async def ledger(self, run_id: str) -> list[dict[str, Any]]:
        """Return the usage ledger's rows of a run."""
        rows = await self.database.fetch("select * from public.api_usage where run_id = $1::uuid", run_id)
        return [dict(row) for row in rows]


@pytest.fixture(scope="module")
async def suite(mode: Mode, replica_count: int, prepared: PreparedStarts) -> AsyncIterator[Suite]:
    folder = Path(tempfile.mkdtemp(prefix="concerto-"))
    async with ModelServer.running() as model:
        settings: dict[str, Any] = {
            "OPENAI_BASE_URL": model.base_url,
            "CONCERTO_MODEL": "test-model",
            "CONCERTO_MODEL_TIMEOUT_SECONDS": str(STALL_SECONDS),
            "CONCERTO_MODEL_PRICES": PRICES,
        }
        stack = await asyncio.to_thread(prepared.start, folder, mode=mode, replicas=replica_count, **settings)
        database = await asyncpg.connect(stack.admin_db_url)
        try:
            async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=60) as client:
                yield Suite(stack, model, await Person.sign_up(client), database)
        finally:
            await database.close()
            await asyncio.to_thread(stop_stack, stack)
            shutil.rmtree(folder, ignore_errors=True)


async def turn(person: Person, session_id: str, content: str) -> list[Event]:
    return [event async for event in person.turn(session_id, content)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
async def test_a_fault_of_the_provider_gives_one_reason_one_ledger_row_and_a_session_that_continues(
    suite: Suite, case: Case
) -> None:
    person = suite.person
    session = await person.create_session(name=case.fault)
    events = await turn(person, session["id"], f"Hello [[fault:{case.fault}]]")

    errors = [event.data["error"] for event in events if event.type == "error"]
    assert [event.id for event in events] == [str(index) for index in range(1, len(events) + 1)]
    assert events[-1].data == {"state": "FAILED"}
    ((status, message, (detail,)),) = [(error["status"], error["message"], error["details"]) for error in errors]
    assert (status, detail["reason"], bool(message)) == (case.status, case.reason, True)
    if case.fault == "rate_limited":
        assert detail["metadata"]["retry_after_seconds"] == "7"
    assert bool(text_of(events)) is case.has_partial_text

    run_id = events[0].data["run_id"]
    run = ok(await person.call("GET", f"/runs/{run_id}"))
    assert (run["state"], run["error_reason"]) == ("FAILED", case.reason)
    stored = await person.messages(session["id"])
    assert [message["role"] for message in stored] == ["user", "assistant"][: 1 + case.has_partial_text]
    if case.has_partial_text:
        assert stored[1]["content"] == text_of(events)
        assert stored[1]["metadata"]["partial"] is True

    assert len(await suite.ledger(run_id)) == 1
    assert await used(person, session["id"]) == 1

    events = await turn(person, session["id"], "And now?")
    assert events[-1].data == {"state": "SUCCEEDED"}
    assert len(await suite.ledger(events[0].data["run_id"])) == 1
    assert await used(person, session["id"]) == 2
    asked = suite.model.chats[-1]["messages"][-1]["content"]
    # A question that nobody answered is told once more, in front of the next one.
    assert asked == "And now?" if case.has_partial_text else asked.endswith("]]\n\nAnd now?")


async def used(person: Person, session_id: str) -> int:
    """The number of runs that the usage list counts for a session."""
    answer = ok(await person.call("GET", "/usage?group_by=session"))
    return int(sum(entry["runs"] for entry in answer["entries"] if entry["key"] == session_id))


async def test_a_run_that_outlives_its_access_token_completes(suite: Suite) -> None:
    person = suite.person
    session = await person.create_session(name="outlived")
    claims = jwt.decode(person.tokens["access_token"], options={"verify_signature": False})
    # Clocks are given some leeway, so this one is taken for TOKEN_LIFE_SECONDS.
    token = suite.stack.mint_token(claims["sub"], expires_in=TOKEN_LIFE_SECONDS - LEEWAY_SECONDS)
    brief = Person(person.client, {"user": person.user, "session": {**person.tokens, "access_token": token}})
    suite.model.script(Behaviour(tokens=100, delay_seconds=0.1))
    began = time.monotonic()
    events = await turn(brief, session["id"], "Take your time.")
    assert time.monotonic() - began > TOKEN_LIFE_SECONDS * 1.5
    refused = await brief.call("GET", f"/runs/{events[0].data['run_id']}")
    assert (refused.status_code, reason(refused)) == (401, "TOKEN_EXPIRED")
    assert events[-1].data == {"state": "SUCCEEDED"}
    stored = await person.messages(session["id"])
    assert stored[-1]["content"] == text_of(events) == "".join(f"t{index} " for index in range(100))
    assert len(await suite.ledger(events[0].data["run_id"])) == 1


async def test_a_run_nobody_listens_to_outlives_its_access_token(suite: Suite) -> None:
    person = suite.person
    session = await person.create_session(name="unheard")
    token = suite.stack.mint_token(person.user["id"], expires_in=TOKEN_LIFE_SECONDS - LEEWAY_SECONDS)
    brief = Person(person.client, {"user": person.user, "session": {**person.tokens, "access_token": token}})
    suite.model.script(Behaviour(tokens=80, delay_seconds=0.1))
    run = ok(await brief.call("POST", f"/sessions/{session['id']}/runs", {"content": "Take your time."}))
    await asyncio.sleep(TOKEN_LIFE_SECONDS + 0.5)  # the token's life, by the clock of other processes
    refused = await brief.call("GET", f"/runs/{run['id']}/events")
    assert (refused.status_code, reason(refused)) == (401, "TOKEN_EXPIRED")
    states: list[str] = []

    async def ended() -> bool:
        states.append(ok(await person.call("GET", f"/runs/{run['id']}"))["state"])
        return states[-1] != "RUNNING"

    await until(ended, "the end of the run")
    assert states[-1] == "SUCCEEDED"
    assert (await person.messages(session["id"]))[-1]["content"] == "".join(f"t{index} " for index in range(80))


async def test_costs_are_those_of_the_price_list(suite: Suite) -> None:
    session = await suite.person.create_session(name="costs")
    suite.model.script(Behaviour(text="One two three.", cached_tokens=2))
    events = await turn(suite.person, session["id"], "Say three words.")
    (row,) = await suite.ledger(events[0].data["run_id"])
    prompt, completion, cached = row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"]
    assert (completion, cached) == (3, 2)
    assert row["cost_micro_usd"] == round((prompt - cached) * 1.0 + completion * 2.0 + cached * 0.5)
