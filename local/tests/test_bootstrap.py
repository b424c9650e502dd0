import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import bootstrap
from local.settings import ROOT


def make_step(folder: Path, runs: list[str], content: bytes = b"1") -> bootstrap.Step:
    def inputs() -> Iterator[bytes]:
        yield content

    def action() -> None:
        (folder / "made").mkdir(exist_ok=True)
        runs.append("run")

    return bootstrap.Step("something", folder / "made" / ".stamp", inputs, action)


def test_step_runs_once_and_again_when_its_input_or_its_result_changes(tmp_path: Path) -> None:
    runs: list[str] = []
    bootstrap.run_step(make_step(tmp_path, runs))
    bootstrap.run_step(make_step(tmp_path, runs))
    assert len(runs) == 1
    bootstrap.run_step(make_step(tmp_path, runs, b"2"))
    assert len(runs) == 2
    (tmp_path / "made" / ".stamp").unlink()
    bootstrap.run_step(make_step(tmp_path, runs, b"2"))
    assert len(runs) == 3


def test_failed_step_leaves_no_stamp(tmp_path: Path) -> None:
    def fail() -> None:
        raise bootstrap.SetupError("no network")

    step = bootstrap.Step("something", tmp_path / ".stamp", lambda: iter([b""]), fail)
    with pytest.raises(bootstrap.SetupError):
        bootstrap.run_step(step)
    assert not step.is_done()


def test_uv_is_pinned_with_hashes() -> None:
    first, *hashes = bootstrap.uv_block().splitlines()
    assert first.startswith("uv==")
    assert all("--hash=sha256:" in line for line in hashes)


def test_old_python_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer"):
        bootstrap.check_python()


def test_setup_script_needs_nothing_but_the_standard_library() -> None:
    # -I -S: no site-packages, so that an import of anything else fails.
    code = f"import runpy; runpy.run_path({str(ROOT / 'local' / 'bootstrap.py')!r}, run_name='imported')"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False).returncode == 0


def test_a_home_folder_without_room_for_caches_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert bootstrap.can_write(tmp_path / "not" / "there" / "yet")
    assert not bootstrap.can_write(tmp_path / "file" / "cache")
    monkeypatch.setattr(bootstrap.os, "access", lambda place, mode: mode == os.F_OK)
    assert not bootstrap.can_write(tmp_path)
