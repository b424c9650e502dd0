"""The load of streams, cheap enough not to take the cores from those that are measured; a program of its own.

It reads raw bytes, counts the marks of tokens in them and looks at nothing else while a phase runs; afterwards it reads
every event of every stream and checks that each token came, once and in order.

python -m benchmarks.load.streams < plan.json      prints one JSON object (see StreamLoad)
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import orjson
import psutil
import uvloop

from benchmarks.load import model_server
from benchmarks.measures import spread
from benchmarks.rows import MeasurementError
from local.settings import ROOT
from tests.support.suites import stack_environment

SILENCE_SECONDS = 60.0
"""So long may a stream be silent."""


@dataclass
class Plan:
    """What load to make."""

    url: str
    token: str
    paths: list[str]
    """One per turn; a stream takes the next one for each of its turns."""
    streams: int
    turns: int
    """Of each stream, one after another."""
    tokens: int
    milliseconds: int
    """Pause of the model before each token."""
    over_seconds: float = 0.0
    """The streams' beginnings are spread over this time."""


@dataclass
class StreamLoad:
    """What was found."""

    waits: list[float] = field(default_factory=list)
    """Seconds from sending the request to the first token, one per turn."""
    tokens: int = 0
    seconds: float = 0.0
    """From the first request to the end of the last stream."""
    cpu_seconds: float = 0.0
    """Processor time of this program meanwhile."""
    events: int = 0
    """Events in which the tokens came."""
    faults: list[str] = field(default_factory=list)
    """What was wrong with streams; empty when every token came."""


class Turn(asyncio.Protocol):
    """One connection with one request; everything that comes is kept."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.received: list[bytes] = []
        self.sent_at = 0.0
        self.wait: float | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is of another class
        self.sent_at = time.monotonic()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Keep what comes, and note when the first token is in it."""
        if self.wait is None and b"~" in data:
            self.wait = time.monotonic() - self.sent_at
        self.received.append(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the protocol's signature)
        """Say that the stream is over."""
        if not self.ended.done():
            self.ended.set_result(None)


async def run(plan: Plan) -> StreamLoad:
    """Make the load. Failures are told in `faults`."""
    address = urlsplit(plan.url)
    content = orjson.dumps({"content": model_server.prompt(tokens=plan.tokens, milliseconds=plan.milliseconds)})
    left = list(reversed(plan.paths))
    done: list[Turn] = []
    load = StreamLoad()
    loop = asyncio.get_running_loop()

    async def turn() -> None:
        head = (
            f"POST {left.pop()} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {plan.token}\r\n"
            "Accept: text/event-stream\r\nContent-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        _, protocol = await loop.create_connection(
            lambda: Turn(head.encode() + content), str(address.hostname), int(address.port or 80)
        )
        done.append(protocol)
        try:
            await asyncio.wait_for(protocol.ended, SILENCE_SECONDS + plan.tokens * plan.milliseconds / 1000)
        except TimeoutError:
            load.faults.append("a stream did not end")
            protocol.transport.abort()

    process = psutil.Process()
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    await spread(turn, streams=plan.streams, turns=plan.turns, over_seconds=plan.over_seconds)
    load.seconds = time.monotonic() - began
    load.cpu_seconds = sum(process.cpu_times()[:2]) - before
    for protocol in done:
        check(b"".join(protocol.received), plan.tokens, load)
        if protocol.wait is not None:
            load.waits.append(protocol.wait)
    return load


def check(answer: bytes, tokens: int, load: StreamLoad) -> None:
    """Add to `load` what an answer with so many tokens holds, or what is wrong with it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n", 1)[0]
    if b" 200 " not in status:
        load.faults.append(f"answered {status.decode(errors='replace')}: {body[:200].decode(errors='replace')}")
        return
    said, kept, state = [], "", ""
    for kind, data in events(unchunked(body)):
        if kind == "message.delta":
            said.append(data["text"])
        elif kind == "message.completed":
            kept = data["message"]["content"]
        elif kind == "run.finished":
            state = data["state"]
    load.events += len(said)
    expected = model_server.answer(tokens)
    if "".join(said) != expected:
        load.faults.append(f"{len(expected)} characters were said, {len(''.join(said))} came or came in another order")
    elif kept != expected:
        load.faults.append("the stored answer is another than the streamed one")
    elif state != "SUCCEEDED":
        load.faults.append(f"the run ended as {state or 'nothing'}")
    else:
        load.tokens += tokens


def unchunked(body: bytes) -> bytes:
    """Return a chunked body's content, as far as it came."""
    parts, place = [], 0
    while (line := body.find(b"\r\n", place)) >= 0:
        size = int(body[place:line], 16)
        if size == 0:
            break
        parts.append(body[line + 2 : line + 2 + size])
        place = line + 2 + size + 2
    return b"".join(parts)


def events(text: bytes) -> list[tuple[str, Any]]:
    """Return the type and data of each Server-Sent Event; comments are passed over."""
    found = []
    for block in text.split(b"\n\n"):
        lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line and not line.startswith(b":"))
        if b"event" in lines:
            found.append((lines[b"event"].decode(), orjson.loads(lines[b"data"])))
    return found


async def measure(plan: Plan) -> StreamLoad:
    """Make the load from a process of its own. Raises MeasurementError when a stream failed or a token was lost."""
    output = await call_program("benchmarks.load.streams", orjson.dumps(plan))
    load = StreamLoad(**orjson.loads(output))
    if load.faults or load.tokens != plan.streams * plan.turns * plan.tokens:
        raise MeasurementError(
            f"{plan.url}: {len(load.faults)} of {plan.streams * plan.turns} streams failed. First: {load.faults[:1]}"
        )
    return load


async def call_program(module: str, given: bytes, arguments: Sequence[str] = ()) -> bytes:
    """Return what one of the benchmarks' programs prints. Raises MeasurementError when it fails."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=ROOT,
        env=stack_environment(ROOT / "none", 0),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate(given)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise MeasurementError(f"{module} ended with {process.returncode}.")
    return output


if __name__ == "__main__":
    found = uvloop.run(run(Plan(**orjson.loads(sys.stdin.buffer.read()))))
    sys.stdout.buffer.write(orjson.dumps(asdict(found)))
