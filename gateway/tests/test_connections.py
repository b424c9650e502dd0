import asyncio

import uvicorn
from starlette.types import Receive, Scope, Send

from gateway.__main__ import listen
from gateway.connections.server import Server
from gateway.connections.transport import BUFFER_BYTES, Joining


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

    listener = listen("127.0.0.1", 0)
    server = Server(uvicorn.Config(echo, lifespan="off", log_config=None, ws="none"))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname()[:2])
    # Two at once: the second waits for the first one's answer.
    writer.write(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 20)
    assert (answer.count(b"/a"), answer.count(b"/b"), answer.count(b"HTTP/1.1 200 OK")) == (50_000, 50_000, 2)
    assert answer.rindex(b"/a") < answer.index(b"/b")
    writer.close()
    server.should_exit = True
    await serving
