"""Installs a package of Debian where this is Debian and we are root. Needs the standard library alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from local.environment import for_tools

DEBIAN = Path("/etc/debian_version")
SHOWN_CHARACTERS = 2000


class PackageError(Exception):
    """The package was not installed. The message is what apt-get said, or empty where it was not asked."""


def can_install() -> bool:
    """Whether this is Debian, we are root, and it has apt-get."""
    return DEBIAN.exists() and os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(package: str, *, label: str) -> None:
    """Install `package` with apt-get and print `label` meanwhile. Raises PackageError elsewhere, or when it fails."""
    if not can_install():
        raise PackageError
    sys.stdout.write(f"  {label} ... ")
    sys.stdout.flush()
    for arguments in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", package)):
        done = subprocess.run(
            ["apt-get", *arguments],  # noqa: S607
            env={**for_tools(os.environ), "DEBIAN_FRONTEND": "noninteractive"},  # noqa: TID251
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise PackageError(f"{done.stdout[-SHOWN_CHARACTERS:]}\napt-get could not install {package}. ")
    sys.stdout.write("installed\n")
