import os
import shutil
from pathlib import Path

import pytest

from local.setup import browser, debian


def test_a_browser_of_this_machine_is_found() -> None:
    assert browser.find_chromium().exists()


def test_without_a_browser_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(browser, "APPLICATIONS", ())
    with pytest.raises(browser.BrowserError, match="apt-get install chromium-headless-shell"):
        browser.find_chromium()
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="apt-get install chromium-headless-shell"):
        browser.main()


def test_nobody_but_root_installs_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    with pytest.raises(browser.BrowserError, match="Chromium"):
        browser.install_chromium()


def test_what_apt_get_said_stands_before_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: no such host'; exit 100\n")
    apt.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "DEBIAN", tmp_path)
    with pytest.raises(
        browser.BrowserError, match=r"(?s)E: no such host.*could not install chromium-headless-shell.*apt-get install"
    ):
        browser.install_chromium()
    assert "Chromium" in capsys.readouterr().out


def test_the_browser_without_windows_goes_before_the_one_with_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("chromium", "google-chrome", "chromium-headless-shell"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert browser.find_chromium() == tmp_path / "chromium-headless-shell"
    browser.main()
    (tmp_path / "chromium-headless-shell").unlink()
    assert browser.find_chromium() == tmp_path / "chromium"


def test_a_browser_with_windows_is_enough_where_nothing_can_be_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "chromium").write_text("")
    (tmp_path / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    browser.main()
