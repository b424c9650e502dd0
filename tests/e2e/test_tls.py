import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme
from concerto.sessions.v1 import sessions_pb2, sessions_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from local.suite.processes import PARTS, SERVICES
from servicekit.rpc import channel
from tests.e2e.conftest import Start, until_ready
from tests.support.api import Person, text_of
from tests.support.certificates import Mount, certificates_of
from tests.support.measured import Note
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import RunningStack
from tests.support.waiting import until

SESSIONS = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
TEXT = " ".join(f"word{index}" for index in range(100))

pytestmark = pytest.mark.own_mode


def log_of(suite: RunningStack, name: str) -> str:
    return (suite.home / "logs" / f"{name}.log").read_text(errors="replace")


async def health_at(suite: RunningStack, port_name: str, variables: dict[str, str]) -> Any:
    target = f"127.0.0.1:{suite.env[port_name]}"
    async with channel.connect(target, SESSIONS, tls=certificates_of(variables)) as connection:
        return await health_pb2_grpc.HealthStub(connection).Check(health_pb2.HealthCheckRequest(), timeout=10)


async def is_refused(suite: RunningStack, port_name: str, variables: dict[str, str]) -> bool:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health_at(suite, port_name, variables)
    return caught.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.fixture
async def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def mount(tmp_path: Path, authority: trustme.CA) -> Mount:
    """The files that all processes of the suite use."""
    return Mount(tmp_path / "tls", authority)


@pytest.fixture
async def suite(start: Start, mount: Mount) -> RunningStack:
    """A suite of separate processes that speak mutual TLS."""
    return await start(mode="processes", **mount.variables(client_auth=True))


@pytest.fixture
async def client(suite: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=suite.gateway_url, timeout=30) as opened:
        yield opened


async def test_a_turn_streams_through_processes_that_speak_mutual_tls(
    suite: RunningStack,
    client: httpx.AsyncClient,
    model: ModelServer,
    mount: Mount,
    authority: trustme.CA,
    tmp_path: Path,
    note: Note,
) -> None:
    await until_ready(client)
    person = await Person.sign_up(client)
    session = await person.create_session()

    async def turn(*, renew: bool = False) -> str:
        model.script(Behaviour(text=TEXT, delay_seconds=0.02))
        events = []
        async for event in person.turn(session["id"], "Count, please."):
            events.append(event)
            if renew and len(events) == 5:
                mount.renew(authority, organization_name="renewed")
        assert events[-1].data == {"state": "SUCCEEDED"}
        return text_of(events)

    assert await turn() == TEXT
    for name in SERVICES:
        assert "tls=mutual" in next(line for line in log_of(suite, name).splitlines() if "server.started" in line)
    assert "tls_to_services=mutual" in log_of(suite, "gateway")

    # Nobody else gets in.
    stranger = Mount(tmp_path / "stranger", trustme.CA(), trusted=mount.authority.read_bytes())
    authority_alone = {"CONCERTO_TLS_CA_FILE": str(mount.authority)}
    for port in ("AUTH_PORT", "SESSIONS_PORT", "ORCHESTRATOR_PORT"):
        assert await is_refused(suite, port, {})
        assert await is_refused(suite, port, authority_alone)
        assert await is_refused(suite, port, stranger.variables())
        assert (await health_at(suite, port, mount.variables())).status == health_pb2.HealthCheckResponse.SERVING

    # Renewed in the middle of an answer: it loses nothing, and what begins then uses the new files.
    began = time.monotonic()
    assert await turn(renew=True) == TEXT
    assert await turn() == TEXT
    assert (await person.call("GET", "/auth/me")).is_success
    for name in PARTS:
        assert "tls.renewed" in log_of(suite, name), name
    took = time.monotonic() - began

    # A service that is started again is seen to be ready, and found again, over TLS.
    old = suite.process("sessions")
    os.kill(old, signal.SIGKILL)

    async def replaced() -> bool:
        return suite.process("sessions") != old and "sessions is back" in suite.output

    await until(replaced, "the restart of sessions")
    await until_ready(client)
    assert await turn() == TEXT
    for name in PARTS:
        assert "Traceback" not in log_of(suite, name), name
        assert "PRIVATE KEY" not in log_of(suite, name), name
    note(
        "mutual TLS between 4 processes: 4 answers streamed whole (one over a renewal and one after it, "
        f"{took:.1f} s), 9 connections of strangers refused, a killed service found again"
    )


async def test_an_authority_is_replaced_step_by_step_without_a_restart(
    suite: RunningStack, client: httpx.AsyncClient, mount: Mount, authority: trustme.CA
) -> None:
    await until_ready(client)
    person = await Person.sign_up(client)
    pids = {name: suite.process(name) for name in PARTS}
    successor = trustme.CA()
    both = authority.cert_pem.bytes() + successor.cert_pem.bytes()
    steps = ({"trusted": both}, {"trusted": both}, {"trusted": successor.cert_pem.bytes()})
    for signer, step in zip((authority, successor, successor), steps, strict=True):
        mount.renew(signer, **step)
        for _ in range(3):
            await person.create_session()
            await asyncio.sleep(0.6)  # all processes have looked at their files
    assert await is_refused(suite, "SESSIONS_PORT", {"CONCERTO_TLS_CA_FILE": str(mount.authority)})
    assert (await health_at(suite, "SESSIONS_PORT", mount.variables())).status
    assert {name: suite.process(name) for name in PARTS} == pids


async def test_the_services_of_the_one_process_listen_with_tls_too(start: Start, mount: Mount) -> None:
    suite = await start(mode="one-process", **mount.variables(client_auth=True))
    async with httpx.AsyncClient(base_url=suite.gateway_url, timeout=30) as opened:
        person = await Person.sign_up(opened)
        session = await person.create_session()
        assert [event async for event in person.turn(session["id"], "Hello")][-1].data == {"state": "SUCCEEDED"}
    assert await is_refused(suite, "SESSIONS_PORT", {})
    target = f"127.0.0.1:{suite.env['SESSIONS_PORT']}"
    async with channel.connect(target, SESSIONS, tls=certificates_of(suite.env)) as connection:
        stub: Any = sessions_pb2_grpc.SessionsServiceStub(connection)
        metadata = [("authorization", f"Bearer {person.tokens['access_token']}")]
        answer = await stub.GetSession(sessions_pb2.GetSessionRequest(session_id=session["id"]), metadata=metadata)
    assert answer.session.id == session["id"]


async def test_certificates_that_cannot_be_used_end_the_start_with_what_to_do(start: Start, mount: Mount) -> None:
    mount.key.unlink()
    mount.key.write_text("no key")
    with pytest.raises(RuntimeError, match=r"CONCERTO_TLS_KEY_FILE: .* holds no whole PEM private key"):
        await start(mode="processes", **mount.variables())
