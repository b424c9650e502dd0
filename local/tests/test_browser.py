import shutil
from pathlib import Path

import pytest

from local.setup import browser


def test_a_browser_of_this_machine_is_found() -> None:
    assert browser.find_chromium().exists()


def test_without_a_browser_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(browser, "_APPLICATIONS", ())
    with pytest.raises(browser.BrowserError, match="apt-get install chromium-headless-shell"):
        browser.find_chromium()
    monkeypatch.setattr(browser.os, "geteuid", lambda: 1000)
    with pytest.raises(SystemExit, match="apt-get install chromium-headless-shell"):
        browser.main()


def test_nobody_but_root_installs_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/apt-get")
    with pytest.raises(browser.BrowserError, match="Chromium"):
        browser.install_chromium()


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
