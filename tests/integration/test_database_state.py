"""The schema files, the migrations and a database that has them all say the same."""

import asyncio
import io
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from local.console import Console
from local.embedded.credentials import Credentials
from local.embedded.postgres import SUPERUSER, Postgres
from local.migrations.apply import migration_files
from local.migrations.catalog import Catalog, catalog_made_by, differences, read_catalog
from local.migrations.difference import Scratch, write_migration
from local.migrations.schema_files import schema_files
from local.migrations.supabase_cli import MigrationError, SupabaseCli
from local.settings import ROOT
from local.suite.processes import node_program, postgres_spec
from local.suite.supervisor import Supervisor
from tests.support.database import PLATFORM, with_database
from tests.support.suites import RunningStack, free_base_port

MIGRATIONS = list(migration_files(ROOT).values())
ROLLBACKS = list(migration_files(ROOT, "rollbacks").values())
OURS = {"concerto_login"}
NAMES = ("the migrations", "the schema files")
ROLES = """
create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role supabase_storage_admin nologin noinherit;
create role postgres login createrole bypassrls;
grant anon, authenticated, service_role to postgres with admin option;
grant supabase_storage_admin to postgres;
alter database postgres owner to postgres;
"""


async def made_by(connection: asyncpg.Connection, files: list[Path]) -> Catalog:
    return await catalog_made_by(connection, files, role="postgres", hidden=OURS)


@pytest.fixture(scope="module")
async def scratch(stack: RunningStack) -> AsyncIterator[Scratch]:
    """Three databases of the suite's server that are as a new project's."""
    server = await asyncpg.connect(stack.admin_db_url)
    names = [f"state_{uuid4().hex}" for _ in range(3)]
    try:
        for name in names:
            await server.execute(f"create database {name} owner postgres")
            connection = await asyncpg.connect(with_database(stack.admin_db_url, name))
            await connection.execute(PLATFORM)
            await connection.close()
        yield Scratch(
            *((with_database(stack.admin_db_url, name), with_database(stack.migration_db_url, name)) for name in names)
        )
    finally:
        for name in names:
            await server.execute(f"drop database if exists {name} with (force)")
        await server.close()


@pytest.fixture(scope="module")
async def blank(scratch: Scratch) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(scratch.blank[0])
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
async def declared(blank: asyncpg.Connection) -> Catalog:
    return await made_by(blank, schema_files(ROOT))


async def test_migrations_and_schema_files_make_the_same_catalog(blank: asyncpg.Connection, declared: Catalog) -> None:
    assert differences(await made_by(blank, MIGRATIONS), declared, names=NAMES) == [], (
        "Write what is missing with `make migration NAME=…`, or put it into the schema files."
    )
    for kind in ("table", "column", "constraint", "index", "function", "trigger", "policy", "schema", "role", "bucket"):
        assert any(name.startswith(f"{kind} ") for name in declared), kind
    assert "default privileges of postgres for functions" in declared


async def test_rollbacks_in_reverse_leave_nothing(blank: asyncpg.Connection) -> None:
    after = await made_by(blank, [*MIGRATIONS, *reversed(ROLLBACKS)])
    assert differences(await made_by(blank, []), after, names=("before", "after the rollbacks")) == []


async def test_a_database_that_the_cli_has_migrated_has_what_the_schema_files_say(
    stack: RunningStack, blank: asyncpg.Connection, declared: Catalog
) -> None:
    platform = await made_by(blank, [])
    ours = {name for name, properties in declared.items() if platform.get(name) != properties}
    connection = await asyncpg.connect(stack.admin_db_url)
    try:
        present = await read_catalog(connection)
    finally:
        await connection.close()
    # Who granted what to the platform's own roles is the platform's.
    ours -= {"role postgres"}
    found = differences(
        {name: present[name] for name in ours & present.keys()},
        {name: declared[name] for name in ours},
        names=("the suite's database", "the schema files"),
    )
    # That a person has confirmed the mail is no property of the bucket: the platforms give it different columns.
    assert [line for line in found if not line.startswith(("bucket avatars: ", "schema public"))] == []


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("alter table public.runs add column x int", "column public.runs.x is only in b"),
        ("alter table public.runs alter column model set default 'x'", "column public.runs.model: default is "),
        ("alter table public.runs alter column model drop not null", "column public.runs.model: not null is `true`"),
        ("alter table public.runs drop constraint runs_model_length", "constraint runs_model_length on public.runs"),
        ("alter table public.runs set (fillfactor = 80)", "table public.runs: options is "),
        ("alter table public.runs disable row level security", "table public.runs: row level security is `true`"),
        ("alter table public.runs owner to supabase_admin", "table public.runs: owner is `postgres` in a"),
        ("drop index public.runs_open_idx", "index public.runs_open_idx is only in a"),
        ("alter function api.get_run(jsonb) volatile", "function api.get_run(jsonb): definition is "),
        ("alter function api.get_run(jsonb) security definer", "function api.get_run(jsonb): definition is "),
        ("alter function api.get_run(jsonb) set jit = off", "function api.get_run(jsonb): definition is "),
        ("alter function api.get_run(jsonb) owner to supabase_admin", "function api.get_run(jsonb): grants is "),
        ("grant execute on function api.get_run(jsonb) to anon", "function api.get_run(jsonb): grants is "),
        ("comment on function api.get_run(jsonb) is 'x'", "function api.get_run(jsonb): comment is "),
        ("comment on column public.runs.model is null", "column public.runs.model: comment is "),
        ("grant update (model) on public.runs to authenticated", "column public.runs.model: grants is nothing in a"),
        ("grant select on public.runs to anon", "table public.runs: grants is "),
        ("grant usage on schema api to anon", "schema api: grants is "),
        ('drop policy "users read their own runs" on public.runs', 'policy "users read their own runs" on'),
        ('alter policy "users read their own runs" on public.runs to anon', "on public.runs: roles is "),
        ('alter policy "users read their own runs" on public.runs using (true)', "on public.runs: using is "),
        ("alter table public.runs disable trigger runs_drop", "trigger runs_drop on public.runs: enabled is "),
        ("drop trigger concerto_sync_account on auth.users", "trigger concerto_sync_account on auth.users is only"),
        ("create type public.mood as enum ('good')", "type public.mood is only in b"),
        ("create publication p for table public.runs", "publication p is only in b"),
        (
            "alter default privileges for role postgres grant execute on functions to public",
            "default privileges of postgres for functions",
        ),
        ("alter role concerto_login set work_mem = '8MB'", "role concerto_login: settings is "),
        ("update storage.buckets set public = false", "bucket avatars: public is `true` in a, `false` in b"),
    ],
)
async def test_whatever_differs_is_named(
    blank: asyncpg.Connection, declared: Catalog, tmp_path: Path, statement: str, named: str
) -> None:
    file = tmp_path / "change.sql"
    file.write_text(f"reset session authorization; {statement}")
    found = differences(declared, await made_by(blank, [*schema_files(ROOT), file]), names=("a", "b"))
    assert any(named in line for line in found), found


def test_schema_files_state_and_never_change() -> None:
    texts = {file.relative_to(ROOT): file.read_text() for file in schema_files(ROOT)}
    changes = ("\nalter table", "\nalter policy", "\nalter function", "\nalter index", "\ndrop ", " or replace ")
    found = [(file, change) for file, text in texts.items() for change in changes if change in text]
    allowed = "\nalter table"  # row level security can be switched on in no other way
    assert [each for each in found if each[1] != allowed] == []
    for file, text in texts.items():
        assert text.count(allowed) == text.count("enable row level security;"), file


class OldestPostgres(Postgres):
    """The oldest release that the wheel brings along; hosted projects run one between it and ours."""

    @property
    def binaries(self) -> Path:
        return super().binaries.parents[1] / "pginstall" / "bin"


async def test_both_apply_on_an_older_postgres_and_make_the_same_there(tmp_path: Path) -> None:
    credentials = Credentials.generate()
    postgres = OldestPostgres(tmp_path, free_base_port(), credentials)
    (tmp_path / "password").write_text(credentials.admin_password)
    run: Any = subprocess.run
    await asyncio.to_thread(
        run,
        [
            *(*postgres.account.prefix, postgres.binaries / "initdb", "-D", postgres.data, "-U", SUPERUSER),
            *("--pwfile", tmp_path / "password", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"),
        ],
        cwd="/",
        user=postgres.account.user,
        capture_output=True,
        check=True,
    )
    supervisor = Supervisor(tmp_path / "logs", Console(io.StringIO()), lambda: None)
    try:
        await supervisor.start(postgres_spec(postgres))
        connection = await asyncpg.connect(postgres.admin_url)
        assert connection.get_server_version().major == 16
        await connection.execute(ROLES + PLATFORM)
        made = await made_by(connection, MIGRATIONS)
        assert differences(made, await made_by(connection, schema_files(ROOT)), names=NAMES) == []
        left = await made_by(connection, [*MIGRATIONS, *reversed(ROLLBACKS)])
        assert differences(await made_by(connection, []), left, names=("before", "after the rollbacks")) == []
        await connection.close()
    finally:
        await supervisor.stop()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A working copy as far as `make migration` needs one."""
    folder = tmp_path / "copy"
    shutil.copytree(ROOT / "supabase", folder / "supabase", ignore=shutil.ignore_patterns(".temp"))
    shutil.copy(ROOT / ".sqlfluff", folder)
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    return folder


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


async def written(project: Path, scratch: Scratch, name: str) -> tuple[list[Path], str]:
    printed = io.StringIO()
    cli = SupabaseCli(project, node=node_program(), environment={})
    files = await write_migration(project, name, scratch, cli, home=project, console=Console(printed))
    return files, printed.getvalue()


async def test_a_column_a_function_and_a_policy_become_a_migration_that_goes_up_and_down(
    scratch: Scratch, blank: asyncpg.Connection, declared: Catalog, project: Path
) -> None:
    schemas = project / "supabase" / "schemas"
    change(
        schemas / "sessions" / "sessions.sql",
        "  request_id uuid,\n",
        "  is_pinned boolean not null default false,\n  request_id uuid,\n",
    )
    change(
        schemas / "sessions" / "sessions.sql",
        "comment on column public.sessions.request_id",
        "comment on column public.sessions.is_pinned is\n'True when it stands above all others in its owner''s list, "
        "in the order of when it was pinned; '\n'a session that is archived keeps it.';\n"
        "comment on column public.sessions.request_id",
    )
    change(
        schemas / "sessions" / "sessions.sql", "update (name, is_archived),", "update (name, is_archived, is_pinned),"
    )
    change(schemas / "runs" / "read_runs.sql", "coalesce(p.page_size, 50)", "coalesce(p.page_size, 40)")
    change(
        schemas / "runs" / "run_events.sql",
        "on public.run_events for select to authenticated\n",
        "on public.run_events for select to authenticated, anon\n",
    )
    change(schemas / "accounts" / "auth_users.sql", "    'user'\n", "    'new user'\n")
    change(schemas / "storage" / "avatars.sql", "'avatars', true, 1048576", "'avatars', true, 2097152")
    (up, down), printed = await written(project, scratch, "pinned_sessions")

    assert up.name == down.name
    assert up.name > MIGRATIONS[-1].name
    assert [path.parent.name for path in (up, down)] == ["migrations", "rollbacks"]
    assert "add column is_pinned boolean not null default false" in up.read_text()
    assert "drop column is_pinned" in down.read_text()
    # The row of the bucket is no definition, so the CLI does not see it.
    for file in (up, down):
        assert f"supabase/{file.parent.name}/{file.name}, which leaves 1 to write by hand" in printed
        assert "bucket avatars: file_size_limit is" in file.read_text()
        text = file.read_text()
        assert text.startswith(("-- Pinned sessions.\n\nset lock_timeout = '5s';", "set lock_timeout = '5s';"))
        assert text.endswith("\n\nreset lock_timeout;\n")
        # A body in SQL may name what is made behind it.
        assert text.count("set check_function_bodies = off;") == text.count("reset check_function_bodies;") == 1
        size = 2097152 if file == up else 1048576
        by_hand = f"update storage.buckets set file_size_limit = {size}\nwhere id = 'avatars';\n\n"
        file.write_text(text.partition("-- `supabase db diff`")[0] + by_hand + "reset lock_timeout;\n")
    lint = [sys.executable, "-m", "sqlfluff", "lint", up, down]
    run: Any = subprocess.run
    linted = await asyncio.to_thread(run, lint, cwd=project, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout

    wanted = await made_by(blank, schema_files(project))
    assert wanted != declared
    assert differences(await made_by(blank, [*MIGRATIONS, up]), wanted, names=NAMES) == []
    assert differences(await made_by(blank, [*MIGRATIONS, up, down]), declared, names=NAMES) == []


async def test_nothing_is_written_where_nothing_has_changed(scratch: Scratch, project: Path) -> None:
    files, printed = await written(project, scratch, "nothing")
    assert files == []
    assert "Nothing was written." in printed
    assert list(migration_files(project)) == list(migration_files(ROOT))


@pytest.mark.parametrize("name", ["", "Labels", "add labels", "../x", "add-labels", "a" * 62])
async def test_a_name_that_cannot_be_a_files_is_refused(scratch: Scratch, project: Path, name: str) -> None:
    with pytest.raises(MigrationError, match="make migration NAME=add_labels"):
        await written(project, scratch, name)


async def test_a_schema_file_that_fails_is_named_with_what_postgres_says(scratch: Scratch, project: Path) -> None:
    (project / "supabase" / "schemas" / "notes").mkdir()
    (project / "supabase" / "schemas" / "notes" / "notes.sql").write_text("create table public.notes (id missing);")
    with pytest.raises(MigrationError, match=r"notes/notes\.sql failed: type \"missing\" does not exist"):
        await written(project, scratch, "notes")


def test_the_order_of_schema_files_names_each_once_and_leaves_none_out(project: Path) -> None:
    folder = project / "supabase" / "schemas" / "notes"
    folder.mkdir()
    (folder / "notes.sql").touch()
    found = schema_files(project)
    assert found.index(folder / "notes.sql") > found.index(folder.parent / "runs" / "runs.sql")
    assert (len(found), len(set(found))) == (len(list((folder.parent).rglob("*.sql"))),) * 2
    (folder / "deeper").mkdir()
    (folder / "deeper" / "x.sql").touch()
    with pytest.raises(MigrationError, match=r"leaves out supabase/schemas/notes/deeper/x\.sql"):
        schema_files(project)
    (folder.parent / "runs" / "runs.sql").unlink()
    with pytest.raises(MigrationError, match=r"names \./schemas/runs/runs\.sql, which is no file"):
        schema_files(project)
