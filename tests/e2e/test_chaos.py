import asyncio
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.e2e.conftest import Start, until_ready
from tests.support.api import Person, ok
from tests.support.measured import Note
from tests.support.model_server import Behaviour, Json, ModelServer
from tests.support.streams import EventStream, Follower, faults_of, is_in_order
from tests.support.suites import RunningStack
from tests.support.waiting import until

SEED = 20261120
PEOPLE, STREAMS = 10, 200
TOKENS, TOKEN_SECONDS = 100, 0.02
KILLS = {"orchestrator": 4, "gateway": 6, "client": 40}
LONGEST_PAUSE_SECONDS = {"orchestrator": 4.0, "gateway": 3.0, "client": 1.5}
INTERRUPTED_WITHIN_SECONDS = 15.0
START_UNDER_WAY = timedelta(seconds=1)  # less than the next process needs to begin
READERS = 8

pytestmark = pytest.mark.own_mode


@dataclass
class Chaos:
    """What is under way, and what has been done to it."""

    stack: RunningStack
    database: asyncpg.Pool
    wanted_kills: dict[str, int]
    open: dict[str, Follower] = field(default_factory=dict)
    runs: dict[str, tuple[Person, str, Follower]] = field(default_factory=dict)
    """By run: whose it is, its session, and what its client has seen."""
    deaths: list[tuple[datetime, datetime]] = field(default_factory=list)
    """Between when and when an orchestrator was killed, by the database's clock."""
    kills: Counter[str] = field(default_factory=Counter)
    clients_cut: int = 0
    most_at_once: int = 0

    async def count_running(self) -> int:
        """How many runs an orchestrator executes now; those of a dead one, which are yet to be ended, not counted."""
        last = self.deaths[-1][1] if self.deaths else datetime.min.replace(tzinfo=UTC)
        query = "select count(*) from public.runs where state = 'RUNNING' and created_at > $1"
        return int(await self.database.fetchval(query, last))

    @property
    def over(self) -> bool:
        return self.kills == self.wanted_kills


def answer_to(prompt: str) -> str:
    """What the model says to a prompt: TOKENS words that no other prompt gets."""
    return " ".join(f"{prompt}·{index}" for index in range(TOKENS))


def tell(body: Json) -> Behaviour:
    # Questions that died before a word of their answers came stand in front of the last one, in the same message.
    question = str(body["messages"][-1]["content"]).split("\n\n")[-1]
    return Behaviour(text=answer_to(question), delay_seconds=TOKEN_SECONDS)


@pytest.fixture
async def chaos(start: Start, model: ModelServer, request: pytest.FixtureRequest) -> AsyncIterator[Chaos]:
    each = request.config.getoption("--chaos-kills")
    model.choose = tell
    stack = await start(mode="processes", CONCERTO_MAX_RUNS_PER_USER="1000")  # each part is killed alone
    async with asyncpg.create_pool(stack.admin_db_url, min_size=1, max_size=4) as database:
        yield Chaos(stack, database, dict.fromkeys(KILLS, each) if each else KILLS)


async def kill_processes(chaos: Chaos, name: str, chance: random.Random) -> None:
    pid = 0

    async def is_back() -> bool:
        # After an orchestrator's death the runs wait for their leases to end; a death meanwhile would hurt nobody.
        is_busy = name != "orchestrator" or await chaos.count_running() >= crowd
        return is_busy and process_of(chaos.stack, name) not in (0, pid) and await serves(chaos.stack, name)

    while chaos.kills[name] < chaos.wanted_kills[name]:
        crowd = chance.randint(1, STREAMS // 4)
        await until(is_back, name)
        # Deaths come at random times, which is what is tested.
        await asyncio.sleep(chance.uniform(0, LONGEST_PAUSE_SECONDS[name]))
        pid = process_of(chaos.stack, name)
        before = await chaos.database.fetchval("select clock_timestamp()")
        os.kill(pid, signal.SIGKILL)
        if name == "orchestrator":
            chaos.deaths.append((before, await chaos.database.fetchval("select clock_timestamp()")))
        chaos.kills[name] += 1


def process_of(stack: RunningStack, name: str) -> int:
    """The process, or 0 while it is being started again."""
    processes: Any = stack.state().get("processes", {})
    return int(processes[name]["pid"]) if name in processes else 0


async def serves(stack: RunningStack, name: str) -> bool:
    port = int(stack.env[f"{name.upper()}_PORT"])
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def kill_clients(chaos: Chaos, chance: random.Random) -> None:
    while chaos.kills["client"] < chaos.wanted_kills["client"]:
        # Deaths come at random times, which is what is tested.
        await asyncio.sleep(chance.uniform(0, LONGEST_PAUSE_SECONDS["client"]))
        # A crowd dies, as when a network does.
        crowd = chance.sample(list(chaos.open.values()), k=min(len(chaos.open), chance.randint(1, 40)))
        cut = sum(follower.cut() for follower in crowd)
        chaos.clients_cut += cut
        chaos.kills["client"] += bool(cut)


async def talk(chaos: Chaos, person: Person, session_id: str, slot: int) -> None:
    """Keep one run of the session under way until the killing is over, and see each to its end."""
    turns = 0
    while turns == 0 or not chaos.over:
        follower = Follower(chaos.stack.gateway_url, person.headers)
        chaos.open[session_id] = follower
        chaos.most_at_once = max(chaos.most_at_once, len(chaos.open))
        body = {"content": f"{slot}.{turns}", "request_id": str(uuid4())}
        if slot % 2:
            follower.run_id = await create(person, session_id, body)
            await follower.follow()
        else:
            await follower.turn(session_id, body)
        del chaos.open[session_id]
        chaos.runs[follower.run_id] = (person, session_id, follower)
        turns += 1


async def create(person: Person, session_id: str, body: dict[str, str]) -> str:
    while True:
        try:
            response = await person.call("POST", f"/sessions/{session_id}/runs", body)
        except httpx.TransportError:
            await asyncio.sleep(0.1)  # a client waits before it asks again
            continue
        if response.status_code not in (502, 503, 504):
            return str(ok(response)["id"])
        await asyncio.sleep(0.1)  # a client waits before it asks again


async def read_again(chaos: Chaos, turn: asyncio.Semaphore, run_id: str) -> None:
    person, _, follower = chaos.runs[run_id]
    async with turn:
        stream = await EventStream.open(f"{chaos.stack.gateway_url}/runs/{run_id}/events", headers=person.headers)
        assert [event async for event in stream.events()] == follower.events, run_id


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(2400)
async def test_runs_lose_nothing_and_repeat_nothing_whatever_is_killed(chaos: Chaos, note: Note) -> None:
    chance = random.Random(SEED)
    async with httpx.AsyncClient(base_url=chaos.stack.gateway_url, timeout=60, limits=httpx.Limits()) as client:
        people = [await Person.sign_up(client) for _ in range(PEOPLE)]
        owners = [people[slot % PEOPLE] for slot in range(STREAMS)]
        sessions = [await owner.create_session(name=f"chaos {slot}") for slot, owner in enumerate(owners)]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for slot, (owner, session) in enumerate(zip(owners, sessions, strict=True)):
                group.create_task(talk(chaos, owner, session["id"], slot))
            group.create_task(kill_processes(chaos, "orchestrator", random.Random(chance.random())))
            group.create_task(kill_processes(chaos, "gateway", random.Random(chance.random())))
            group.create_task(kill_clients(chaos, random.Random(chance.random())))
        lasted = time.monotonic() - began
        await until_ready(client)
        turn = asyncio.Semaphore(READERS)
        await asyncio.gather(*(read_again(chaos, turn, run_id) for run_id in chaos.runs))
        reread = time.monotonic() - began - lasted
        stored_rows = await stored(chaos.database, [session["id"] for session in sessions])

    states: Counter[str] = Counter()
    gaps = duplicates = partial_words = 0
    delays: list[float] = []
    for run_id, (_, session_id, follower) in chaos.runs.items():
        run = stored_rows.runs[run_id]
        missing, twice = faults_of(follower.events)
        gaps, duplicates = gaps + missing, duplicates + twice
        assert is_in_order(follower.events), run_id
        assert follower.events[0].type == "run.started", run_id
        assert follower.events[-1].data == {"state": run["state"]}, run_id
        prompt = follower.events[0].data["user_message"]["content"]
        answer = stored_rows.answers.get(run_id)
        states[run["state"]] += 1
        assert run["session_id"] == session_id
        if run["state"] == "SUCCEEDED":
            assert answer is not None, run_id
            assert follower.text == answer["content"] == answer_to(prompt), run_id
            assert "partial" not in answer["metadata"], run_id
        else:
            assert run["state"] == "INTERRUPTED", f"{run_id} ended {run['state']}: {run['error_reason']}"
            assert run["error_reason"] == "RUN_INTERRUPTED"
            assert answer_to(prompt).startswith(follower.text), run_id
            assert (answer["content"] if answer else "") == follower.text, run_id
            assert answer is None or answer["metadata"]["partial"] is True, run_id
            partial_words += len(follower.text.split())
            # A start that was under way when its process died is stored a moment after.
            deaths = [(before, after) for before, after in chaos.deaths if after + START_UNDER_WAY >= run["created_at"]]
            assert deaths, f"{run_id} was interrupted although its process lived: {run}, {chaos.deaths}"
            if run["created_at"] > deaths[0][1]:
                assert follower.text == "", f"{run_id} went on although its process had been killed before it began"
            delays.append((run["finished_at"] - deaths[0][0]).total_seconds())
    connections = sum(follower.connections for _, _, follower in chaos.runs.values())
    note(
        f"chaos (seed {SEED}): {len(chaos.runs)} runs, {chaos.most_at_once} at once, in {lasted:.0f} s; "
        f"kills {dict(chaos.kills)}, {chaos.clients_cut} clients cut off, {connections} connections; "
        f"{states['SUCCEEDED']} SUCCEEDED, {states['INTERRUPTED']} INTERRUPTED "
        f"(on average {partial_words / max(states['INTERRUPTED'], 1):.0f} of {TOKENS} tokens kept, ended "
        f"{sorted(delays)[len(delays) // 2] if delays else 0:.1f} s after the kill at the median, "
        f"{max(delays, default=0):.1f} s at most); {gaps} gaps, {duplicates} duplicates; "
        f"read again in {reread:.0f} s"
    )
    assert chaos.kills == chaos.wanted_kills
    assert chaos.most_at_once == STREAMS
    assert (gaps, duplicates) == (0, 0)
    assert states["SUCCEEDED"] > 0
    assert states["INTERRUPTED"] > 0
    assert max(delays) <= INTERRUPTED_WITHIN_SECONDS
    assert stored_rows.runs.keys() == chaos.runs.keys()
    assert stored_rows.ledger == Counter(chaos.runs.keys())


@dataclass
class Stored:
    """What the database holds of the runs."""

    runs: dict[str, dict[str, Any]]
    answers: dict[str, dict[str, Any]]
    """The assistant's message, by run."""
    ledger: Counter[str]
    """Rows of the usage ledger, by run."""


async def stored(database: asyncpg.Pool, session_ids: list[str]) -> Stored:
    runs = await database.fetch(
        "select r.id::text, r.session_id::text, r.state::text, r.error_reason, r.created_at, r.finished_at,"
        " m.content, m.metadata::text as metadata"
        " from public.runs r left join public.messages m on m.id = r.answer_message_id"
        " where r.session_id = any($1::uuid[])",
        session_ids,
    )
    ledger = await database.fetch(
        "select run_id::text from public.api_usage where session_id = any($1::uuid[])", session_ids
    )
    answers = {
        run["id"]: {"content": run["content"], "metadata": json.loads(run["metadata"])}
        for run in runs
        if run["content"] is not None
    }
    return Stored({run["id"]: dict(run) for run in runs}, answers, Counter(row["run_id"] for row in ledger))
