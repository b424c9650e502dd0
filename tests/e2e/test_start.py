"""A suite that is started where much is set for other programs, and the command that starts it."""

import subprocess
from pathlib import Path

import httpx
import pytest

from local.setup.bootstrap import LAUNCHER
from tests.e2e.conftest import Start
from tests.support.api import Person, ok, text_of
from tests.support.model_server import ModelServer
from tests.support.suites import free_base_port, stack_environment
from tests.support.waiting import until

# Whatever a stranger's machine may hold, all at once: each has kept a program of the suite from starting, or is of the
# family of one that has.
OTHER_PROGRAMS = {
    # libpq
    "PGSSLMODE": "verify-full",
    "PGSERVICE": "nowhere",
    "PGSSLROOTCERT": "/nonexistent",
    "PGHOST": "pg.invalid",
    "PGTARGETSESSIONATTRS": "nonsense",
    "PGPORT": "x",
    "PGGSSLIB": "nonsense",
    "PGSSLNEGOTIATION": "nonsense",
    "PGUSER": "x",
    "PGPASSWORD": "x",
    "PGPASSFILE": "/nonexistent",
    "PGOPTIONS": "-c nonsense=1",
    # Proxies that do not answer, or that none of our libraries knows
    "ALL_PROXY": "socks5h://me:hidden@127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "OPENAI_PROXY": "socks5://x",
    "grpc_proxy": "http://127.0.0.1:9",
    "GRPC_PROXY": "x",
    "NO_PROXY": "::1,[::1],10.0.0.0/8,fe80::/10",
    # Python and Node
    "PYTHONHOME": "/nonexistent",
    "PYTHONSTARTUP": "/nonexistent",
    "PYTHONWARNINGS": "error",
    "PYTHONSAFEPATH": "1",
    "NODE_OPTIONS": "--require /nonexistent",
    "NODE_ENV": "production",
    "NODE_PATH": "/nonexistent",
    # Files and folders that are not there
    "SSL_CERT_FILE": "/nonexistent",
    "SSL_CERT_DIR": "/nonexistent",
    "REQUESTS_CA_BUNDLE": "/nonexistent",
    "TMPDIR": "/nonexistent",
    "SSLKEYLOGFILE": "/nonexistent/keys",
    "NODE_EXTRA_CA_CERTS": "/nonexistent",
    # Languages and times that the machine does not know
    "LANG": "C",
    "LC_ALL": "xx_XX.ISO-8859-1",
    "TZ": "Nowhere/Nothing",
    # Names that are somebody else's as well
    "LOG_LEVEL": "verbose",
    "ENVIRONMENT": "staging",
    "HOST": "x",
    "PORT": "-1",
    "MODEL": "x",
    "bcrypt_cost": "x",
    "WEB_CONCURRENCY": "7",
    "FORWARDED_ALLOW_IPS": "x",
    "DATABASE_URL": "x",
    "GIT_DIR": "/nonexistent",
    "OPENAI_ORG_ID": "x",
    "OPENAI_LOG": "x",
    "LANGCHAIN_TRACING_V2": "true",
    "LANGSMITH_API_KEY": "x",
    "OTEL_PROPAGATORS": "nonsense",
    "OTEL_TRACES_SAMPLER": "nonsense",
    "OTEL_EXPORTER_OTLP_COMPRESSION": "nonsense",
}


async def test_variables_of_other_programs_never_stop_a_start(start: Start, model: ModelServer, tmp_path: Path) -> None:
    shadows = tmp_path / "shadows"
    for package in ("local", "servicekit", "gateway", "services", "concerto", "pydantic", "typer"):
        (shadows / package).mkdir(parents=True)
        (shadows / package / "__init__.py").write_text("raise SystemExit('a package of another program')\n")
    # And nothing is said of the model but where it is, as the README has it for a server of one's own.
    running = await start(**OTHER_PROGRAMS, PYTHONPATH=str(shadows), CONCERTO_MODEL="")
    async with httpx.AsyncClient(base_url=running.gateway_url, timeout=30, trust_env=False) as client:
        person = await Person.sign_up(client)
        session = await person.create_session()
        events = [event async for event in person.turn(session["id"], "Hello")]
        assert text_of(events)
        assert [body["model"] for body in model.chats] == ["test-model"]
        models = ok(await person.call("GET", "/models"))["models"]
        assert [(one["name"], one["is_default"]) for one in models] == [("test-model", True)]
        assert ok(await client.get("/readyz"))["status"] == "serving"
    for name in ("ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        assert len([line for line in running.output.splitlines() if line.strip().startswith(f"{name} names ")]) == 1
    await until(lambda: "Concerto is ready" in running.output, "the banner")
    assert f"|  Model     test-model at {model.base_url} " in running.output
    logs = "".join(file.read_text() for file in (running.home / "logs").iterdir())
    assert "hidden" not in running.output + logs
    assert running.command("status").returncode == 0


REFUSED = [
    (
        "up",
        {"GATEWAY_PUBLIC_URL": "https://example.com/concerto/"},
        b"",
        "GATEWAY_PUBLIC_URL: must be the root of",
    ),
    ("up", {}, "OPENAI_API_KEY=k\n".encode("utf-16"), ".env, line 1: the file is in UTF-16. Save the file as UTF-8."),
    ("status", {}, "A=b\nC=ü\n".encode("latin-1"), ".env, line 2: this is no text in UTF-8, perhaps Latin-1."),
    ("doctor", {}, "A=b\nC=ü\n".encode("latin-1"), ".env, line 2: this is no text in UTF-8, perhaps Latin-1."),
]


@pytest.mark.parametrize(("command", "variables", "content", "sentence"), REFUSED)
def test_what_cannot_be_started_is_said_in_one_sentence(
    tmp_path: Path, command: str, variables: dict[str, str], content: bytes, sentence: str
) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    environment = stack_environment(tmp_path / "home", free_base_port(), **variables, CONCERTO_ENV_FILE=str(file))
    done = subprocess.run([str(LAUNCHER), command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    shown = [line for line in (done.stdout + done.stderr).splitlines() if sentence in line]
    assert len(shown) == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "home").exists()
