"""`concerto migrate --target hosted`: compares a project's migrations with the files, and applies or undoes some."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from local.console import Console
from local.embedded.postgres import Postgres
from local.migrations.apply import migration_files
from local.migrations.baseline import BASELINE, as_of_baseline, folded_of
from local.migrations.limits import statements_of
from local.migrations.supabase_cli import MigrationError, SupabaseCli, Target, address_target, with_tls
from local.settings import Settings

LINKED = "the linked project"
# The Supabase CLI's own history.
HISTORY_EXISTS = "select to_regclass('supabase_migrations.schema_migrations') is not null"
LAST = "select version from supabase_migrations.schema_migrations order by version desc limit $1"
LOCK = "lock table supabase_migrations.schema_migrations in share row exclusive mode"
FORGET = "delete from supabase_migrations.schema_migrations where version = $1"
CONNECT_SECONDS = 10
Ask = Callable[[str], bool]
"""Puts a question to a person and returns whether the answer is yes."""


@dataclass(frozen=True)
class History:
    """Versions of migrations: those that are files here, and those that a database says were applied."""

    files: tuple[str, ...]
    applied: tuple[str, ...]

    @property
    def folded(self) -> tuple[str, ...]:
        """What was applied and stands in the baseline now. Raises MigrationError when only a part of it was."""
        return folded_of(self.applied)

    def at_baseline(self) -> "History":
        """The same once the baseline is noted for what it holds. Raises MigrationError as `folded`."""
        return History(self.files, tuple(sorted(as_of_baseline(self.applied))))

    @property
    def pending(self) -> tuple[str, ...]:
        """What the database does not have yet."""
        return tuple(version for version in self.files if version not in self.applied)

    @property
    def unknown(self) -> tuple[str, ...]:
        """What was applied and is no file here: the files are older than the database, or were lost."""
        return tuple(version for version in self.applied if version not in self.files)

    @property
    def late(self) -> tuple[str, ...]:
        """What is pending although something newer was applied."""
        newest = max(self.applied, default="")
        return tuple(version for version in self.pending if version < newest)


class HostedProject:
    """A project's database, reached with the Supabase CLI: by its address, or as a linked project."""

    def __init__(self, settings: Settings, project: Path, *, node: Path) -> None:
        """project: the working copy with supabase/. Raises MigrationError for an address that is none."""
        self._project = project
        self._cli = SupabaseCli(project, node=node, environment=settings.variables)
        self._target = target_of(settings)
        self._to_link = settings.project_id if self._target.flag == "--remote" else ""

    @property
    def description(self) -> str:
        """Which database this is, for people."""
        return self._target.description

    async def link(self) -> None:
        """Link the working copy to SUPABASE_PROJECT_ID, once; nothing to do for an address or without that name.

        Raises MigrationError with the CLI's last lines.
        """
        if not self._to_link:
            return
        arguments = ("link", "--project-ref", self._to_link)
        answer = await self._cli.run(*arguments, environment=self._target.environment)
        if answer.code != 0:
            raise MigrationError(
                f"The project {self._to_link} cannot be linked. Set SUPABASE_ACCESS_TOKEN (or log in with "
                f"`npm run supabase:login`) and SUPABASE_DB_PASSWORD:\n{answer.tail}"
            )
        self._to_link = ""

    async def history(self) -> History:
        """What was applied, and what there are files of. Raises MigrationError when the database cannot be asked."""
        await self.link()
        answer = await self._cli.on(self._target, "migration", "list", "--output-format", "json")
        if answer.code != 0:
            raise MigrationError(f"{_upper(self.description)} cannot be asked for its migrations:\n{answer.tail}")
        rows = answer.find("migrations")
        applied = tuple(sorted(str(row["remote"]) for row in rows if row.get("remote")))
        return History(tuple(migration_files(self._project)), applied)

    async def take_over(self, folded: Sequence[str]) -> None:
        """Let the history name the baseline for the versions that it holds. Raises MigrationError.

        The baseline comes first: where this is cut off, the next time goes on with what is left.
        """
        for status, versions in (("applied", (BASELINE,)), ("reverted", folded)):
            answer = await self._cli.on(self._target, "migration", "repair", "--status", status, *versions, "--yes")
            if answer.code != 0:
                raise MigrationError(f"`supabase migration repair` failed (exit code {answer.code}):\n{answer.tail}")

    async def push(self, *, include_late: bool, dry_run: bool = False) -> None:
        """Apply what is pending, or (dry_run) only ask the CLI whether it would. Raises MigrationError."""
        options = ["--dry-run"] if dry_run else ["--yes"]
        options += ["--include-all"] if include_late else []
        answer = await self._cli.on(self._target, "db", "push", *options)
        if answer.code != 0:
            raise MigrationError(f"`supabase db push` failed (exit code {answer.code}):\n{answer.tail}")

    async def set_limits(self, statement: str) -> None:
        """Write what the settings say of users. Raises MigrationError."""
        answer = await self._cli.on(self._target, "db", "query", statement, "--yes")
        if answer.code != 0:
            raise MigrationError(f"What is set of users was not written (exit code {answer.code}):\n{answer.tail}")

    async def advise(self) -> tuple[bool, str]:
        """Ask Supabase's own advisors; returns whether they are content, and the end of what they say."""
        await self.link()
        answer = await self._cli.on(self._target, "db", "advisors", "--level", "info", "--fail-on", "warn")
        return answer.code == 0, answer.tail


def target_of(settings: Settings) -> Target:
    """The database that the settings name: an address, a project to link, or the project that is linked already.

    Raises MigrationError for an address that is none.
    """
    url = settings.migration_db_url.get_secret_value()
    if url:
        return address_target(url, home=settings.home / "run")
    environment: dict[str, str] = {
        name: settings.variables[name] for name in ("HOME", "XDG_CONFIG_HOME") if name in settings.variables
    }
    for name, secret in (
        ("SUPABASE_ACCESS_TOKEN", settings.access_token),
        ("SUPABASE_DB_PASSWORD", settings.db_password),
    ):
        if secret.get_secret_value():
            environment[name] = secret.get_secret_value()
    if settings.project_id:
        environment["SUPABASE_PROJECT_ID"] = settings.project_id
    return Target(f"the project {settings.project_id}" if settings.project_id else LINKED, "--remote", environment)


async def migrate(
    settings: Settings,
    project: Path,
    console: Console,
    *,
    node: Path,
    ask: Ask | None,
    dry_run: bool = False,
    include_late: bool = False,
) -> None:
    """Bring a hosted project's database up to date, with what the settings say of users; says what is and was applied.

    ask: None applies without asking. Raises MigrationError when something was applied that is no file here, when a
    pending migration is older than an applied one (unless `include_late`), when only a part of what the baseline holds
    was applied, and when the CLI fails.
    """
    hosted = HostedProject(settings, project, node=node)
    found = await hosted.history()
    history, folded = found.at_baseline(), found.folded
    names = {version: file.name for version, file in migration_files(project).items()}
    console.line(f"{_upper(hosted.description)} has {len(found.applied)} migrations, here are {len(found.files)}.")
    refuse_unknown(history)
    if folded:
        console.line(f"{len(folded)} of them stand in {names[BASELINE]} now, so only the history changes.")
        if not dry_run:
            if ask is not None and not ask(f"Let the history of {hosted.description} name that one instead?"):
                raise MigrationError("Nothing was changed.")
            await hosted.take_over(folded)
    if not history.pending:
        console.line("Nothing is pending.")
        if not dry_run:
            await _set_limits(hosted, settings, console)
        return
    console.line("Pending:" if dry_run else "To be applied:")
    for version in history.pending:
        console.line(f"  {names[version]}{'  (older than an applied one)' if version in history.late else ''}")
    if history.late and not include_late:
        raise MigrationError(
            "A migration must be newer than those that were applied. Rename the file and its rollback to a new time "
            "(docs/migrations.md, Two branches), or say --include-all if it stands on nothing that came later."
        )
    if dry_run:
        if not folded:  # the CLI refuses a history whose files are gone
            await hosted.push(include_late=include_late, dry_run=True)
        console.line("Nothing was applied: this was a dry run.")
        return
    if ask is not None and not ask(f"Apply {len(history.pending)} to {hosted.description}?"):
        raise MigrationError("Nothing was applied.")
    try:
        await hosted.push(include_late=include_late)
    except MigrationError as error:
        now = await hosted.history()
        done = [names[version] for version in history.pending if version in now.applied]
        state = f"Applied before that: {', '.join(done)}." if done else "None of them was applied."
        raise MigrationError(f"{error}\n{state} docs/migrations.md says how to go on.") from error
    left = (await hosted.history()).pending
    if left:
        raise MigrationError(f"The CLI left out {', '.join(names[version] for version in left)}. Run it again.")
    console.line(f"Applied {len(history.pending)}; nothing is pending.")
    await _set_limits(hosted, settings, console)


async def _set_limits(hosted: HostedProject, settings: Settings, console: Console) -> None:
    statements = statements_of(settings)
    for statement in statements.values():
        await hosted.set_limits(statement)
    if statements:
        console.line("The limits of users and who may sign up are as they are set.")


def refuse_unknown(history: History) -> None:
    """Raise MigrationError when something was applied that is no file here."""
    if history.unknown:
        raise MigrationError(
            f"Applied there, but no file here: {', '.join(history.unknown)}. Get the newest files (`git pull`) and try "
            "again. A migration that somebody has undone by hand is taken out of the history with `npm run "
            "supabase:migrate:repair -- --status reverted <version>`."
        )


async def undo_hosted(settings: Settings, project: Path, console: Console, *, count: int, ask: Ask | None) -> None:
    """Undo the last migrations of the database at SUPABASE_MIGRATION_DB_URL; see `undo`."""
    url = settings.migration_db_url.get_secret_value()
    if not url:
        raise MigrationError(
            "Undoing needs SUPABASE_MIGRATION_DB_URL, so that each rollback and its place in the history are one "
            "transaction. Copy the address of the role postgres from the project: direct, or a pooler's on port 5432."
        )
    target = address_target(url, home=settings.home)
    await undo(project, with_tls(url), console, description=target.description, count=count, ask=ask)


async def undo_embedded(project: Path, postgres: Postgres, console: Console, *, count: int, ask: Ask | None) -> None:
    """Undo the last migrations of the embedded database; see `undo`."""
    await undo(project, postgres.migration_url, console, description="the embedded database", count=count, ask=ask)


async def undo(project: Path, url: str, console: Console, *, description: str, count: int, ask: Ask | None) -> None:
    """Run the rollbacks of the last `count` migrations, newest first, each with its history in one transaction.

    url: of the role that applied them. ask: None undoes without asking. Raises MigrationError before anything is
    undone when there are not so many or a rollback is missing, and after the last that went well when one fails.
    """
    connection = await _connect(url, description)
    try:
        rows: Sequence[asyncpg.Record] = []
        if await connection.fetchval(HISTORY_EXISTS):
            rows = await connection.fetch(LAST, count)
        if len(rows) < count:
            raise MigrationError(f"{_upper(description)} has only {len(rows)} migrations. Nothing was undone.")
        rollbacks = migration_files(project, "rollbacks")
        versions = [str(row["version"]) for row in rows]
        missing = [version for version in versions if version not in rollbacks]
        if missing:
            raise MigrationError(f"No rollback of {', '.join(missing)} in supabase/rollbacks. Nothing was undone.")
        console.line("To be undone, with the data that only they hold:")
        for version in versions:
            console.line(f"  {rollbacks[version].name}")
        if ask is not None and not ask(f"Undo {count} of {description}? There is no way back but a backup."):
            raise MigrationError("Nothing was undone.")
        for version in versions:
            await _roll_back(connection, version, rollbacks[version])
            console.line(f"  undone: {rollbacks[version].name}")
    finally:
        await connection.close()


async def _connect(url: str, description: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(url, timeout=CONNECT_SECONDS, statement_cache_size=0)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        # The text of some errors quotes the address.
        raise MigrationError(
            f"{_upper(description)} cannot be reached ({type(error).__name__}). Check the address and the password."
        ) from None


async def _roll_back(connection: asyncpg.Connection, version: str, file: Path) -> None:
    statements = await asyncio.to_thread(file.read_text)
    try:
        async with connection.transaction():
            # Two people who undo at once must not run the same rollback.
            await connection.execute(LOCK)
            if await connection.execute(FORGET, version) != "DELETE 1":
                raise MigrationError(f"{version} has just been undone by somebody else.")
            await connection.execute(statements)
    except asyncpg.PostgresError as error:
        raise MigrationError(
            f"{file.name} failed and was not undone: {error}. What was undone before it stays so."
        ) from error


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
