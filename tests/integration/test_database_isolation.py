import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.database import INSUFFICIENT_PRIVILEGE, acting_as, add_user, call
from tests.support.domains import FOUND, KEPT_BY_TRIGGERS, REFUSED, World
from tests.support.expectations import OPERATIONS, RESOURCES, TABLES, domains, missing, schema_folders
from tests.support.expectations import rows as rows_of
from tests.support.suites import RunningStack

ACTORS = ("anon", "owner", "stranger")
VERBS = ("select", "insert", "update", "delete")


@pytest.fixture(scope="module")
async def world(stack: RunningStack) -> AsyncIterator[World]:
    admin = await asyncpg.connect(stack.admin_db_url)
    login = await asyncpg.connect(stack.db_url)
    made = World(admin, login, await add_user(admin), await add_user(admin))
    for domain in domains().values():
        if domain.fill is not None:
            await domain.fill(made)
    yield made
    await login.close()
    await admin.close()


async def test_every_table_of_the_catalog_has_an_expectation(world: World) -> None:
    rows = await world.admin.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r','p','v','m','f')"
    )
    assert {row["relname"] for row in rows} == TABLES.keys()


def test_every_domain_of_the_database_has_a_file_of_expectations() -> None:
    assert schema_folders() <= domains().keys()


async def test_every_operation_of_the_catalog_has_an_expectation(world: World) -> None:
    rows = await world.admin.fetch(
        "select proname, pg_get_function_identity_arguments(oid) as args, prorettype::regtype::text as answer"
        " from pg_proc where pronamespace = 'api'::regnamespace"
    )
    assert {row["proname"] for row in rows} == OPERATIONS.keys()
    assert {(row["args"], row["answer"]) for row in rows} == {("args jsonb", "jsonb")}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("name", TABLES)
async def test_a_statement_about_the_owners_rows_does_what_is_expected(
    world: World, name: str, actor: str, verb: str
) -> None:
    table = TABLES[name]
    expected = table.outcomes[actor][verb] if actor in table.outcomes else REFUSED
    statement = {
        "select": f"select 1 from public.{name} where {table.key}",
        "insert": f"insert into public.{name} {table.insert} returning 1",
        "update": f"update public.{name} set {table.change} where {table.key} returning 1",
        "delete": f"delete from public.{name} where {table.key} returning 1",
    }[verb]
    before = await rows_of(world)
    async with acting_as(world.login, world.user(actor)) as connection:
        if expected == REFUSED:
            with pytest.raises(asyncpg.PostgresError) as refusal:
                await connection.fetch(statement, world.owner, world.ids["session_id"])
            assert refusal.value.sqlstate == INSUFFICIENT_PRIVILEGE
        else:
            rows = await connection.fetch(statement, world.owner, world.ids["session_id"])
            assert bool(rows) == (expected == FOUND)
    assert await rows_of(world) == before


@pytest.mark.parametrize("name", TABLES)
async def test_a_list_without_a_filter_holds_only_the_callers_rows(world: World, name: str) -> None:
    async with acting_as(world.login, world.stranger) as connection:
        total = await connection.fetchval(f"select count(*) from public.{name}")
    assert total == (1 if TABLES[name].outcomes is KEPT_BY_TRIGGERS else 0)


@pytest.mark.parametrize("name", TABLES)
async def test_users_write_only_the_columns_that_are_theirs(world: World, name: str) -> None:
    rows = await world.admin.fetch(
        "select attname, has_column_privilege('authenticated', attrelid, attnum, 'insert') as can_insert,"
        " has_column_privilege('authenticated', attrelid, attnum, 'update') as can_update,"
        " has_column_privilege('anon', attrelid, attnum, 'select, insert, update, references') as anon_may"
        " from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped",
        f"public.{name}",
    )
    assert {row["attname"] for row in rows if row["can_insert"]} == TABLES[name].insertable
    assert {row["attname"] for row in rows if row["can_update"]} == TABLES[name].updatable
    assert [row["attname"] for row in rows if row["anon_may"]] == []
    for column in {row["attname"] for row in rows} - TABLES[name].updatable:
        with pytest.raises(asyncpg.PostgresError) as refusal:
            async with acting_as(world.login, world.owner) as connection:
                # The one value that may be said for a generated column, too: the right is what is asked for.
                await connection.execute(f'update public.{name} set "{column}" = default')
        assert refusal.value.sqlstate == INSUFFICIENT_PRIVILEGE
    for column in {row["attname"] for row in rows} - TABLES[name].insertable:
        with pytest.raises(asyncpg.PostgresError) as refusal:
            async with acting_as(world.login, world.owner) as connection:
                await connection.execute(f'insert into public.{name} ("{column}") values (default)')
        assert refusal.value.sqlstate == INSUFFICIENT_PRIVILEGE


async def test_a_message_inserted_by_its_owner_gets_order_and_time_from_the_database(world: World) -> None:
    async with acting_as(world.login, world.owner) as connection:
        rows = await connection.fetch(
            "insert into public.messages (session_id, role, content) values ($1, 'user', 'a'), ($1, 'user', 'b')"
            ' returning "order", "timestamp" >= transaction_timestamp() as is_now',
            world.ids["session_id"],
        )
        count = await connection.fetchval(
            "select message_count from public.sessions where id = $1", world.ids["session_id"]
        )
    assert [tuple(row) for row in rows] == [(5, True), (6, True)]
    assert count == 6


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_stranger_reaches_nothing_of_the_owner_through_an_operation(world: World, operation: str) -> None:
    before = await rows_of(world)
    args = OPERATIONS[operation].args(world.ids)
    if reason := OPERATIONS[operation].refusal:
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await call(world.login, world.stranger, operation, **args)
        assert (refusal.value.sqlstate, refusal.value.message) == ("PT404", reason)
    else:
        answer = json.dumps(await call(world.login, world.stranger, operation, **args))
        assert world.owner not in answer
        assert [name for name in RESOURCES if world.ids[name] in answer] == []
        assert "the owner's" not in answer
    assert await rows_of(world) == before


@pytest.mark.parametrize("operation", [name for name, one in OPERATIONS.items() if one.refusal])
async def test_what_is_missing_answers_like_a_strangers(world: World, operation: str) -> None:
    answers = []
    for ids in (world.ids, missing(world)):
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await call(world.login, world.stranger, operation, **OPERATIONS[operation].args(ids))
        error, detail = refusal.value, str(refusal.value.detail)
        for name in RESOURCES:
            detail = detail.replace(ids[name], "id")
        answers.append((error.sqlstate, error.message, error.hint, detail))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_nobody_runs_an_operation_without_being_signed_in(world: World, operation: str) -> None:
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await call(world.login, None, operation, **OPERATIONS[operation].args(world.ids))
    assert refusal.value.sqlstate == INSUFFICIENT_PRIVILEGE


@pytest.mark.parametrize("operation", [name for name, one in OPERATIONS.items() if one.lists is not None])
async def test_a_stranger_whose_list_has_no_filter_finds_nothing_of_the_owner(world: World, operation: str) -> None:
    args = OPERATIONS[operation].lists or {}
    assert next(iter((await call(world.login, world.stranger, operation, **args)).values())) == []
    assert next(iter((await call(world.login, world.owner, operation, **args)).values())) != []


@pytest.mark.parametrize("role", ["service_role", "postgres", "supabase_admin", "concerto_login", ""])
async def test_private_call_accepts_no_other_role(world: World, role: str) -> None:
    claims = json.dumps({"sub": world.owner, "role": role})
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await world.login.fetchval("select private.call($1::jsonb, 'get_me', '{}')", claims)
    assert (refusal.value.sqlstate, refusal.value.message) == ("PT403", "PERMISSION_DENIED")


@pytest.mark.parametrize("operation", ["no_such", "get_me(jsonb)", "pg_sleep", "GET_ME", "", "get_me'--"])
async def test_private_call_refuses_an_unknown_operation(world: World, operation: str) -> None:
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await call(world.login, world.owner, operation)
    assert (refusal.value.sqlstate, refusal.value.message) == ("PT501", "UNIMPLEMENTED")


async def test_a_connection_is_nobody_again_after_a_call(world: World) -> None:
    await call(world.login, world.owner, "get_me")
    row = await world.login.fetchrow(
        "select current_user as role, current_setting('request.jwt.claims', true) as claims,"
        " current_setting('request.jwt.claim.sub', true) as sub"
    )
    assert (row["role"], row["claims"] or "", row["sub"] or "") == ("concerto_login", "", "")
