"""The programs that check and run what is in deploy/: an environment of their own in build/, from their own lock."""

import hashlib
import subprocess
import sys
from pathlib import Path

from local.setup.bootstrap import uv_environment

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "deploy" / "requirements.lock"
BUILD = ROOT / "build"
TOOLS = BUILD / "deploy-tools"
UV = ROOT / ".venv" / "bin" / "uv"


class ToolError(Exception):
    """A tool cannot be had or has failed. The message says what to do."""


def ensure() -> bool:
    """Install what deploy/requirements.lock says unless it is there; returns whether it had to. Raises ToolError."""
    stamp = TOOLS / "lock.sha256"
    fingerprint = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == fingerprint:
        return False
    environment = {**uv_environment(), "VIRTUAL_ENV": str(TOOLS)}
    for arguments in (
        ("venv", "--clear", "--quiet", "--python", sys.executable, str(TOOLS)),
        ("pip", "sync", "--quiet", "--require-hashes", str(LOCK)),
    ):
        done = subprocess.run([str(UV), *arguments], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ToolError(f"{done.stderr.strip()}\nThe tools of deploy/ cannot be installed. Is the network there?")
    stamp.write_text(fingerprint)
    return True


def program(name: str) -> str:
    """Return the path of one of the tools."""
    return str(TOOLS / "bin" / name)


def lock() -> None:
    """Resolve deploy/requirements.in anew, with hashes and without addresses. Exits with uv's code when it fails."""
    code = subprocess.run(
        [
            str(UV), "pip", "compile", "deploy/requirements.in", "--universal", "--python-version", "3.11",
            "--generate-hashes", "--quiet", "--output-file", str(LOCK.relative_to(ROOT)),
            "--custom-compile-command", "make lock",
        ],
        cwd=ROOT, env=uv_environment(), check=False,
    ).returncode  # fmt: skip
    if code != 0:
        sys.exit(code)


if __name__ == "__main__":
    lock()
