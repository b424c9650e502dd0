import hashlib
import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from local.backup import archive
from local.backup.archive import ArchiveWriter, Manifest, StoredObject, Table, check
from local.backup.faults import BackupError

PICTURE = b"a picture" * 100
HASH = hashlib.sha256(PICTURE).hexdigest()


def manifest(writer: ArchiveWriter, **fields: Any) -> Manifest:
    stored: dict[str, Any] = {
        "bucket": "avatars",
        "key": "jörg/bild.webp",
        "sha256": HASH,
        "size": len(PICTURE),
        "etag": f'"{HASH}"',
        "mimetype": "image/webp",
        "cache_control": None,
        "last_modified": "2026-11-26T00:00:00.000Z",
    }
    usual: dict[str, Any] = {
        "format": archive.FORMAT,
        "concerto": "0.1.0",
        "created_at": datetime(2026, 11, 26, tzinfo=UTC),
        "postgres": "18.4",
        "migrations": ["20261120090000"],
        "database_bytes": 1,
        "tables": {"public.messages": Table(rows=3, sha256="ab")},
        "sequences": {},
        "definitions": {"table public.messages": "cd"},
        "objects": [StoredObject(**stored)],
        "missing": [],
        "members": dict(writer.members),
    }
    return Manifest(**usual | fields)


def write(file: Path, **fields: Any) -> Manifest:
    with file.open("w+b") as stream:
        writer = ArchiveWriter(stream)
        writer.add(archive.ROLES, b"create role someone;\n")
        with writer.member(archive.DATABASE) as take:
            for _ in range(3):
                take(b"rows")
        writer.add(f"objects/{HASH}", PICTURE)
        made = manifest(writer, **fields)
        writer.seal(made)
    return made


async def test_what_was_written_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    made = write(file)
    read = await check(file)
    assert read.manifest == made
    assert (read.manifest.rows, read.manifest.object_bytes) == (3, len(PICTURE))
    assert read.text(archive.ROLES) == "create role someone;\n"
    assert b"".join(read.chunks(archive.DATABASE)) == b"rowsrowsrows"


def test_any_tar_lists_and_unpacks_it(tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    write(file)
    with tarfile.open(file) as opened:
        members = opened.getmembers()
        content = opened.extractfile(f"objects/{HASH}")
        assert content is not None
        assert content.read() == PICTURE
    names = [archive.ROLES, archive.DATABASE, f"objects/{HASH}", archive.MANIFEST, archive.SEAL]
    assert [member.name for member in members] == names
    assert {member.mode for member in members} == {0o600}


async def test_no_flipped_byte_passes(tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    write(file)
    content = file.read_bytes()
    # Coprime to the blocks, so that each kind of place is met: names, numbers, content, padding, the end.
    for offset in range(0, len(content), 5):
        flip(file, offset, content[offset] ^ 1)
        with pytest.raises(BackupError):
            await check(file)
        flip(file, offset, content[offset])
    await check(file)


def flip(file: Path, offset: int, value: int) -> None:
    with file.open("r+b") as stream:
        stream.seek(offset)
        stream.write(bytes([value]))


async def test_no_shorter_and_no_longer_file_passes(tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    write(file)
    content = file.read_bytes()
    for length in range(0, len(content), 97):
        file.write_bytes(content[:length])
        with pytest.raises(BackupError):
            await check(file)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(BackupError, match="is cut short"):
        await check(file)
    file.write_bytes(content + b"\0")
    with pytest.raises(BackupError, match="is damaged"):
        await check(file)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 something else", b"\0" * 4096, b"x" * 4096])
async def test_another_kind_of_file_is_named_as_such(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(content)
    with pytest.raises(BackupError, match="is no file that `concerto backup` has written"):
        await check(file)


async def test_an_absent_file_and_a_folder_are_named_as_such(tmp_path: Path) -> None:
    for file in (tmp_path / "absent", tmp_path):
        with pytest.raises(BackupError, match="is not there, or is no file"):
            await check(file)


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode = kind, 0o600
    for key, value in fields.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    "foreign",
    [
        member("../../.ssh/authorized_keys"),
        member("/etc/passwd"),
        member("objects/../manifest.json"),
        member("objects/" + "A" * 64),
        member(archive.SECRETS, tarfile.SYMTYPE, linkname="/etc/shadow"),
        member(archive.SECRETS, tarfile.LNKTYPE, linkname="roles.sql"),
        member("objects", tarfile.DIRTYPE),
        member(archive.SECRETS, tarfile.CHRTYPE),
        member(archive.SECRETS, mode=0o4755),
        member(archive.SECRETS, uid=1000),
    ],
    ids=lambda each: f"{each.name}-{each.type.decode()}-{each.mode:o}-{each.uid}",
)
async def test_members_that_no_backup_has_are_refused(tmp_path: Path, foreign: tarfile.TarInfo) -> None:
    file = tmp_path / "backup.tar"
    with file.open("w+b") as stream:
        writer = ArchiveWriter(stream)
        writer.add(archive.ROLES, b"")
        stream.write(foreign.tobuf(tarfile.GNU_FORMAT))
        writer.add(archive.DATABASE, b"")
        writer.seal(manifest(writer, objects=[]))
    with pytest.raises(BackupError, match="is damaged"):
        await check(file)


async def test_a_member_that_claims_to_be_huge_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    for name in (archive.ROLES, archive.DATABASE):
        file.write_bytes(member(name, size=1 << 60).tobuf(tarfile.GNU_FORMAT) + b"x" * 4096)
        with pytest.raises(BackupError, match="is cut short"):
            await check(file)


async def test_a_newer_format_and_a_foreign_manifest_are_told_apart_from_damage(tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    write(file, format=archive.FORMAT + 1)
    with pytest.raises(BackupError, match=r"newer version of Concerto .*make setup"):
        await check(file)
    for content in (b"[]", b"{}", b"no json", b'{"format": 1}'):
        with file.open("w+b") as stream:
            writer = ArchiveWriter(stream)
            writer.add(archive.ROLES, b"")
            writer.add(archive.MANIFEST, content)
            writer.add(archive.SEAL, hashlib.sha256(content).hexdigest().encode() + b"\n")
            stream.write(bytes(1024))
        with pytest.raises(BackupError, match="its manifest cannot be read"):
            await check(file)


async def test_what_the_manifest_does_not_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "backup.tar"
    without: tuple[dict[str, Any], ...] = ({"objects": []}, {"members": {}})
    for fields in without:
        write(file, **fields)
        with pytest.raises(BackupError, match="is damaged"):
            await check(file)


def test_a_failed_member_leaves_no_half_of_its_header(tmp_path: Path) -> None:
    stream = io.BytesIO()
    writer = ArchiveWriter(stream)
    with pytest.raises(TypeError), writer.member(archive.DATABASE) as take:
        take(None)  # type: ignore[arg-type]
    assert archive.DATABASE not in writer.members
