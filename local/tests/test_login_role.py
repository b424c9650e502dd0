"""The login role may change its own settings and password; a start gives it those that it should have."""

import asyncpg

from local.embedded.credentials import read_credentials
from local.embedded.postgres import Postgres
from local.hosted.database import check_database
from local.migrations.apply import set_role_passwords
from local.migrations.login_role import role_settings
from local.settings import ROOT
from services.sessions.settings import Settings
from tests.support.suites import RunningStack

SETTINGS = "select rolconfig from pg_roles where rolname = 'concerto_login'"


async def test_its_settings_and_password_are_set_again(embedded: RunningStack) -> None:
    expected = [f"{name}={value}" for name, value in role_settings(ROOT).items()]
    assert "statement_timeout=8s" in expected
    admin = await asyncpg.connect(embedded.admin_db_url)
    credentials = read_credentials(embedded.home)
    postgres = Postgres(embedded.home, embedded.base_port + 2, credentials)
    try:
        assert sorted(await admin.fetchval(SETTINGS)) == sorted(expected)
        login = await asyncpg.connect(embedded.db_url)
        await login.execute("alter role concerto_login set statement_timeout = 0")
        await login.execute("alter role concerto_login set search_path = pg_temp")
        await login.close()
        found = await check_database(
            Settings(_env_file=None, db_url=embedded.db_url, supabase_url="http://127.0.0.1:9")
        )
        [finding] = [one for one in found if "other settings" in one.detail]
        assert "alter role concerto_login reset all;" in finding.advice
        assert "set statement_timeout = '8s';" in finding.advice
        await admin.execute("alter role concerto_login password 'changed by whoever had it'")
        await set_role_passwords(postgres)
        assert sorted(await admin.fetchval(SETTINGS)) == sorted(expected)
        await (await asyncpg.connect(embedded.db_url)).close()
    finally:
        await set_role_passwords(postgres)
        await admin.close()
