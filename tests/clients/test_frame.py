"""The frame of the suite of clients: whatever a client does but work fails."""

from pathlib import Path

import pytest

from tests.clients.environments import Client, clients
from tests.clients.running import Feature, run

REPORT = "import json\nprint('noise')\nprint(json.dumps({'feature': 'chat', 'failure': %r}))\n"


def client_that(folder: Path, program: str) -> Client:
    source = folder / "source" / "a-client"
    source.mkdir(parents=True)
    (source / "client.py").write_text(program)
    return Client.at(source, below=folder / "installed")


async def test_features_are_read_from_what_a_program_prints(tmp_path: Path) -> None:
    assert await run(client_that(tmp_path, REPORT % None), {}) == [Feature("chat", None)]


@pytest.mark.parametrize(
    ("program", "name", "failure"),
    [
        (REPORT % "no answer", "chat", "no answer"),
        (REPORT % None + "raise SystemExit('boom')", "ends well", "boom"),
        ("print('nothing of note')", "says anything", "no feature"),
        ("import no_such_package", "ends well", "no_such_package"),
        ("from features import feature, run\n@feature('x')\ndef _(): raise ValueError('why')\nrun()", "x", "why"),
    ],
)
async def test_what_fails_is_a_feature_that_failed(tmp_path: Path, program: str, name: str, failure: str) -> None:
    last = (await run(client_that(tmp_path, program), {}))[-1]
    assert last.name == name
    assert failure in (last.failure or "")


async def test_a_program_that_never_ends_is_ended(tmp_path: Path) -> None:
    program = "import threading\nthreading.Event().wait()"
    [feature] = await run(client_that(tmp_path, program), {}, seconds=0.1)
    assert feature.name == "ends"
    assert feature.failure is not None


async def test_a_lock_that_cannot_be_installed_is_a_failure(tmp_path: Path) -> None:
    client = client_that(tmp_path, REPORT % None)
    (client.source / "requirements.lock").write_text("no-hash==1.0\n")
    [feature] = await run(client, {})
    assert feature.name == "installation"
    assert "hash" in (feature.failure or "")


def test_every_client_is_found_and_names_what_it_is() -> None:
    found = clients()
    assert {"openai-python", "openai-node"} <= {client.name for client in found}
    assert [client.name for client in found if not client.versions()] == []
