import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from services.sessions.sessions_store import STATEMENT_SECONDS
from tests.support.database import OLD_PLATFORM, PLATFORM, with_database
from tests.support.expectations import HELPERS, SYSTEM_OPERATIONS
from tests.support.suites import RunningStack

ROOT = Path(__file__).resolve().parents[2]
MIGRATIONS = sorted((ROOT / "supabase" / "migrations").glob("*.sql"))
ROLLBACKS = sorted((ROOT / "supabase" / "rollbacks").glob("*.sql"))
SUPABASE_CLI = ROOT / "node_modules" / ".bin" / "supabase"
OURS = "('public', 'api', 'private')"
SYSTEM_FUNCTIONS = {f"private.{name}(jsonb)" for name in SYSTEM_OPERATIONS}
SNAPSHOT = """
select string_agg(line, E'\n' order by line) from (
    select format('relation %s %s %s %s', c.oid::regclass, c.relkind, c.relrowsecurity, c.relacl) as line
    from pg_class as c where c.relnamespace::regnamespace::text in ('public', 'api', 'private')
    union all
    select format('column %s.%s %s %s', a.attrelid::regclass, a.attname, a.atttypid::regtype, a.attacl)
    from pg_attribute as a join pg_class as c on c.oid = a.attrelid
    where c.relnamespace::regnamespace::text in ('public', 'api', 'private') and c.relkind = 'r' and not a.attisdropped
    union all
    select format('function %s %s %s', p.oid::regprocedure, p.proacl, md5(p.prosrc))
    from pg_proc as p where p.pronamespace::regnamespace::text in ('public', 'api', 'private')
    union all
    select format('index %s %s', x.indexname, x.indexdef) from pg_indexes as x
    where x.schemaname in ('public', 'api', 'private')
    union all
    select format('policy %s %s', p.polrelid::regclass, p.polname) from pg_policy as p
    union all
    select format('trigger %s %s', t.tgrelid::regclass, t.tgname) from pg_trigger as t where not t.tgisinternal
    union all
    select format('schema %s %s', n.nspname, n.nspacl) from pg_namespace as n where n.nspname in ('api', 'private')
    union all
    select format('defaults %s', d.defaclacl) from pg_default_acl as d
    union all
    select format('bucket %s %s %s %s', b.id, b.public, b.file_size_limit, b.allowed_mime_types)
    from storage.buckets as b
) as lines
"""


@pytest.fixture(scope="module")
async def admin(stack: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(stack.admin_db_url)
    yield connection
    await connection.close()


async def test_every_table_has_row_level_security(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        f"select oid::regclass::text as name, relrowsecurity from pg_class"
        f" where relkind in ('r', 'p') and relnamespace::regnamespace::text in {OURS}"
    )
    assert rows
    assert [row["name"] for row in rows if not row["relrowsecurity"]] == []


async def test_every_granted_verb_has_one_policy_and_every_policy_a_grant(admin: asyncpg.Connection) -> None:
    granted = await admin.fetch(
        "select distinct table_name, lower(privilege_type) as verb from information_schema.column_privileges"
        " where table_schema = 'public' and grantee = 'authenticated'"
        " union select table_name, lower(privilege_type) from information_schema.table_privileges"
        " where table_schema = 'public' and grantee = 'authenticated'"
    )
    policies = await admin.fetch(
        "select tablename, lower(cmd) as verb, roles::text as roles, permissive"
        " from pg_policies where schemaname = 'public'"
    )
    assert sorted((row["tablename"], row["verb"]) for row in policies) == sorted(tuple(row) for row in granted)
    assert {(row["roles"], row["permissive"]) for row in policies} == {("{authenticated}", "PERMISSIVE")}


async def test_only_users_hold_grants_on_tables_and_operations(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        f"""
        select c.oid::regclass::text as name, g.grantee::regrole::text as grantee
        from pg_class as c, aclexplode(c.relacl) as g
        where c.relnamespace::regnamespace::text in {OURS} and g.grantee <> c.relowner
        union all
        select p.oid::regprocedure::text, case when g.grantee = 0 then 'public' else g.grantee::regrole::text end
        from pg_proc as p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as g
        where p.pronamespace::regnamespace::text in {OURS} and g.grantee <> p.proowner
        """
    )
    others = {(row["name"], row["grantee"]) for row in rows if row["grantee"] != "authenticated"}
    allowed = {"private.call(jsonb,text,jsonb)", *SYSTEM_FUNCTIONS}
    # Before each request REST runs it, whoever asks.
    of_rest = {("private.refuse_ended_sign_in()", role) for role in ("anon", "service_role")}
    assert others == of_rest | {(name, "concerto_login") for name in allowed}


async def test_policies_ask_for_the_caller_once_per_statement(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        "select policyname, coalesce(qual, '') || ' ' || coalesce(with_check, '') as text from pg_policies"
        " where schemaname = 'public'"
    )
    for row in rows:
        assert not re.search(r"(?<!SELECT )auth\.uid\(\)", row["text"]), row["policyname"]


async def test_every_function_has_an_empty_search_path_and_none_stands_in_public(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        f"select oid::regprocedure::text as name, pronamespace::regnamespace::text as schema, proconfig from pg_proc"
        f" where pronamespace::regnamespace::text in {OURS}"
    )
    assert [row["name"] for row in rows if 'search_path=""' not in (row["proconfig"] or [])] == []
    assert {row["schema"] for row in rows} == {"api", "private"}


async def test_definer_functions_are_private_and_executable_only_where_each_is_meant_to_be(
    admin: asyncpg.Connection,
) -> None:
    rows = await admin.fetch(
        "select p.oid::regprocedure::text as name, p.pronamespace::regnamespace::text as schema,"
        " array(select r.rolname::text from pg_roles as r where not r.rolsuper and r.oid <> p.proowner"
        "       and has_function_privilege(r.oid, p.oid, 'execute')) as roles"
        f" from pg_proc as p where p.prosecdef and p.pronamespace::regnamespace::text in {OURS}"
    )
    assert {row["schema"] for row in rows} == {"private"}
    executable = {row["name"]: row["roles"] for row in rows if row["roles"]}
    expected = {name: ["concerto_login"] for name in SYSTEM_FUNCTIONS} | {name: ["authenticated"] for name in HELPERS}
    assert executable == expected


@pytest.mark.parametrize("helper", sorted(HELPERS))
async def test_a_helper_with_more_rights_asks_who_calls(admin: asyncpg.Connection, helper: str) -> None:
    assert "auth.uid()" in await admin.fetchval("select prosrc from pg_proc where oid = $1::text::regprocedure", helper)


async def test_the_login_role_can_run_its_operations_and_nothing_else(admin: asyncpg.Connection) -> None:
    role = await admin.fetchrow("select * from pg_roles where rolname = 'concerto_login'")
    assert (role["rolinherit"], role["rolsuper"], role["rolbypassrls"]) == (False, False, False)
    assert (role["rolcreaterole"], role["rolcreatedb"], role["rolreplication"]) == (False, False, False)
    rows = await admin.fetch(
        f"select oid::regprocedure::text as name from pg_proc where pronamespace::regnamespace::text in {OURS}"
        " and has_function_privilege('concerto_login', oid, 'execute')"
    )
    assert {row["name"] for row in rows} == {"private.call(jsonb,text,jsonb)", *SYSTEM_FUNCTIONS}
    rows = await admin.fetch(
        f"select oid::regclass::text as name from pg_class where relkind in ('r', 'p', 'v', 'm', 'S')"
        f" and relnamespace::regnamespace::text in {OURS}"
        " and has_table_privilege('concerto_login', oid,"
        " 'select, insert, update, delete, truncate, references, trigger')"
    )
    assert [row["name"] for row in rows] == []


async def test_everything_has_a_comment(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        f"""
        select n.nspname as name from pg_namespace as n
        where n.nspname in ('api', 'private') and obj_description(n.oid, 'pg_namespace') is null
        union all
        select c.oid::regclass::text from pg_class as c
        where c.relkind in ('r', 'p', 'v', 'm') and c.relnamespace::regnamespace::text in {OURS}
          and obj_description(c.oid, 'pg_class') is null
        union all
        select a.attrelid::regclass::text || '.' || a.attname from pg_attribute as a
        join pg_class as c on c.oid = a.attrelid
        where c.relkind in ('r', 'p', 'v', 'm') and c.relnamespace::regnamespace::text in {OURS}
          and a.attnum > 0 and not a.attisdropped and col_description(c.oid, a.attnum) is null
        union all
        select p.oid::regprocedure::text from pg_proc as p
        where p.pronamespace::regnamespace::text in {OURS} and obj_description(p.oid, 'pg_proc') is null
        """
    )
    assert [row["name"] for row in rows] == []


async def test_every_foreign_key_and_policy_column_begins_an_index(admin: asyncpg.Connection) -> None:
    rows = await admin.fetch(
        f"""
        select f.conrelid::regclass::text as name, f.conname from pg_constraint as f
        where f.contype = 'f' and f.connamespace::regnamespace::text in {OURS} and not exists (
            select from pg_index as i
            where i.indrelid = f.conrelid and i.indpred is null
              and (i.indkey::int2[])[0:cardinality(f.conkey) - 1] = f.conkey
        )
        """
    )
    assert [tuple(row) for row in rows] == []


async def test_what_waits_for_a_row_waits_for_a_moment(admin: asyncpg.Connection) -> None:
    """The services repeat it without a connection in hand: servicekit/database/client.py."""
    rows = await admin.fetch(
        "select p.oid::regprocedure::text as name, coalesce(p.proconfig, '{}') as settings from pg_proc as p"
        " where p.provolatile = 'v' and (p.pronamespace = 'api'::regnamespace"
        " or p.oid = any(array['private.finish_run(jsonb)', 'private.promote_run(jsonb)']::regprocedure[]))"
    )
    assert len(rows) > 5
    assert [row["name"] for row in rows if "lock_timeout=250ms" not in row["settings"]] == []


async def test_what_reads_very_many_rows_has_a_time_of_its_own(admin: asyncpg.Connection) -> None:
    """The REST interface takes it from the function's settings, the services set it before the statement."""
    rows = await admin.fetch(
        "select p.proname as name, s.setting from pg_proc as p, unnest(p.proconfig) as s (setting)"
        " where p.pronamespace = 'api'::regnamespace and s.setting like 'statement_timeout=%'"
    )
    expected = f"statement_timeout={STATEMENT_SECONDS:g}s"
    assert {row["name"]: row["setting"] for row in rows} == dict.fromkeys(("search_messages", "list_usage"), expected)


def test_migrations_are_named_by_time_and_subject_and_each_has_its_rollback() -> None:
    assert MIGRATIONS
    assert [path.name for path in MIGRATIONS if not re.fullmatch(r"\d{14}_[a-z_]+\.sql", path.name)] == []
    assert [path.name for path in ROLLBACKS] == [path.name for path in MIGRATIONS]


@pytest.mark.parametrize("file", [*MIGRATIONS, *ROLLBACKS], ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_migration_waits_for_a_lock_for_seconds_and_leaves_the_limit_as_it_was(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("--")]
    if re.fullmatch(r"(create|drop) index concurrently [^;]+;", "\n".join(lines)):
        return  # such a statement stands alone, and keeps nobody waiting
    assert re.fullmatch(r"set lock_timeout = '\d{1,2}s';", lines[0])
    assert lines[-1] == "reset lock_timeout;"


@pytest.mark.parametrize("platform", [PLATFORM, PLATFORM + OLD_PLATFORM], ids=["new project", "old project"])
async def test_rollbacks_leave_nothing_and_the_migrations_apply_again(
    admin: asyncpg.Connection, stack: RunningStack, platform: str
) -> None:
    name = f"rollback_{uuid4().hex}"
    await admin.execute(f"create database {name} owner postgres")
    try:
        superuser = await asyncpg.connect(with_database(stack.admin_db_url, name))
        await superuser.execute(platform)
        await superuser.execute("insert into auth.users (id, email) values (gen_random_uuid(), 'early@example.net')")
        await superuser.close()
        owner = await asyncpg.connect(with_database(stack.migration_db_url, name))
        before = [await owner.fetchval(SNAPSHOT)]
        for migration in MIGRATIONS:
            await apply(owner, [migration])
            before.append(await owner.fetchval(SNAPSHOT))
        applied = before.pop()
        assert await owner.fetchval("select display_name from public.users") == "early"
        assert await owner.fetchval("select has_table_privilege('anon', 'public.users', 'select')") is False
        assert await owner.fetchval("select has_table_privilege('authenticated', 'public.users', 'delete')") is False
        for rollback in reversed(ROLLBACKS):
            await apply(owner, [rollback])
            assert await owner.fetchval(SNAPSHOT) == before.pop(), rollback.name
        schemas = await owner.fetch("select nspname from pg_namespace where nspname in ('api', 'private')")
        assert schemas == []
        await apply(owner, MIGRATIONS)
        assert await owner.fetchval(SNAPSHOT) == applied
        await owner.close()
    finally:
        await admin.execute(f"drop database {name} with (force)")
    # The role is the whole cluster's, and this cluster's first database still needs it.
    assert await admin.fetchval("select count(*) from pg_roles where rolname = 'concerto_login'") == 1


async def test_the_seed_can_be_applied_twice(admin: asyncpg.Connection, stack: RunningStack) -> None:
    seed = (ROOT / "supabase" / "seed.sql").read_text()
    count = "select count(*), (select count(*) from public.messages) from public.sessions"
    owner = await asyncpg.connect(stack.migration_db_url)
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute(
        "insert into auth.users (id, email) values (gen_random_uuid(), gen_random_uuid() || '@example.com')"
    )
    await owner.execute(seed)
    once = await owner.fetchrow(count)
    await owner.execute(seed)
    twice = await owner.fetchrow(count)
    orders = await owner.fetch(
        'select m."order", m.role from public.messages as m join public.sessions as s on s.id = m.session_id'
        " where s.name = 'A first conversation' order by 1"
    )
    await transaction.rollback()
    await owner.close()
    assert once == twice
    assert [tuple(row) for row in orders] == [(1, "user"), (2, "assistant"), (3, "user"), (4, "assistant")]


def test_supabases_own_advisors_find_nothing(stack: RunningStack) -> None:
    parts = urlsplit(stack.migration_db_url)
    address = urlunsplit(
        parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}", query="sslmode=disable")
    )
    done = subprocess.run(
        [str(SUPABASE_CLI), "db", "advisors", f"--remote={address}", "--level", "info", "--fail-on", "warn"],
        cwd=ROOT,
        env={
            "PATH": f"{ROOT / '.node'}{os.pathsep}{os.defpath}",
            "HOME": str(stack.home / "run"),
            "PGPASSWORD": parts.password or "",
            "SUPABASE_TELEMETRY_DISABLED": "1",
            "DO_NOT_TRACK": "1",
            "CI": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def apply(connection: asyncpg.Connection, files: list[Path]) -> None:
    for file in files:
        async with connection.transaction():
            await connection.execute(file.read_text())
