import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import trustme
from concerto.sessions.v1 import sessions_pb2, sessions_pb2_grpc
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.rpc import channel, server
from servicekit.rpc.inprocess import transport
from servicekit.rpc.server import Registration
from servicekit.settings import ServiceSettings
from servicekit.testing import JWT_SECRET, acting_as, make_caller
from servicekit.tls import credentials
from servicekit.tls.channel import TlsChannel
from tests.support.certificates import LOCAL_NAMES, Mount, certificates_of, days

SESSIONS = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
SERVING = health_pb2.HealthCheckResponse.SERVING


class Sessions(sessions_pb2_grpc.SessionsServiceServicer):
    """Answers with the client's organisation, as its certificate says; waits where the name is `wait`."""

    def __init__(self) -> None:
        self.called, self.go = asyncio.Event(), asyncio.Event()

    async def CreateSession(self, request: Any, context: Any) -> Any:
        if request.name == "wait":
            self.called.set()
            await self.go.wait()
        answer = sessions_pb2.CreateSessionResponse()
        answer.session.name = "nobody"
        for pem in context.auth_context().get("x509_pem_cert", ()):
            answer.session.name = organisation_of(x509.load_pem_x509_certificate(pem))
        return answer


def organisation_of(certificate: x509.Certificate) -> str:
    (found,) = certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)
    return str(found.value)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are looked at with every connection and every call."""
    monkeypatch.setattr(credentials, "CHECK_SECONDS", 0.0)


def settings(variables: dict[str, str]) -> ServiceSettings:
    chosen: dict[str, Any] = dict(variables)
    return ServiceSettings(_env_file=None, supabase_jwt_secret=SecretStr(JWT_SECRET), drain_seconds=1.0, **chosen)


@contextlib.asynccontextmanager
async def served(variables: dict[str, str], servicer: Sessions | None = None) -> AsyncIterator[int]:
    add = sessions_pb2_grpc.add_SessionsServiceServicer_to_server
    async with server.serving(settings(variables), [Registration(SESSIONS, add, servicer or Sessions())]) as port:
        yield port


@contextlib.asynccontextmanager
async def connected(port: int, variables: dict[str, str] | None = None, host: str = "127.0.0.1") -> AsyncIterator[Any]:
    async with channel.connect(f"{host}:{port}", SESSIONS, tls=certificates_of(variables or {})) as connection:
        yield sessions_pb2_grpc.SessionsServiceStub(connection)


async def seen(stub: Any, name: str = "") -> str:
    with acting_as(make_caller()):
        answer = await channel.call(stub.CreateSession, sessions_pb2.CreateSessionRequest(name=name))
    return str(answer.session.name)


async def refused(port: int, variables: dict[str, str] | None = None, host: str = "127.0.0.1") -> str:
    """Return why a client is not let in, as gRPC says it."""
    async with connected(port, variables, host) as stub:
        with pytest.raises(AppError) as caught:
            await seen(stub)
    assert caught.value.reason == "SERVICE_UNAVAILABLE"
    assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)
    return str(caught.value.__cause__.details())


async def shown_by(port: int, client: Mount | None = None) -> str:
    """Return the organisation of the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return organisation_of(x509.load_der_x509_certificate(found))


def only_authority(mount: Mount) -> dict[str, str]:
    return {"CONCERTO_TLS_CA_FILE": str(mount.authority)}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_calls_over_tls_are_answered(mount: Mount, host: str) -> None:
    async with served(mount.variables()) as port, connected(port, only_authority(mount), host) as stub:
        assert await seen(stub) == "nobody"


async def test_a_server_that_demands_certificates_knows_its_client(mount: Mount) -> None:
    variables = mount.variables(client_auth=True)
    async with served(variables) as port, connected(port, variables) as stub:
        assert await seen(stub) == "first"


async def test_calls_within_the_process_need_no_certificate(mount: Mount) -> None:
    variables = mount.variables(client_auth=True)
    async with served(variables), channel.connect(transport.TARGET, SESSIONS, tls=certificates_of(variables)) as within:
        assert await seen(sessions_pb2_grpc.SessionsServiceStub(within)) == "nobody"


async def test_a_list_of_addresses_is_checked_by_the_first(mount: Mount) -> None:
    async with served(mount.variables()) as port:
        target = f"ipv4:127.0.0.1:{port},127.0.0.1:{port}"
        async with channel.connect(target, SESSIONS, tls=certificates_of(only_authority(mount))) as connection:
            assert await seen(sessions_pb2_grpc.SessionsServiceStub(connection)) == "nobody"


async def test_a_plain_client_is_refused(mount: Mount) -> None:
    async with served(mount.variables()) as port:
        await refused(port)


async def test_a_client_with_tls_refuses_a_plain_server(mount: Mount) -> None:
    async with served({}) as port:
        await refused(port, only_authority(mount))


async def test_a_server_of_an_unknown_authority_is_refused(mount: Mount, tmp_path: Path) -> None:
    other = Mount(tmp_path / "other", trustme.CA())
    async with served(mount.variables()) as port:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(port, only_authority(other))


async def test_a_server_of_another_name_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    other = Mount(tmp_path / "other", authority, "auth.concerto.svc")
    async with served(other.variables()) as port:
        assert "auth.concerto.svc" not in await refused(port, only_authority(other))
        assert await refused(port, only_authority(other), "localhost")


async def test_a_server_whose_certificate_has_ended_is_refused(tmp_path: Path, authority: trustme.CA) -> None:
    ended = Mount(tmp_path / "ended", authority, not_after=days(-1))
    pair = (ended.key.read_bytes(), ended.certificate.read_bytes())
    bare = grpc.aio.server()
    port = bare.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    await bare.start()
    try:
        assert "CERTIFICATE_VERIFY_FAILED" in await refused(port, only_authority(ended))
    finally:
        await bare.stop(0)


async def test_clients_without_a_certificate_or_with_a_foreign_one_are_refused(mount: Mount, tmp_path: Path) -> None:
    foreign = Mount(tmp_path / "foreign", trustme.CA(), trusted=mount.authority.read_bytes())
    async with served(mount.variables(client_auth=True)) as port:
        await refused(port, only_authority(mount))
        await refused(port, foreign.variables())
        await refused(port)


async def test_a_client_whose_certificate_has_ended_is_refused(mount: Mount, authority: trustme.CA) -> None:
    async with served(mount.variables(client_auth=True)) as port:
        ended = authority.issue_cert(*LOCAL_NAMES, not_after=days(-1))
        credentials = grpc.ssl_channel_credentials(
            mount.authority.read_bytes(), ended.private_key_pem.bytes(), ended.cert_chain_pems[0].bytes()
        )
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as connection:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health_pb2_grpc.HealthStub(connection).Check(health_pb2.HealthCheckRequest())
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_versions_before_1_2_are_refused(mount: Mount) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    async with served(mount.variables()) as port:
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=context)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.transport.abort()


async def test_a_server_shows_a_renewed_certificate_to_new_connections_and_keeps_the_open_ones(
    mount: Mount, authority: trustme.CA, eager: None
) -> None:
    servicer = Sessions()
    async with served(mount.variables(), servicer) as port, connected(port, only_authority(mount)) as stub:
        running = asyncio.create_task(seen(stub, "wait"))
        await servicer.called.wait()
        assert await shown_by(port) == "first"
        with structlog.testing.capture_logs() as entries:
            mount.renew(authority, organization_name="second")
            assert await shown_by(port) == "second"
            assert await shown_by(port) == "second"
        assert [entry["event"] for entry in entries].count("tls.renewed") >= 1
        servicer.go.set()
        assert await running == "nobody"
        assert await seen(stub) == "nobody"


async def test_a_server_takes_the_clients_of_a_renewed_authority(mount: Mount, tmp_path: Path, eager: None) -> None:
    successor = trustme.CA()
    client = Mount(tmp_path / "client", successor, trusted=mount.authority.read_bytes(), organization_name="client")
    async with served(mount.variables(client_auth=True)) as port:
        await refused(port, client.variables())
        both = mount.authority.read_bytes() + successor.cert_pem.bytes()
        mount.renew(successor, trusted=both, organization_name="second")
        client.renew(successor, trusted=both, organization_name="client")
        async with connected(port, client.variables()) as stub:
            assert await seen(stub) == "client"


async def test_a_client_shows_a_renewed_certificate_and_calls_under_way_end_as_they_began(
    mount: Mount, authority: trustme.CA, tmp_path: Path, eager: None
) -> None:
    client = Mount(tmp_path / "client", authority, organization_name="before")
    servicer = Sessions()
    async with served(mount.variables(client_auth=True), servicer) as port, connected(port, client.variables()) as stub:
        assert await seen(stub) == "before"
        running = asyncio.create_task(seen(stub, "wait"))
        await servicer.called.wait()
        client.renew(authority, organization_name="after")
        assert await seen(stub) == "after"
        servicer.go.set()
        assert await running == "before"
        assert await seen(stub) == "after"


async def test_a_client_believes_a_renewed_authority(mount: Mount, tmp_path: Path, eager: None) -> None:
    successor = trustme.CA()
    client = Mount(tmp_path / "client", successor, trusted=mount.authority.read_bytes())
    async with served(mount.variables()) as port, connected(port, only_authority(client)) as stub:
        assert await seen(stub) == "nobody"
        client.renew(successor)
        mount.renew(successor)
        assert await seen(stub) == "nobody"
        assert await shown_by(port)
        mount.renew(trustme.CA())
        client.renew(successor)  # a new connection, to a server of an authority that nobody knows
        with pytest.raises(AppError, match="SERVICE_UNAVAILABLE"):
            await seen(stub)


async def test_closing_a_channel_ends_the_calls_on_all_of_its_connections(
    mount: Mount, authority: trustme.CA, eager: None
) -> None:
    servicer = Sessions()
    async with served(mount.variables(), servicer) as port:
        connection = channel.connect(f"127.0.0.1:{port}", SESSIONS, tls=certificates_of(mount.variables()))
        stub: Any = sessions_pb2_grpc.SessionsServiceStub(connection)
        running = asyncio.create_task(seen(stub, "wait"))
        await servicer.called.wait()
        mount.renew(authority)
        assert await seen(stub) == "nobody"
        await connection.close()
        with pytest.raises((AppError, asyncio.CancelledError)):
            await running


async def test_a_stream_goes_on_while_certificates_change(mount: Mount, authority: trustme.CA, eager: None) -> None:
    ready = True

    async def check() -> None:
        if not ready:
            raise AppError("DATABASE_UNAVAILABLE")

    add = sessions_pb2_grpc.add_SessionsServiceServicer_to_server
    variables = mount.variables(client_auth=True)
    part = Registration(SESSIONS, add, Sessions(), ready=check)
    async with (
        server.serving(settings(variables), [part]) as port,
        channel.connect(f"127.0.0.1:{port}", SESSIONS, tls=certificates_of(variables)) as connection,
    ):
        stub: Any = health_pb2_grpc.HealthStub(connection)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SESSIONS.full_name))
        while (await watch.read()).status != SERVING:
            pass
        for number in range(3):
            mount.renew(authority, organization_name=f"number {number}")
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
        # The connections between the first and the last one had no call left, and are closed.
        assert isinstance(connection, TlsChannel)
        assert connection.retired == 1
        ready = False
        assert (await watch.read()).status != SERVING
        watch.cancel()


async def test_files_that_cannot_be_used_leave_what_was_in_use_and_are_told_once(
    mount: Mount, authority: trustme.CA, eager: None
) -> None:
    whole = mount.certificate.read_bytes()
    async with served(mount.variables()) as port:
        with structlog.testing.capture_logs() as entries:
            mount.certificate.resolve().write_bytes(whole[: len(whole) // 2])
            for _ in range(4):
                assert await shown_by(port) == "first"
        (warning,) = [entry for entry in entries if entry["event"] == "tls.not_renewed"]
        assert warning["log_level"] == "warning"
        assert "holds no whole PEM certificate" in warning["reason"]
        leaf = authority.issue_cert(*LOCAL_NAMES, organization_name="second")
        with structlog.testing.capture_logs() as entries:
            mount.certificate.resolve().write_bytes(leaf.cert_chain_pems[0].bytes())
            assert await shown_by(port) == "first"  # the key is still the old one
            mount.key.resolve().write_bytes(leaf.private_key_pem.bytes())
            assert await shown_by(port) == "second"
        assert [entry["event"] for entry in entries] == ["tls.renewed"]


async def test_a_client_keeps_its_connection_while_files_are_missing(mount: Mount, eager: None) -> None:
    async with served(mount.variables()) as port, connected(port, only_authority(mount)) as stub:
        mount.authority.unlink()
        assert await seen(stub) == "nobody"


async def test_the_files_are_not_looked_at_more_often_than_said(
    mount: Mount, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = certificates_of(mount.variables())
    mount.renew(authority)
    assert certificates.current_version() == 0
    monkeypatch.setattr(credentials, "CHECK_SECONDS", 0.0)
    assert certificates.current_version() == 1


@pytest.mark.parametrize("mode", ["off", "tls", "mutual"])
async def test_the_first_log_entry_says_how_a_server_listens(mount: Mount, mode: str) -> None:
    variables = {} if mode == "off" else mount.variables(client_auth=mode == "mutual")

    @contextlib.asynccontextmanager
    async def build(_: ServiceSettings) -> AsyncIterator[list[Registration]]:
        yield []

    started, stop = asyncio.Event(), asyncio.Event()
    stop.set()
    with structlog.testing.capture_logs() as entries:
        await server.serve(settings(variables), build, started=started, stop=stop)
    entry = next(entry for entry in entries if entry["event"] == "server.started")
    assert entry["tls"] == mode
    assert entry.get("certificate_ends_at", "")[:4] == ("" if mode == "off" else "3000")
