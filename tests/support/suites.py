"""Starts the suite for tests, on free ports and in a folder of its own, and gives them what they need to reach it."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, cast

import jwt
import pytest
from dotenv import dotenv_values

from local.cli import exported_variables
from local.embedded.credentials import Credentials, credentials_file, read_credentials
from local.embedded.postgres import SUPERUSER, Postgres
from local.files import make_private_folder, write_private
from local.settings import PORT_NAMES, ROOT, load_settings
from local.setup.bootstrap import LAUNCHER
from local.suite.processes import PARTS, WHOLE, Mode, replicas_of
from servicekit.rpc.identity import Caller
from servicekit.testing import caller_of, claims_of

START_SECONDS = 240
STOP_SECONDS = 60
PORTS = len(PORT_NAMES)
OF_A_PROJECT = ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_DB_URL", "SUPABASE_JWT_SECRET")
"""What the services are told of a hosted project; how to administer it is for tests alone."""
EMBEDDED_LIMITS = {
    **dict.fromkeys((f"CONCERTO_EMBEDDED_{kind}_LIMIT" for kind in ("SIGN_IN", "CODE", "REFRESH")), "1000000"),
    "CONCERTO_EMBEDDED_MAIL_SECONDS": "0",
}
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class RunningStack:
    """The suite as the tests see it. `env` is what `concerto env --admin` prints, by name.

    replicas: processes of each of our parts.
    """

    home: Path
    base_port: int
    mode: Mode
    replicas: int
    env: dict[str, str] = field(repr=False)
    supervisor: "subprocess.Popen[bytes]" = field(repr=False)
    variables: dict[str, str] = field(default_factory=dict, repr=False)
    """What it was started with beside its ports and its folder."""

    @property
    def gateway_url(self) -> str:
        """Where the gateway answers."""
        return self.env["GATEWAY_PUBLIC_URL"]

    @property
    def supabase_url(self) -> str:
        """Where the embedded Supabase answers."""
        return self.env["SUPABASE_URL"]

    @property
    def publishable_key(self) -> str:
        """The API key of everybody."""
        return self.env["SUPABASE_PUBLISHABLE_KEY"]

    @property
    def secret_key(self) -> str:
        """The API key that passes row level security."""
        return self.env["SUPABASE_SECRET_KEY"]

    @property
    def jwt_secret(self) -> str:
        """The secret of tokens signed with HS256. Skips the test where keys alone sign, as in new hosted projects."""
        if "SUPABASE_JWT_SECRET" not in self.env:
            pytest.skip("only the project itself can sign: give SUPABASE_SIGNING_KEY or SUPABASE_JWT_SECRET")
        return self.env["SUPABASE_JWT_SECRET"]

    @property
    def signing_key(self) -> str | None:
        """The private key (ES256, a JSON Web Key) that signs access tokens; None where the secret does.

        A hosted project shows its own to nobody; one that was imported there can be given as SUPABASE_SIGNING_KEY.
        """
        given = self.env.get("SUPABASE_SIGNING_KEY")
        is_other = self.variables.get("CONCERTO_EMBEDDED_SIGNING") == "HS256" or "SUPABASE_URL" in self.variables
        if given or is_other or not credentials_file(self.home).exists():
            return given
        return read_credentials(self.home).signing_key

    def mint_token(self, user_id: str | None = None, *, expires_in: float = 3600, **claims: Any) -> str:
        """Return an access token of no sign-in, signed as the suite's own are. `claims` replace or add claims."""
        return self.sign(claims_of(user_id, expires_in=expires_in, iss=f"{self.supabase_url}/auth/v1") | claims)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return an access token with these claims, whatever they are. Skips the test where nobody else can sign."""
        content = json.dumps(claims).encode()
        if self.signing_key is None:
            return jwt.PyJWS().encode(content, self.jwt_secret, algorithm="HS256")
        key = jwt.PyJWK.from_json(self.signing_key)
        return jwt.PyJWS().encode(content, key.key, algorithm="ES256", headers={"kid": key.key_id})

    def caller(self, user_id: str | None = None, *, expires_in: float = 3600) -> Caller:
        """Return a caller with such a token."""
        return caller_of(self.mint_token(user_id, expires_in=expires_in))

    @property
    def db_url(self) -> str:
        """As the role that the services log in with."""
        return self.env["SUPABASE_DB_URL"]

    @property
    def admin_db_url(self) -> str:
        """As the superuser."""
        return self.env["SUPABASE_ADMIN_DB_URL"]

    @property
    def migration_db_url(self) -> str:
        """As the role that owns the tables."""
        return self.env["SUPABASE_MIGRATION_DB_URL"]

    @property
    def output(self) -> str:
        """What `concerto up` has printed so far."""
        return (self.home.parent / "up.out").read_text(errors="replace")

    def state(self) -> dict[str, object]:
        """The content of run/state.json; empty while there is none."""
        try:
            return dict(json.loads((self.home / "run" / "state.json").read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def process(self, name: str) -> int:
        """The process id of one part of the suite, as it is now; of a part of the one process, that process's.

        Of several replicas, the first one's; `sessions-2` is the second.
        """
        processes = self.processes()
        pid: int = processes[WHOLE if WHOLE in processes and name in PARTS else name]["pid"]
        return pid

    def processes(self) -> dict[str, dict[str, int]]:
        """What run/state.json says of each process that runs, by its name."""
        return dict(json.loads((self.home / "run" / "state.json").read_text())["processes"])

    @property
    def own_processes(self) -> tuple[str, ...]:
        """The names of the whole suite's processes that are ours."""
        if self.mode == "one-process":
            return (WHOLE,)
        return tuple(name for part in PARTS for name in replicas_of(part, self.replicas))

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `concerto <arguments>` on this data folder."""
        return subprocess.run(
            [str(LAUNCHER), *arguments],
            cwd=ROOT,
            env=stack_environment(self.home, self.base_port, **self.variables),
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
        )


def running_elsewhere(file: Path) -> RunningStack:
    """Return a suite that somebody else has started, by the settings in a file like .env.

    SUPABASE_URL is where tests find Supabase, so SUPABASE_PUBLIC_URL is it where there is one. The suite's processes,
    logs and data are out of reach; a test that wants them fails.
    """
    env = {name: value for name, value in dotenv_values(file).items() if value is not None}
    env["SUPABASE_URL"] = env.get("SUPABASE_PUBLIC_URL") or env["SUPABASE_URL"]
    missing = Path("/nonexistent")
    return RunningStack(home=missing, base_port=0, mode="processes", replicas=1, env=env, supervisor=cast("Any", None))


def stack_environment(home: Path, base_port: int, **extra: str) -> dict[str, str]:
    """The environment for `concerto`: no setting of the person who runs the tests leaks in."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}  # noqa: TID251
    own = {"CONCERTO_HOME": str(home), "CONCERTO_PORT": str(base_port), "CONCERTO_ENV_FILE": "/dev/null"}
    # All the tests' people sign in from one address.
    limits = {f"GATEWAY_LOGIN_LIMIT_PER_{name}": "100000/minute" for name in ("EMAIL", "ACCOUNT", "ADDRESS")}
    # One of them stores what many people would in a day.
    limits |= {"CONCERTO_MESSAGES_PER_MINUTE": "100000000"}
    # Said each time, as a suite may begin with a copy of another one's database.
    limits |= {"CONCERTO_SIGN_UP": "open"}
    return {**inherited, **own, **limits, **EMBEDDED_LIMITS, "PYTHONUNBUFFERED": "1", **extra}


def free_base_port(replicas: int = 1) -> int:
    """A base port whose block of ports for each replica, and one more, is free.

    Below the range from which systems hand out ports by themselves.
    """
    count = PORTS * replicas + 1
    start = 20000 + (os.getpid() * 610) % 9000  # so that test runs side by side do not begin near each other
    for base in chain(range(start, 29000, 10), range(20000, start, 10)):
        if all(_is_free(base + offset) for offset in range(count)):
            return base
    raise RuntimeError(f"No block of {count} free ports between 20000 and 29000.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start_stack(
    folder: Path,
    *,
    only: str | None = None,
    port: int | None = None,
    mode: Mode = "one-process",
    replicas: int = 1,
    migrate: bool = True,
    project: Mapping[str, str] | None = None,
    **extra: str,
) -> RunningStack:
    """Start `concerto up` with its data in `folder`/home and wait until it is ready.

    mode: one process for all of our parts, or one for each; replicas: of each of these. migrate: False leaves a new
    database without ours. project: a hosted project's variables, by which the suite runs on it; the stack's `env` then
    holds all of them. `extra` goes into its environment. Raises RuntimeError with the output when it does not become
    ready.
    """
    home, base_port = folder / "home", port or free_base_port(replicas)
    project = project or {}
    extra = {**{name: project[name] for name in OF_A_PROJECT if name in project}, **extra}
    environment = stack_environment(home, base_port, **extra)
    command = [str(LAUNCHER), "up", f"--{mode}", "--replicas", str(replicas)]
    command += ["--only", only] if only else []
    command += [] if migrate else ["--no-migrate"]
    output = folder / "up.out"
    with output.open("wb") as stream:
        supervisor = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    stack = RunningStack(
        home=home,
        base_port=base_port,
        mode=mode,
        replicas=replicas,
        env={},
        supervisor=supervisor,
        variables=extra,
    )
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(stack):
        if supervisor.poll() is not None or time.monotonic() > deadline:
            stop_stack(stack)
            raise RuntimeError(f"`concerto up` did not become ready:\n{output.read_text(errors='replace')}")
        time.sleep(0.05)  # the pause between two looks
    settings = load_settings(environment=environment, env_file=None)
    stack.env.update({**exported_variables(settings, admin=True), **project})
    return stack


def _is_ready(stack: RunningStack) -> bool:
    state = stack.state()
    return bool(state.get("ready")) and state.get("pid") == stack.supervisor.pid


def stop_stack(stack: RunningStack) -> int:
    """Stop a stack as Ctrl-C would; returns the exit code of `concerto up`."""
    if stack.supervisor.poll() is None:
        stack.supervisor.send_signal(signal.SIGINT)
    try:
        return stack.supervisor.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        stack.supervisor.send_signal(signal.SIGINT)
        return stack.supervisor.wait(timeout=STOP_SECONDS)


class PreparedStarts:
    """Starts suites, the first on an empty folder, and the others on a copy of what that one has made of it.

    Making a database and applying each migration takes longer than all the rest of a start. The copy holds nobody and
    nothing, and each suite gets keys of its own. What a first start does is tested where `start_stack` is called.
    folder: where the copy is kept; test runs that are given the same one use one copy, at the same time too.
    """

    # Hashing passwords for hundreds of people would be most of what the embedded Supabase does.
    SETTINGS: ClassVar = {"CONCERTO_BCRYPT_COST": "4"}
    # Only the death of the machine would tell the difference; what a killed Postgres has written is kept as ever.
    DATABASE_SETTINGS = "fsync = off\nfull_page_writes = off\n"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "postgres"
        self._credentials = folder / "credentials.json"
        folder.mkdir(mode=0o700, exist_ok=True)

    def start(self, folder: Path, **options: Any) -> RunningStack:
        """As `start_stack`. A folder with data in it is started as it is."""
        home = folder / "home"
        settings = {**self.SETTINGS, **options}
        if home.exists():
            return start_stack(folder, **settings)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._credentials.exists():
                running = start_stack(folder, **settings)
                self._take(running)
                return running
        self._copy_to(home)
        return start_stack(folder, **settings)

    def _take(self, running: RunningStack) -> None:
        if not (running.home / "postgres").exists():
            return  # a hosted project's
        port = running.base_port + PORT_NAMES.index("postgres")
        postgres = Postgres(running.home, port, read_credentials(running.home))
        if postgres.account.user is not None:
            return  # a copy would not belong to that account
        subprocess.run(
            [
                *(str(postgres.binaries / "pg_basebackup"), f"--pgdata={self._data}", "--checkpoint=fast"),
                *(
                    "--no-sync",
                    "--no-manifest",
                    "--no-password",
                    f"--dbname=postgresql://{SUPERUSER}@127.0.0.1:{postgres.port}/?sslmode=disable",
                ),
            ],
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGPASSWORD": postgres.credentials.admin_password},
            check=True,
            capture_output=True,
        )
        with (self._data / "postgresql.auto.conf").open("a") as settings:
            settings.write(self.DATABASE_SETTINGS)
        write_private(self._credentials, postgres.credentials.model_dump_json())

    def _copy_to(self, home: Path) -> None:
        make_private_folder(home)
        shutil.copytree(self._data, home / "postgres")
        # The superuser's password is in the data; those of other roles are set at each start.
        password = Credentials.model_validate_json(self._credentials.read_text()).admin_password
        own = Credentials.generate().model_copy(update={"admin_password": password})
        write_private(credentials_file(home), own.model_dump_json(indent=2) + "\n")
