"""The exchange of a data folder's content for restored content: by renaming, and gone on with after a power cut."""

import json
import shutil
from pathlib import Path

from local.files import make_private_folder, sync_folder, write_private

CONTENT = ("postgres", "storage", "secrets.json")
"""What a restore replaces. Mails, logs and what runs stay."""
STAGING = "restoring"
"""The folder within the data folder in which new content is made."""


def journal_file(home: Path) -> Path:
    """Names the exchange that is under way; absent when none is."""
    return home / "run" / "restore.json"


def exchange(home: Path, *, before: str) -> Path | None:
    """Put the complete content of `home`/restoring in the place of the old, which is kept in `home`/`before`.

    Returns where the old content is; None when there was none. From the first rename on it only goes forward: what
    an interruption leaves is finished by `finish_exchange`.
    """
    missing = [name for name in CONTENT if not (home / STAGING / name).exists()]
    if missing:
        raise FileNotFoundError(f"{home / STAGING} is not complete: {', '.join(missing)} is missing.")
    make_private_folder(home / "run")
    write_private(journal_file(home), json.dumps({"before": before}) + "\n")
    sync_folder(home / "run")  # no name may change before it is sure that the change will be gone on with
    finish_exchange(home)
    kept = home / before
    return kept if kept.exists() else None


def finish_exchange(home: Path) -> bool:
    """Go on with an exchange that was interrupted; says whether there was one. Only call it while holding the lock."""
    try:
        before = home / str(json.loads(journal_file(home).read_text())["before"])
    except FileNotFoundError:
        return False
    for name in CONTENT:
        new, current = home / STAGING / name, home / name
        if not new.exists():
            continue  # this one has been exchanged already
        if current.exists():
            make_private_folder(before)
            current.rename(before / name)
        new.rename(current)
    for folder in (before, home):
        if folder.exists():
            sync_folder(folder)
    shutil.rmtree(home / STAGING, ignore_errors=True)
    journal_file(home).unlink()
    return True
