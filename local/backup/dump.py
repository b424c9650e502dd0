"""The database as a stream: `pg_dump` and `pg_restore` of the Postgres that is installed with the suite."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import asyncpg

from local.backup.archive import CHUNK
from local.backup.faults import BackupError
from local.embedded.postgres import DATABASE, SUPERUSER, Postgres

ERROR_LENGTH = 300


async def dump_database(postgres: Postgres, snapshot: str, take: Callable[[bytes], None]) -> None:
    """Hand a dump of the whole database as of an exported snapshot to `take`, piece by piece.

    Everything is in it: each schema with owners, rights, policies and triggers, the extension, and the database's own
    settings. Raises BackupError when it fails.
    """
    options = ("--format=custom", f"--snapshot={snapshot}", "--lock-wait-timeout=30s")
    async with _program(postgres, "pg_dump", *options, f"--dbname={_address(postgres, DATABASE)}") as (process, _):
        while chunk := await _stdout(process).read(CHUNK):
            take(chunk)


async def dump_roles(postgres: Postgres) -> str:
    """The statements that make the cluster's roles, their settings and memberships anew; without any password."""
    options = ("--roles-only", "--no-role-passwords", f"--dbname={_address(postgres, DATABASE)}")
    async with _program(postgres, "pg_dumpall", *options) as (process, _):
        text = (await _stdout(process).read()).decode()
    # The superuser exists in every cluster of ours; lines with a backslash are for psql alone.
    lines = [line for line in text.splitlines() if line != f"CREATE ROLE {SUPERUSER};" and not line.startswith("\\")]
    return "\n".join(lines) + "\n"


async def restore_roles(postgres: Postgres, statements: str) -> None:
    """Run what `dump_roles` wrote in a new cluster. Raises BackupError when it does not fit there."""
    connection = await asyncpg.connect(postgres.admin_url, timeout=10)
    try:
        await connection.execute(statements)
    except asyncpg.PostgresError as error:
        raise BackupError(f"The roles of the backup cannot be made: {error}") from error
    finally:
        await connection.close()


async def restore_database(postgres: Postgres, chunks: Iterable[bytes]) -> None:
    """Make the database of a new cluster anew from a dump. Raises BackupError when it fails."""
    # Connected to another database, as the one of that name is dropped and created with its settings.
    options = ("--create", "--clean", "--if-exists", "--exit-on-error", f"--dbname={_address(postgres, 'template1')}")
    async with _program(postgres, "pg_restore", *options) as (process, stdin):
        # A program that has failed reads no more; what it said is told when it ends.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for chunk in chunks:
                stdin.write(chunk)
                await stdin.drain()
            stdin.close()
            await stdin.wait_closed()
        await _stdout(process).read()


def _address(postgres: Postgres, database: str) -> str:
    return f"postgresql://{SUPERUSER}@127.0.0.1:{postgres.port}/{database}?sslmode=disable"


def _stdout(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    if process.stdout is None:
        raise BackupError("A program of Postgres was started without its output.")
    return process.stdout


@asynccontextmanager
async def _program(
    postgres: Postgres, name: str, *options: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamWriter]]:
    """Run a program for as long as the block lasts; afterwards it must have ended well. Raises BackupError."""
    # The password travels in the environment: an argument list can be read by everybody on the machine.
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGPASSWORD": postgres.credentials.admin_password}
    process = await asyncio.create_subprocess_exec(
        str(postgres.binaries / name),
        "--no-password",
        *options,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=CHUNK,
        # A session of its own: Ctrl-C reaches us alone, and we end it.
        start_new_session=True,
    )
    if process.stdin is None or process.stderr is None:
        raise BackupError(f"{name} was started without its pipes.")
    errors_read = asyncio.create_task(process.stderr.read())
    try:
        yield process, process.stdin
        errors = (await errors_read).decode(errors="replace")
        code = await process.wait()
    finally:
        errors_read.cancel()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code != 0:
        raise BackupError(f"{name} failed: {first_error(errors) or f'exit code {code}'}")


def first_error(text: str) -> str:
    """The first complaint; never the lines of context below it, which may hold a row."""
    lines = [line for line in text.splitlines() if "error:" in line.lower()]
    return lines[0][:ERROR_LENGTH] if lines else ""
