import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.settings import ROOT
from local.setup import bootstrap


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


def test_step_runs_again_when_one_of_its_single_files_is_gone(tmp_path: Path) -> None:
    product = tmp_path / "product"
    step = bootstrap.Step("something", tmp_path / ".stamp", lambda: iter([b""]), product.touch, products=(product,))
    bootstrap.run_step(step)
    assert step.is_done()
    product.unlink()
    assert not step.is_done()


def test_failed_step_leaves_no_stamp(tmp_path: Path) -> None:
    def fail() -> None:
        raise bootstrap.SetupError("no network")

    step = bootstrap.Step("something", tmp_path / ".stamp", lambda: iter([b""]), fail)
    with pytest.raises(bootstrap.SetupError):
        bootstrap.run_step(step)
    assert not step.is_done()


def test_packages_of_an_attempt_that_was_cut_short_are_installed_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv, lock = tmp_path / "venv", tmp_path / "requirements.lock"
    pinned = re.search(r"^iniconfig==[^\n]*\n(?:[ \t]+--hash=[^\n]*\n)+", bootstrap.LOCK.read_text(), re.MULTILINE)
    assert pinned is not None
    lock.write_text(pinned[0])
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (venv / "bin" / "uv").symlink_to(bootstrap.VENV / "bin" / "uv")
    monkeypatch.setattr(bootstrap, "VENV", venv)
    monkeypatch.setattr(bootstrap, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(bootstrap, "LOCK", lock)
    bootstrap.install_packages()
    (module,) = venv.glob("lib/python*/site-packages/iniconfig/__init__.py")
    begun = venv / "concerto" / "packages.begun"
    assert not begun.exists()
    # As a kill in the middle leaves it.
    module.unlink()
    begun.touch()
    bootstrap.install_packages()
    assert module.exists()
    assert not begun.exists()


def test_uv_is_pinned_with_hashes() -> None:
    first, *hashes = bootstrap.uv_block().splitlines()
    assert first.startswith("uv==")
    assert all("--hash=sha256:" in line for line in hashes)


def test_old_python_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer"):
        bootstrap.check_python()


def test_setup_script_needs_nothing_but_the_standard_library() -> None:
    # -I -S: no site-packages, so that an import of anything else fails.
    code = f"import runpy; runpy.run_path({str(ROOT / 'local' / 'setup' / 'bootstrap.py')!r}, run_name='imported')"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], check=False).returncode == 0


def test_a_home_folder_without_room_for_caches_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert bootstrap.can_write(tmp_path / "not" / "there" / "yet")
    assert not bootstrap.can_write(tmp_path / "file" / "cache")
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK)
    assert not bootstrap.can_write(tmp_path)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder web/ in which a script stands for `next build` and for the one that packs."""
    monkeypatch.setattr(bootstrap, "WEB", tmp_path)
    for name in ("node_modules/next/dist/bin/next", "scripts/compress.mjs", "app/(app)/chat/page.tsx", "package.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def test_the_export_depends_on_sources_and_not_on_tests_or_products(web: Path) -> None:
    sources = {path.relative_to(web).as_posix() for path in bootstrap.web_sources()}
    assert sources == {"scripts/compress.mjs", "app/(app)/chat/page.tsx", "package.json"}
    for name in (
        *("out/index.html", "screenshots/a.png", ".next/cache/a", "test/setup.ts", "openapi.json", "next-env.d.ts"),
        *("lib/a.test.ts", "lib/a.test.tsx", "biome.json", "vitest.config.ts", "tsconfig.tsbuildinfo", ".gitignore"),
    ):
        (web / name).parent.mkdir(parents=True, exist_ok=True)
        (web / name).write_text("")
    assert {path.relative_to(web).as_posix() for path in bootstrap.web_sources()} == sources
    (web / "lib" / "test.ts").write_text("")
    (web / "public").mkdir()
    (web / "public" / "theme.js").write_text("")
    assert len(bootstrap.web_sources()) == len(sources) + 2


def test_what_a_failed_build_left_behind_is_removed_before_the_next_one(web: Path) -> None:
    program = web / "node_modules/next/dist/bin/next"
    program.write_text("process.exit(1);")
    (web / ".next").mkdir()
    (web / ".next" / "stale").touch()
    with pytest.raises(bootstrap.SetupError, match="does not compile"):
        bootstrap.build_web_app()
    assert not (web / ".next" / "stale").exists()

    program.write_text("require('fs').mkdirSync('.next', { recursive: true });")
    bootstrap.build_web_app()
    (web / ".next" / "cache").touch()
    bootstrap.build_web_app()
    assert (web / ".next" / "cache").exists()


def test_the_webs_types_depend_on_every_module_that_the_contract_is_described_by() -> None:
    [step] = [step for step in bootstrap.web_steps() if step.label == "web client from the contract"]
    inputs = set(step.inputs())
    for name in (
        "gateway/rest/schemas.py",
        "servicekit/messages/json_compiled.py",
        "protos/concerto/auth/v1/auth.proto",
    ):
        assert name.encode() in inputs
    assert not [name for name in inputs if name.startswith(b"gateway/tests/")]
