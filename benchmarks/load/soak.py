"""The load of the soak: single calls and streamed turns in a fixed mixture, from a program of its own.

At a fixed rate each operation is due at its own time, whatever became of those before it, and its latency counts from
that time: a suite that stands still for a second is seen by all the operations of that second. Without a rate the
operations follow one another on so many workers, which finds the peak.

python -m benchmarks.load.soak < plan.json      prints one JSON object (see SoakLoad)
"""

import asyncio
import itertools
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import cast
from urllib.parse import urlsplit

import orjson
import psutil
import uvloop

from benchmarks.load import model_server
from benchmarks.load.streams import Turn

PATIENCE_SECONDS = 30.0
MIXTURE = ("append", "messages", "append", "sessions", "append", "messages", "append", "messages", "append", "session")
"""Single calls in the order in which they are made; every TURN_EVERY-th operation is a turn instead."""
TURN_EVERY = 20
FAULTS_KEPT = 5
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass
class Plan:
    """What load to make."""

    url: str
    token: str
    sessions: list[str]
    """For single calls, in turn."""
    turn_sessions: list[str]
    """For turns, in turn: so many that a session's turn is over before its next one."""
    message: str
    seconds: float
    workers: int
    """Connections for single calls; without a rate also how many operations are under way."""
    tokens: int
    milliseconds: int
    rate: float = 0.0
    """Operations per second; 0 for as many as the workers get done."""


@dataclass
class SoakLoad:
    """What was found."""

    calls: list[tuple[float, float]] = field(default_factory=list)
    """When each single call was due, and how long after that it was answered, both in seconds."""
    first_tokens: list[tuple[float, float]] = field(default_factory=list)
    """The same of turns, until their first token."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Processor time of this program."""
    faults: int = 0
    """Operations that were refused, broken or not answered in time."""
    first_faults: list[str] = field(default_factory=list)

    def blame(self, text: str) -> None:
        """Count a fault."""
        self.faults += 1
        if len(self.first_faults) < FAULTS_KEPT:
            self.first_faults.append(text)


class Line(asyncio.Protocol):
    """One connection that stays open, for one call at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._wanted = 0
        self._answer: asyncio.Future[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is of another class

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (the protocol's signature)
        """Fail the call that waits."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        """Hand the answer over when it is complete."""
        self._received += data
        if not self._wanted:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._received, 0, end)
            self._wanted = end + 4 + (int(length[1]) if length is not None else 0)
        if len(self._received) >= self._wanted and self._answer is not None and not self._answer.done():
            self._answer.set_result(bytes(self._received[:200]))

    async def ask(self, request: bytes) -> bytes:
        """Send a request and return the beginning of its answer."""
        self._received.clear()
        self._wanted = 0
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._answer


class Load:
    """Makes the load of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._loop = asyncio.get_running_loop()
        address = urlsplit(plan.url)
        self._host, self._port = str(address.hostname), int(address.port or 80)
        self._head = (
            f"HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {plan.token}\r\n"
            "Content-Type: application/json\r\n"
        )
        self._append = orjson.dumps({"messages": [{"role": "user", "content": plan.message}]})
        self._ask = orjson.dumps({"content": model_server.prompt(tokens=plan.tokens, milliseconds=plan.milliseconds)})
        # In turn, so that none is idle for so long that the gateway closes it.
        self._lines: asyncio.Queue[Line] = asyncio.Queue()
        self._turn_sessions = itertools.cycle(plan.turn_sessions)
        self.found = SoakLoad()

    async def run(self) -> SoakLoad:
        """Make the load and return what was found."""
        for _ in range(self._plan.workers):
            self._lines.put_nowait(await self._connect())
        process = psutil.Process()
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        await (self._at_a_rate(began) if self._plan.rate else self._one_after_another(began))
        self.found.seconds = time.monotonic() - began
        self.found.cpu_seconds = sum(process.cpu_times()[:2]) - before
        return self.found

    async def _at_a_rate(self, began: float) -> None:
        under_way: set[asyncio.Task[None]] = set()
        for number, operation in enumerate(self._operations()):
            due = number / self._plan.rate
            if due >= self._plan.seconds:
                break
            wait = began + due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._operate(operation, began, due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def _one_after_another(self, began: float) -> None:
        operations = self._operations()

        async def worker() -> None:
            while (now := time.monotonic() - began) < self._plan.seconds:
                await self._operate(next(operations), began, now)

        await asyncio.gather(*(worker() for _ in range(self._plan.workers)))

    def _operations(self) -> Iterator[bytes | None]:
        """The requests in their order; None for a turn."""
        for number, (kind, session_id) in enumerate(
            zip(itertools.cycle(MIXTURE), itertools.cycle(self._plan.sessions), strict=False)
        ):
            if number % TURN_EVERY == TURN_EVERY - 1:
                yield None
            elif kind == "append":
                yield self._request("POST", f"/sessions/{session_id}/messages", self._append)
            elif kind == "messages":
                yield self._request("GET", f"/sessions/{session_id}/messages?page_size=50")
            elif kind == "sessions":
                yield self._request("GET", "/sessions?page_size=50")
            else:
                yield self._request("GET", f"/sessions/{session_id}")

    def _request(self, method: str, path: str, body: bytes = b"", more: str = "") -> bytes:
        return f"{method} {path} {self._head}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body

    async def _operate(self, request: bytes | None, began: float, due: float) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await (self._turn(began, due) if request is None else self._call(request, began, due))
        except TimeoutError:
            self.found.blame(f"no answer within {PATIENCE_SECONDS:.0f} s")
        except (OSError, RuntimeError) as error:  # the second: uvloop's word for a connection that is gone
            self.found.blame(str(error))

    async def _call(self, request: bytes, began: float, due: float) -> None:
        line = await self._lines.get()
        try:
            if line.transport.is_closing():
                line = await self._connect()
            answer = await line.ask(request)
        except BaseException:
            line.transport.abort()
            line = await self._connect()
            raise
        finally:
            self._lines.put_nowait(line)
        status = answer[9:12]
        if status not in (b"200", b"201"):
            self.found.blame(f"a call was answered with {answer[:80].decode(errors='replace')}")
            return
        self.found.calls.append((due, time.monotonic() - began - due))

    async def _turn(self, began: float, due: float) -> None:
        path = f"/sessions/{next(self._turn_sessions)}/turns"
        request = self._request("POST", path, self._ask, "Accept: text/event-stream\r\nConnection: close\r\n")
        _, turn = await self._loop.create_connection(lambda: Turn(request), self._host, self._port)
        try:
            await turn.ended
        finally:
            turn.transport.abort()
        if turn.wait is None or b"SUCCEEDED" not in b"".join(turn.received[-4:]):
            self.found.blame(f"a turn ended with {b''.join(turn.received)[:80].decode(errors='replace')}")
            return
        self.found.first_tokens.append((due, turn.sent_at + turn.wait - began - due))

    async def _connect(self) -> Line:
        _, line = await self._loop.create_connection(Line, self._host, self._port)
        return line


async def run(plan: Plan) -> SoakLoad:
    """Make the load. Failures are counted in `faults`."""
    return await Load(plan).run()


if __name__ == "__main__":
    result = uvloop.run(run(Plan(**orjson.loads(sys.stdin.buffer.read()))))
    sys.stdout.buffer.write(orjson.dumps(asdict(result)))
