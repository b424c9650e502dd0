"""Backups of real embedded databases: Postgres and the host, without the services."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import psutil
import pytest

from local.backup import archive, fingerprint
from local.backup.archive import check
from local.backup.dump import dump_roles, first_error
from local.backup.swap import STAGING
from local.console import Console
from local.embedded.credentials import read_credentials
from local.embedded.postgres import Postgres
from local.embedded.temporary import on_free_ports, started_postgres
from local.migrations.apply import pending_versions
from local.migrations.baseline import BASELINE, FOLDED
from local.settings import ROOT, Settings, load_settings
from tests.support.database import add_user, call, make_as_before_the_baseline
from tests.support.suites import PreparedStarts, RunningStack, free_base_port, stack_environment, stop_stack
from tests.support.waiting import until

ONLY = "postgres,supabase"
PASSWORD = "a long enough password"
MARK = b"RIFF\x10\0\0\0WEBPVP8 "  # by which storage knows a picture


@pytest.fixture(scope="module")
def running(launch: Callable[..., RunningStack]) -> RunningStack:
    return launch(only=ONLY)


@pytest.fixture(scope="module")
async def filled(running: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of the running database with people, sessions, messages and pictures in it."""
    admin = await asyncpg.connect(running.admin_db_url)
    async with asyncpg.create_pool(running.db_url) as pool:
        for name in ("Jörg Müller", "Zoë", "陈"):
            user_id = await add_user(admin, metadata={"display_name": name})
            session = (await call(pool, user_id, "create_session", name=f"Über {name}"))["session"]
            await append(
                pool, user_id, session["id"], [f"{name} sagt \\N \t {index} \U0001f3bc" for index in range(30)]
            )
    await admin.execute("create table public.counted (id int generated always as identity primary key, n int)")
    await admin.execute("insert into public.counted (n) select generate_series(1, 7)")
    await admin.close()
    await upload(running, await sign_up(running), b"R\0FF", b"another")
    file = tmp_path_factory.mktemp("backup") / "filled.tar"
    done = running.command("backup", str(file))
    assert done.returncode == 0, done.stderr
    return file


async def append(pool: asyncpg.Pool, user_id: str, session_id: str, texts: list[str]) -> None:
    messages = [{"role": "user", "content": text} for text in texts]
    await call(pool, user_id, "append_messages", session_id=session_id, messages=messages)


async def sign_up(stack: RunningStack) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=stack.supabase_url, headers={"apikey": stack.publishable_key}) as client:
        body = {"email": f"{uuid4()}@example.com", "password": PASSWORD}
        answer = await client.post("/auth/v1/signup", json=body)
    assert answer.is_success, answer.text
    return dict(answer.json())


async def upload(stack: RunningStack, person: dict[str, Any], *contents: bytes) -> list[str]:
    """Store pictures of this content, after the mark of their type, in the person's folder and return their keys."""
    head = {"apikey": stack.publishable_key, "authorization": f"Bearer {person['access_token']}"}
    keys = []
    async with httpx.AsyncClient(base_url=f"{stack.supabase_url}/storage/v1/object", headers=head) as client:
        for index, content in enumerate(contents):
            key = f"{person['user']['id']}/{index}.webp"
            extra = {"content-type": "image/webp", "x-upsert": "true"}
            answer = await client.post(f"/avatars/{key}", content=MARK + content, headers=extra)
            assert answer.is_success, answer.text
            keys.append(key)
    return keys


def concerto(home: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*prefix, sys.executable, "-m", "local.cli", *arguments],
        cwd=ROOT,
        env=stack_environment(home, free_base_port()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def restored(home: Path, file: Path) -> Path:
    done = concerto(home, "restore", str(file), "--yes")
    assert done.returncode == 0, done.stderr
    return home


def settings_of(home: Path) -> Settings:
    return load_settings(environment=stack_environment(home, free_base_port()), env_file=None)


@asynccontextmanager
async def opened(home: Path) -> AsyncIterator[Postgres]:
    """The database of a data folder that nothing else uses."""
    own, logs = on_free_ports(settings_of(home), home), home.parent / "logs-of-the-test"
    credentials = read_credentials(home)
    async with started_postgres(own, credentials, Console(io.StringIO()), logs=logs) as (postgres, _):
        yield postgres


async def fingerprint_of(url: str) -> fingerprint.Fingerprint:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            return await fingerprint.take(connection)
    finally:
        await connection.close()


def schema_of(postgres: Postgres) -> list[str]:
    """Postgres's own account of everything but rows. Sorted, as the order of grants may differ."""
    done = subprocess.run(
        [str(postgres.binaries / "pg_dump"), "--schema-only", "--create", f"--dbname={postgres.admin_url}"],
        capture_output=True,
        text=True,
        check=True,
    )
    # Nor may parentheses: Postgres writes some expressions otherwise once it has read them again.
    lines = (re.sub(r"[()\s]", "", line) for line in done.stdout.splitlines())
    return sorted(line for line in lines if not line.startswith(("\\", "--")))


def mode_of(file: Path) -> int:
    return file.stat().st_mode & 0o777


def entries(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()} if folder.exists() else set()


def postgres_of(stack: RunningStack) -> Postgres:
    return Postgres(stack.home, stack.base_port + 2, read_credentials(stack.home))


@pytest.fixture(scope="module")
def settled(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped data folder on another machine, made from the backup."""
    return restored(tmp_path_factory.mktemp("settled") / "home", filled)


async def test_another_machine_gets_the_same_rows_definitions_and_roles(
    running: RunningStack, filled: Path, settled: Path
) -> None:
    assert mode_of(filled) == 0o600
    wanted = await fingerprint_of(running.admin_db_url)
    source = postgres_of(running)
    async with opened(settled) as postgres:
        found = await fingerprint_of(postgres.admin_url)
        assert fingerprint.differences(wanted, found) == []
        assert fingerprint.differences(found, wanted) == []
        assert schema_of(postgres) == schema_of(source)
        assert sorted(filter(_is_statement, (await dump_roles(postgres)).splitlines())) == sorted(
            filter(_is_statement, (await dump_roles(source)).splitlines())
        )
        connection = await asyncpg.connect(postgres.admin_url)
        assert await connection.fetchval("select nextval('public.counted_id_seq')") == 8
        await connection.execute("select setval('public.counted_id_seq', 7)")
        await connection.close()
    assert found.tables["public.messages"].rows >= 90
    assert sum(table.rows for table in found.tables.values()) == (await check(filled)).manifest.rows


def _is_statement(line: str) -> bool:
    return bool(line) and not line.startswith("--")


async def test_a_fingerprint_sees_every_kind_of_difference(running: RunningStack) -> None:
    before = await fingerprint_of(running.admin_db_url)
    changes = {
        "update public.users set display_name = 'x' where id = (select min(id::text)::uuid from public.users)": "rows",
        "alter table public.messages disable row level security": "relation public.messages",
        'drop policy "owners read their sessions" on public.sessions': "policy public.sessions.owners read",
        "grant select on public.run_events to anon": "relation public.run_events",
        "grant update (email) on public.users to anon": "column public.users.email",
        "alter function private.call(jsonb, text, jsonb) owner to supabase_admin": "function private.call",
        "alter table public.runs disable trigger all": "trigger public.runs.",
        "alter default privileges grant select on tables to anon": "default rights",
        "alter role concerto_login set statement_timeout = '9s'": "role concerto_login",
        "alter database postgres set search_path = public": "database postgres",
        "comment on table public.runs is 'x'": "comment on table public.runs",
        "create index on public.sessions (name)": "index public.sessions_name_idx",
        "create table public.more (id int)": "public.more has 0 rows",
    }
    for statement, named in changes.items():
        connection = await asyncpg.connect(running.admin_db_url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement)
        problems = fingerprint.differences(before, await fingerprint.take(connection))
        await transaction.rollback()
        await connection.close()
        assert any(named in problem for problem in problems), (statement, problems)
    assert fingerprint.differences(before, await fingerprint_of(running.admin_db_url)) == []


def test_stored_files_are_the_same_to_the_byte(running: RunningStack, settled: Path) -> None:
    assert contents(settled / "storage") == contents(running.home / "storage")
    assert {content for content, _ in contents(settled / "storage").values()} >= {MARK + b"R\0FF", MARK + b"another"}
    files = [file for file in (settled / "storage").rglob("*") if file.is_file()]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def contents(storage: Path) -> dict[str, tuple[bytes, str]]:
    found = {}
    for description in storage.rglob("*.json"):
        record = json.loads(description.read_text())
        index = str(description.relative_to(storage))
        rest = {key: value for key, value in record.items() if key != "file"}
        found[index] = ((description.parent / record["file"]).read_bytes(), json.dumps(rest, sort_keys=True))
    return found


async def test_a_backup_is_of_one_moment_while_people_write(running: RunningStack, tmp_path: Path) -> None:
    admin = await asyncpg.connect(running.admin_db_url)
    person = await sign_up(running)
    file = tmp_path / "b.tar"
    stop = asyncio.Event()
    written = 0

    async def chat(pool: asyncpg.Pool, user_id: str) -> None:
        nonlocal written
        while not stop.is_set():
            session = (await call(pool, user_id, "create_session"))["session"]
            for index in range(5):
                await append(pool, user_id, session["id"], [f"message {index}", f"answer {index}"])
                written += 2

    async def change_picture() -> None:
        while not stop.is_set():
            await upload(running, person, os.urandom(2000))

    async with asyncpg.create_pool(running.db_url) as pool:
        users = [await add_user(admin) for _ in range(4)]
        work = [asyncio.create_task(chat(pool, user)) for user in users] + [asyncio.create_task(change_picture())]
        before = written
        done = await asyncio.to_thread(running.command, "backup", str(file))
        assert done.returncode == 0, done.stderr
        during = written - before
        stop.set()
        await asyncio.gather(*work)
    await admin.close()
    assert during > 0, "nothing was written meanwhile"

    manifest = (await check(file)).manifest
    assert manifest.missing == []
    assert all(stored.etag == f'"{stored.sha256}"' for stored in manifest.objects)
    async with opened(restored(tmp_path / "home", file)) as postgres:
        connection = await asyncpg.connect(postgres.admin_url)
        broken = await connection.fetchrow(
            """
            select
                (select count(*) from public.messages as m where not exists (
                    select from public.sessions as s where s.id = m.session_id
                )) as homeless,
                (select count(*) from public.sessions as s where s.message_count <> (
                    select count(*) from public.messages as m where m.session_id = s.id
                )) as miscounted,
                (select count(*) from (
                    select from public.messages group by session_id
                    having count(distinct "order") <> count(*) or max("order") - min("order") + 1 <> count(*)
                ) as gappy) as gaps
            """
        )
        pictures = await connection.fetch("select name, metadata ->> 'eTag' as etag from storage.objects")
        await connection.close()
    assert tuple(broken) == (0, 0, 0)
    assert {(p["name"], p["etag"]) for p in pictures} == {(s.key, s.etag) for s in manifest.objects}


def test_an_empty_database_is_backed_up_and_restored_too(prepared: PreparedStarts, tmp_path: Path) -> None:
    empty = prepared.start(tmp_path, only=ONLY)
    stop_stack(empty)
    # Stopped now: the command starts Postgres for itself, and stops it again.
    done = concerto(empty.home, "backup", str(tmp_path / "empty.tar"))
    assert done.returncode == 0, done.stderr
    assert not (empty.home / "postgres" / "postmaster.pid").exists()
    home = restored(tmp_path / "second", tmp_path / "empty.tar")
    assert entries(home) == {"postgres", "storage", "secrets.json", "run"}
    assert asyncio.run(_manifest(tmp_path / "empty.tar")).tables["auth.users"].rows == 0


def test_a_data_folder_without_a_database_has_nothing_to_back_up(tmp_path: Path) -> None:
    done = concerto(tmp_path / "none", "backup", str(tmp_path / "b.tar"))
    assert done.returncode == 1
    assert "There is no database" in done.stderr
    assert entries(tmp_path) == set()


def test_a_file_is_replaced_only_when_asked_and_only_by_a_complete_one(running: RunningStack, tmp_path: Path) -> None:
    file = tmp_path / "mine.tar"
    file.write_text("something dear")
    refused = running.command("backup", str(file))
    assert (refused.returncode, file.read_text()) == (1, "something dear")
    assert f"{file} exists. Name another file, or replace it with --force." in refused.stderr
    assert running.command("backup", str(file), "--force").returncode == 0
    assert entries(tmp_path) == {"mine.tar"}
    assert asyncio.run(_manifest(file)).rows > 0


async def _manifest(file: Path) -> archive.Manifest:
    return (await check(file)).manifest


def test_a_folder_gets_a_file_named_by_the_time_and_a_missing_folder_is_named(
    running: RunningStack, tmp_path: Path
) -> None:
    assert running.command("backup", str(tmp_path)).returncode == 0
    (name,) = entries(tmp_path)
    assert name.startswith("concerto-backup-20")
    assert name.endswith("Z.tar")
    missing = running.command("backup", str(tmp_path / "absent" / "b.tar"))
    assert missing.returncode == 1
    assert f"The folder {tmp_path / 'absent'} does not exist." in missing.stderr


def test_a_hosted_project_is_neither_backed_up_nor_restored_here(tmp_path: Path) -> None:
    environment = stack_environment(tmp_path, free_base_port(), SUPABASE_URL="https://example.supabase.co")
    for command in (["backup"], ["restore", "b.tar"]):
        done = subprocess.run(
            [sys.executable, "-m", "local.cli", *command],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "docs/backup.md" in done.stderr


def test_no_password_and_no_key_is_in_a_backup_unless_asked_for(running: RunningStack, tmp_path: Path) -> None:
    own = json.loads((running.home / "secrets.json").read_text())
    file = tmp_path / "b.tar"
    assert running.command("backup", str(file)).returncode == 0
    written = {name: json.dumps(value)[1:-1].encode() for name, value in own.items()}
    assert [name for name, value in written.items() if value in file.read_bytes()] == []
    assert running.command("backup", str(file), "--force", "--with-secrets").returncode == 0
    kept = [name for name, value in written.items() if value in file.read_bytes()]
    assert sorted(kept) == ["cookie_secret", "jwt_secret", "publishable_key", "secret_key", "signing_key"]


async def test_a_lost_stored_file_is_told_and_the_rest_is_kept(running: RunningStack, tmp_path: Path) -> None:
    person = await sign_up(running)
    key, other = await upload(running, person, b"will be lost", b"stays")
    for file in (running.home / "storage").rglob("*.bin"):
        if file.read_bytes() == MARK + b"will be lost":
            file.unlink()
    done = running.command("backup", str(tmp_path / "b.tar"))
    try:
        assert done.returncode == 0
        assert f"Stored file without content: avatars/{key}" in done.stdout
        manifest = (await check(tmp_path / "b.tar")).manifest
        assert manifest.missing == [f"avatars/{key}"]
        assert other in [stored.key for stored in manifest.objects]
        assert "Lacks    the content of 1 stored files" in done.stdout
    finally:
        admin = await asyncpg.connect(running.admin_db_url)
        await admin.execute("delete from storage.objects where name = $1", key)
        await admin.close()


def test_a_running_suite_is_not_replaced(running: RunningStack, filled: Path) -> None:
    done = running.command("restore", str(filled), "--yes")
    assert done.returncode == 1
    assert f"already runs on {running.home}" in done.stderr
    assert STAGING not in entries(running.home)


# What follows happens to the stopped data folder.


def state_of(home: Path) -> dict[str, str]:
    """Every file of the content with its hash."""
    names = ("postgres", "storage", "secrets.json")
    files = [file for name in names for file in [home / name, *(home / name).rglob("*")] if file.is_file()]
    return {str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_present_data_is_replaced_only_after_a_yes(settled: Path, filled: Path) -> None:
    before = state_of(settled)
    done = concerto(settled, "restore", str(filled))
    assert done.returncode == 1
    assert "Add --yes to replace it" in done.stderr
    assert state_of(settled) == before
    assert entries(settled) == {"postgres", "storage", "secrets.json", "run"}


@pytest.mark.parametrize("how", ["flipped", "cut", "other"])
def test_a_damaged_file_changes_nothing(settled: Path, filled: Path, tmp_path: Path, how: str) -> None:
    before = state_of(settled)
    content = bytearray(filled.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    elif how == "cut":
        del content[len(content) * 2 // 3 :]
    else:
        content = bytearray(b"# no backup\n" * 100)
    file = tmp_path / "bad.tar"
    file.write_bytes(content)
    done = concerto(settled, "restore", str(file), "--yes")
    assert done.returncode == 1
    assert {"flipped": "is damaged", "cut": "is cut short", "other": "is no file that"}[how] in done.stderr
    assert state_of(settled) == before
    assert entries(settled) == {"postgres", "storage", "secrets.json", "run"}


def rewritten(source: Path, target: Path, **changes: Any) -> Path:
    """The same backup with another manifest, as a liar would write it: sealed well."""
    read = asyncio.run(check(source))
    with target.open("w+b") as stream:
        writer = archive.ArchiveWriter(stream)
        for name in read.manifest.members:
            with writer.member(name) as take:
                for chunk in read.chunks(name):
                    take(chunk)
        writer.seal(read.manifest.model_copy(update=changes))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"migrations": [BASELINE, "29990101000000"]}, "the first is 29990101000000"),
        ({"migrations": list(FOLDED[:-2])}, f"the first that it lacks is {FOLDED[-2]}"),
        ({"postgres": "19.1"}, "comes from Postgres 19.1"),
        ({"database_bytes": 1 << 60}, "Make room"),
    ],
    ids=["newer migrations", "a part of the baseline", "postgres", "room"],
)
def test_what_this_version_or_this_disk_cannot_hold_is_refused_with_advice(
    settled: Path, filled: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = state_of(settled)
    done = concerto(settled, "restore", str(rewritten(filled, tmp_path / "b.tar", **changes)), "--yes")
    assert done.returncode == 1
    assert message in done.stderr
    assert state_of(settled) == before


def test_rows_that_are_not_those_of_the_manifest_are_found_and_change_nothing(
    settled: Path, filled: Path, tmp_path: Path
) -> None:
    before = state_of(settled)
    tables = dict(asyncio.run(check(filled)).manifest.tables)
    tables["public.messages"] = archive.Table(rows=tables["public.messages"].rows + 1, sha256="0" * 64)
    done = concerto(settled, "restore", str(rewritten(filled, tmp_path / "b.tar", tables=tables)), "--yes")
    assert done.returncode == 1
    assert "What was restored is not what was backed up; nothing was changed." in done.stderr
    assert "public.messages has" in done.stderr
    assert state_of(settled) == before
    assert STAGING not in entries(settled)
    assert no_postgres_on(settled)


def no_postgres_on(home: Path) -> bool:
    return not [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(home) in " ".join(process.info["cmdline"] or ()) and "postgres" in process.info["cmdline"][0]
    ]


def test_the_data_of_before_is_kept_and_can_be_opened(settled: Path, filled: Path, tmp_path: Path) -> None:
    before = state_of(settled)
    done = concerto(settled, "restore", str(filled), "--yes")
    assert done.returncode == 0, done.stderr
    (kept,) = [name for name in entries(settled) if name.startswith("before-restore-")]
    assert f"rm -r {settled / kept}" in done.stdout
    assert state_of(settled / kept) == before
    opened_again = concerto(settled / kept, "backup", str(tmp_path / "old.tar"))
    assert opened_again.returncode == 0, opened_again.stderr
    old, new = (asyncio.run(check(file)).manifest for file in (tmp_path / "old.tar", filled))
    assert (old.tables, old.definitions) == (new.tables, new.definitions)
    shutil.rmtree(settled / kept)


@pytest.mark.long
async def test_a_database_of_before_the_baseline_is_carried_over_as_a_backup_and_as_a_data_folder(
    prepared: PreparedStarts, tmp_path: Path
) -> None:
    older = prepared.start(tmp_path, only=ONLY)
    try:
        newest = await versions_of(older.admin_db_url)
        owner = await asyncpg.connect(older.migration_db_url)
        await make_as_before_the_baseline(owner)
        user_id = await add_user(owner, metadata={"display_name": "Jörg"})
        await owner.execute(
            "insert into public.api_usage (user_id, model, source, prompt_tokens, completion_tokens)"
            " values ($1, 'm', 'turn', 3, 4)",
            user_id,
        )
        await owner.close()
        assert older.command("backup", str(tmp_path / "b.tar")).returncode == 0
    finally:
        stop_stack(older)
    (tmp_path / "new").mkdir()
    home = tmp_path / "new" / "home"
    done = concerto(home, "restore", str(tmp_path / "b.tar"))
    assert done.returncode == 0, done.stderr
    assert f"{len(newest) - 1} newer migration" in done.stdout
    async with opened(home) as postgres:
        assert await pending_versions(ROOT, postgres.admin_url) == []
        await look_at_carried_over(postgres.admin_url, newest)
    again = prepared.start(tmp_path, only=ONLY)
    try:
        await look_at_carried_over(again.admin_db_url, newest)
    finally:
        stop_stack(again)


async def versions_of(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("select version from supabase_migrations.schema_migrations order by version")
    finally:
        await connection.close()
    return [row["version"] for row in rows]


async def look_at_carried_over(url: str, versions: list[str]) -> None:
    assert await versions_of(url) == versions
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetch("select display_name from public.users") == [("Jörg",)]
        assert await connection.fetch("select tokens_used from public.api_usage") == [(7,)]
    finally:
        await connection.close()


async def interrupted(home: Path, number: signal.Signals, *arguments: str, when: Callable[[], Awaitable[bool]]) -> int:
    """Run a command, send it a signal when the condition holds, and return its exit code."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "local.cli", *arguments,
        cwd=ROOT, env=stack_environment(home, free_base_port()),
        stdout=subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not await when():
        assert process.returncode is None, "it ended before it could be interrupted"
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # the pause between two looks
    process.send_signal(number)
    _, message = await process.communicate()
    if number != signal.SIGKILL:
        assert b"Stopped. Nothing was changed" in message
        assert b"Traceback" not in message
    assert process.returncode is not None
    return process.returncode


@asynccontextmanager
async def dump_that_waits(stack: RunningStack) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Make every dump wait in its middle; yields whether one does."""
    holder, watcher = [await asyncpg.connect(stack.admin_db_url) for _ in range(2)]
    await holder.execute("begin; lock table public.runs in access exclusive mode")
    query = (
        "select exists (select from pg_stat_activity where application_name = 'pg_dump' and wait_event_type = 'Lock')"
    )

    async def waits() -> bool:
        return bool(await watcher.fetchval(query))

    yield waits
    for connection in (holder, watcher):
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=1)


def programs(name: str, port: int) -> list[str]:
    """The command lines of the programs of that name that use a server."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if f"/{name} " in line and f":{port}/" in line]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_backup_leaves_nothing(
    running: RunningStack, tmp_path: Path, number: signal.Signals
) -> None:
    async with dump_that_waits(running) as waits:
        code = await interrupted(running.home, number, "backup", str(tmp_path / "b.tar"), when=waits)
        assert code == 130
        assert entries(tmp_path) == set()
        assert [name for name in entries(running.home / "run") if name.startswith("backup-")] == []
        assert programs("pg_dump", running.base_port + 2) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_an_interrupted_restore_changes_nothing_and_the_next_one_works(
    settled: Path, filled: Path, number: signal.Signals
) -> None:
    before = state_of(settled)

    async def restoring() -> bool:
        return (settled / STAGING / "postgres" / "postmaster.pid").exists()

    code = await interrupted(settled, number, "restore", str(filled), "--yes", when=restoring)
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert state_of(settled) == before
    if number == signal.SIGINT:
        assert entries(settled) == {"postgres", "storage", "secrets.json", "run"}
        assert no_postgres_on(settled)
        return
    # A killed one leaves its folder and a Postgres, which the next one ends.
    assert concerto(settled, "restore", str(filled), "--yes").returncode == 0
    assert no_postgres_on(settled)
    for name in entries(settled):
        if name.startswith("before-restore-"):
            shutil.rmtree(settled / name)


def test_a_full_disk_is_told_and_leaves_nothing(running: RunningStack, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    prefix = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    probe = subprocess.run([*prefix, f"mount -t tmpfs tmpfs {small}"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip("this machine does not let a test mount a small file system")
    script = f'mount -t tmpfs -o size=64k tmpfs {small} && "$@"; code=$?; ls -A {small} > {tmp_path}/left; exit $code'
    done = concerto(running.home, "backup", str(small / "b.tar"), prefix=(*prefix, script, "sh"))
    assert done.returncode == 1
    assert f"There is no room for {small / 'b.tar'}" in done.stderr
    assert (tmp_path / "left").read_text() == ""


async def test_a_backup_whose_suite_stops_meanwhile_fails_cleanly(prepared: PreparedStarts, tmp_path: Path) -> None:
    suite = prepared.start(tmp_path, only=ONLY)
    (tmp_path / "out").mkdir()
    try:
        async with dump_that_waits(suite) as waits:
            backup = asyncio.create_task(asyncio.to_thread(suite.command, "backup", str(tmp_path / "out" / "b.tar")))
            await until(waits, "the dump to wait for the lock")
            await asyncio.to_thread(stop_stack, suite)
            done = await backup
    finally:
        stop_stack(suite)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert entries(tmp_path / "out") == set()


def test_an_error_of_postgres_is_told_without_the_row_it_is_about() -> None:
    message = (
        'pg_restore: error: COPY failed for table "messages": ERROR: bad\nCONTEXT:  COPY messages, line 1: "secret"'
    )
    assert "secret" not in first_error(message)
