import asyncio
import time
from collections import Counter
from typing import Any

import asyncpg
import httpx
import pytest

from local.suite.processes import PARTS
from tests.e2e.conftest import Start, until_ready
from tests.support.api import Person
from tests.support.crowd import Client, Reader, Talker, Tally
from tests.support.measured import Note
from tests.support.model_server import Behaviour, Json, ModelServer
from tests.support.streams import faults_of, is_in_order
from tests.support.suites import RunningStack

REPLICAS = 2
TALKERS, READERS = 10, 40
TOKENS, TOKEN_SECONDS = 100, 0.03  # three seconds, within the time that a draining process has
DRAIN_SECONDS, DRAIN_DELAY_SECONDS = 8, 0.5
READER_PAUSE_SECONDS = 0.5
SIGN_UPS_AT_ONCE = 4

pytestmark = pytest.mark.own_mode


def answer_to(prompt: str) -> str:
    """What the model says to a prompt, and to no other."""
    return " ".join(f"{prompt}·{index}" for index in range(TOKENS))


def tell(body: Json) -> Behaviour:
    return Behaviour(text=answer_to(str(body["messages"][-1]["content"])), delay_seconds=TOKEN_SECONDS)


async def sign_up_all(client: httpx.AsyncClient, count: int) -> list[Person]:
    turn = asyncio.Semaphore(SIGN_UPS_AT_ONCE)

    async def sign_up() -> Person:
        async with turn:
            return await Person.sign_up(client)

    return await asyncio.gather(*(sign_up() for _ in range(count)))


async def restart(stack: RunningStack, part: str) -> float:
    """Restart all replicas of a part with the real command, and return how long that took."""
    before = {name: stack.process(name) for name in stack.own_processes}
    began = time.monotonic()
    done = await asyncio.to_thread(stack.command, "restart", part)
    lasted = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    changed = {name for name, pid in before.items() if stack.process(name) != pid}
    assert changed == {part, f"{part}-2"}, done.stdout + stack.output[-4000:]
    return lasted


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.timeout(600)
async def test_a_rolling_restart_under_load_loses_no_request_and_no_text(
    start: Start, model: ModelServer, note: Note
) -> None:
    model.choose = tell
    stack = await start(
        mode="processes",
        replicas=REPLICAS,
        CONCERTO_DRAIN_SECONDS=str(DRAIN_SECONDS),
        CONCERTO_DRAIN_DELAY_SECONDS=str(DRAIN_DELAY_SECONDS),
    )
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    tally, lasted, is_over = Tally(), dict[str, float](), asyncio.Event()
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=30, limits=limits) as client:
        await until_ready(client)
        people = await sign_up_all(client, TALKERS + READERS)
        sessions = [str((await person.create_session(name="restarts"))["id"]) for person in people]
        talkers = [
            Talker(people[index], stack.gateway_url, sessions[index], f"talker{index}") for index in range(TALKERS)
        ]
        readers = [
            Reader(Client(people[index], tally), sessions[index], READER_PAUSE_SECONDS)
            for index in range(TALKERS, TALKERS + READERS)
        ]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for talker in talkers:
                group.create_task(talker.live(is_over.is_set))
            for reader in readers:
                group.create_task(reader.live(is_over.is_set))
            await asyncio.sleep(2)  # everyone is at work before the first restart
            for part in PARTS:
                lasted[part] = await restart(stack, part)
            is_over.set()
        lived = time.monotonic() - began
        stored = await everything_stored(stack, sessions)

    turns = [(prompt, follower) for talker in talkers for prompt, follower in talker.turns]
    gaps, twice = (sum(counts) for counts in zip(*(faults_of(follower.events) for _, follower in turns), strict=True))
    resumed = sum(follower.connections - 1 for _, follower in turns)
    wrong = [prompt for prompt, follower in turns if follower.text != answer_to(prompt)]
    appended = [content for reader in readers for content in reader.appended]
    lost = [content for content in appended if stored.messages[content] != 1]
    doubled = [content for content, count in stored.messages.items() if count > 1]
    note(
        f"rolling restart of {', '.join(f'{part} ({seconds:.1f} s)' for part, seconds in lasted.items())}, "
        f"{REPLICAS} replicas each, under {TALKERS + READERS} people in {lived:.0f} s: {tally.describe()}; "
        f"{len(appended)} appends acknowledged, {len(lost)} lost, {len(doubled)} stored twice; "
        f"{len(turns)} streams, {resumed} resumed, {gaps} gaps, {twice} events twice, {len(wrong)} texts wrong; "
        f"runs {dict(stored.runs)}"
    )
    assert tally.failed == []
    assert (lost, doubled) == ([], [])
    assert (gaps, twice, wrong) == (0, 0, [])
    assert all(is_in_order(follower.events) for _, follower in turns)
    assert all(follower.events[-1].data == {"state": "SUCCEEDED"} for _, follower in turns)
    assert stored.runs == {"SUCCEEDED": len(turns)}
    assert len(turns) >= TALKERS * len(PARTS)  # each talked through each restart
    assert stored.answers == Counter(answer_to(prompt) for prompt, _ in turns)
    assert set(lasted) == set(PARTS)


class Stored:
    """What the database holds of the crowd's sessions."""

    def __init__(self, messages: list[Any], runs: list[Any]) -> None:
        self.messages = Counter(row["content"] for row in messages if row["role"] == "user")
        self.answers = Counter(row["content"] for row in messages if row["role"] == "assistant")
        self.runs = Counter(row["state"] for row in runs)


async def everything_stored(stack: RunningStack, sessions: list[str]) -> Stored:
    connection = await asyncpg.connect(stack.admin_db_url)
    try:
        messages = await connection.fetch(
            "select content, role::text from public.messages where session_id = any($1::uuid[])", sessions
        )
        runs = await connection.fetch(
            "select state::text from public.runs where session_id = any($1::uuid[])", sessions
        )
    finally:
        await connection.close()
    return Stored(messages, runs)


async def test_a_restart_of_the_one_process_says_that_there_is_a_pause(start: Start) -> None:
    stack = await start(mode="one-process")
    before = stack.process("gateway")
    done = await asyncio.to_thread(stack.command, "restart", "sessions")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "concerto: no replica takes over, so there is a pause." in done.stdout
    assert stack.process("gateway") != before
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=30) as client:
        await (await Person.sign_up(client)).create_session()
    assert (await asyncio.to_thread(stack.command, "status")).returncode == 0


@pytest.mark.long
async def test_the_commands_know_the_replicas(start: Start) -> None:
    stack = await start(mode="processes", replicas=REPLICAS)
    status = await asyncio.to_thread(stack.command, "status")
    assert status.returncode == 0
    names = ["postgres", "supabase", *(name for part in PARTS for name in (part, f"{part}-2"))]
    assert sorted(line.split()[0] for line in status.stdout.splitlines()[1:]) == sorted(names)
    assert "starting" not in status.stdout
    logs = await asyncio.to_thread(stack.command, "logs", "sessions")
    assert {line.split()[0] for line in logs.stdout.splitlines()} == {"sessions", "sessions-2"}
    alone = await asyncio.to_thread(stack.command, "logs", "sessions-2")
    assert alone.stdout
    assert "sessions-2 " not in alone.stdout
    doctor = await asyncio.to_thread(stack.command, "doctor")
    assert "suite: " + stack.gateway_url in doctor.stdout
    assert stack.env["SESSIONS_TARGET"].startswith("ipv4:127.0.0.1:")
    refused = await asyncio.to_thread(stack.command, "restart", "gateway-3")
    assert refused.returncode == 1
    assert "no process named gateway-3" in refused.stderr
    assert (await asyncio.to_thread(stack.command, "down")).returncode == 0
    assert stack.supervisor.wait(timeout=60) == 0
