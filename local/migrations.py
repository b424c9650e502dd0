"""Applies `supabase/migrations` with the Supabase CLI, and gives the login roles their passwords."""

import asyncio
import os
import re
from pathlib import Path

import asyncpg

from local.postgres import LOGIN_ROLE, MIGRATION_ROLE, Postgres

FILE_PATTERN = re.compile(r"^(\d{14})_\w[\w.-]*\.sql$")
TIMEOUT_SECONDS = 300


class MigrationError(Exception):
    """A migration failed. The message holds the end of what the CLI said."""


def migration_versions(project: Path) -> list[str]:
    """The versions (14 digits) of the files in `project`/supabase/migrations, in order."""
    folder = project / "supabase" / "migrations"
    if not folder.is_dir():
        return []
    return sorted(match[1] for entry in folder.iterdir() if (match := FILE_PATTERN.match(entry.name)))


async def pending_versions(project: Path, url: str) -> list[str]:
    """The versions that the database at `url` does not have yet."""
    wanted = migration_versions(project)
    connection = await asyncpg.connect(url, timeout=10)
    try:
        if await connection.fetchval("select to_regclass('supabase_migrations.schema_migrations')") is None:
            return wanted
        rows = await connection.fetch("select version from supabase_migrations.schema_migrations")
    finally:
        await connection.close()
    applied = {row["version"] for row in rows}
    return [version for version in wanted if version not in applied]


async def apply_migrations(project: Path, postgres: Postgres, *, node: Path) -> None:
    """Run `supabase migration up` as the migration role. Raises MigrationError with the CLI's last lines."""
    executable = project / "node_modules" / ".bin" / "supabase"
    if not executable.exists():
        raise MigrationError("The Supabase CLI is not installed. Run `make setup`.")
    # The password travels in the environment: an argument list can be read by everybody on the machine.
    environment = {
        "PATH": f"{node.parent}{os.pathsep}/usr/local/bin{os.pathsep}/usr/bin{os.pathsep}/bin",
        "HOME": str(postgres.home / "run"),
        "PGPASSWORD": postgres.credentials.migration_password,
        "SUPABASE_TELEMETRY_DISABLED": "1",
        "SUPABASE_NO_UPDATE_NOTIFIER": "1",
        "DO_NOT_TRACK": "1",
        "CI": "1",
        "NO_COLOR": "1",
    }
    url = f"postgresql://{MIGRATION_ROLE}@127.0.0.1:{postgres.port}/postgres?sslmode=disable"
    process = await asyncio.create_subprocess_exec(
        str(executable),
        "migration",
        "up",
        f"--remote={url}",
        "--include-all",
        "--yes",
        cwd=project,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode != 0:
        tail = "\n".join(output.decode(errors="replace").strip().splitlines()[-25:])
        raise MigrationError(f"The migrations were not applied (exit code {process.returncode}):\n{tail}")


async def set_role_passwords(postgres: Postgres) -> None:
    """Give the migration role and, once the migrations made it, the services' login role the generated passwords."""
    passwords = {
        MIGRATION_ROLE: postgres.credentials.migration_password,
        LOGIN_ROLE: postgres.credentials.login_password,
    }
    connection = await asyncpg.connect(postgres.admin_url, timeout=10)
    try:
        for role, password in passwords.items():
            if not await connection.fetchval("select exists (select from pg_roles where rolname = $1)", role):
                continue
            statement = await connection.fetchval(
                "select format('alter role %I login password %L', $1::text, $2::text)", role, password
            )
            await connection.execute(statement)
    finally:
        await connection.close()


async def apply_seed(project: Path, postgres: Postgres) -> bool:
    """Run `supabase/seed.sql` as the migration role, in one transaction; False when there is none."""
    file = project / "supabase" / "seed.sql"
    if not file.is_file():
        return False
    connection = await asyncpg.connect(postgres.migration_url, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute(file.read_text())
    except asyncpg.PostgresError as error:
        raise MigrationError(f"supabase/seed.sql failed: {error}") from error
    finally:
        await connection.close()
    return True
