"""`make migration NAME=what_changes`: writes a migration and its rollback from what the schema files change."""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from local.backup.faults import StoppedError
from local.console import Console
from local.embedded.borrowed import on_free_ports, run_stoppable, started_postgres
from local.embedded.credentials import Credentials
from local.embedded.postgres import DATABASE, MIGRATION_ROLE, Postgres
from local.migrations.apply import migration_files, set_role_passwords
from local.migrations.catalog import Catalog, apply_files, catalog_made_by, differences, roles_made_by
from local.migrations.schema_files import schema_files
from local.migrations.supabase_cli import MigrationError, SupabaseCli, address_target
from local.settings import ROOT, load_settings
from local.suite.processes import node_program, supabase_spec
from local.suite.stack import FAULTS

NAME_PATTERN = re.compile(r"[a-z][a-z_]{0,60}")
LINE_LENGTH = 120
LOCK_TIMEOUT = "set lock_timeout = '5s';"
_END = "reset lock_timeout;\n"
_UNSEEN = "-- `supabase db diff` does not write what follows. Write it by hand, and delete these lines:"
# Rights of the owner, who has them anyway.
_OF_OWNER = re.compile(
    rf'^(?:revoke|grant)\s[^;]*\s(?:from|to)\s+"?{MIGRATION_ROLE}"?;\n+', re.IGNORECASE | re.MULTILINE
)
# What the CLI tells people stands before the first statement, in the same stream.
_NOTICES = re.compile(r"\A(?:\s*\n|[^\x00-\x7f][^\n]*\n)+")
_BODIES = re.compile(r"^set local check_function_bodies = off;\n+", re.IGNORECASE)
_BODY = re.compile(r"\$(\w*)\$.*?\$\1\$", re.DOTALL)
_COMMENT = re.compile(r"^(comment on [^;]*? is) '((?:[^'\n]|'')*)';$", re.IGNORECASE | re.MULTILINE)
_ONE_LINERS = re.compile(r"^((comment|grant|revoke) [^\n]*;\n)\n(?=\2 [^\n]*;$)", re.MULTILINE)


@dataclass(frozen=True)
class Scratch:
    """Three databases on one server that have what a new Supabase project has, and nothing of ours.

    blank: stays so. migrated, declared: get the migrations and the schema files. Each is an address as the superuser
    and one as the role that applies migrations.
    """

    blank: tuple[str, str]
    migrated: tuple[str, str]
    declared: tuple[str, str]


def check_name(name: str) -> str:
    """The subject of a migration as it stands in its file's name. Raises MigrationError when it cannot stand there."""
    if not NAME_PATTERN.fullmatch(name):
        raise MigrationError(
            f"NAME={name} cannot be a file's name. Say what changes in a-z and _, at most 61 of them: "
            "make migration NAME=add_labels"
        )
    return name


async def write_migration(
    project: Path, name: str, scratch: Scratch, cli: SupabaseCli, *, home: Path, console: Console
) -> list[Path]:
    """Write what leads from the migrations to the schema files, and back; no file where nothing does.

    home: where the CLI keeps its notes. What the CLI does not see is left as a comment in the file, one line for each
    object. Raises MigrationError when a file fails or the CLI does.
    """
    check_name(name)
    declared, applied = schema_files(project), list(migration_files(project).values())
    connection = await asyncpg.connect(scratch.blank[0], timeout=10)
    try:
        wanted = await catalog_made_by(connection, declared, role=MIGRATION_ROLE)
        present = await catalog_made_by(connection, applied, role=MIGRATION_ROLE)
        names = ("the migrations", "the schema files")
        if not differences(present, wanted, names=names):
            console.line("The schema files hold nothing that the migrations do not make. Nothing was written.")
            return []
        for files, addresses in ((applied, scratch.migrated), (declared, scratch.declared)):
            await _apply(files, addresses[1])
        up = project / "supabase" / "migrations" / f"{_version(project)}_{name}.sql"
        down = project / "supabase" / "rollbacks" / up.name
        there = await _statements(cli, scratch.migrated[1], scratch.declared[1], home)
        back = await _statements(cli, scratch.declared[1], scratch.migrated[1], home)
        await asyncio.to_thread(_write, {up: there, down: back}, project)
        # Both databases are on one server, where the roles of one would stand in for those of the other.
        roles = roles_made_by([*applied, *declared])
        await _check(connection, [*applied, up], roles, wanted, names, console)
        await _check(connection, [*declared, down], roles, present, names[::-1], console)
    finally:
        await connection.close()
    return [up, down]


async def _apply(files: Sequence[Path], url: str) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await apply_files(connection, {file: file.read_text() for file in files})
    finally:
        await connection.close()


async def _statements(cli: SupabaseCli, start: str, end: str, home: Path) -> str:
    """What `supabase db diff` writes, without what it always writes."""
    first, last = (address_target(url, home=home) for url in (start, end))
    names = [target.flag.removeprefix("--remote=") for target in (first, last)]
    answer = await cli.run("db", "diff", "--from", names[0], "--to", names[1], environment=first.environment)
    if answer.code != 0:
        raise MigrationError(f"`supabase db diff` failed (exit code {answer.code}):\n{answer.tail}")
    text = _NOTICES.sub("", answer.output)
    # Only bodies in SQL are looked into when a function is made, and may name what comes behind it.
    if not re.search(r"^\s*language sql$", text, re.IGNORECASE | re.MULTILINE):
        text = _BODIES.sub("", text)
    bodies: list[str] = []

    def keep(found: re.Match[str]) -> str:
        bodies.append(found[0])
        return f"$body{len(bodies) - 1}$"

    text = _OF_OWNER.sub("", _BODY.sub(keep, text))
    return re.sub(r"\$body(\d+)\$", lambda found: bodies[int(found[1])], text).strip()


def _version(project: Path) -> str:
    """Now, or a second behind the newest migration where that is later than this clock."""
    now = datetime.now(UTC)
    newest = max(migration_files(project), default="")
    if newest >= f"{now:%Y%m%d%H%M%S}":
        now = datetime.strptime(newest, "%Y%m%d%H%M%S").replace(tzinfo=UTC) + timedelta(seconds=1)
    return f"{now:%Y%m%d%H%M%S}"


def _write(drafts: dict[Path, str], project: Path) -> None:
    """Write drafts in the form that `make lint` asks for."""
    for file, text in drafts.items():
        statements, reset = text, _END
        if _BODIES.match(text):
            statements = _BODIES.sub("set check_function_bodies = off;\n\n", text)
            reset = f"reset check_function_bodies;\n{_END}"
        title = f"-- {file.stem[15:].replace('_', ' ').capitalize()}.\n\n" if file.parent.name == "migrations" else ""
        file.write_text(f"{title}{LOCK_TIMEOUT}\n\n{_COMMENT.sub(_wrapped, statements)}\n\n{reset}")
    # Its exit code tells what it could not put right, which is for the reader of the drafts.
    command = [sys.executable, "-m", "sqlfluff", "fix", "--quiet", "--config", str(project / ".sqlfluff")]
    subprocess.run([*command, *map(str, drafts)], cwd=project, capture_output=True, check=False)
    for file in drafts:
        file.write_text(_ONE_LINERS.sub(r"\1\n", file.read_text()))


def _wrapped(comment: re.Match[str]) -> str:
    if len(comment[0]) <= LINE_LENGTH:
        return comment[0]
    # Only at spaces, which stay: adjacent literals are one.
    lines = textwrap.wrap(
        comment[2], LINE_LENGTH - 3, break_long_words=False, break_on_hyphens=False, drop_whitespace=False
    )
    return "\n".join([comment[1], *(f"'{line}'" for line in lines)]) + ";"


async def _check(
    connection: asyncpg.Connection,
    files: Sequence[Path],
    roles: Collection[str],
    goal: Catalog,
    names: tuple[str, str],
    console: Console,
) -> None:
    """Try the last of these files, and note in it what is missing from the goal."""
    try:
        made = await catalog_made_by(connection, files, role=MIGRATION_ROLE, hidden=roles)
        missing = differences(made, goal, names=names)
    except MigrationError as error:
        missing = [f"As it is, {error}"]
    draft = files[-1]
    if missing:
        note = [f"--   {line}" for line in chain.from_iterable(textwrap.wrap(each, 112) for each in missing)]
        text = await asyncio.to_thread(draft.read_text)
        lines = "\n".join([_UNSEEN, *note])
        await asyncio.to_thread(draft.write_text, f"{text.removesuffix(_END)}{lines}\n\n{_END}")
    left = f", which leaves {len(missing)} to write by hand" if missing else ""
    console.line(f"  supabase/{draft.parent.name}/{draft.name}{left}")


@asynccontextmanager
async def scratch_server(console: Console) -> AsyncIterator[tuple[Scratch, Path]]:
    """A Postgres of its own with the three databases, and a folder; both are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="concerto-migration-") as name:
        home, credentials = Path(name), Credentials.generate()
        settings = on_free_ports(load_settings(environment={}, env_file=None), home)
        with console.step("an empty project"):
            async with started_postgres(settings, credentials, console, logs=home / "logs") as (postgres, supervisor):
                # What a project has before anything of ours is in it: made by the embedded Supabase at its start.
                await supervisor.start(supabase_spec(settings, credentials, postgres))
                await set_role_passwords(postgres)
        # Nobody is connected any more, so that the database can be copied.
        async with started_postgres(settings, credentials, console, logs=home / "logs") as (postgres, _):
            yield await _copies(postgres), home


async def _copies(postgres: Postgres) -> Scratch:
    connection = await asyncpg.connect(with_database(postgres.admin_url, "template1"), timeout=10)
    try:
        addresses = []
        for name in ("blank", "migrated", "declared"):
            await connection.execute(f"create database {name} template {DATABASE} owner {MIGRATION_ROLE}")
            urls = (postgres.admin_url, postgres.migration_url)
            addresses.append((with_database(urls[0], name), with_database(urls[1], name)))
    finally:
        await connection.close()
    return Scratch(*addresses)


def with_database(url: str, name: str) -> str:
    """The same address for another database of the server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def _run(name: str, console: Console) -> None:
    async with scratch_server(console) as (scratch, home):
        cli = SupabaseCli(ROOT, node=node_program(), surroundings={})
        written = await write_migration(ROOT, name, scratch, cli, home=home, console=console)
    if written:
        console.line("Read both, then apply them: concerto migrate (docs/migrations.md)")


def main(arguments: list[str] | None = None) -> int:
    """Write what NAME says, and print the files; 1 when that cannot be done, with the reason."""
    parser = argparse.ArgumentParser(description="Write a migration from what supabase/schemas changes.")
    parser.add_argument("name", metavar="NAME", help="what changes, in a-z and _")
    given = parser.parse_args(arguments)
    try:
        check_name(given.name)
        run_stoppable(_run(given.name, Console()))
    except (*FAULTS, StoppedError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
