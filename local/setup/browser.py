"""The browser that tests and screenshots drive: a Chromium of this machine, never one that a package downloads."""

import shutil
import sys
from pathlib import Path

from local.setup import debian

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
APPLICATIONS = (
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
    for application in APPLICATIONS:
        if application.exists():
            return application
    raise BrowserError(HINT)


def install_chromium() -> None:
    """Install Debian's package, when this is Debian and we are root. Raises BrowserError with what to do by hand."""
    try:
        debian.install(WITHOUT_WINDOWS, label="Chromium, for the tests of the web app")
    except debian.PackageError as error:
        raise BrowserError(f"{error}{HINT}") from error


def main() -> None:
    """Make sure that there is a browser; exit code 1 with one message when there can be none.

    Beside a Chromium with windows, the one without is installed where that is possible.
    """
    try:
        found = find_chromium()
    except BrowserError:
        found = None
    if found is not None and (found.name == WITHOUT_WINDOWS or not debian.can_install()):
        return
    try:
        install_chromium()
    except BrowserError as error:
        if found is None:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
