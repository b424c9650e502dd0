import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from tests.support.api import Event
from tests.support.streams import Follower, RefusedError, faults_of, is_in_order

LAST = 12


class Server:
    """Speaks of one run of LAST events; each connection ends as the script says."""

    def __init__(self, *endings: str) -> None:
        self.endings = list(endings)
        self.asked: list[tuple[str, str]] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = dict(line.partition(": ")[::2] for line in head.split("\r\n")[1:])
        await reader.readexactly(int(lines.get("Content-Length", "0")))
        after = lines.get("Last-Event-ID", "")
        self.asked.append((head.split(" ")[1], after))
        ending = self.endings.pop(0) if self.endings else ""
        if ending.isdigit():
            writer.write(f"HTTP/1.1 {ending} No\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nno".encode())
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for seq in range(int(after or 0) + 1, LAST + 1):
                kind = {1: "run.started", LAST: "run.finished"}.get(seq, "message.delta")
                data = {"run_id": "r1"} if seq == 1 else {"text": f"t{seq} "}
                event = f"id: {seq}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()
                if ending == "cut" and seq % 5 == 4:
                    writer.write(b"%x\r\n" % len(event) + event[:9])
                    break
                if ending == "error" and seq % 5 == 4:
                    event = b"event: error\ndata: {}\n\n"
                writer.write(b"%x\r\n" % len(event) + event + b"\r\n")
                if b"error" in event:
                    writer.write(b"0\r\n\r\n")
                    break
            else:
                writer.write(b"c\r\n: keep-alive\r\n0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def serving(*endings: str) -> AsyncIterator[Server]:
    server = Server(*endings)
    async with await asyncio.start_server(server.answer, "127.0.0.1", 0) as listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield server


async def test_a_follower_comes_back_with_the_last_id_until_the_run_has_ended() -> None:
    async with serving("cut", "503", "error", "cut", "") as server:
        follower = Follower(server.url, {"Authorization": "Bearer x"})
        await follower.turn("s1", {"content": "Hello", "request_id": "q1"})
    assert is_in_order(follower.events)
    assert follower.ended
    assert follower.text == "".join(f"t{seq} " for seq in range(2, LAST))
    first, *others = server.asked
    assert first == ("/sessions/s1/turns", "")
    assert others == [("/runs/r1/events", "3")] * 4


async def test_a_cut_connection_is_opened_again() -> None:
    async with serving() as server:
        follower = Follower(server.url, {}, run_id="r1")

        def cut(event: Event) -> None:
            if event.id == "5":
                follower.cut()

        follower.on_event = cut
        await follower.follow()
    assert is_in_order(follower.events)
    assert server.asked == [("/runs/r1/events", ""), ("/runs/r1/events", "5")]
    assert follower.connections == 2


async def test_a_lasting_refusal_is_raised() -> None:
    async with serving("404") as server:
        with pytest.raises(RefusedError) as caught:
            await Follower(server.url, {}, run_id="r1").follow()
    assert (caught.value.status, caught.value.body) == (404, b"no")


def test_missing_and_repeated_events_are_counted() -> None:
    events = [Event(str(seq), "message.delta", {}) for seq in (1, 2, 2, 5)]
    assert faults_of(events) == (2, 1)
    assert not is_in_order(events)
