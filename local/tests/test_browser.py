import shutil
from pathlib import Path

import pytest

from local.setup import browser


def test_a_browser_of_this_machine_is_found() -> None:
    assert browser.find_chromium().exists()


def test_without_a_browser_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(browser, "_APPLICATIONS", ())
    with pytest.raises(browser.BrowserError, match="apt-get install chromium"):
        browser.find_chromium()
    with pytest.raises(SystemExit, match="apt-get install chromium"):
        browser.main()


def test_nobody_but_root_installs_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    with pytest.raises(browser.BrowserError, match="Chromium"):
        browser.install_chromium()
