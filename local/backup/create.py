"""`concerto backup`: the embedded database and the stored files as of one moment, in one file."""

import asyncio
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

import asyncpg
import psutil

from local.backup import archive, dump, fingerprint, objects
from local.backup.archive import CHUNK, ArchiveWriter, Manifest, StoredObject
from local.backup.faults import BackupError
from local.backup.swap import finish_exchange
from local.console import Console, human_bytes
from local.embedded.credentials import Credentials, read_credentials
from local.embedded.postgres import Postgres
from local.embedded.temporary import on_free_ports, started_postgres
from local.files import make_private_folder, sync_folder
from local.settings import Settings
from local.suite.stack import already_running
from local.suite.state import end_orphans, read_state, supervisor_lock

SHARED_SECRETS = ("jwt_secret", "publishable_key", "secret_key", "cookie_secret")
"""What `--with-secrets` keeps. The passwords of the database are never in a backup: each cluster has its own."""
LATER_SECRETS = ("signing_key",)
"""What it keeps besides, and backups of earlier versions lack."""
ATTEMPTS, PAUSE_SECONDS = 5, 0.5


def refuse_hosted(settings: Settings) -> None:
    """Raise BackupError where a project of one's own is configured: nothing of it is here."""
    if settings.is_hosted:
        raise BackupError(
            "SUPABASE_URL names a project of your own; `concerto backup` and `restore` are for the embedded database. "
            "docs/backup.md says how a hosted project is backed up."
        )


def target_of(settings: Settings, file: Path | None, *, force: bool) -> Path:
    """The file to write: the one named, or one beside the data folder with the time in its name.

    Raises BackupError when it exists, or cannot be written there.
    """
    usual = f"concerto-backup-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"
    target = settings.home.parent / usual if file is None else file.expanduser().absolute()
    if target.is_dir():
        target = target / usual
    if not target.parent.is_dir():
        raise BackupError(f"The folder {target.parent} does not exist. Make it, or name another file.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise BackupError(f"The folder {target.parent} cannot be written. Name a file elsewhere.")
    _refuse_existing(target, force=force)
    return target


def _refuse_existing(target: Path, *, force: bool) -> None:
    if target.exists() and not force:
        raise BackupError(f"{target} exists. Name another file, or replace it with --force.")


async def back_up(
    settings: Settings, target: Path, *, force: bool = False, with_secrets: bool = False, console: Console
) -> Manifest:
    """Write a backup of the running or stopped suite to `target`, mode 0600, and return what it holds.

    It appears under its name when it is complete and has been read again; until then nothing is there. Raises
    BackupError when it cannot be made.
    """
    refuse_hosted(settings)
    async with _open_database(settings, console) as (postgres, credentials):
        with _complete_or_absent(target, force=force) as (stream, file):
            writer = ArchiveWriter(stream)
            manifest = await _write(settings, postgres, writer, console)
            if with_secrets:
                writer.add(archive.SECRETS, json.dumps(_shared(credentials)).encode())
            manifest = manifest.model_copy(update={"members": dict(writer.members)})
            writer.seal(manifest)
            stream.flush()
            os.fsync(stream.fileno())
            with console.step("read again and compared"):
                checked = await archive.check(file, console.counter("reading again", file.stat().st_size))
            if checked.manifest != manifest:
                raise BackupError(f"{file} does not hold what was written to it. Is the disk failing?")
    return manifest


def _shared(credentials: Credentials) -> dict[str, str]:
    """The keys that another machine needs to take the tokens that this one has issued."""
    kept = credentials.model_dump(include={*SHARED_SECRETS, *LATER_SECRETS})
    return {name: value for name, value in kept.items() if value}  # a folder of an earlier version has fewer


@asynccontextmanager
async def _open_database(settings: Settings, console: Console) -> AsyncIterator[tuple[Postgres, Credentials]]:
    """The database of the running suite, or one started for this alone."""
    if not settings.home.is_dir():
        raise BackupError(_no_database(settings.home))
    state = read_state(settings.home)
    if state is not None and state.supervisor is not None:
        if not state.ready or "postgres" not in state.processes:
            raise BackupError(
                "Concerto is just starting or stopping. Wait until `concerto status` says that it is ready."
            )
        credentials = read_credentials(settings.home)
        yield Postgres(settings.home, state.processes["postgres"].port, credentials), credentials
        return
    with supervisor_lock(settings.home) as is_acquired:
        if not is_acquired:
            raise BackupError(already_running(settings.home))
        end_orphans(settings.home)
        finish_exchange(settings.home)
        if not (settings.home / "postgres" / "PG_VERSION").exists():
            raise BackupError(_no_database(settings.home))
        credentials = read_credentials(settings.home)
        own = on_free_ports(settings, settings.home)
        async with started_postgres(own, credentials, console, logs=settings.home / "logs") as (postgres, _):
            yield postgres, credentials


def _no_database(home: Path) -> str:
    return f"There is no database in {home} yet. `concerto up` makes one."


@contextmanager
def _complete_or_absent(target: Path, *, force: bool) -> Iterator[tuple[BinaryIO, Path]]:
    """A file that takes its name at the end of the block; when anything goes wrong before, it is deleted."""
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")  # mode 0600
    except OSError as error:
        raise BackupError(f"{target} cannot be written: {error.strerror}.") from error
    partial = Path(name)
    try:
        with os.fdopen(handle, "w+b") as stream:
            yield stream, partial
        _refuse_existing(target, force=force)
        partial.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        free = human_bytes(shutil.disk_usage(target.parent).free)
        raise BackupError(
            f"There is no room for {target}: {free} are free in its folder. Make room, or name a file elsewhere. "
            "Nothing was written."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


async def _write(settings: Settings, postgres: Postgres, writer: ArchiveWriter, console: Console) -> Manifest:
    connection = await asyncpg.connect(postgres.admin_url, timeout=10)
    links = _folder_for_links(settings.home / "run")
    try:
        for last in (*[False] * (ATTEMPTS - 1), True):
            # One snapshot for the list of files, the dump and the counts: all see the same moment.
            await connection.execute("begin isolation level repeatable read read only")
            pinned, without_content = objects.pin(settings.home / "storage", links, await _object_rows(connection))
            if last or not without_content:
                return await _write_snapshot(postgres, connection, writer, pinned, without_content, console)
            await connection.execute("rollback")
            # Content comes before its row: somebody may be between the two.
            await asyncio.sleep(PAUSE_SECONDS)
        raise BackupError("The stored files could not be read.")
    except (asyncpg.InterfaceError, asyncpg.PostgresConnectionError) as error:
        raise BackupError("The database went away meanwhile. Try again when it runs.") from error
    finally:
        shutil.rmtree(links, ignore_errors=True)
        # It may be broken by now, which must not hide what went wrong.
        with suppress(OSError, asyncpg.InterfaceError, asyncpg.PostgresError):
            await connection.close(timeout=5)


def _folder_for_links(folder: Path) -> Path:
    make_private_folder(folder)
    for left in folder.glob("backup-*"):  # of backups that were killed: they would keep deleted files
        owner = left.name.split("-")[1]
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=folder, prefix=f"backup-{os.getpid()}-"))


async def _object_rows(connection: asyncpg.Connection) -> list[objects.Row]:
    if await connection.fetchval("select to_regclass('storage.objects')") is None:
        return []
    found = await connection.fetch(
        "select bucket_id, name, metadata ->> 'eTag' as etag from storage.objects order by bucket_id, name"
    )
    return [objects.Row(row["bucket_id"], row["name"], row["etag"]) for row in found]


async def _write_snapshot(
    postgres: Postgres,
    connection: asyncpg.Connection,
    writer: ArchiveWriter,
    pinned: list[objects.Pinned],
    without_content: list[objects.Row],
    console: Console,
) -> Manifest:
    created_at = datetime.now(UTC)
    snapshot = await connection.fetchval("select pg_export_snapshot()")
    writer.add(archive.ROLES, (await dump.dump_roles(postgres)).encode())
    with console.step("database"), writer.member(archive.DATABASE) as take:
        await dump.dump_database(postgres, snapshot, _counted(take, console.counter("database")))
    with console.step("rows counted and hashed"):
        content = await fingerprint.take(connection)
    stored: list[StoredObject] = []
    if pinned:
        with console.step(f"{len(pinned)} stored file{'s' if len(pinned) > 1 else ''}"):
            stored = [await _write_object(writer, each) for each in pinned]
    return Manifest(
        format=archive.FORMAT,
        concerto=version("concerto"),
        created_at=created_at,
        postgres=await connection.fetchval("show server_version"),
        migrations=await _applied_migrations(connection),
        database_bytes=await connection.fetchval("select pg_database_size(current_database())"),
        tables=content.tables,
        sequences=content.sequences,
        definitions=content.definitions,
        objects=stored,
        missing=[f"{row.bucket}/{row.key}" for row in without_content],
        members={},
    )


async def _applied_migrations(connection: asyncpg.Connection) -> list[str]:
    if await connection.fetchval("select to_regclass('supabase_migrations.schema_migrations')") is None:
        return []
    rows = await connection.fetch("select version from supabase_migrations.schema_migrations order by version")
    return [row["version"] for row in rows]


async def _write_object(writer: ArchiveWriter, pinned: objects.Pinned) -> StoredObject:
    with pinned.file.open("rb") as stream:
        sha256, size = hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()
        name = f"objects/{sha256}"
        if name not in writer.members:  # the same content under several names is kept once
            stream.seek(0)
            with writer.member(name) as take:
                while chunk := stream.read(CHUNK):
                    take(chunk)
                    await asyncio.sleep(0)  # so that Ctrl-C is heard
    return objects.describe(pinned, sha256=sha256, size=size)


def _counted(take: Callable[[bytes], None], report: Callable[[int], None]) -> Callable[[bytes], None]:
    done = 0

    def take_and_report(chunk: bytes) -> None:
        nonlocal done
        take(chunk)
        done += len(chunk)
        report(done)

    return take_and_report
