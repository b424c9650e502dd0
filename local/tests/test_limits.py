from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from local.hosted.migrate import HostedProject
from local.migrations.limits import set_limits, statements_of
from local.settings import ROOT, Settings, SettingsError, load_settings
from local.suite.processes import node_program
from local.tests.test_hosted import A, B, C, Project, run, settings_with
from tests.support.suites import RunningStack

LIMITS = "select messages_per_minute, files_per_user, file_bytes_per_user from private.limits"
SET = {
    "CONCERTO_MESSAGES_PER_MINUTE": "7",
    "CONCERTO_FILES_PER_USER": "0",
    "CONCERTO_FILE_BYTES_PER_USER": "9000000000",
}


@pytest.fixture(scope="module")
def small(launch: Callable[..., RunningStack]) -> RunningStack:
    return launch(only="postgres,supabase", **SET)


def settings_of(**variables: str) -> Settings:
    return load_settings(environment=variables, env_file=None)


async def limits_of(stack: RunningStack) -> tuple[int, ...]:
    admin = await asyncpg.connect(stack.admin_db_url)
    try:
        return tuple(await admin.fetchrow(LIMITS))
    finally:
        await admin.close()


def test_what_is_not_set_stays_as_it_is() -> None:
    assert statements_of(settings_of()) == {}
    assert statements_of(settings_of(CONCERTO_FILES_PER_USER="3")) == {
        "private.limits": "update private.limits set files_per_user = 3"
    }


@pytest.mark.parametrize("name", SET)
@pytest.mark.parametrize("value", ["-1", "many", "1.5", "1; drop table x", "99999999999999999999"])
def test_a_limit_that_is_none_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        settings_of(**{name: value})


async def test_limits_that_are_set_are_in_the_database_once_the_suite_is_up(small: RunningStack) -> None:
    assert await limits_of(small) == (7, 0, 9_000_000_000)
    await set_limits(small.admin_db_url, settings_of(CONCERTO_MESSAGES_PER_MINUTE="8"))
    assert await limits_of(small) == (8, 0, 9_000_000_000)
    # `concerto migrate` writes them again, beside what runs.
    assert small.command("migrate").returncode == 0
    assert await limits_of(small) == (7, 0, 9_000_000_000)


async def test_a_database_without_our_tables_is_left_alone(small: RunningStack) -> None:
    admin = await asyncpg.connect(small.admin_db_url)
    await admin.execute("create database without_tables")
    try:
        url = small.admin_db_url.replace("/postgres", "/without_tables")
        await set_limits(url, settings_of(**SET))
    finally:
        await admin.execute("drop database without_tables with (force)")
        await admin.close()


async def test_the_supabase_cli_writes_them_where_only_an_address_is_known(small: RunningStack, tmp_path: Path) -> None:
    settings = settings_with(tmp_path, SUPABASE_MIGRATION_DB_URL=small.migration_db_url, CONCERTO_FILES_PER_USER="5")
    await HostedProject(settings, ROOT, node=node_program()).set_limits(statements_of(settings)["private.limits"])
    assert (await limits_of(small))[1] == 5


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "copy")


async def test_a_hosted_project_is_given_them_with_its_migrations_and_without(project: Project, tmp_path: Path) -> None:
    expected = "update private.limits set messages_per_minute = 7, files_per_user = 0, file_bytes_per_user = 9000000000"
    for applied in ([A], [A, B, C]):
        project.answer(applied=applied, db_push={"applies": [A, B, C]})
        printed = await run(project, settings_with(tmp_path, **SET))
        assert project.called()[-1][:2] == ["db", "query"]
        assert expected in project.called()[-1]
        assert "The limits of users and who may sign up are as they are set." in printed
    calls = len(project.called())
    await run(project, settings_with(tmp_path, **SET), dry_run=True)
    await run(project, settings_with(tmp_path))
    assert [call[:2] for call in project.called()[calls:]].count(["db", "query"]) == 0
