"""Locks the newest versions of what the clients need, with hashes and without addresses: `make lock-clients`."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

from local.setup.lock import lock_node
from tests.clients.environments import CLIENTS, Client, clients, prepare
from tests.support.contract import ROOT

PYTHON = "3.11"


def main() -> None:
    """Lock the clients whose names are given, all without one. Exits with the failing tool's code."""
    for client in clients():
        if client.name in sys.argv[1:] or not sys.argv[1:]:
            lock(client)


def lock(client: Client) -> None:
    """Lock one client's packages."""
    folder = CLIENTS / client.name
    if (folder / "requirements.in").exists():
        _run(
            client,
            *(str(ROOT / ".venv" / "bin" / "uv"), "pip", "compile", "requirements.in", "--universal", "--upgrade"),
            *("--python-version", PYTHON, "--generate-hashes", "--quiet", "--output-file", "requirements.lock"),
            *("--custom-compile-command", "make lock-clients"),
        )
    if (folder / "package.json").exists():
        lock_node(folder, is_anew=True)
    if (folder / "go.mod").exists():
        # Where the program and what is generated for it are together, which says what they need.
        asyncio.run(prepare(client))
        changing = {"GOFLAGS": "-mod=mod"}
        _run(client, "go", "get", "-u", "./...", "tool", folder=client.installed, **changing)
        _run(client, "go", "mod", "tidy", folder=client.installed, **changing)
        for name in ("go.mod", "go.sum"):
            shutil.copy(client.installed / name, folder)


def _run(client: Client, *command: str, folder: Path | None = None, **variables: str) -> None:
    environment = client.environment | variables
    code = subprocess.run(command, cwd=folder or client.source, env=environment, check=False).returncode
    if code != 0:
        sys.exit(code)


if __name__ == "__main__":
    main()
