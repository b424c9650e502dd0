"""How requests leave the machine, with HTTPX and HTTPX 2 as they are, and a proxy and a server on real sockets."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import httpx
import httpx2
import pytest

from servicekit.outgoing import clients
from servicekit.outgoing.settings import Outgoing, ProxyError, is_loopback
from tests.support.contract import ROOT

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
LIBRARIES = pytest.mark.parametrize(
    ("library", "name"), [(httpx, "httpx"), (httpx2, "httpx2")], ids=["httpx", "httpx2"]
)


@pytest.fixture(autouse=True)
def _no_proxies_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[str]]]:
    """Yield the address of a server, or proxy, and the first lines of what it is asked."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.decode().split("\r\n", 1)[0])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


@LIBRARIES
async def test_the_world_outside_is_asked_by_the_proxy_and_this_machine_never(
    library: ModuleType, name: clients.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening() as (proxy, by_proxy), listening() as (server, directly):
        monkeypatch.setenv("http_proxy", proxy.removeprefix("http://"))
        monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "::1, [::1],[fe80::1]:80 10.0.0.0/8,corp.example")
        async with library.AsyncClient(**clients.routing(name)) as client:
            assert (await client.get("http://chat.example/models")).text == "ok"
            assert (await client.get(f"{server}/models")).text == "ok"
    assert by_proxy == ["GET http://chat.example/models HTTP/1.1"]
    assert directly == ["GET /models HTTP/1.1"]


@LIBRARIES
async def test_a_request_never_goes_past_a_proxy_that_cannot_be_used(
    library: ModuleType, name: clients.Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://me:secret@127.0.0.1:9")
    async with listening() as (server, directly), library.AsyncClient(**clients.routing(name)) as client:
        with pytest.raises(library.ConnectError, match=r"^ALL_PROXY names a SOCKS proxy") as refused:
            await client.get("https://chat.example/")
        assert "secret" not in str(refused.value)
        assert (await client.get(server)).text == "ok"
    assert len(directly) == 1
    with (
        library.Client(**clients.blocking_routing(name)) as blocking,
        pytest.raises(library.ConnectError, match="SOCKS"),
    ):
        blocking.get("https://chat.example/")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("socks5://127.0.0.1:1080", "all_proxy names a SOCKS proxy, which Concerto cannot use"),
        ("SOCKS4A://p", "all_proxy names a SOCKS proxy, which Concerto cannot use"),
        ("quic://p:1", "all_proxy names no HTTP proxy"),
        ("http://", "all_proxy holds no address of a proxy"),
        ("http://p:port", "all_proxy holds no address of a proxy"),
        ("http://[::1", "all_proxy holds no address of a proxy"),
        ("not a proxy", "all_proxy holds no address of a proxy"),
        ("http://me:pä@p:1", "all_proxy holds no address of a proxy"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_in_one_sentence_and_its_value_never(value: str, problem: str) -> None:
    outgoing = Outgoing.read({"all_proxy": value, "ALL_PROXY": "http://good"})
    advice = "Name an HTTP proxy as http://host:port, or unset it for Concerto."
    assert outgoing.problems == (f"{problem}. {advice}",)
    with pytest.raises(ProxyError, match=re.escape(problem)):
        outgoing.proxy_for("https", "chat.example")
    assert outgoing.proxy_for("https", "127.0.0.1") is None


def test_the_name_in_lower_case_comes_first_and_an_empty_one_says_that_there_is_none() -> None:
    outgoing = Outgoing.read({"http_proxy": "", "HTTP_PROXY": "http://upper", "HTTPS_PROXY": "upper:1"})
    assert outgoing.proxy_for("http", "chat.example") is None
    assert outgoing.proxy_for("https", "chat.example") == "http://upper:1"
    assert outgoing.problems == ()


@pytest.mark.parametrize(
    ("exempt", "host", "is_exempt"),
    [
        ("*", "chat.example", True),
        ("chat.example", "chat.example", True),
        ("chat.example", "API.Chat.Example", True),
        (".chat.example", "api.chat.example", True),
        ("*.chat.example", "api.chat.example", True),
        ("chat.example", "mychat.example", False),
        ("chat.example:8080", "chat.example", False),
        ("chat.example:443", "chat.example", True),
        ("10.0.0.0/8", "10.200.1.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("[fd00::1]", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("fd00::/8", "fd12::1", True),
        ("fd00::1", "fd00::2", False),
        ("//,,:,[,]", "chat.example", False),
        ("", "localhost", True),
        ("", "::1", True),
        ("", "127.8.8.8", True),
    ],
)
def test_what_goes_past_the_proxy(exempt: str, host: str, is_exempt: bool) -> None:
    outgoing = Outgoing.read({"https_proxy": "http://p:1", "no_proxy": exempt})
    assert outgoing.proxy_for("https", host, 443) == (None if is_exempt else "http://p:1")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "::1", "::"])
def test_this_machine_is_known_by_every_name(host: str) -> None:
    assert is_loopback(host)
    assert not is_loopback(f"{host}.example")


@LIBRARIES
async def test_certificates_that_cannot_be_read_are_named_and_the_usual_ones_are_trusted(
    library: ModuleType, name: clients.Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    for value in (str(tmp_path / "not there"), str(garbage), str(tmp_path)):
        monkeypatch.setenv("SSL_CERT_FILE", value)
        outgoing = Outgoing.read()
        assert outgoing.tls_context() is None
        assert [problem.split()[0] for problem in outgoing.problems] == ["SSL_CERT_FILE"]
        async with listening() as (server, _), library.AsyncClient(**clients.routing(name)) as client:
            assert (await client.get(server)).text == "ok"


def test_every_client_of_ours_is_made_in_one_place() -> None:
    made = re.compile(r"(httpx2?\.(Async)?Client|HttpxClient)\((?!\s*\*\*clients\.)")
    for folder in ("servicekit", "services", "gateway", "local"):
        for path in (ROOT / folder).rglob("*.py"):
            if "tests" not in path.parts and path.name != "clients.py":
                assert not made.search(path.read_text()), path


def test_a_process_reads_nothing_that_is_meant_for_other_programs() -> None:
    program = (
        "import os; from services.auth.settings import Settings; settings = Settings.load(); "
        "print(settings.log_level, settings.environment, settings.host, settings.port, 'PGSSLMODE' in os.environ)"
    )
    others = {"LOG_LEVEL": "verbose", "ENVIRONMENT": "staging", "HOST": "x", "PORT": "-1", "PGSSLMODE": "nonsense"}
    own = {"CONCERTO_ENV_FILE": "/dev/null", "SUPABASE_PUBLISHABLE_KEY": "key", "PATH": os.environ["PATH"]}  # noqa: TID251
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env={**others, **own}, capture_output=True, text=True, check=True)
    assert done.stdout == "INFO development 127.0.0.1 8003 False\n"
