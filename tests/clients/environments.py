"""Installs what a client's folder has locked, into a folder of its own below .clients/, when a lock has changed."""

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from local.setup.bootstrap import uv_environment
from tests.support.contract import ROOT

CLIENTS = ROOT / "tests" / "clients"
SUPPORT = CLIENTS / "support"
INSTALLED = ROOT / ".clients"
NODE = ROOT / ".node"
PRODUCTS = ("venv", "node_modules", "bin", "stamp", "home")
"""What an installed folder holds beside a copy of the client's own."""
KEYS = frozenset({"OPENAI_API_KEY", "OPENAI_BASE_URL"})
"""What no client is told: it would ask a model of its own."""
SHOWN_CHARACTERS = 3000


class InstallError(Exception):
    """A client could not be installed. The message holds the end of what the installer said."""


class Program(NamedTuple):
    """How a client's program is run: the file that it is recognised by, and the command."""

    file: str
    command: tuple[str, ...]


PROGRAMS = (
    Program("client.py", ("python", "client.py")),
    Program("client.mjs", ("node", "client.mjs")),
    Program("client.ts", ("node", "client.ts")),
    Program("client.go", ("bin/client",)),
)


@dataclass(frozen=True)
class Client:
    """A client: a folder with its program and the locks of what that needs."""

    source: Path
    installed: Path

    @classmethod
    def at(cls, source: Path, *, below: Path = INSTALLED) -> "Client":
        """Return the client whose folder is `source`."""
        return cls(source, below / source.name)

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.source.name

    @property
    def program(self) -> Program:
        """Its program."""
        return next(program for program in PROGRAMS if (self.source / program.file).exists())

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its program and of what installs it: its own tools first, and nobody's settings."""
        tools = [*(self.installed / name for name in ("venv/bin", "node_modules/.bin", "bin")), NODE]
        inherited = {name: value for name, value in _environment().items() if name not in KEYS}
        return inherited | {
            "PATH": os.pathsep.join([*map(str, tools), inherited.get("PATH", os.defpath)]),
            "VIRTUAL_ENV": str(self.installed / "venv"),
            "PYTHONPATH": str(SUPPORT),
            "PYTHONUNBUFFERED": "1",
            "GOBIN": str(self.installed / "bin"),
            "GOFLAGS": "-mod=readonly",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
        }

    def versions(self) -> str:
        """Return what it was locked to, of each package that it names itself: `openai 3.57.0`."""
        return ", ".join(f"{name} {version}" for name, version in _locked(self.source))


def clients(folder: Path = CLIENTS) -> list[Client]:
    """Return every client, by name."""
    found = [path for path in sorted(folder.iterdir()) if any((path / program.file).exists() for program in PROGRAMS)]
    return [Client.at(path) for path in found]


async def install(client: Client) -> None:
    """Bring the client's folder up to date. Raises InstallError with what the installer said."""
    await prepare(client)
    if (client.source / "client.go").exists():
        await _run(client, ("go", "build", "-o", "bin/client", "."))


async def prepare(client: Client) -> None:
    """Bring the client's folder up to date, but for what is built of it."""
    client.installed.mkdir(parents=True, exist_ok=True)
    _copy(client)
    stamp = client.installed / "stamp"
    fingerprint = _fingerprint(client)
    if not stamp.exists() or stamp.read_text() != fingerprint:
        stamp.unlink(missing_ok=True)
        for command in _commands(client):
            await _run(client, command)
        stamp.write_text(fingerprint)
    if (client.source / "buf.gen.yaml").exists():
        # From where and as its readers are told to (docs/grpc.md), but that the output lands elsewhere.
        template = str((client.source / "buf.gen.yaml").relative_to(ROOT))
        buf = str(ROOT / "node_modules" / ".bin" / "buf")
        await _run(client, (buf, "generate", "--template", template, "--output", str(client.installed)), folder=ROOT)


@cache
def _environment() -> dict[str, str]:
    return uv_environment()


def _copy(client: Client) -> None:
    for entry in client.installed.iterdir():
        if entry.name not in PRODUCTS:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(client.source, client.installed, dirs_exist_ok=True)
    for helper in (*SUPPORT.glob("*.mjs"), *SUPPORT.glob("*.json")):
        shutil.copy(helper, client.installed)


def _commands(client: Client) -> Iterator[Sequence[str]]:
    """Yield what installs each of the client's locks; each says by hashes what it may bring."""
    if (client.source / "requirements.lock").exists():
        uv = str(ROOT / ".venv" / "bin" / "uv")
        yield (uv, "venv", "--quiet", "--clear", "venv")
        yield (uv, "pip", "sync", "--quiet", "--require-hashes", "requirements.lock")
    if (client.source / "package-lock.json").exists():
        shutil.copy(ROOT / ".npmrc", client.installed)
        yield ("node", str((NODE / "npm").resolve()), "ci", "--no-progress", "--loglevel", "error")
    if (client.source / "go.mod").exists() and "\ntool " in (client.source / "go.mod").read_text():
        yield ("go", "install", "tool")


def _fingerprint(client: Client) -> str:
    digest = hashlib.sha256(str(client.installed).encode())
    for name in ("requirements.lock", "package.json", "package-lock.json", "go.mod", "go.sum"):
        path = client.source / name
        digest.update(f"{name} {path.read_text() if path.exists() else ''}".encode())
    return digest.hexdigest()


async def _run(client: Client, command: Sequence[str], *, folder: Path | None = None) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder or client.installed,
        env=client.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        tail = output.decode(errors="replace")[-SHOWN_CHARACTERS:]
        raise InstallError(f"{client.name}: {' '.join(command)} failed:\n{tail}")


def _locked(source: Path) -> Iterator[tuple[str, str]]:
    if (source / "requirements.in").exists():
        named = re.findall(r"^([\w.-]+)", (source / "requirements.in").read_text(), re.MULTILINE)
        found = dict(re.findall(r"^([\w.-]+)==(\S+)", (source / "requirements.lock").read_text(), re.MULTILINE))
        yield from ((name, found[name]) for name in named)
    if (source / "package.json").exists():
        packages: Mapping[str, Mapping[str, str]] = json.loads((source / "package-lock.json").read_text())["packages"]
        for name in json.loads((source / "package.json").read_text())["dependencies"]:
            yield name, packages[f"node_modules/{name}"]["version"]
    if (source / "go.mod").exists():
        text = (source / "go.mod").read_text()
        yield from re.findall(r"^\s*(?:require )?([\w./-]+) v(\S+)$", text, re.MULTILINE)
