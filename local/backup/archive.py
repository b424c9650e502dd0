"""The file of a backup: a tar in which every byte is either prescribed or hashed, so that no damage passes."""

import asyncio
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from local.backup.faults import BackupError

FORMAT = 1
"""Of the file. A reader refuses a higher one."""
ROLES, DATABASE, SECRETS, MANIFEST, SEAL = "roles.sql", "database.dump", "secrets.json", "manifest.json", "seal"
OBJECT = re.compile(r"objects/([0-9a-f]{64})")
BLOCK, CHUNK = tarfile.BLOCKSIZE, 1 << 20
SMALL_LIMIT_BYTES = 256 * 1024 * 1024
"""Of a member that is read into memory: the manifest, the roles, the secrets."""

Progress = Callable[[int], None]
"""Is told how many bytes have been dealt with so far."""


def no_progress(_: int) -> None:
    """The progress that nobody looks at."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Table(_Part):
    """What a table held: the number of rows, and a hash of them in the order of their key."""

    rows: int = Field(ge=0)
    sha256: str


class StoredObject(_Part):
    """One stored file. `sha256` and `size` (bytes) are its content's, which the archive keeps under that hash."""

    bucket: str
    key: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    etag: str
    mimetype: str | None
    cache_control: str | None
    last_modified: str


class Member(_Part):
    """A file within the archive."""

    size: int = Field(ge=0)
    sha256: str


class Manifest(_Part):
    """What a backup holds and where it comes from.

    `definitions` has a hash for each table, policy, function, grant and so on, by a readable name; `missing` names rows
    of storage.objects whose bytes were not there when the backup was made, as bucket/key.
    """

    format: int
    concerto: str
    created_at: datetime
    postgres: str
    migrations: list[str]
    database_bytes: int
    tables: dict[str, Table]
    sequences: dict[str, int]
    definitions: dict[str, str]
    objects: list[StoredObject]
    missing: list[str]
    members: dict[str, Member]

    @property
    def rows(self) -> int:
        """Of all tables."""
        return sum(table.rows for table in self.tables.values())

    @property
    def object_bytes(self) -> int:
        """Of all stored files once they are unpacked."""
        return sum(stored.size for stored in self.objects)


@dataclass(frozen=True)
class Extent:
    """Where a member's content is in the file, in bytes, and its SHA-256."""

    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Archive:
    """A file that has been checked from its first byte to its last."""

    file: Path
    manifest: Manifest
    extents: dict[str, Extent]

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of a member in pieces. Raises BackupError when the file has changed since it was checked."""
        extent = self.extents[name]
        digest = hashlib.sha256()
        with self.file.open("rb") as stream:
            stream.seek(extent.offset)
            left = extent.size
            while left:
                chunk = stream.read(min(CHUNK, left))
                if not chunk:
                    break
                digest.update(chunk)
                left -= len(chunk)
                yield chunk
        if digest.hexdigest() != extent.sha256:
            raise BackupError(f"{self.file} has changed while it was being read. Start again.")

    def text(self, name: str) -> str:
        """The content of a small member."""
        return b"".join(self.chunks(name)).decode()


class ArchiveWriter:
    """Writes members one after the other, each of a length that need not be known before."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.members: dict[str, Member] = {}

    @contextmanager
    def member(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """Yields the function that takes the member's content, piece by piece."""
        stream, digest, size = self._stream, hashlib.sha256(), 0
        start = stream.tell()
        stream.write(bytes(BLOCK))  # the header, once the length is known

        def take(chunk: bytes) -> None:
            nonlocal size
            stream.write(chunk)
            digest.update(chunk)
            size += len(chunk)

        yield take
        stream.write(bytes(-size % BLOCK))
        end = stream.tell()
        stream.seek(start)
        stream.write(_header(name, size))
        stream.seek(end)
        self.members[name] = Member(size=size, sha256=digest.hexdigest())

    def add(self, name: str, content: bytes) -> None:
        """Write a member at once."""
        with self.member(name) as take:
            take(content)

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest, its seal, and the end of the file."""
        content = (json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()
        self.add(MANIFEST, content)
        self.add(SEAL, hashlib.sha256(content).hexdigest().encode() + b"\n")
        self._stream.write(bytes(2 * BLOCK))


def _header(name: str, size: int) -> bytes:
    """The one header that a member of this name and length may have: a plain file, its owner's alone."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member.tobuf(tarfile.GNU_FORMAT)


def _read_header(block: bytes) -> tuple[str, int] | None:
    """Name and length; None for anything but exactly the header that `_header` writes of one of our members."""
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError, ValueError):
        return None
    known = member.name in (ROLES, DATABASE, SECRETS, MANIFEST, SEAL) or OBJECT.fullmatch(member.name)
    # Links, devices, folders, other owners and names that lead elsewhere all differ from it.
    if not known or member.size < 0 or _header(member.name, member.size) != block:
        return None
    return member.name, member.size


async def check(file: Path, progress: Progress = no_progress) -> Archive:
    """Read a backup wholly and compare every byte with what the manifest and the format say.

    Nothing is unpacked. Raises BackupError when the file is absent, is something else, is damaged or cut short, or was
    written by a newer version.
    """
    with _opened(file) as stream:
        total = os.fstat(stream.fileno()).st_size
        extents, texts = await _read_members(file, stream, total, progress)
        end = stream.read(2 * BLOCK + 1)
        if len(end) < 2 * BLOCK:
            raise _cut_short(file)
        if end != bytes(2 * BLOCK):
            raise _damaged(file, "its end is not what was written")
    if texts[SEAL] != extents[MANIFEST].sha256.encode() + b"\n":
        raise _damaged(file, "the manifest does not fit its seal")
    manifest = _parse(file, texts[MANIFEST])
    _compare(file, manifest, extents)
    return Archive(file, manifest, extents)


def _opened(file: Path) -> BinaryIO:
    if not file.is_file():
        raise BackupError(f"{file} is not there, or is no file. Name the backup to restore.")
    return file.open("rb")


async def _read_members(
    file: Path, stream: BinaryIO, total: int, progress: Progress
) -> tuple[dict[str, Extent], dict[str, bytes]]:
    extents: dict[str, Extent] = {}
    texts: dict[str, bytes] = {}
    while SEAL not in extents:
        block = stream.read(BLOCK)
        found = _read_header(block) if len(block) == BLOCK else None
        if found is None:
            raise _unreadable(file, stream.tell() - len(block), total)
        name, size = found
        offset = stream.tell()
        if name in extents:
            raise _damaged(file, f"it holds {name} twice")
        if offset + size > total:
            raise _cut_short(file)
        keep = name in (MANIFEST, SEAL)
        if size > SMALL_LIMIT_BYTES and (keep or name in (ROLES, SECRETS)):
            raise BackupError(f"{file} holds a {name} of {size} bytes, which no backup of Concerto does.")
        digest, content, left = hashlib.sha256(), b"", size
        while left:
            chunk = stream.read(min(CHUNK, left))
            if not chunk:
                raise _cut_short(file)
            digest.update(chunk)
            content += chunk if keep else b""
            left -= len(chunk)
            progress(stream.tell())
            await asyncio.sleep(0)  # so that Ctrl-C is heard
        padding = stream.read(-size % BLOCK)
        if len(padding) < -size % BLOCK:
            raise _cut_short(file)
        if any(padding):
            raise _damaged(file, f"after {name} there is something else")
        extents[name] = Extent(offset, size, digest.hexdigest())
        if keep:
            texts[name] = content
    if MANIFEST not in texts:
        raise _damaged(file, "it has no manifest")
    return extents, texts


def _parse(file: Path, content: bytes) -> Manifest:
    try:
        raw = json.loads(content)
        number = raw.get("format")
        if isinstance(number, int) and number > FORMAT:
            raise BackupError(
                f"{file} was written by a newer version of Concerto ({raw.get('concerto')}, format {number}). "
                "Update this working copy and run `make setup`, then restore again."
            )
        return Manifest.model_validate(raw)
    except (ValueError, ValidationError, AttributeError):
        raise _damaged(file, "its manifest cannot be read") from None


def _compare(file: Path, manifest: Manifest, extents: dict[str, Extent]) -> None:
    contents = {name: extent for name, extent in extents.items() if name not in (MANIFEST, SEAL)}
    if contents.keys() != manifest.members.keys() or not contents.keys() >= {ROLES, DATABASE}:
        raise _damaged(file, "it does not hold what its manifest names")
    for name, extent in contents.items():
        if (extent.size, extent.sha256) != (manifest.members[name].size, manifest.members[name].sha256):
            raise _damaged(file, f"{name} is not what was written")
    wanted = {f"objects/{stored.sha256}": stored for stored in manifest.objects}
    if wanted.keys() != {name for name in contents if OBJECT.fullmatch(name)}:
        raise _damaged(file, "its stored files are not those of its manifest")
    for name, stored in wanted.items():
        if (contents[name].size, f"objects/{contents[name].sha256}") != (stored.size, name):
            raise _damaged(file, f"{name} is not what its name says")


def _unreadable(file: Path, offset: int, total: int) -> BackupError:
    if offset == 0:
        return BackupError(f"{file} is no file that `concerto backup` has written. Name another one.")
    if offset + BLOCK > total:
        return _cut_short(file)
    return _damaged(file, f"byte {offset} and what follows is not what was written")


def _cut_short(file: Path) -> BackupError:
    return BackupError(f"{file} is cut short: its end is missing. Use another copy of it.")


def _damaged(file: Path, problem: str) -> BackupError:
    return BackupError(f"{file} is damaged: {problem}. Use another copy of it, or an older backup.")
