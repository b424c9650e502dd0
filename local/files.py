"""Files and folders that only their owner can read, and that are still there after a power cut."""

import os
import tempfile
from pathlib import Path


def make_private_folder(folder: Path) -> None:
    """Make the folder, with its parents, and close it to everybody else. A right to pass through it is left."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o066:
        folder.chmod(0o700)


def write_private(file: Path, text: str) -> None:
    """Write a file with mode 0600 in one step: a reader sees the old text or the new one, never a part."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Let the names in the folder, as they are now, outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
