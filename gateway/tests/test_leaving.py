import asyncio
import contextlib
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.support.waiting import until

Process = asyncio.subprocess.Process


@contextlib.asynccontextmanager
async def running(shared: socket.socket | None = None, **variables: str) -> AsyncIterator[tuple[Process, str]]:
    """A gateway as its own process, and its own address."""
    environment = {"CONCERTO_ENV_FILE": "/dev/null", "CONCERTO_LOG_FORMAT": "json", "GATEWAY_PORT": "0", **variables}
    descriptors: tuple[int, ...] = ()
    if shared is not None:
        descriptors = (shared.fileno(),)
        environment["GATEWAY_SOCKET_FD"] = str(shared.fileno())
    with tempfile.NamedTemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", env=environment, stderr=log.fileno(), pass_fds=descriptors
        )
        try:
            yield process, await _address(process, Path(log.name))
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _address(process: Process, log: Path) -> str:
    def started() -> bool:
        assert process.returncode is None, log.read_text()
        return "server.started" in log.read_text()

    await until(started)
    return "http://127.0.0.1:" + _text(log).split("127.0.0.1:")[1].split('"')[0]


def _text(file: Path) -> str:
    return file.read_text()


async def test_a_gateway_that_is_to_stop_is_not_ready_and_ends_each_connection_with_its_next_answer() -> None:
    async with running(CONCERTO_DRAIN_DELAY_SECONDS="5") as (process, address):
        async with httpx.AsyncClient(base_url=address) as client:
            before = await client.get("/healthz")
            assert "connection" not in before.headers
            process.send_signal(signal.SIGTERM)

            async def is_leaving() -> bool:
                return (await client.get("/healthz")).headers.get("connection") == "close"

            await until(is_leaving, "the signal to be heard")
            # Each of these is a new connection, which is still taken.
            for _ in range(3):
                response = await client.get("/healthz")
                assert (response.status_code, response.headers["connection"]) == (200, "close")
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "not_serving")
        assert await process.wait() == 0


async def test_gateways_that_share_a_socket_replace_each_other_without_a_refused_connection() -> None:
    failures: list[str] = []
    answered = 0
    over = asyncio.Event()

    async def ask(port: int) -> None:
        nonlocal answered
        while not over.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            except (OSError, AssertionError) as error:
                failures.append(repr(error))
            else:
                answered += 1
            writer.close()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as shared:
        port = shared.getsockname()[1]
        delay = {"CONCERTO_DRAIN_DELAY_SECONDS": "0.5"}
        async with contextlib.AsyncExitStack() as stack:
            first, own = await stack.enter_async_context(running(shared, **delay))
            async with httpx.AsyncClient() as client:
                for address in (own, f"http://127.0.0.1:{port}"):
                    assert (await client.get(f"{address}/healthz")).status_code == 200
            clients = [asyncio.create_task(ask(port)) for _ in range(4)]
            # One after the other, with nobody there for a while: who connects waits in the socket's queue.
            first.send_signal(signal.SIGTERM)
            assert await first.wait() == 0
            alone = answered
            second, _ = await stack.enter_async_context(running(shared, **delay))
            await stack.enter_async_context(running(shared, **delay))
            await until(lambda: answered >= alone + 100)
            second.send_signal(signal.SIGTERM)
            assert await second.wait() == 0
            alone_again = answered
            await until(lambda: answered >= alone_again + 100)
            over.set()
            await asyncio.gather(*clients)
    assert failures == []


@pytest.mark.parametrize("number", ["99", "0", "x"])
async def test_a_socket_that_is_none_is_named_with_what_to_do(number: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway"),
        env={"CONCERTO_ENV_FILE": "/dev/null", "GATEWAY_PORT": "0", "GATEWAY_SOCKET_FD": number},
        stderr=asyncio.subprocess.PIPE,
    )
    _, output = await process.communicate()
    assert process.returncode == 1
    assert b"GATEWAY_SOCKET_FD" in output
    assert b"Traceback" not in output
