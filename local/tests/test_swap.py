import json
from pathlib import Path

import pytest

from local.backup.swap import CONTENT, STAGING, exchange, finish_exchange, journal_file

BEFORE = "before-restore-then"


def fill(folder: Path, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "secrets.json").write_text(text)
    for name in ("postgres", "storage"):
        (folder / name).mkdir()
        (folder / name / "content").write_text(text)


def content(folder: Path) -> set[str]:
    return {(folder / "secrets.json").read_text()} | {
        (folder / name / "content").read_text() for name in ("postgres", "storage")
    }


def test_new_content_takes_the_place_of_the_old_which_is_kept(tmp_path: Path) -> None:
    fill(tmp_path, "old")
    (tmp_path / "mail").mkdir()
    fill(tmp_path / STAGING, "new")
    assert exchange(tmp_path, before=BEFORE) == tmp_path / BEFORE
    assert content(tmp_path) == {"new"}
    assert content(tmp_path / BEFORE) == {"old"}
    assert {entry.name for entry in tmp_path.iterdir()} == {*CONTENT, BEFORE, "mail", "run"}
    assert (tmp_path / BEFORE).stat().st_mode & 0o777 == 0o700
    assert finish_exchange(tmp_path) is False


def test_an_empty_data_folder_has_nothing_to_keep(tmp_path: Path) -> None:
    fill(tmp_path / STAGING, "new")
    assert exchange(tmp_path, before=BEFORE) is None
    assert content(tmp_path) == {"new"}
    assert not (tmp_path / BEFORE).exists()


@pytest.mark.parametrize("renames", range(2 * len(CONTENT) + 1))
def test_an_exchange_that_was_cut_off_anywhere_is_finished(tmp_path: Path, renames: int) -> None:
    fill(tmp_path, "old")
    fill(tmp_path / STAGING, "new")
    (tmp_path / "run").mkdir()
    journal_file(tmp_path).write_text(json.dumps({"before": BEFORE}))
    steps = [
        step
        for name in CONTENT
        for step in ((tmp_path / name, tmp_path / BEFORE / name), (tmp_path / STAGING / name, tmp_path / name))
    ]
    for source, target in steps[:renames]:
        target.parent.mkdir(exist_ok=True)
        source.rename(target)
    assert finish_exchange(tmp_path) is True
    assert content(tmp_path) == {"new"}
    assert content(tmp_path / BEFORE) == {"old"}
    assert not (tmp_path / STAGING).exists()
    assert not journal_file(tmp_path).exists()


def test_incomplete_content_is_not_exchanged(tmp_path: Path) -> None:
    fill(tmp_path, "old")
    fill(tmp_path / STAGING, "new")
    (tmp_path / STAGING / "secrets.json").unlink()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path, before=BEFORE)
    assert content(tmp_path) == {"old"}
    assert not journal_file(tmp_path).exists()
