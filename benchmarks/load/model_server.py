"""The model server of the benchmarks: how fast it speaks stands in the prompt, so that one server serves every phase.

It does as little as such a server can, as it takes its time from the same cores as those that are measured: raw HTTP on
uvloop, the pieces of an answer put together once per length. A token of an answer is `~` and its place.

python -m benchmarks.load.model_server      prints its address, serves until SIGINT
"""

import asyncio
import contextlib
import re
import sys
from functools import lru_cache
from typing import Any, cast

import orjson
import uvloop

_MARK = re.compile(rb"\[\[pace:(\d+):(\d+)\]\]")
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
# Without a pause, so many tokens go out before other streams have their turn.
_TURN = 16


def prompt(*, tokens: int, milliseconds: int) -> str:
    """Return a prompt that is answered with so many tokens, each after such a pause."""
    return f"Please count. [[pace:{tokens}:{milliseconds}]]"


def answer(tokens: int) -> str:
    """Return what the prompt with so many tokens is answered with."""
    return "".join(f"~{place} " for place in range(tokens))


def _event(content: object) -> bytes:
    data = b"data: " + (content if isinstance(content, bytes) else orjson.dumps(content)) + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def _chunk(delta: dict[str, str] | None, **fields: Any) -> bytes:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "test-model"}
    choices = (
        [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": fields.pop("finish_reason", None)}]
    )
    return _event({**head, "choices": choices, **fields})


@lru_cache(maxsize=16)
def _pieces(tokens: int) -> tuple[list[bytes], bytes]:
    """The tokens of an answer as they are sent, and what follows them."""
    said = [_chunk({"content": f"~{place} "}) for place in range(tokens)]
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    tail = _chunk({}, finish_reason="stop") + _chunk(None, usage=usage) + _event(b"[DONE]") + b"0\r\n\r\n"
    return said, tail


class Conversation(asyncio.Protocol):
    """One connection; its requests are answered one after another."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._timer: asyncio.Handle | None = None
        self._held_back = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of another class

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the protocol's signature)
        """Stop speaking."""
        if self._timer is not None:
            self._timer.cancel()

    def pause_writing(self) -> None:
        """Wait for a reader that is slower than we are."""
        self._held_back = True

    def resume_writing(self) -> None:
        """Go on."""
        self._held_back = False

    def data_received(self, data: bytes) -> None:
        """Answer once the request is complete."""
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        length = _LENGTH.search(self._received, 0, max(end, 0))
        if end < 0 or length is None or len(self._received) < end + 4 + int(length[1]):
            return
        # The newest message is the last one; earlier ones may hold the marks of earlier turns.
        marks = _MARK.findall(self._received)
        self._received.clear()
        tokens, milliseconds = map(int, marks[-1]) if marks else (1, 0)
        said, tail = _pieces(tokens)
        self._transport.write(_HEAD + _chunk({"role": "assistant", "content": ""}))
        # Each token is due at its own time, so that what one write takes does not slow down the whole answer.
        self._say(said, 0, tail, self._loop.time(), milliseconds / 1000)

    def _say(self, said: list[bytes], place: int, tail: bytes, began: float, pause: float) -> None:
        if self._held_back:
            self._timer = self._loop.call_later(0.005, self._say, said, place, tail, began, pause)
            return
        if not pause:
            for piece in said[place : place + _TURN]:
                self._transport.write(piece)
            place += _TURN
            if place < len(said):
                self._timer = self._loop.call_soon(self._say, said, place, tail, began, pause)
            else:
                self._transport.write(tail)
            return
        now = self._loop.time()
        while place < len(said) and began + pause * (place + 1) <= now + 0.0005:
            self._transport.write(said[place])
            place += 1
        if place < len(said):
            due = began + pause * (place + 1)
            self._timer = self._loop.call_at(due, self._say, said, place, tail, began, pause)
        else:
            self._transport.write(tail)


async def _main() -> None:
    server = await asyncio.get_running_loop().create_server(Conversation, "127.0.0.1", 0, backlog=2048)
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_main())
