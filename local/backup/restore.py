"""`concerto restore`: makes database and stored files of a backup anew, and puts them in the place of the old."""

import asyncio
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
from pydantic import ValidationError

from local.backup import archive, dump, fingerprint, objects
from local.backup.archive import Archive, Manifest
from local.backup.create import LATER_SECRETS, SHARED_SECRETS
from local.backup.faults import BackupError
from local.backup.fingerprint import Fingerprint
from local.backup.swap import STAGING, exchange, finish_exchange, journal_file
from local.console import Console, human_bytes
from local.embedded.credentials import Credentials, CredentialsError, credentials_file, read_credentials
from local.embedded.postgres import Postgres
from local.embedded.temporary import on_free_ports, started_postgres
from local.files import make_private_folder, write_private
from local.migrations.apply import apply_migrations, migration_versions, pending_versions, set_role_passwords, take_over
from local.migrations.baseline import as_of_baseline
from local.migrations.supabase_cli import MigrationError
from local.settings import ROOT, Settings
from local.suite.processes import node_program, supabase_spec

POSTGRES_MAJOR = 18
SPACE_FACTOR = 1.3
"""Of the bytes that the database had: what a restored one may need, with the log of its own making."""


async def open_backup(settings: Settings, file: Path, console: Console) -> Archive:
    """Check a backup wholly, and that this version of Concerto can hold it. Nothing is changed.

    Raises BackupError saying what is wrong with it, or what to do first.
    """
    with console.step("backup read and compared"):
        backup = await archive.check(file, console.counter("reading"))
    _refuse_newer(backup.manifest)
    _refuse_without_space(settings.home, backup.manifest)
    _shared_secrets(backup)
    return backup


def _refuse_newer(manifest: Manifest) -> None:
    try:
        unknown = sorted(as_of_baseline(manifest.migrations) - set(migration_versions(ROOT)))
    except MigrationError as error:
        raise BackupError(f"The backup cannot be restored by this version of Concerto. {error}") from None
    if unknown:
        raise BackupError(
            f"The backup has {len(unknown)} migrations that this version of Concerto does not know (the first is "
            f"{unknown[0]}). It was made by Concerto {manifest.concerto}: update this working copy to that version or "
            "a later one, run `make setup`, then restore again."
        )
    if int(manifest.postgres.split(".")[0]) > POSTGRES_MAJOR:
        raise BackupError(
            f"The backup comes from Postgres {manifest.postgres}, and this version of Concerto has {POSTGRES_MAJOR}. "
            "Update this working copy, run `make setup`, then restore again."
        )


def _refuse_without_space(home: Path, manifest: Manifest) -> None:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    needed = int(manifest.database_bytes * SPACE_FACTOR) + manifest.object_bytes
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise BackupError(
            f"Restoring needs about {human_bytes(needed)} in {home}, and {human_bytes(free)} are free there. Make "
            "room, or set CONCERTO_HOME to a folder elsewhere. Nothing was changed."
        )


def _shared_secrets(backup: Archive) -> dict[str, str]:
    """The keys that the backup was made with; empty when it was made without."""
    if archive.SECRETS not in backup.extents:
        return {}
    try:
        found = json.loads(backup.text(archive.SECRETS))
    except ValueError:
        found = None
    is_known = isinstance(found, dict) and {*found} - {*LATER_SECRETS} == {*SHARED_SECRETS}
    if not is_known or not all(map(_is_text, found.values())):
        raise BackupError(f"{backup.file} holds keys that are none of Concerto's. Use another copy of it.")
    return {name: str(value) for name, value in found.items()}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _credentials(home: Path, backup: Archive) -> Credentials:
    """Those of this data folder, or new ones; with the keys of the backup where it holds some."""
    try:
        own = read_credentials(home)
    except CredentialsError:
        own = Credentials.generate()  # none yet, or lost: the new database gets passwords of its own
    try:
        return Credentials.model_validate(own.model_dump() | _shared_secrets(backup))
    except ValidationError:
        raise BackupError(f"{backup.file} holds keys that cannot be used. Use another copy of it.") from None


async def restore(settings: Settings, backup: Archive, console: Console) -> Path | None:
    """Make everything anew beside the present data, compare it with the manifest, migrate it, and exchange the two.

    The caller holds the data folder's lock. Returns where the old data is kept; None when there was none. Whatever
    fails before the exchange leaves the data folder as it was. Raises BackupError, or a fault of the start.
    """
    home = settings.home
    staging = home / STAGING
    finish_exchange(home)
    _clear(home)
    try:
        make_private_folder(staging)
        credentials = _credentials(home, backup)
        if Postgres(home, 0, credentials).account.user is not None:
            home.chmod(0o711)  # as `Postgres.initialise`: that account passes through to the new data
        write_private(credentials_file(staging), credentials.model_dump_json(indent=2) + "\n")
        await _restore_objects(staging / "storage", backup, console)
        await _restore_database(on_free_ports(settings, staging), credentials, backup, console)
        return exchange(home, before=f"before-restore-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    finally:
        if not journal_file(home).exists():  # an exchange that failed half-way goes on at the next start
            _clear(home)


def _clear(home: Path) -> None:
    """Delete what an attempt has left, after stopping a Postgres that may still run on it."""
    staging = home / STAGING
    if staging.exists():
        Postgres(staging, 0, Credentials.generate()).remove_stale_lock()
        shutil.rmtree(staging, ignore_errors=True)


async def _restore_objects(root: Path, backup: Archive, console: Console) -> None:
    make_private_folder(root)
    count = len(backup.manifest.objects)
    if not count:
        return
    with console.step(f"{count} stored file{'s' if count > 1 else ''}"):
        for stored in backup.manifest.objects:
            objects.write(root, stored, backup.chunks(f"objects/{stored.sha256}"))
            await asyncio.sleep(0)  # so that Ctrl-C is heard


async def _restore_database(settings: Settings, credentials: Credentials, backup: Archive, console: Console) -> None:
    logs = settings.home / "logs"
    async with started_postgres(settings, credentials, console, logs=logs) as (postgres, supervisor):
        with console.step("database"):
            await dump.restore_roles(postgres, backup.text(archive.ROLES))
            await dump.restore_database(postgres, backup.chunks(archive.DATABASE))
        with console.step("rows counted and compared"):
            await _compare(postgres, backup.manifest)
        await set_role_passwords(postgres)
        await take_over(postgres.migration_url)
        pending = await pending_versions(ROOT, postgres.admin_url)
        if pending:
            with console.step(f"{len(pending)} newer migration{'s' if len(pending) > 1 else ''}"):
                # The platform's own tables first, as at every start: a migration may rely on a newer form of them.
                await supervisor.start(supabase_spec(settings, credentials, postgres))
                await apply_migrations(ROOT, postgres, node=node_program())
                await set_role_passwords(postgres)
        connection = await asyncpg.connect(postgres.admin_url, timeout=10)
        try:
            await connection.execute("analyze")  # a dump holds no statistics, and the first requests need them
        finally:
            await connection.close()


async def _compare(postgres: Postgres, manifest: Manifest) -> None:
    connection = await asyncpg.connect(postgres.admin_url, timeout=10)
    try:
        async with connection.transaction(readonly=True):
            found = await fingerprint.take(connection)
    finally:
        await connection.close()
    wanted = Fingerprint(manifest.tables, manifest.sequences, manifest.definitions)
    problems = fingerprint.differences(wanted, found)
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:20])
        raise BackupError(f"What was restored is not what was backed up; nothing was changed.\n{shown}")


def describe(manifest: Manifest) -> list[str]:
    """A few lines on what a backup is."""
    lines = [
        f"Made on  {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC by Concerto {manifest.concerto}",
        f"Holds    {manifest.rows} rows in {len(manifest.tables)} tables, {len(manifest.objects)} stored files "
        f"({human_bytes(manifest.object_bytes)})",
    ]
    if manifest.missing:
        lines.append(f"Lacks    the content of {len(manifest.missing)} stored files, as it was lost before the backup")
    return lines


def list_tables(manifest: Manifest) -> list[str]:
    """Each table with its rows and the beginning of their hash, to compare by eye."""
    width = max((len(name) for name in manifest.tables), default=5)
    return [
        f"  {name:<{width}}  {table.rows:>9}  {table.sha256[:16]}" for name, table in sorted(manifest.tables.items())
    ]
