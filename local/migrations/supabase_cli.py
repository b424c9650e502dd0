"""Runs the Supabase CLI of the working copy against one database: what it is told, and what it says."""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from local.environment import LOOPBACK, PROXIES, basic

TIMEOUT_SECONDS = 300
TAIL_LINES = 25
# How to reach the project and the registry of certificates; no other variable is handed on.
_INHERITED = ("NODE_EXTRA_CA_CERTS", "PGSSLROOTCERT", *PROXIES)


class MigrationError(Exception):
    """Migrations cannot be compared, applied or undone. The message says what to do, or holds the CLI's last lines."""


@dataclass(frozen=True)
class Target:
    """A database as the CLI is told of it. Secrets travel in `environment`: all may read a program's arguments."""

    description: str
    """For people; holds no secret."""
    flag: str
    """`--remote` for the linked project, or `--remote=<address without a password>`."""
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """How a run of the CLI ended, and what it wrote."""

    code: int
    output: str
    errors: str

    @property
    def tail(self) -> str:
        """The last lines of everything, for a message."""
        return "\n".join(f"{self.output}\n{self.errors}".strip().splitlines()[-TAIL_LINES:])

    def find(self, key: str) -> Any:
        """Return the value of the first `key` in the JSON that was written. Raises MigrationError without one."""
        for line in (self.output, *reversed(self.output.splitlines())):
            try:
                found = _find(json.loads(line), key)
            except ValueError:
                continue
            if found is not None:
                return found
        raise MigrationError(f"The Supabase CLI did not say its {key}:\n{self.tail}")


def address_target(url: str, *, home: Path) -> Target:
    """A database by its postgresql:// address, without a linked project.

    home: where the CLI keeps its notes. Raises MigrationError when the address cannot be one.
    """
    url = with_tls(url)
    parts = urlsplit(url)
    if not parts.username or not parts.hostname:
        raise MigrationError(
            "SUPABASE_MIGRATION_DB_URL names no role or no host. Copy it from the project: "
            "postgresql://postgres.<ref>:<password>@<host>:5432/postgres"
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    address = f"{host}:{parts.port or 5432}"
    bare = urlunsplit(parts._replace(netloc=f"{parts.username}@{address}"))
    secret = {"PGPASSWORD": unquote(parts.password)} if parts.password else {}
    return Target(f"the database at {address}", f"--remote={bare}", {"HOME": str(home), **secret})


def with_tls(url: str) -> str:
    """The address with TLS demanded, unless it says something itself or stays on this machine.

    Raises MigrationError when it is no postgresql:// address.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("postgres", "postgresql"):
        raise MigrationError("SUPABASE_MIGRATION_DB_URL is not a postgresql:// address. Copy it from the project.")
    query = dict(parse_qsl(parts.query))
    query.setdefault("sslmode", "disable" if parts.hostname in LOOPBACK else "require")
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))


class SupabaseCli:
    """The CLI that `make setup` installed into `project`, run with its Node."""

    def __init__(self, project: Path, *, node: Path, environment: Mapping[str, str]) -> None:
        """environment: that of the caller, of which little is handed on."""
        self._project = project
        self._executable = project / "node_modules" / ".bin" / "supabase"
        # Its notes belong where `Target` says, not into this user's home folder.
        inherited = basic(environment, *_INHERITED)
        inherited.pop("HOME", None)
        self._environment = inherited | {
            "PATH": f"{node.parent}{os.pathsep}/usr/local/bin{os.pathsep}/usr/bin{os.pathsep}/bin",
            "SUPABASE_TELEMETRY_DISABLED": "1",
            "SUPABASE_NO_UPDATE_NOTIFIER": "1",
            "DO_NOT_TRACK": "1",
            "CI": "1",
            "NO_COLOR": "1",
        }

    async def run(self, *arguments: str, environment: Mapping[str, str]) -> Answer:
        """Run one command to its end. Raises MigrationError when the CLI is missing or takes longer than 5 minutes."""
        if not self._executable.exists():
            raise MigrationError("The Supabase CLI is not installed. Run `make setup`.")
        process = await asyncio.create_subprocess_exec(
            str(self._executable),
            *arguments,
            cwd=self._project,
            env={**self._environment, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
        except TimeoutError:
            raise MigrationError(f"`supabase {arguments[0]}` did not end within {TIMEOUT_SECONDS} s.") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Answer(process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace"))

    async def on(self, target: Target, *arguments: str) -> Answer:
        """Run one command on a database."""
        return await self.run(*arguments, target.flag, environment=target.environment)


def _find(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        if key in value:
            return value[key]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            found = _find(each, key)
            if found is not None:
                return found
    return None
