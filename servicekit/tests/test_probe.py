import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from servicekit.probe import __main__ as probe
from servicekit.probe.settings import Settings

STATES = health_pb2.HealthCheckResponse


def ask(target: str, service: str = "") -> None:
    probe.ask(target, service, settings=Settings())


@contextlib.asynccontextmanager
async def health_server(credentials: grpc.ServerCredentials | None = None, **states: int) -> AsyncIterator[str]:
    """A gRPC server that tells these states; yields its address. `whole` is the server itself."""
    server, servicer = grpc.aio.server(), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name, state in states.items():
        await servicer.set("" if name == "whole" else name, state)
    address = "127.0.0.1:0"
    port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@contextlib.contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        opened.listen()
        yield opened


def address_of(opened: socket.socket) -> str:
    return f"127.0.0.1:{opened.getsockname()[1]}"


async def test_a_serving_server_is_well() -> None:
    async with health_server(whole=STATES.SERVING) as address:
        await asyncio.to_thread(ask, address)


async def test_a_server_that_is_not_ready_is_not_well() -> None:
    async with health_server(whole=STATES.NOT_SERVING) as address:
        with pytest.raises(probe.ProbeError, match="is not serving"):
            await asyncio.to_thread(ask, address)


async def test_one_service_is_asked_for_by_its_name() -> None:
    async with health_server(whole=STATES.NOT_SERVING, accepting=STATES.SERVING) as address:
        await asyncio.to_thread(ask, address, "accepting")
        with pytest.raises(probe.ProbeError, match="is not serving"):
            await asyncio.to_thread(ask, address, "unheard.of")


def test_nobody_there_is_told_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = address_of(free)
        assert probe.main([address]) == 1
    output = capsys.readouterr().out
    assert output.startswith(f"{address} cannot be asked: ConnectionRefusedError")
    assert output.count("\n") == 1


def test_somebody_who_hangs_up_is_not_well() -> None:
    with listener() as opened:

        def hang_up() -> None:
            opened.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(probe.ProbeError, match="cannot be asked"):
            ask(address_of(opened))
        thread.join()


def test_somebody_who_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_SECONDS", 0.1)
    with listener() as opened, pytest.raises(probe.ProbeError, match="does not answer"):
        ask(address_of(opened))


@pytest.mark.parametrize("target", ["8004", "127.0.0.1:", "127.0.0.1:port", "x" * 200 + ":1"])
def test_what_is_no_address_is_refused(target: str) -> None:
    with pytest.raises(probe.ProbeError, match="is no host:port"):
        ask(target)


@pytest.mark.parametrize(("status", "is_well"), [("200 OK", True), ("503 Service Unavailable", False)])
async def test_a_page_is_well_when_it_answers_200(status: str, is_well: bool) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://{address_of(server.sockets[0])}/healthz"
        if is_well:
            await asyncio.to_thread(ask, url)
        else:
            with pytest.raises(probe.ProbeError, match="answers 503"):
                await asyncio.to_thread(ask, url)


async def test_as_a_program_it_ends_with_a_code_and_loads_no_grpc() -> None:
    async with health_server(whole=STATES.SERVING) as address:
        code = (
            "import sys; from servicekit.probe import __main__ as probe; "
            f"print(probe.main([{address!r}]), 'grpc' in sys.modules)"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=subprocess.PIPE)
        output, _ = await process.communicate()
    assert output.split() == [b"0", b"False"]


@pytest.mark.parametrize("is_mutual", [False, True])
async def test_a_server_with_tls_is_asked_over_tls(is_mutual: bool, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("sessions")
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())], authority.cert_pem.bytes() if is_mutual else None, is_mutual
    )
    settings = Settings(str(cert), str(key))
    async with health_server(credentials, whole=STATES.SERVING) as address:
        await asyncio.to_thread(probe.ask, address, settings=settings)
        with pytest.raises(probe.ProbeError, match="cannot be asked"):
            await asyncio.to_thread(probe.ask, address, settings=Settings())
    with pytest.raises(probe.ProbeError, match="cannot be asked: FileNotFoundError"):
        probe.ask(address, settings=Settings(str(tmp_path / "absent")))


def test_it_is_told_of_certificates_by_the_variables_of_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCERTO_TLS_CERT_FILE", "/tls/tls.crt")
    monkeypatch.setenv("CONCERTO_TLS_KEY_FILE", "/tls/tls.key")
    assert Settings.load() == Settings("/tls/tls.crt", "/tls/tls.key")
