"""The browser that tests and screenshots drive: a Chromium of this machine, never one that a package downloads."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""What it is started with: nothing of its own goes over the network, and it runs as root and in containers too."""

# The one without windows first: it is the same engine, and pages take half of the processor's time in it.
WITHOUT_WINDOWS = "chromium-headless-shell"
_COMMANDS = (WITHOUT_WINDOWS, "chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_APPLICATIONS = (
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
)
HINT = (
    "The tests of the web app need Chromium, and none was found. "
    f"On Debian: apt-get install {WITHOUT_WINDOWS}. Elsewhere install Chromium or Google Chrome, so that one of "
    f"{', '.join(_COMMANDS)} is in the PATH."
)


class BrowserError(Exception):
    """There is no browser. The message says what to do."""


def find_chromium() -> Path:
    """Return the program of Chromium or Chrome. Raises BrowserError with what to install."""
    for command in _COMMANDS:
        found = shutil.which(command)
        if found:
            return Path(found)
    for application in _APPLICATIONS:
        if application.exists():
            return application
    raise BrowserError(HINT)


def _can_install() -> bool:
    try:
        is_debian = platform.freedesktop_os_release()["ID"] == "debian"
    except OSError:
        return False
    return is_debian and os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_chromium() -> None:
    """Install Debian's package, when this is Debian and we are root. Raises BrowserError with what to do by hand."""
    if not _can_install():
        raise BrowserError(HINT)
    sys.stdout.write("  Chromium, for the tests of the web app ... ")
    sys.stdout.flush()
    for arguments in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", WITHOUT_WINDOWS)):
        done = subprocess.run(
            ["apt-get", *arguments],  # noqa: S607
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},  # noqa: TID251
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise BrowserError(f"{done.stdout[-2000:]}\napt-get could not install Chromium. {HINT}")
    sys.stdout.write("installed\n")


def main() -> None:
    """Make sure that there is a browser; exit code 1 with one message when there can be none.

    Beside a Chromium with windows, the one without is installed where that is possible.
    """
    try:
        found = find_chromium()
    except BrowserError:
        found = None
    if found is not None and (found.name == WITHOUT_WINDOWS or not _can_install()):
        return
    try:
        install_chromium()
    except BrowserError as error:
        if found is None:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
