"""Builds the images and runs the compose file with podman: what comes up is measured, inspected and put to the tests.

    python -m deploy.containers [--images] [--keep]

--images: only build the images, which stay for the next run.
--keep: leave everything running and say how to reach it; the next run takes it away.
"""

import json
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy import bases, local_env, tools
from deploy.machine import FOLDER, Machine, NoPodmanError, PodmanError
from deploy.tools import ROOT, ToolError
from local.console import Console
from servicekit import parts

PROJECT = "concerto-test"
PARTS = tuple(part.name for part in parts.PARTS)
EMBEDDED = "supabase"
MOST_MEGABYTES = 250
HEALTHY_SECONDS = 240
BUILDS_AT_ONCE = 2
# Of the tests of the running suite, those that reach it as everybody does. The others look into its processes, logs and
# database, kill its parts, or start suites of their own.
THROUGH_THE_GATEWAY = (
    "tests/e2e/test_readme.py",
    "tests/integration/test_access.py",
    "tests/integration/test_agents.py::test_agents_and_models_are_listed_over_rest",
    "tests/integration/test_agents.py::test_offline_a_turn_may_name_any_agent_that_exists",
    "tests/integration/test_gateway_bad_input.py",
    "tests/integration/test_gateway_runs.py",
    "tests/integration/test_gateway_schemathesis.py",
    "tests/integration/test_openai_clients.py",
    "tests/integration/test_web_export.py",
)
# One reads logs; one counts on answers that last while others begin, which they need not on a machine that is busy.
DESELECTED = (
    "tests/integration/test_openai_clients.py::test_nothing_that_was_said_is_in_any_log",
    "tests/integration/test_gateway_runs.py::test_too_many_runs_are_told_how_long_to_wait",
)
MODEL = {"OPENAI_BASE_URL": "http://model:9999/v1", "CONCERTO_MODEL": "test-model", "CONCERTO_TITLE_MODEL": "off"}
WITH_A_MODEL = "deploy/tests/test_conversation.py"
# What each container says of itself: who it is, what it may do, and what it lacks.
INSPECT = """
import importlib.util, json, os, pathlib, shutil
status = dict(line.split(":", 1) for line in pathlib.Path("/proc/1/status").read_text().splitlines())
def writable(folder):
    try:
        path = pathlib.Path(folder, "probe"); path.write_text("x"); path.unlink()
        return True
    except OSError:
        return False
print(json.dumps({
    "uids": status["Uid"].split(), "bounding": status["CapBnd"].strip(), "effective": status["CapEff"].strip(),
    "no_new_privileges": status["NoNewPrivs"].strip(), "root_is_writable": writable("/app") or writable("/var"),
    "tmp_is_writable": writable("/tmp"), "pip": importlib.util.find_spec("pip") is not None,
    "builders": [name for name in ("pip", "uv", "npm", "gcc", "make") if shutil.which(name)],
    "variables": sorted(os.environ),
}))
"""
# Whom the embedded database lets in from another container.
LOG_IN = """
import asyncio, asyncpg, sys
async def main():
    try:
        await asyncpg.connect(f"postgresql://{sys.argv[1]}:guess@supabase:8002/postgres?sslmode=disable")
    except asyncpg.PostgresError as error:
        print(error.sqlstate)
asyncio.run(main())
"""
REFUSED_BY_RULE, REFUSED_BY_PASSWORD = "28000", "28P01"
EXPECTED = {
    "uids": ["10001"] * 4, "bounding": "0" * 16, "effective": "0" * 16, "no_new_privileges": "1",
    "root_is_writable": False, "tmp_is_writable": True, "pip": False, "builders": [],
}  # fmt: skip
# Which container may know which secret.
SECRETS = {
    "SUPABASE_DB_URL": {part.name for part in parts.PARTS if part.database},
    "SUPABASE_LISTEN_DB_URL": {part.name for part in parts.PARTS if part.database and part.database.listeners},
    "SUPABASE_JWT_SECRET": set(PARTS),
    **{
        secret.variable: {one.name for one in parts.PARTS if secret in one.secrets}
        for part in parts.PARTS
        for secret in part.secrets
    },
    "CONCERTO_EMBEDDED_LOGIN_PASSWORD": {EMBEDDED},
    "CONCERTO_EMBEDDED_JWT_SECRET": {EMBEDDED},
    "CONCERTO_EMBEDDED_FORWARDING_KEY": {EMBEDDED},
    "AUTH_FORWARDING_KEY": {"auth"},
}


class ContainerError(Exception):
    """Something of what was asked does not hold. The message says what."""


def main(arguments: list[str]) -> int:
    """Do all of it; print each step. Returns the exit code: 0 also where podman cannot be had, which is said."""
    console = Console()
    try:
        if tools.ensure():
            console.line("  tools installed from deploy/requirements.lock")
        with Machine.opened(console) as machine:
            images(machine, console)
            if "--images" in arguments:
                return 0
            project = Project(machine, console)
            project.run()
            if "--keep" in arguments:
                input(f"Everything runs; {project.file} holds the addresses. Press Enter to take it away. ")
    except NoPodmanError as error:
        console.line(f"Containers are not tested on this machine: {error}.")
        return 0
    except (ContainerError, PodmanError, ToolError) as error:
        console.problem(str(error))
        return 1
    console.line("The compose project came up, passed its tests and is gone again.")
    return 0


def images(machine: Machine, console: Console) -> None:
    """Build every image and print its size. Raises ContainerError when one of a service is too large."""
    bases.ensure(machine, console, packages=Path(sysconfig.get_path("purelib")))

    def build(name: str) -> None:
        with console.step(f"image {name}"):
            machine.podman(
                *("build", "--pull=never", "--format=docker", "--layers", "--build-arg", f"SERVICE={name}"),
                *("--tag", f"concerto-{name}:dev", "."),
            )

    # The gateway first: old builders also build what an image does not need, and all of it is its own. What the others
    # share with it is made by then.
    first, *others = (*reversed(PARTS), EMBEDDED)
    build(first)
    with ThreadPoolExecutor(BUILDS_AT_ONCE) as pool:
        list(pool.map(build, others))
    too_large = []
    base = _megabytes(machine, bases.PYTHON)
    for name in (*PARTS, EMBEDDED):
        size = _megabytes(machine, f"concerto-{name}:dev")
        limit = f"of {MOST_MEGABYTES}" if name != EMBEDDED else "without a limit: Postgres, Node and the Supabase CLI"
        console.line(f"  size of {name:<13} {size:>5.0f} MB {limit} ({base:.0f} of them the base)")
        if name != EMBEDDED and size > MOST_MEGABYTES:
            too_large.append(name)
    if too_large:
        raise ContainerError(f"Larger than {MOST_MEGABYTES} MB: {', '.join(too_large)}. Does an image hold tools?")


def _megabytes(machine: Machine, image: str) -> float:
    return int(machine.podman("image", "inspect", "--format", "{{.Size}}", image)) / 1e6


class Project:
    """The compose project with its profile `local`, on free ports."""

    def __init__(self, machine: Machine, console: Console) -> None:
        self._machine = machine
        self._console = console
        self.file = FOLDER / "test.env"
        self._gateway, self._supabase = (f"127.0.0.1:{port}" for port in _free_ports(2))
        # The tests' people all sign in from one address.
        limits = {f"GATEWAY_LOGIN_LIMIT_PER_{name}": "100000/minute" for name in ("EMAIL", "ACCOUNT", "ADDRESS")}
        made = dict(
            line.split("=", 1)
            for line in local_env.text(public_url=f"http://{self._supabase}").splitlines()
            if not line.startswith("#")
        )
        self.variables = {
            **made,
            **limits,
            "GATEWAY_PUBLIC_URL": f"http://{self._gateway}",
            "CONCERTO_PUBLISH": self._gateway,
            "CONCERTO_EMBEDDED_PUBLISH": self._supabase,
            "COMPOSE_PROFILES": "local",
            "CONCERTO_ENV_FILE": "/dev/null",
        }
        self.file.unlink(missing_ok=True)
        local_env.write(self.file, "".join(f"{name}={value}\n" for name, value in self.variables.items()))

    def run(self) -> None:
        """Bring it up, look at it, test it, test it with a model, and once more after everything was stopped."""
        try:
            self._refuse_without_settings()
            self._up()
            self._inspect()
            self._test(
                "tests through the gateway", *THROUGH_THE_GATEWAY, *(f"--deselect={name}" for name in DESELECTED)
            )
            self._down()
            self._up(model=True)
            self._test("a conversation", WITH_A_MODEL, "-k", "not after_a_restart")
            self._down()
            self._up(model=True)
            self._test("the same conversation after a restart", WITH_A_MODEL, "-k", "after_a_restart")
            with self._console.step("stopped on SIGTERM in order"):
                self._stop_in_order()
        except (ContainerError, PodmanError):
            self._show_logs()
            raise

    def _refuse_without_settings(self) -> None:
        done = subprocess.run(
            [tools.program("podman-compose"), "--env-file", "/dev/null", "-f", "docker-compose.yml", "config"],
            cwd=ROOT, env=self._machine.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        output = done.stdout + done.stderr
        if done.returncode == 0 or "SUPABASE_URL" not in output:
            raise ContainerError(f"Without settings the compose file should be refused by name:\n{output[-500:]}")
        self._console.line("  without settings the compose file is refused: set SUPABASE_URL")

    def _up(self, *, model: bool = False) -> None:
        # podman-compose starts in order, but podman without systemd asks no container how it is; so it is asked here.
        for names in (
            (EMBEDDED, *(("model",) if model else ())),
            *((part.name,) for part in parts.PARTS),
        ):
            with self._console.step(f"up: {', '.join(names)}"):
                self._compose("up", "-d", "--no-build", *names, model=model)
                for name in names:
                    if name != "model":
                        self._wait(name)
        self._wait_for_gateway()

    def _down(self) -> None:
        with self._console.step("everything stopped and removed, but for the data"):
            self._compose("down", model=True)

    def _compose(self, *arguments: str, model: bool = False) -> None:
        files = ["docker-compose.yml", *(["deploy/compose.model.yml"] if model else [])]
        self._machine.run(
            tools.program("podman-compose"), "--env-file", str(self.file), "-p", PROJECT, "--profile", "local",
            *(word for file in files for word in ("-f", file)), *arguments,
            extra={**self.variables, **(MODEL if model else {})},
        )  # fmt: skip

    def _wait(self, name: str) -> None:
        container, deadline, output = self._container(name), time.monotonic() + HEALTHY_SECONDS, ""
        while time.monotonic() < deadline:
            is_healthy, output = self._machine.is_healthy(container)
            if is_healthy:
                return
            state = self._machine.podman("inspect", "--format", "{{.State.Status}}", container, check=False).strip()
            if state in ("exited", "stopped"):
                raise ContainerError(f"{name} has stopped instead of becoming healthy.")
            time.sleep(0.5)
        raise ContainerError(f"{name} is not healthy after {HEALTHY_SECONDS} s: {output}")

    def _wait_for_gateway(self) -> None:
        deadline, output = time.monotonic() + HEALTHY_SECONDS, ""
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://{self._gateway}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except urllib.error.HTTPError as error:
                output = error.read().decode(errors="replace")
            except OSError as error:
                output = str(error)
            time.sleep(0.3)
        raise ContainerError(f"The gateway is not ready after {HEALTHY_SECONDS} s: {output}")

    def _inspect(self) -> None:
        """Compare what each container is and may do with what it should. Raises ContainerError."""
        for name in (*PARTS, EMBEDDED):
            found = json.loads(self._machine.podman("exec", self._container(name), "python", "-c", INSPECT))
            variables = set(found.pop("variables"))
            wrong = {key: value for key, value in found.items() if value != EXPECTED[key]}
            if wrong:
                raise ContainerError(f"{name} should be {EXPECTED}, but it has {wrong}.")
            leaked = [secret for secret, owners in SECRETS.items() if secret in variables and name not in owners]
            if leaked:
                raise ContainerError(f"{name} knows {', '.join(leaked)}, which is not its affair.")
        roles = {"supabase_admin": REFUSED_BY_RULE, "postgres": REFUSED_BY_RULE, "concerto_login": REFUSED_BY_PASSWORD}
        for role, code in roles.items():
            output = self._machine.podman("exec", self._container("sessions"), "python", "-c", LOG_IN, role).strip()
            if output != code:
                raise ContainerError(f"{role} should be refused with {code} by the embedded database, not {output!r}.")
        self._console.line(
            "  each container: account 10001, read-only root, no capabilities, no new privileges, no installers, "
            "no one else's secrets"
        )
        listening = self._machine.podman("ps", "--format", "{{.Names}} {{.Ports}}").splitlines()
        published = sorted(line.split()[0] for line in listening if "->" in line)
        if published != sorted((self._container("gateway"), self._container(EMBEDDED))):
            raise ContainerError(f"Published should be the gateway and the embedded Supabase alone: {listening}")

    def _test(self, label: str, *arguments: str) -> None:
        # Shown as it runs: it takes a minute.
        self._console.line(f"  {label}:")
        command = [
            *(sys.executable, "-m", "pytest", f"--running={self.file}", "-m", "not own_mode"),
            *("-q", "--no-header", "-p", "no:cacheprovider", *arguments),
        ]
        environment = {**self._machine.environment, "CONCERTO_ENV_FILE": "/dev/null"}
        if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode != 0:
            raise ContainerError(f"{label} failed against the containers.")

    def _stop_in_order(self) -> None:
        for name in (*reversed(PARTS), EMBEDDED):
            container = self._container(name)
            self._machine.podman("stop", "--time", "60", container)
            code = self._machine.podman("inspect", "--format", "{{.State.ExitCode}}", container).strip()
            if code != "0":
                raise ContainerError(f"{name} ended with exit code {code} instead of 0 when it was asked to stop.")

    def _show_logs(self) -> None:
        for name in (EMBEDDED, *PARTS):
            lines = self._machine.run(
                *("sh", "-c", 'podman logs --tail 15 "$1" 2>&1', "-", self._container(name)), check=False
            ).strip()
            self._console.line(f"  -- {name}\n{lines}")

    def _container(self, name: str) -> str:
        return f"{PROJECT}_{name}_1"


def _free_ports(count: int) -> list[int]:
    opened = [socket.socket() for _ in range(count)]
    try:
        for each in opened:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in opened]
    finally:
        for each in opened:
            each.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
