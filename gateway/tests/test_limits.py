import asyncio
import contextlib
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from gateway.tests.fakes import Neighbours, delta, gateway_over_http, started
from servicekit.testing import JWT_SECRET, mint_token
from tests.support.waiting import until

MB = 1_000_000
HEAD_BYTES = 64 * 1024
HEAD_SECONDS, BODY_SECONDS, SEND_SECONDS = 1.0, 0.5, 1.0
PER_ADDRESS = 40
OTHER_ADDRESS = "127.0.0.2"
BIG_FILE_BYTES = 40 * MB
ASK = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
LAST = ASK + b"Connection: close\r\n\r\n"


@dataclass
class Running:
    """A gateway in a process of its own; no service is behind it."""

    port: int
    process: psutil.Process
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    @property
    def rss_bytes(self) -> int:
        return int(self.process.memory_info().rss)

    async def connect(self, address: str | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        local = (address, 0) if address else None
        return await asyncio.open_connection("127.0.0.1", self.port, local_addr=local)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await self.connect()
        try:
            yield reader, writer
        finally:
            writer.close()

    async def ask(self, *pieces: bytes, pause_seconds: float = 0.0) -> "Answer":
        """Send the pieces, and return the answer once the gateway has closed the connection."""
        async with self.connection() as (reader, writer):
            reading = asyncio.create_task(read_all(reader))
            await send(writer, *pieces, pause_seconds=pause_seconds)
            return Answer(await reading)


class Answer:
    """What came back until the connection ended."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.statuses = [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", content)]

    @property
    def only(self) -> tuple[int, str]:
        """Status and reason of the one answer."""
        head, _, body = self.content.partition(b"\r\n\r\n")
        (status,) = self.statuses
        fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
        assert fields["content-type"] == "application/json"
        assert fields["connection"] == "close"
        assert fields["x-content-type-options"] == "nosniff"
        error = json.loads(body)["error"]
        if "details" not in error:  # as OpenAI's clients know it
            return status, error["code"].upper()
        assert error["code"] == status
        return status, error["details"][0]["reason"]


async def send(writer: asyncio.StreamWriter, *pieces: bytes, pause_seconds: float = 0.0) -> None:
    for piece in pieces:
        if writer.is_closing():
            return
        writer.write(piece)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        if pause_seconds:
            await asyncio.sleep(pause_seconds)  # a client that is this slow


async def read_all(reader: asyncio.StreamReader) -> bytes:
    content = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            content += piece
    return bytes(content)


@contextlib.asynccontextmanager
async def gateway_process(*, files: int | None = None, **variables: str) -> AsyncIterator[Running]:
    """Run the real gateway as a process. files: how many it may open."""
    environment = {
        "CONCERTO_ENV_FILE": "/dev/null",
        "CONCERTO_LOG_FORMAT": "json",
        "GATEWAY_PORT": "0",
        "SUPABASE_JWT_SECRET": JWT_SECRET,
        **variables,
    }
    command = [sys.executable, "-m", "gateway"]
    if files is not None:
        command = ["/bin/sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    with tempfile.NamedTemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=log.fileno())
        made = Running(0, psutil.Process(process.pid), Path(log.name))
        try:
            await until(lambda: "server.started" in made.log, "the gateway")
            made.port = int(made.log.split("127.0.0.1:")[1].split('"')[0])
            yield made
        finally:
            process.terminate()
            await process.wait()
        assert "Traceback" not in made.log


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """A gateway with limits of time that a test can wait for."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "big.bin").write_bytes(b"\0" * BIG_FILE_BYTES)
    async with gateway_process(
        GATEWAY_WEB_FOLDER=str(folder),
        GATEWAY_HEAD_TIMEOUT_SECONDS=str(HEAD_SECONDS),
        GATEWAY_BODY_TIMEOUT_SECONDS=str(BODY_SECONDS),
        GATEWAY_SEND_TIMEOUT_SECONDS=str(SEND_SECONDS),
        GATEWAY_MAX_CONNECTIONS_PER_ADDRESS=str(PER_ADDRESS),
        GATEWAY_MAX_BODY_BYTES=str(4 * 1024 * 1024),
        GATEWAY_MAX_BUFFERED_BYTES=str(16 * 1024 * 1024),
        GATEWAY_LOGIN_LIMIT_PER_ADDRESS="5/hour",
    ) as made:
        yield made


def post(path: str, length: int, *more: str, token: str | None = None, stays: bool = False) -> bytes:
    """Return the head of a request with a body of so many bytes. stays: whether the connection is used again."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {length}", *more]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [] if stays else ["Connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def padded(size: int) -> bytes:
    """Return a head of this size."""
    frame = ASK + b"X: \r\nConnection: close\r\n\r\n"
    return ASK + b"X: " + b"a" * (size - len(frame)) + b"\r\nConnection: close\r\n\r\n"


# Heads


@pytest.mark.parametrize("pieces", [1, 7, 400])
async def test_a_head_of_64_kib_is_taken_in_whatever_pieces_it_comes(running: Running, pieces: int) -> None:
    head = padded(HEAD_BYTES)
    size = -(-len(head) // pieces)
    answer = await running.ask(*(head[start : start + size] for start in range(0, len(head), size)))
    assert answer.statuses == [200]


async def test_the_end_of_a_head_is_found_in_any_two_pieces(running: Running) -> None:
    for cut in range(1, len(LAST)):
        assert (await running.ask(LAST[:cut], LAST[cut:])).statuses == [200]


TOO_LARGE: dict[str, bytes] = {
    "a byte too many": padded(HEAD_BYTES + 1),
    "a field without an end": ASK + b"X: " + b"a" * (8 * MB),
    "a request line without an end": b"GET /" + b"a" * (8 * MB),
    "a method without an end": b"G" * HEAD_BYTES * 2,
    "fields without an end": ASK + b"X: a\r\n" * 200_000,
    "501 small fields": ASK + b"X: a\r\n" * 501 + b"\r\n",
    "501 fields of a name that is understood": ASK + b"Expect:\r\n" * 501 + b"\r\n",
    "blank lines": b"\r\n" * HEAD_BYTES,
}


@pytest.mark.parametrize("content", TOO_LARGE.values(), ids=TOO_LARGE.keys())
async def test_a_larger_head_is_431_however_it_is_made(running: Running, content: bytes) -> None:
    status, reason = (await running.ask(content)).only
    # No method is that long, so that one is no request in the first place.
    assert (status, reason) in ((431, "HEAD_TOO_LARGE"), (400, "MALFORMED_REQUEST"))
    assert status == 431 or content.startswith(b"GG")


async def test_many_large_heads_hold_next_to_nothing(running: Running) -> None:
    before = running.rss_bytes
    answers = await asyncio.gather(*(running.ask(ASK + b"X: a\r\n" * 500_000) for _ in range(30)))
    # 90 MB were sent. Who sends on and on is cut, and may not see why.
    assert {status for answer in answers for status in answer.statuses} <= {431}
    assert running.rss_bytes - before < 30 * MB


@pytest.mark.parametrize("sent", [b"G", ASK, ASK + b"X: a", b"\r\n", b"POST /auth/login HTTP/1.1\r\nHost"])
async def test_half_a_head_is_408_in_time(running: Running, sent: bytes) -> None:
    assert (await running.ask(sent)).only == (408, "HEAD_TOO_SLOW")


async def test_a_head_that_drips_is_408_all_the_same(running: Running) -> None:
    pieces = [bytes([byte]) for byte in padded(2000)]
    assert (await running.ask(*pieces, pause_seconds=HEAD_SECONDS / 10)).only == (408, "HEAD_TOO_SLOW")


async def test_a_connection_may_wait_before_each_of_its_requests(running: Running) -> None:
    async with running.connection() as (reader, writer):
        for ask in (ASK + b"\r\n", LAST):
            await asyncio.sleep(2.5 * HEAD_SECONDS)  # longer than a head may take, and no head has begun
            writer.write(ask)
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            await reader.readuntil(b"}")


NO_REQUESTS: dict[str, bytes] = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500,
    "words": b"hello world\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another version": b"GET / HTTP/9.9\r\n\r\n",
    "bare line ends": b"GET / HTTP/1.1\nHost: x\n\n",
    "two lengths": b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length and chunks": b"POST /a HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a negative length": b"POST /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "an endless length": b"POST /a HTTP/1.1\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n",
    "a field without a colon": b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "a tunnel": b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    "another protocol, with a body": b"POST /auth/login HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    b"Content-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("content", NO_REQUESTS.values(), ids=NO_REQUESTS.keys())
async def test_what_is_no_request_is_400_at_once(running: Running, content: bytes) -> None:
    assert (await running.ask(content)).only[0] == 400


@pytest.mark.parametrize("host", ["[", "a]b[c", "x" * 5000, "\xff", "a b", ""])
async def test_a_host_of_any_kind_is_answered(running: Running, host: str) -> None:
    for path in ("/healthz", "/nothing", "/v1/nothing", "/auth/me", "/big"):
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")
        (status,) = (await running.ask(head)).statuses
        assert status in (200, 401, 404, 307)


async def test_a_request_that_asks_for_another_protocol_is_answered_in_this_one(running: Running) -> None:
    head = ASK + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    answer = await running.ask(head + b"\x81\x05hello" + LAST)
    assert answer.statuses == [200]


# Bodies


async def test_half_a_body_is_408_in_time(running: Running) -> None:
    token = mint_token()
    for body in (b"", b'{"name": "a'):
        answer = await running.ask(post("/sessions", 1000, token=token) + body)
        assert answer.only == (408, "BODY_TOO_SLOW")
        assert b"\r\nx-request-id: " in answer.content


async def test_a_body_that_drips_ends_in_time_too(running: Running) -> None:
    drip = [b" "] * 1000
    answer = await running.ask(post("/sessions", 1000, token=mint_token()), *drip, pause_seconds=BODY_SECONDS / 5)
    assert answer.only == (408, "BODY_TOO_SLOW")


def chunked(path: str, token: str | None = None, *, stays: bool = False) -> bytes:
    return post(path, 0, token=token, stays=stays).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")


async def test_the_framing_of_chunks_is_bounded(running: Running) -> None:
    head = chunked("/sessions", mint_token())
    endless: dict[str, bytes] = {
        "an extension": b"1;" + b"a" * MB,
        "trailers": b"2\r\n{}\r\n0\r\n" + b"X: a\r\n" * 200_000,
        "a trailer": b"2\r\n{}\r\n0\r\nX: " + b"a" * MB,
        "extensions": (b"1;" + b"a" * 40_000 + b"\r\n \r\n") * 50,
        "a size": b"0" * MB,
    }
    for name, content in endless.items():
        answer = await running.ask(head + content)
        assert answer.only[0] in (400, 413), name


async def test_small_chunks_count_as_the_body_that_they_are(running: Running) -> None:
    head = chunked("/auth/refresh")
    answer = await running.ask(head + b"1\r\n \r\n" * (16 * 1024 + 1))
    assert answer.only == (413, "BODY_TOO_LARGE")


async def test_trailers_are_no_headers(running: Running) -> None:
    trailer = b"Authorization: Bearer " + mint_token().encode()
    answer = await running.ask(chunked("/sessions") + b"2\r\n{}\r\n0\r\n" + trailer + b"\r\n\r\n")
    assert answer.only == (401, "TOKEN_MISSING")


@pytest.mark.parametrize("path", ["/auth/refresh", "/auth/signup", "/auth/password/reset"])
async def test_who_is_not_signed_in_sends_16_kib_at_most(running: Running, path: str) -> None:
    assert (await running.ask(post(path, 16 * 1024 + 1))).only == (413, "BODY_TOO_LARGE")
    answer = await running.ask(post(path, 16 * 1024) + b" " * (16 * 1024))
    assert answer.statuses == [400]


async def test_the_body_of_an_attempt_is_left_unread_once_there_were_too_many(running: Running) -> None:
    answers = [(await running.ask(post("/auth/login", 100))).only for _ in range(7)]
    limit = 5
    # The first ones are waited for, the others are not.
    assert answers[:limit] == [(408, "BODY_TOO_SLOW")] * limit
    assert answers[limit:] == [(429, "TOO_MANY_ATTEMPTS")] * 2


async def test_one_caller_has_so_many_values_read_whether_or_not_they_are_good(running: Running) -> None:
    body = (
        b'{"messages": ['
        + b",".join([b'{"role": "user", "content": "x", "metadata": {"x": [' + b"1," * 1900 + b"1]}}"] * 50)
        + b"]}"
    )
    many, other = mint_token(), mint_token(sub=str(uuid4()))
    path = f"/sessions/{uuid4()}/messages"
    answers = await asyncio.gather(*(running.ask(post(path, len(body), token=many) + body) for _ in range(8)))
    assert {answer.only for answer in answers} == {(400, "FIELD_TOO_LARGE"), (429, "TOO_MANY_REQUESTS")}
    assert (await running.ask(post(path, len(body), token=other) + body)).statuses == [400]
    # Small ones pass.
    small = b'{"messages": []}'
    assert (await running.ask(post(path, len(small), token=many) + small)).statuses == [400]


async def test_unfinished_bodies_hold_next_to_nothing(running: Running) -> None:
    token = mint_token()
    before = running.rss_bytes
    large = 3 * MB
    work = [running.ask(post("/v1/chat/completions", 4 * MB, token=token) + b" " * large) for _ in range(30)]
    answers = [answer.only for answer in await asyncio.gather(*work)]
    assert set(answers) <= {(408, "BODY_TOO_SLOW"), (429, "TOO_MANY_LARGE_BODIES")}
    assert (429, "TOO_MANY_LARGE_BODIES") in answers
    assert running.rss_bytes - before < 40 * MB
    # What they held is free again.
    head = post("/v1/chat/completions", large, token=token)
    assert (await running.ask(head + b"[" + b" " * (large - 1))).only == (400, "INVALID_JSON")


async def test_an_answer_reaches_a_client_that_is_still_sending(running: Running) -> None:
    for _ in range(20):
        answer = await running.ask(post("/sessions", 6 * MB), *[b" " * 65_536] * 90)
        assert answer.only == (401, "TOKEN_MISSING")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity"])
async def test_a_compressed_body_is_415_and_never_unpacked(running: Running, encoding: str) -> None:
    answer = await running.ask(post("/sessions", 2, f"Content-Encoding: {encoding}", token=mint_token()) + b"{}")
    assert answer.only == (415, "UNSUPPORTED_ENCODING")


# Connections


async def test_an_address_has_so_many_connections_and_others_have_theirs(running: Running) -> None:
    await until(lambda: not open_connections(running), "the ends of those before")
    async with contextlib.AsyncExitStack() as stack:
        open_ones = [await stack.enter_async_context(running.connection()) for _ in range(PER_ADDRESS)]
        reader, writer = await running.connect()
        assert Answer(await read_all(reader)).only == (429, "TOO_MANY_CONNECTIONS")
        writer.close()
        reader, writer = await running.connect(OTHER_ADDRESS)
        writer.write(LAST)
        assert Answer(await read_all(reader)).statuses == [200]
        writer.close()
        # Those that were let in are served.
        for reader, writer in open_ones:
            writer.write(LAST)
            assert Answer(await read_all(reader)).statuses == [200]
    assert (await running.ask(LAST)).statuses == [200]


async def test_very_many_connections_hold_next_to_nothing(running: Running) -> None:
    before = running.rss_bytes
    made = [await running.connect() for _ in range(1000)]
    refused = [Answer(await read_all(reader)) for reader, _ in made[PER_ADDRESS:]]
    for _, writer in made:
        writer.close()
    assert {status for answer in refused for status in answer.statuses} == {429}
    assert sum(not answer.statuses for answer in refused) > 500
    assert running.rss_bytes - before < 20 * MB
    await until(lambda: not open_connections(running), "the ends")


def open_connections(running: Running) -> int:
    found = running.process.net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED and one.laddr[1] == running.port for one in found)


async def test_the_connections_of_a_trusted_proxy_are_not_counted() -> None:
    proxies = "10.0.0.0/8,127.0.0.1"
    process = gateway_process(GATEWAY_MAX_CONNECTIONS_PER_ADDRESS="3", GATEWAY_TRUSTED_PROXIES=proxies)
    async with process as running, contextlib.AsyncExitStack() as stack:
        for address, expected in (("127.0.0.1", [200] * 6), (OTHER_ADDRESS, [200] * 3 + [429] * 3)):
            made = [await running.connect(address) for _ in expected]
            for _, writer in made:
                stack.callback(writer.close)
            # What a client says of itself is no address of a connection.
            ask = ASK + b"X-Forwarded-For: 203.0.113.7\r\n\r\n"
            statuses = []
            for reader, writer in made:
                writer.write(ask)
                statuses.append(int((await reader.readline()).split(b" ")[1]))
            assert statuses == expected


async def test_there_are_never_more_connections_than_the_process_may_have_files() -> None:
    async with gateway_process(files=300) as running, contextlib.AsyncExitStack() as stack:
        refused = []
        for number in range(80):
            reader, writer = await running.connect(f"127.0.1.{number}")
            stack.callback(writer.close)
            if number >= 300 - 256:
                refused.append(Answer(await read_all(reader)).only)
        assert set(refused) == {(503, "GATEWAY_FULL")}
    async with gateway_process(GATEWAY_MAX_CONNECTIONS="16") as running, contextlib.AsyncExitStack() as stack:
        for _ in range(16):
            await stack.enter_async_context(running.connection())
        assert (await running.ask()).only == (503, "GATEWAY_FULL")


# Requests sent ahead


async def test_requests_sent_ahead_are_answered_in_their_order(running: Running) -> None:
    bodies = [b"[" * size for size in (1, 100, 3000)]
    token = mint_token()
    ahead = b"".join(post("/sessions", len(body), token=token, stays=True) + body for body in bodies)
    answer = await running.ask(ASK + b"\r\n" + ahead + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + LAST)
    assert answer.statuses == [200, 400, 400, 400, 404, 200]


async def test_a_chunked_request_may_be_followed_by_another_on_its_connection(running: Running) -> None:
    async with running.connection() as (reader, writer):
        for _ in range(3):
            writer.write(chunked("/sessions", mint_token(), stays=True) + b"1\r\n[\r\n0\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"
            await reader.readuntil(b"}]}}")


async def test_what_is_sent_ahead_behind_chunks_ends_the_connection_with_the_answer(running: Running) -> None:
    answer = await running.ask(chunked("/sessions", mint_token(), stays=True) + b"1\r\n[\r\n0\r\n\r\n" + LAST)
    assert answer.statuses == [400]


async def test_a_flood_of_requests_sent_ahead_is_cut_and_holds_next_to_nothing(running: Running) -> None:
    before = running.rss_bytes
    flood = (ASK + b"\r\n") * 100_000
    answers = await asyncio.gather(*(running.ask(flood) for _ in range(10)))
    assert {status for answer in answers for status in answer.statuses} == {200}
    assert running.rss_bytes - before < 30 * MB


async def test_a_flood_of_requests_whose_answers_are_not_read_is_cut(running: Running) -> None:
    before, ended = running.rss_bytes, running.log.count("READER_TOO_SLOW")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(10):
            _, writer = await stack.enter_async_context(running.connection())
            # As much as the connection takes, which is not all while no answer is read.
            writer.write(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        await until(lambda: running.log.count("READER_TOO_SLOW") > ended, "the cut")
        await until(lambda: not open_connections(running), "all cuts")
    assert running.rss_bytes - before < 30 * MB


# Readers


async def test_an_answer_that_is_not_read_is_cut_in_time(running: Running) -> None:
    ended = running.log.count("READER_TOO_SLOW")
    async with running.connection() as (reader, writer):
        # Else the client's side would go on reading into its own memory.
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: running.log.count("READER_TOO_SLOW") > ended, "the cut")
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await read_all(reader)) < BIG_FILE_BYTES


async def test_a_reader_that_is_slow_but_reads_gets_everything(running: Running) -> None:
    async with running.connection() as (reader, writer):
        writer.write(b"GET /big.bin HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        size = 0
        while size < 8 * MB:
            size += len(await reader.read(MB))
            await asyncio.sleep(SEND_SECONDS / 8)  # a slow client
        assert size + len(await read_all(reader)) > BIG_FILE_BYTES


async def test_a_stream_whose_reader_reads_nothing_is_cut_and_what_feeds_it_is_free() -> None:
    neighbours = Neighbours()

    async def endless(_: object) -> AsyncIterator[Any]:
        yield started()
        for seq in range(2, 1_000_000):
            yield delta(seq, "x" * 10_000)

    neighbours.turn = endless
    path = "/sessions/6f4d8a52-1f5e-4a3c-9b57-0d1f4c1f2a33/turns"
    async with gateway_over_http(neighbours, send_timeout_seconds=0.5) as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port, limit=1024)
        writer.write(post(path, 16, token=mint_token()) + b'{"content": "x"}')
        await reader.readline()
        await neighbours.cancelled.wait()
        writer.close()


# What the process remembers


@pytest.fixture
def memory(running: Running) -> Callable[[], int]:
    """How far the process has grown since the test began."""
    before = running.rss_bytes
    return lambda: running.rss_bytes - before


async def test_everything_at_once_holds_little_and_others_are_served(
    running: Running, memory: Callable[[], int]
) -> None:
    """Heads, bodies, floods and readers of the kinds above, from one address; another asks meanwhile."""
    over = asyncio.Event()
    waited: list[int] = []

    async def ask() -> None:
        while not over.is_set():
            reader, writer = await running.connect(OTHER_ADDRESS)
            writer.write(LAST)
            waited.append(Answer(await read_all(reader)).statuses[0])
            writer.close()

    asking = asyncio.create_task(ask())
    token = mint_token()
    kinds = [
        ASK + b"X: a\r\n" * 300_000,
        ASK + b"X: " + b"a" * 60_000,
        post("/v1/chat/completions", 4 * MB, token=token) + b"[" * 3 * MB,
        post("/auth/signup", 16_000) + b" " * 15_000,
        chunked("/v1/chat/completions", token) + b"1\r\n \r\n" * 200_000,
        (ASK + b"\r\n") * 50_000,
    ]
    await asyncio.gather(*(running.ask(kind) for kind in kinds * 6))
    over.set()
    await asking
    assert set(waited) == {200}
    assert memory() < 60 * MB
