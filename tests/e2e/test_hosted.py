"""A second, empty Supabase plays a hosted project: the CLI brings it up, the suite runs on it, rollbacks empty it."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from local.hosted.doctor import examine
from local.migrations.baseline import FOLDED
from local.settings import ROOT, load_settings
from tests.integration.test_database_rules import SNAPSHOT
from tests.support.database import make_as_before_the_baseline
from tests.support.measured import Note
from tests.support.suites import RunningStack, stack_environment, start_stack, stop_stack

pytestmark = pytest.mark.own_mode

VERSIONS = [file.name[:14] for file in sorted((ROOT / "supabase" / "migrations").glob("*.sql"))]
HISTORY = "supabase_migrations.schema_migrations"
# What runs on it: the whole path, streams, agents, runs, search, OpenAI's API, and row level security itself.
WALK = (
    "tests/e2e/test_whole_path.py",
    "tests/e2e/test_readme.py",
    "tests/e2e/test_provider_faults.py",
    "tests/integration/test_access.py",
    "tests/integration/test_agents.py",
    "tests/integration/test_history.py",
    "tests/integration/test_gateway_runs.py",
    "tests/integration/test_openai_clients.py",
    "tests/integration/test_database_isolation.py",
    "tests/integration/test_database_rest.py",
    "tests/integration/test_database_avatars.py",
)
# Says nothing of where the database is, and wants the machine for itself.
NOT_THERE = "tests/integration/test_openai_clients.py::test_many_clients_stream_at_once"
LEFT = """
select c.oid::regclass::text from pg_class as c where c.relnamespace::regnamespace::text in ('public', 'api', 'private')
union all
select p.oid::regprocedure::text from pg_proc as p
where p.pronamespace::regnamespace::text in ('public', 'api', 'private')
union all
select nspname::text from pg_namespace where nspname in ('api', 'private')
"""


@dataclass
class Hosted:
    """The Supabase that plays the project, what a person has written down about it, and that person's data folder."""

    stack: RunningStack
    variables: dict[str, str]
    folder: Path

    def concerto(self, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
        """Run `concerto <arguments>` with the project's variables."""
        return subprocess.run(
            [sys.executable, "-m", "local.cli", *arguments],
            cwd=ROOT,
            env=stack_environment(self.folder, self.stack.base_port + 10, **{**self.variables, **changes}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    async def fetch(self, query: str) -> list[asyncpg.Record]:
        """Ask as the role of the migrations."""
        connection = await asyncpg.connect(self.stack.migration_db_url)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    async def applied(self) -> list[str]:
        """The versions in the history; none before the first migration."""
        (row,) = await self.fetch(f"select to_regclass('{HISTORY}') is not null as there")
        return [row[0] for row in await self.fetch(f"select version from {HISTORY} order by 1")] if row["there"] else []

    async def snapshot(self) -> str:
        """Everything that the migrations made."""
        return str((await self.fetch(SNAPSHOT))[0][0])

    async def bring_up(self) -> "subprocess.CompletedProcess[str]":
        """Apply what is pending, and do what docs/hosted.md says of the login role."""
        done = self.concerto("migrate", "--target", "hosted", "--yes")
        password = urlsplit(self.variables["SUPABASE_DB_URL"]).password
        await self.fetch(f"alter role concerto_login password '{password}'")
        # A hosted project's REST interface hears of new tables by itself.
        os.kill(self.stack.process("supabase"), signal.SIGHUP)
        return done


@pytest.fixture(scope="module")
async def hosted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hosted]:
    folder = tmp_path_factory.mktemp("project")
    cheap: dict[str, Any] = {
        "CONCERTO_PASSWORD_HASH_COST": "4"
    }  # the suite's hundreds of people would wait for each other
    stack = await asyncio.to_thread(start_stack, folder, only="postgres,supabase", migrate=False, **cheap)
    login = urlsplit(stack.migration_db_url)
    password = secrets.token_urlsafe(24)
    login = login._replace(netloc=f"concerto_login:{password}@{login.hostname}:{login.port}")
    variables = {name: stack.env[name] for name in ("SUPABASE_URL", "SUPABASE_PUBLISHABLE_KEY", "SUPABASE_JWT_SECRET")}
    variables |= {
        "SUPABASE_DB_URL": urlunsplit(login),
        "SUPABASE_MIGRATION_DB_URL": stack.migration_db_url,
        "GATEWAY_PUBLIC_URL": stack.gateway_url,  # what the project takes for its site; nothing listens there
    }
    try:
        yield Hosted(stack, variables, folder / "laptop")
    finally:
        await asyncio.to_thread(stop_stack, stack)


@pytest.fixture
async def migrated(hosted: Hosted) -> Hosted:
    """The project with every migration and a login role that has its password."""
    if await hosted.applied() != VERSIONS:
        done = await hosted.bring_up()
        assert done.returncode == 0, done.stdout + done.stderr
    return hosted


async def test_a_new_project_gets_every_migration_over_its_address_alone(hosted: Hosted) -> None:
    assert await hosted.applied() == []
    shown = hosted.concerto("migrate", "--target", "hosted", "--dry-run")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert [version for version in VERSIONS if version not in shown.stdout] == []
    assert "dry run" in shown.stdout
    assert await hosted.applied() == []
    unasked = hosted.concerto("migrate", "--target", "hosted")
    assert (unasked.returncode, await hosted.applied()) == (1, [])
    assert "--yes" in unasked.stderr
    done = await hosted.bring_up()
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Applied {len(VERSIONS)}; nothing is pending." in done.stdout
    assert await hosted.applied() == VERSIONS


async def test_the_doctor_finds_nothing_wrong_and_tells_no_secret(migrated: Hosted) -> None:
    done = migrated.concerto("doctor", "--target", "hosted")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ES256, by the project's key set" in done.stdout
    assert f"all {len(VERSIONS)} applied" in done.stdout
    for subject in ("schema api: exposed", "login role: concerto_login can", "notifications: arrive", "redirect"):
        assert subject in done.stdout
    for name in ("SUPABASE_PUBLISHABLE_KEY", "SUPABASE_JWT_SECRET", "SUPABASE_DB_URL", "SUPABASE_MIGRATION_DB_URL"):
        secret = urlsplit(migrated.variables[name]).password or migrated.variables[name]
        assert secret not in done.stdout + done.stderr, name


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [
        ("SUPABASE_PUBLISHABLE_KEY", "sb_secret_of_somebody", "passes row level security"),
        ("SUPABASE_PUBLISHABLE_KEY", "sb_publishable_of_another", "is refused by the project"),
        ("SUPABASE_DB_URL", "as postgres", "logs in as postgres"),
        ("SUPABASE_DB_URL", "wrong password", "alter role concerto_login password"),
        ("SUPABASE_URL", "http://127.0.0.1:9", "does not answer"),
        ("GATEWAY_PUBLIC_URL", "https://elsewhere.example", "https://elsewhere.example/reset-password/"),
        ("CONCERTO_DB_POOL_SIZE", "500", "CONCERTO_DB_POOL_SIZE"),
    ],
)
async def test_the_doctor_says_how_to_mend_a_wrong_setting(migrated: Hosted, name: str, value: str, named: str) -> None:
    address = urlsplit(migrated.variables["SUPABASE_DB_URL"])
    host_and_port = f"{address.hostname}:{address.port}"
    real = {
        "as postgres": migrated.variables["SUPABASE_MIGRATION_DB_URL"],
        "wrong password": urlunsplit(address._replace(netloc=f"concerto_login:wrong@{host_and_port}")),
    }
    # Without the address for migrations: comparing them and asking the advisors takes seconds each time.
    variables = {each: text for each, text in migrated.variables.items() if each != "SUPABASE_MIGRATION_DB_URL"}
    variables |= {"CONCERTO_HOME": str(migrated.folder), name: real.get(value, value)}
    findings = await examine(load_settings(environment=variables, env_file=None), ROOT)
    assert named in "\n".join(f"{finding.detail} {finding.advice}" for finding in findings if finding.advice)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_the_suite_runs_on_it(migrated: Hosted, tmp_path: Path, note: Note) -> None:
    file = tmp_path / "project.json"
    of_tests = {"SUPABASE_ADMIN_DB_URL": migrated.stack.admin_db_url, "SUPABASE_SECRET_KEY": migrated.stack.secret_key}
    named = {name: value for name, value in migrated.variables.items() if name != "GATEWAY_PUBLIC_URL"}
    file.write_text(json.dumps({**named, **of_tests}))
    file.chmod(0o600)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-m", "not own_mode"),
        *("--hosted", str(file), "--deselect", NOT_THERE, *WALK),
        cwd=ROOT,
        env=stack_environment(tmp_path / "home", migrated.stack.base_port),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode(errors="replace")
    assert process.returncode == 0, output
    note(f"on a project with our migrations: {output.strip().splitlines()[-1]}")


async def test_a_migration_that_is_no_file_here_is_refused(migrated: Hosted) -> None:
    await migrated.fetch(f"insert into {HISTORY} (version, name) values ('20990101000000', 'from_elsewhere')")
    try:
        refused = migrated.concerto("migrate", "--target", "hosted", "--yes")
        assert refused.returncode == 1
        assert "20990101000000" in refused.stderr
        doctor = migrated.concerto("doctor", "--target", "hosted")
        assert (doctor.returncode, "applied, but no file here: 20990101000000" in doctor.stdout) == (1, True)
    finally:
        await migrated.fetch(f"delete from {HISTORY} where version = '20990101000000'")


@pytest.mark.long
async def test_a_project_of_before_the_baseline_gets_another_history_and_what_is_newer(migrated: Hosted) -> None:
    before = await migrated.snapshot()
    owner = await asyncpg.connect(migrated.stack.migration_db_url)
    await make_as_before_the_baseline(owner)
    await owner.close()
    doctor = migrated.concerto("doctor", "--target", "hosted")
    assert (doctor.returncode, "that stand in the baseline now" in doctor.stdout) == (1, True), doctor.stdout
    shown = migrated.concerto("migrate", "--target", "hosted", "--dry-run")
    assert (shown.returncode, await migrated.applied()) == (0, list(FOLDED)), shown.stdout + shown.stderr
    done = migrated.concerto("migrate", "--target", "hosted", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert await migrated.applied() == VERSIONS
    assert await migrated.snapshot() == before


@pytest.mark.long
async def test_rollbacks_in_reverse_leave_nothing_and_everything_applies_again(migrated: Hosted) -> None:
    before = await migrated.snapshot()
    again = migrated.concerto("migrate", "--target", "hosted", "--yes")
    assert (again.returncode, "Nothing is pending." in again.stdout) == (0, True), again.stderr
    assert await migrated.snapshot() == before

    too_many = migrated.concerto("migrate", "--target", "hosted", "--undo", str(len(VERSIONS) + 1), "--yes")
    assert (too_many.returncode, await migrated.applied()) == (1, VERSIONS)
    one = migrated.concerto("migrate", "--target", "hosted", "--undo", "1", "--yes")
    assert one.returncode == 0, one.stdout + one.stderr
    assert await migrated.applied() == VERSIONS[:-1]
    doctor = migrated.concerto("doctor", "--target", "hosted")
    assert (doctor.returncode, f"1 pending: {VERSIONS[-1]}" in doctor.stdout) == (1, True)
    rest = migrated.concerto("migrate", "--target", "hosted", "--undo", str(len(VERSIONS) - 1), "--yes")
    assert rest.returncode == 0, rest.stdout + rest.stderr
    assert await migrated.applied() == []
    assert [row[0] for row in await migrated.fetch(LEFT)] == []

    done = await migrated.bring_up()
    assert done.returncode == 0, done.stdout + done.stderr
    assert await migrated.snapshot() == before
    doctor = migrated.concerto("doctor", "--target", "hosted")
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
