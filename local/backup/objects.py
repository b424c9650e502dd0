"""The stored files in a backup: pinned while it is made, written anew as `local/embedded/host/storage.mjs` does."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from local.backup.archive import StoredObject
from local.files import make_private_folder

ATTEMPTS = 5
_FILE = re.compile(r"[0-9a-f-]{36}\.bin")


@dataclass(frozen=True)
class Row:
    """What storage.objects says of a file. `etag` is the one of its content; None where the row has none."""

    bucket: str
    key: str
    etag: str | None


@dataclass(frozen=True)
class Pinned:
    """A file that stays as it is, whatever happens to the one it was linked to, with the description beside it."""

    row: Row
    file: Path
    record: dict[str, Any]


def pin(root: Path, links: Path, rows: Iterable[Row]) -> tuple[list[Pinned], list[Row]]:
    """Link the content that each row speaks of into the folder `links`, and name the rows whose content is not there.

    Content is never changed in place: replacing a file writes another one. So a link keeps what was there.
    """
    pinned: list[Pinned] = []
    without_content: list[Row] = []
    for row in rows:
        found = _pin_one(root, links, row)
        if found is None:
            without_content.append(row)
        else:
            pinned.append(found)
    return pinned, without_content


def _pin_one(root: Path, links: Path, row: Row) -> Pinned | None:
    folder = root / _hash(row.bucket)
    for _ in range(ATTEMPTS):  # between reading the description and linking, the file may have been replaced
        try:
            record = json.loads((folder / f"{_hash(row.key)}.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        name = record.get("file") if isinstance(record, dict) else None
        if not isinstance(name, str) or not _FILE.fullmatch(name) or row.etag not in (None, record.get("eTag")):
            return None
        target = links / name
        try:
            _link(folder / name, target)
        except FileNotFoundError:
            continue
        return Pinned(row, target, record)
    return None


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except FileExistsError:
        return
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def describe(pinned: Pinned, *, sha256: str, size: int) -> StoredObject:
    """What the manifest says of a file."""
    record = pinned.record
    return StoredObject(
        bucket=pinned.row.bucket,
        key=pinned.row.key,
        sha256=sha256,
        size=size,
        etag=str(record.get("eTag", "")),
        mimetype=record.get("mimetype"),
        cache_control=record.get("cacheControl"),
        last_modified=str(record.get("lastModified", "")),
    )


def write(root: Path, stored: StoredObject, chunks: Iterable[bytes]) -> None:
    """Store a file, its content before its description. Its place follows from its names' hashes alone."""
    folder = root / _hash(stored.bucket)
    make_private_folder(folder)
    name = f"{uuid4()}.bin"
    _write_private(folder / name, chunks)
    record = {
        "key": stored.key,
        "file": name,
        "size": stored.size,
        "mimetype": stored.mimetype,
        "cacheControl": stored.cache_control,
        "eTag": stored.etag,
        "lastModified": stored.last_modified,
    }
    text = json.dumps({key: value for key, value in record.items() if value is not None}, ensure_ascii=False)
    _write_private(folder / f"{_hash(stored.key)}.json", [text.encode()])


def _write_private(file: Path, chunks: Iterable[bytes]) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        for chunk in chunks:
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
