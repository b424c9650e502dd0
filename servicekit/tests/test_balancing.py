import asyncio
import contextlib
import itertools
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from concerto.sessions.v1 import runs_pb2, runs_pb2_grpc, sessions_pb2, sessions_pb2_grpc

from servicekit.errors import AppError
from servicekit.rpc import channel
from servicekit.testing import acting_as, make_caller
from servicekit.tests.names import Names
from tests.support.waiting import until

ID = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"
SESSIONS = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
RUNS = runs_pb2.DESCRIPTOR.services_by_name["RunsService"]
FIRST, SECOND, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"
PROGRAM = Path(__file__).with_name("replica.py")
PATIENCE_SECONDS = 240.0
WORKERS = 8

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8")


class Replicas:
    """Real processes of one service, each at an address of its own, all on one port."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.age_seconds = 60.0
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, *addresses: str) -> None:
        """Start a process at each address and return when all take connections."""
        for address in addresses:
            arguments = (address, str(self.port), str(self.age_seconds), "5")
            self._running[address] = await asyncio.create_subprocess_exec(
                sys.executable, str(PROGRAM), *arguments, stderr=asyncio.subprocess.DEVNULL
            )
        for address in addresses:

            async def listens(address: str = address) -> bool:
                return await _listens(address, self.port)

            await until(listens)

    async def end(self, address: str, number: signal.Signals) -> int:
        """Send a process a signal, wait for its end, and return its exit code."""
        process = self._running.pop(address)
        process.send_signal(number)
        return await process.wait()

    async def end_all(self) -> None:
        for address in list(self._running):
            await self.end(address, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _listens(address: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    made = Replicas()
    with acting_as(make_caller()):
        yield made
    await made.end_all()


@contextlib.asynccontextmanager
async def stub_at(target: str) -> AsyncIterator[Any]:
    async with channel.connect(target, SESSIONS) as connection:
        yield sessions_pb2_grpc.SessionsServiceStub(connection)


async def answering(stub: Any) -> str:
    """Call once and return the address of the replica that answered."""
    answer = await channel.call(stub.GetSession, sessions_pb2.GetSessionRequest(session_id=ID))
    return str(answer.session.name)


class Load:
    """Calls without a pause, from several tasks, until the block ends; counts who answered and what failed."""

    def __init__(self, stub: Any) -> None:
        self.answers: Counter[str] = Counter()
        self.deletions = 0
        self.failures: list[str] = []
        self._stub = stub
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False

    async def __aenter__(self) -> "Load":
        with acting_as(make_caller()):
            self._tasks = [asyncio.create_task(self._call(index)) for index in range(WORKERS)]
        await self.more()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def more(self, calls: int = 100) -> None:
        """Return when so many more calls have been answered."""
        wanted = self.answers.total() + calls

        async def reached() -> bool:
            return self.answers.total() >= wanted

        await until(reached)

    async def until_answered_by(self, address: str, calls: int = 1) -> None:
        """Return when the replica there has answered so many more calls."""
        wanted = self.answers[address] + calls

        async def reached() -> bool:
            return self.answers[address] >= wanted

        await until(reached)

    async def _call(self, index: int) -> None:
        for number in itertools.count(index):
            if self._is_over:
                return
            try:
                if number % 4:
                    self.answers[await answering(self._stub)] += 1
                else:  # may not be repeated once a server has seen it
                    await channel.call(self._stub.DeleteSession, sessions_pb2.DeleteSessionRequest(session_id=ID))
                    self.deletions += 1
            except AppError as error:
                self.failures.append(f"{'GetSession' if number % 4 else 'DeleteSession'}: {error.cause!r:.300}")


async def test_calls_are_spread_evenly_over_the_addresses_of_a_name(replicas: Replicas) -> None:
    await replicas.start(FIRST, SECOND)
    async with Names.serving(FIRST, SECOND) as names, stub_at(names.target(replicas.port)) as stub:
        await until(lambda: _both_answer(stub))
        answers = Counter([await answering(stub) for _ in range(100)])
    assert answers == {FIRST: 50, SECOND: 50}


async def test_calls_are_spread_evenly_over_a_list_of_addresses(replicas: Replicas) -> None:
    await replicas.start(FIRST, SECOND)
    async with stub_at(f"ipv4:{FIRST}:{replicas.port},{SECOND}:{replicas.port}") as stub:
        await until(lambda: _both_answer(stub))
        answers = Counter([await answering(stub) for _ in range(100)])
    assert answers == {FIRST: 50, SECOND: 50}


async def _both_answer(stub: Any) -> bool:
    return {await answering(stub), await answering(stub)} == {FIRST, SECOND}


async def test_a_new_address_of_the_name_is_found_while_all_old_ones_work(replicas: Replicas) -> None:
    replicas.age_seconds = 1.0
    await replicas.start(FIRST, SECOND, THIRD)
    async with Names.serving(FIRST, SECOND) as names, stub_at(names.target(replicas.port)) as stub, Load(stub) as load:
        assert set(load.answers) <= {FIRST, SECOND}
        names.addresses.append(THIRD)
        await load.until_answered_by(THIRD, 100)
    assert load.failures == []
    assert load.deletions > 0


async def test_a_stream_outlives_the_age_of_its_connection(replicas: Replicas) -> None:
    replicas.age_seconds = 0.5
    await replicas.start(FIRST)
    async with channel.connect(f"{FIRST}:{replicas.port}", RUNS) as connection:
        stub: Any = runs_pb2_grpc.RunsServiceStub(connection)
        request = runs_pb2.WatchRunEventsRequest(run_id=ID)
        seqs = [event.seq async for answer in channel.stream(stub.WatchRunEvents, request) for event in answer.events]
    assert seqs == list(range(1, 31))


async def test_an_address_that_stops_in_order_costs_no_call_of_any_kind(replicas: Replicas) -> None:
    await replicas.start(FIRST, SECOND)
    async with Names.serving(FIRST, SECOND) as names, stub_at(names.target(replicas.port)) as stub:
        await until(lambda: _both_answer(stub))
        async with Load(stub) as load:
            for address in (SECOND, FIRST, SECOND, FIRST):
                assert await replicas.end(address, signal.SIGTERM) == 0
                await load.more()
                count = load.answers[address]
                await load.more()
                assert load.answers[address] == count
                await replicas.start(address)
                await load.until_answered_by(address)
    assert load.failures == []
    assert load.deletions > 0


async def test_a_killed_address_costs_no_idempotent_call(replicas: Replicas) -> None:
    await replicas.start(FIRST, SECOND)
    async with Names.serving(FIRST, SECOND) as names, stub_at(names.target(replicas.port)) as stub:
        await until(lambda: _both_answer(stub))
        async with Load(stub) as load:
            for _ in range(3):
                await replicas.end(SECOND, signal.SIGKILL)
                await load.more()
                await replicas.start(SECOND)
                await load.until_answered_by(SECOND)
    assert [failure for failure in load.failures if failure.startswith("GetSession")] == []


async def test_with_all_addresses_gone_calls_say_so_and_work_again_when_one_is_back(replicas: Replicas) -> None:
    await replicas.start(FIRST, SECOND)
    async with Names.serving(FIRST, SECOND) as names, stub_at(names.target(replicas.port)) as stub:
        await until(lambda: _both_answer(stub))
        await replicas.end(FIRST, signal.SIGTERM)
        await replicas.end(SECOND, signal.SIGKILL)
        names.addresses.clear()
        with pytest.raises(AppError) as caught:
            await answering(stub)
        assert (caught.value.reason, caught.value.metadata) == ("SERVICE_UNAVAILABLE", {"service": "sessions"})
        names.addresses.append(THIRD)
        await replicas.start(THIRD)

        async def works() -> bool:
            with contextlib.suppress(AppError):
                return await answering(stub) == THIRD
            return False

        await until(works)


async def test_a_name_without_an_address_says_so_at_once(replicas: Replicas) -> None:
    async with Names.serving() as names, stub_at(names.target(replicas.port)) as stub:
        with pytest.raises(AppError, match="SERVICE_UNAVAILABLE"):
            await answering(stub)


def test_a_list_of_addresses_is_no_servers_name() -> None:
    assert channel.authority("ipv4:127.0.0.1:1,127.0.0.1:2") == [("grpc.default_authority", "127.0.0.1:1")]
    for target in ("127.0.0.1:1", "dns:///sessions:1", "inprocess:"):
        assert channel.authority(target) == []


def test_only_servers_that_take_calls_are_sent_any() -> None:
    config = channel.service_config(SESSIONS)
    assert config["healthCheckConfig"] == {"serviceName": channel.ACCEPTING}
    assert grpc.StatusCode.UNAVAILABLE.name in config["methodConfig"][0]["retryPolicy"]["retryableStatusCodes"]
