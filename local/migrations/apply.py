"""Applies `supabase/migrations` with the Supabase CLI, and gives the login roles their passwords."""

import re
from pathlib import Path

import asyncpg

from local.embedded.postgres import LOGIN_ROLE, MIGRATION_ROLE, Postgres
from local.migrations.baseline import BASELINE, folded_of
from local.migrations.login_role import role_statements
from local.migrations.supabase_cli import MigrationError, SupabaseCli, address_target
from local.settings import ROOT

FILE_PATTERN = re.compile(r"^(\d{14})_\w[\w.-]*\.sql$")
_HISTORY_EXISTS = "select to_regclass('supabase_migrations.schema_migrations') is not null"
_VERSIONS = "select version from supabase_migrations.schema_migrations"
# A second process that does the same waits, and then finds it done.
_LOCK = "lock table supabase_migrations.schema_migrations in share row exclusive mode"
_FORGET = "delete from supabase_migrations.schema_migrations where version = any($1::text[])"
_NOTE = (
    "insert into supabase_migrations.schema_migrations (version, name) values ($1, 'baseline') on conflict do nothing"
)


def migration_files(project: Path, folder: str = "migrations") -> dict[str, Path]:
    """The files in `project`/supabase/<folder> by their versions (14 digits), in order."""
    path = project / "supabase" / folder
    entries = sorted(path.iterdir()) if path.is_dir() else []
    return {match[1]: entry for entry in entries if (match := FILE_PATTERN.match(entry.name))}


def migration_versions(project: Path) -> list[str]:
    """The versions (14 digits) of the files in `project`/supabase/migrations, in order."""
    return list(migration_files(project))


async def pending_versions(project: Path, url: str) -> list[str]:
    """The versions that the database at `url` does not have yet; the baseline too until `take_over` has noted it."""
    wanted = migration_versions(project)
    connection = await asyncpg.connect(url, timeout=10)
    try:
        if not await connection.fetchval(_HISTORY_EXISTS):
            return wanted
        applied = await _versions(connection)
    finally:
        await connection.close()
    return [version for version in wanted if version not in applied]


async def take_over(url: str) -> bool:
    """Let the history of a database that has all of `FOLDED` say the baseline instead; says whether it did.

    url: of the role that applies migrations. Nothing but the history is changed. Raises MigrationError when it has only
    some of them.
    """
    connection = await asyncpg.connect(url, timeout=10)
    try:
        if not await connection.fetchval(_HISTORY_EXISTS) or not folded_of(await _versions(connection)):
            return False
        async with connection.transaction():
            await connection.execute(_LOCK)
            found = folded_of(await _versions(connection))
            if found:
                await connection.execute(_NOTE, BASELINE)
                await connection.execute(_FORGET, list(found))
        return bool(found)
    finally:
        await connection.close()


async def _versions(connection: asyncpg.Connection) -> set[str]:
    return {row["version"] for row in await connection.fetch(_VERSIONS)}


async def apply_migrations(project: Path, postgres: Postgres, *, node: Path) -> None:
    """Run `supabase migration up` as the migration role. Raises MigrationError with the CLI's last lines."""
    cli = SupabaseCli(project, node=node, environment={})
    target = address_target(postgres.migration_url, home=postgres.home / "run")
    answer = await cli.on(target, "migration", "up", "--include-all", "--yes")
    if answer.code != 0:
        raise MigrationError(f"The migrations were not applied (exit code {answer.code}):\n{answer.tail}")


async def set_role_passwords(postgres: Postgres) -> None:
    """Give the migration role and, once the migrations made it, the services' login role the generated passwords.

    The login role, which may change its own settings, gets those of its schema file again.
    """
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
            if role == LOGIN_ROLE:
                await connection.execute(role_statements(ROOT))
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
