import asyncio
import contextlib
from collections.abc import AsyncIterator

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.__main__ import listen
from gateway.connections.limits import Limits, raise_file_limit
from gateway.connections.server import Server
from gateway.connections.transport import BUFFER_BYTES, Joining
from tests.support.waiting import until

MB = 1_000_000


@contextlib.asynccontextmanager
async def running(app: ASGIApp, limits: Limits | None = None) -> AsyncIterator[tuple[Server, tuple[str, int]]]:
    """Serve an application within this process, and yield where."""
    listener = listen("127.0.0.1", 0)
    server = Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="none"), limits)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield server, listener.getsockname()[:2]
    finally:
        server.should_exit = True
        await serving


class Recorder(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def test_what_is_written_in_one_turn_of_the_loop_leaves_in_one_write() -> None:
    recorder = Recorder()
    joining = Joining(recorder, asyncio.get_running_loop(), lambda: False)
    joining.write(b"head ")
    joining.write(b"body")
    assert recorder.written == []
    await asyncio.sleep(0)
    joining.write(b" more")
    await asyncio.sleep(0)
    assert recorder.written == [b"head body", b" more"]


async def test_much_is_not_held_back() -> None:
    recorder = Recorder()
    joining = Joining(recorder, asyncio.get_running_loop(), lambda: False)
    for _ in range(3):
        joining.write(b"x" * BUFFER_BYTES)
    assert len(b"".join(recorder.written)) == 2 * BUFFER_BYTES
    await asyncio.sleep(0)
    assert len(b"".join(recorder.written)) == 3 * BUFFER_BYTES


async def test_what_is_held_is_written_before_the_end() -> None:
    recorder = Recorder()
    joining = Joining(recorder, asyncio.get_running_loop(), lambda: False)
    joining.write(b"last words")
    joining.close()
    await asyncio.sleep(0)
    assert (recorder.written, recorder.closed) == ([b"last words"], True)


async def test_nothing_is_written_to_a_connection_that_is_gone() -> None:
    recorder = Recorder()
    joining = Joining(recorder, asyncio.get_running_loop(), lambda: False)
    joining.write(b"too late")
    recorder.closed = True
    await asyncio.sleep(0)
    assert recorder.written == []


async def test_answers_of_one_connection_arrive_whole_and_in_order() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        body = scope["path"].encode() * 50_000
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for start in range(0, len(body), 65_536):
            await send({"type": "http.response.body", "body": body[start : start + 65_536], "more_body": True})
        await send({"type": "http.response.body", "body": b"."})

    async with running(echo) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        # Two at once: the second waits for the first one's answer.
        writer.write(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
        assert (answer.count(b"/a"), answer.count(b"/b"), answer.count(b"HTTP/1.1 200 OK")) == (50_000, 50_000, 2)
        assert answer.rindex(b"/a") < answer.index(b"/b")
        writer.close()


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with 8 MB at once."""
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8000000")]})
    await send({"type": "http.response.body", "body": b"x" * 8 * MB})


async def test_of_answers_that_nobody_reads_those_that_wait_longest_are_cut_once_all_hold_too_much() -> None:
    limits = Limits(unsent_bytes=20 * MB, send_seconds=1000.0)
    async with running(large, limits) as (server, address):
        made = []
        for _ in range(15):
            # A reader that is not read keeps next to nothing.
            reader, writer = await asyncio.open_connection(*address, limit=1024)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await reader.readline()
            made.append((reader, writer))
        await until(lambda: len(server.state.connections) <= 10, "the cut")
        sizes = []
        for reader, writer in made:
            content = bytearray()
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(MB):
                    content += piece
            sizes.append(len(content))
            writer.close()
    whole = [size > 8 * MB for size in sizes]
    assert 0 < sum(whole) < len(whole)


async def test_while_nearly_all_connections_are_taken_idle_ones_end_sooner() -> None:
    limits = Limits(connections=10, idle_seconds=1000.0, crowded_idle_seconds=0.1)
    async with running(large, limits) as (server, address):
        made = [await asyncio.open_connection(*address) for _ in range(10)]
        await until(lambda: len(server.state.connections) < 10, "an end")
        for _, writer in made:
            writer.close()


async def test_an_idle_connection_ends_in_time() -> None:
    async with running(large, Limits(idle_seconds=0.2)) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.read() == b""
        writer.close()


async def test_a_server_that_stops_waits_for_no_half_request() -> None:
    async with running(large) as (server, address):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost:")
        await until(lambda: server.state.connections, "the connection")
        server.should_exit = True
        assert await reader.read() == b""
        writer.close()


def test_times_pass_in_whole_ticks_and_never_too_early() -> None:
    limits = Limits()
    assert limits.tick_seconds == 0.75
    assert limits.ticks(10.0) * limits.tick_seconds >= 10.0 + limits.tick_seconds
    assert Limits(head_seconds=0.4).tick_seconds == 0.1


def test_the_process_may_open_all_the_files_that_it_can_have() -> None:
    files = raise_file_limit()
    assert files == raise_file_limit() >= 256
