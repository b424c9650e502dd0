import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.support.database import INSUFFICIENT_PRIVILEGE, acting_as, add_user, call, call_system
from tests.support.runs import start_args, user_message_of
from tests.support.suites import RunningStack

ACTORS = ("anon", "owner", "stranger")
VERBS = ("select", "insert", "update", "delete")

# What each statement does with the owner's rows: finds them, finds nothing, or is refused (42501).
FOUND, EMPTY, REFUSED = "found", "empty", "refused"
KEPT_BY_TRIGGERS = {
    "owner": {"select": FOUND, "insert": REFUSED, "update": FOUND, "delete": REFUSED},
    "stranger": {"select": EMPTY, "insert": REFUSED, "update": EMPTY, "delete": REFUSED},
}

READ_ONLY = {
    "owner": {"select": FOUND, "insert": REFUSED, "update": REFUSED, "delete": REFUSED},
    "stranger": {"select": EMPTY, "insert": REFUSED, "update": REFUSED, "delete": REFUSED},
}


@dataclass(frozen=True)
class Table:
    """One table: its statements about the owner's rows ($1 owner, $2 the owner's session), and what they do."""

    key: str
    insert: str
    change: str
    outcomes: dict[str, dict[str, str]]
    insertable: frozenset[str] = frozenset()
    updatable: frozenset[str] = frozenset()


TABLES = {
    "users": Table(
        key="id = $1 and $2::uuid is not null",
        insert="(id, display_name) values ($1, coalesce($2::text, ''))",
        change="display_name = 'changed'",
        outcomes=KEPT_BY_TRIGGERS,
        updatable=frozenset({"display_name"}),
    ),
    "profiles": Table(
        key="id = $1 and $2::uuid is not null",
        insert="(id, full_name) values ($1, $2::text)",
        change="full_name = 'changed'",
        outcomes=KEPT_BY_TRIGGERS,
        updatable=frozenset(
            {"username", "full_name", "avatar_url", "status_text", "status_emoji", "status_expires_at"}
        ),
    ),
    "user_settings": Table(
        key="user_id = $1 and $2::uuid is not null",
        insert="(user_id, theme) values ($1, left($2::text, 0) || 'dark')",
        change="theme = 'dark'",
        outcomes=KEPT_BY_TRIGGERS,
        updatable=frozenset({"theme", "notification_preferences"}),
    ),
    "sessions": Table(
        key="user_id = $1 and id = $2",
        # The owner's row cannot be named: user_id may not be written, it is the caller by itself.
        insert="(name) select 'new' where $1::uuid is not null and $2::uuid is not null",
        change="name = 'changed'",
        outcomes={
            "owner": {"select": FOUND, "insert": FOUND, "update": FOUND, "delete": FOUND},
            "stranger": {"select": EMPTY, "insert": FOUND, "update": EMPTY, "delete": EMPTY},
        },
        insertable=frozenset({"name", "is_archived", "request_id"}),
        updatable=frozenset({"name", "is_archived"}),
    ),
    "messages": Table(
        key="session_id = $2 and $1::uuid is not null",
        insert="(session_id, role, content) select $2, 'user', 'new' where $1::uuid is not null",
        change="content = 'changed'",
        outcomes={
            "owner": {"select": FOUND, "insert": FOUND, "update": REFUSED, "delete": REFUSED},
            "stranger": {"select": EMPTY, "insert": REFUSED, "update": REFUSED, "delete": REFUSED},
        },
        insertable=frozenset({"session_id", "role", "content", "metadata", "request_id", "request_size"}),
    ),
    "runs": Table(
        key="user_id = $1 and session_id = $2",
        insert="(user_id, session_id, state) values ($1, $2, 'QUEUED')",
        change="state = 'SUCCEEDED'",
        outcomes=READ_ONLY,
    ),
    "run_events": Table(
        key="payload ->> 'session_id' = $2::uuid::text and $1::uuid is not null",
        insert="(run_id, seq, type, payload) select $2, 99, 'usage', '{}' where $1::uuid is not null",
        change="payload = '{}'",
        outcomes=READ_ONLY,
    ),
    "api_usage": Table(
        key="user_id = $1 and session_id = $2",
        insert="(user_id, session_id, model, source) values ($1, $2, 'm', 'turn')",
        change="cost_micro_usd = 0",
        outcomes=READ_ONLY,
    ),
}

# What a stranger gets who calls an operation with the owner's ids: a reason, or None for an answer of their own.
OPERATIONS: dict[str, str | None] = {
    "get_me": None,
    "update_me": None,
    "create_session": None,
    "list_sessions": None,
    "get_session": "SESSION_NOT_FOUND",
    "update_session": "SESSION_NOT_FOUND",
    "delete_session": "SESSION_NOT_FOUND",
    "append_messages": "SESSION_NOT_FOUND",
    "list_messages": "SESSION_NOT_FOUND",
    "select_branch": "SESSION_NOT_FOUND",
    "search_messages": "SESSION_NOT_FOUND",
    "start_run": "SESSION_NOT_FOUND",
    "list_runs": "SESSION_NOT_FOUND",
    "get_run": "RUN_NOT_FOUND",
    "read_run_events": "RUN_NOT_FOUND",
    "request_run_cancellation": "RUN_NOT_FOUND",
    "list_usage": None,
}


@dataclass(frozen=True)
class World:
    """Two users, one of them with a session in which a run has ended and another is under way."""

    admin: asyncpg.Connection
    login: asyncpg.Connection
    owner: str
    stranger: str
    session_id: str
    request_id: str
    run_id: str
    message_id: str

    def user(self, actor: str) -> str | None:
        return {"owner": self.owner, "stranger": self.stranger}.get(actor)

    async def rows(self) -> dict[str, str]:
        """Everything the owner has."""
        answer = {}
        for name, table in TABLES.items():
            query = f"select jsonb_agg(t order by t::text)::text from public.{name} as t where {table.key}"
            answer[name] = await self.admin.fetchval(query, self.owner, self.session_id)
        return answer


@pytest.fixture(scope="module")
async def world(stack: RunningStack) -> AsyncIterator[World]:
    admin = await asyncpg.connect(stack.admin_db_url)
    login = await asyncpg.connect(stack.db_url)
    owner, stranger, request_id = await add_user(admin), await add_user(admin), str(uuid4())
    created = await call(login, owner, "create_session", name="the owner's", request_id=request_id)
    session_id = created["session"]["id"]
    messages = [{"role": "user", "content": "private"}, {"role": "assistant", "content": "words"}]
    await call(login, owner, "append_messages", session_id=session_id, request_id=request_id, messages=messages)
    started = await call(login, owner, "start_run", **start_args(session_id, content="the owner's", model="m"))
    await call_system(login, "finish_run", lease=started["lease"], state="SUCCEEDED", messages=[], next_seq=2)
    running = await call(login, owner, "start_run", **start_args(session_id, content="another", lease_seconds=3600))
    yield World(
        admin,
        login,
        owner,
        stranger,
        session_id,
        request_id,
        running["run"]["id"],
        user_message_of(started)["id"],
    )
    await login.close()
    await admin.close()


def arguments(world: World, session_id: str, run_id: str = "") -> dict[str, dict[str, Any]]:
    one = [{"role": "user", "content": "forged"}]
    return {
        "get_me": {},
        "update_me": {"display_name": "forged"},
        "create_session": {"name": "forged", "request_id": world.request_id},
        "list_sessions": {"page_size": 100},
        "get_session": {"session_id": session_id},
        "update_session": {"session_id": session_id, "name": "forged"},
        "delete_session": {"session_id": session_id},
        "append_messages": {"session_id": session_id, "messages": one, "request_id": world.request_id},
        "list_messages": {"session_id": session_id},
        "select_branch": {"session_id": session_id, "message_id": world.message_id},
        "search_messages": {"session_id": session_id, "query": "private"},
        "start_run": start_args(session_id, content="forged", if_running="cancel"),
        "list_runs": {"session_id": session_id},
        "get_run": {"run_id": run_id or world.run_id},
        "read_run_events": {"run_id": run_id or world.run_id},
        "request_run_cancellation": {"run_id": run_id or world.run_id},
        "list_usage": {"group_by": "session"},
    }


async def test_every_table_of_the_catalog_has_an_expectation(world: World) -> None:
    rows = await world.admin.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r','p','v','m','f')"
    )
    assert {row["relname"] for row in rows} == TABLES.keys()


async def test_every_operation_of_the_catalog_has_an_expectation(world: World) -> None:
    rows = await world.admin.fetch(
        "select proname, pg_get_function_identity_arguments(oid) as args, prorettype::regtype::text as answer"
        " from pg_proc where pronamespace = 'api'::regnamespace"
    )
    assert {row["proname"] for row in rows} == OPERATIONS.keys() == arguments(world, world.session_id).keys()
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
    before = await world.rows()
    async with acting_as(world.login, world.user(actor)) as connection:
        if expected == REFUSED:
            with pytest.raises(asyncpg.PostgresError) as refusal:
                await connection.fetch(statement, world.owner, world.session_id)
            assert refusal.value.sqlstate == INSUFFICIENT_PRIVILEGE
        else:
            rows = await connection.fetch(statement, world.owner, world.session_id)
            assert bool(rows) == (expected == FOUND)
    assert await world.rows() == before


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
            world.session_id,
        )
        count = await connection.fetchval("select message_count from public.sessions where id = $1", world.session_id)
    assert [tuple(row) for row in rows] == [(5, True), (6, True)]
    assert count == 6


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_stranger_reaches_nothing_of_the_owner_through_an_operation(world: World, operation: str) -> None:
    before = await world.rows()
    args = arguments(world, world.session_id)[operation]
    if reason := OPERATIONS[operation]:
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await call(world.login, world.stranger, operation, **args)
        assert (refusal.value.sqlstate, refusal.value.message) == ("PT404", reason)
    else:
        answer = json.dumps(await call(world.login, world.stranger, operation, **args))
        assert world.owner not in answer
        assert world.session_id not in answer
        assert "the owner's" not in answer
    assert await world.rows() == before


@pytest.mark.parametrize("operation", [name for name, reason in OPERATIONS.items() if reason])
async def test_what_is_missing_answers_like_a_strangers(world: World, operation: str) -> None:
    answers = []
    for session_id, run_id in ((world.session_id, world.run_id), (str(uuid4()), str(uuid4()))):
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await call(world.login, world.stranger, operation, **arguments(world, session_id, run_id)[operation])
        error = refusal.value
        detail = str(error.detail).replace(session_id, "id").replace(run_id, "id")
        answers.append((error.sqlstate, error.message, error.hint, detail))
    assert answers[0] == answers[1]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_nobody_runs_an_operation_without_being_signed_in(world: World, operation: str) -> None:
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await call(world.login, None, operation, **arguments(world, world.session_id)[operation])
    assert refusal.value.sqlstate == INSUFFICIENT_PRIVILEGE


@pytest.mark.parametrize("operation", ["search_messages", "list_runs"])
async def test_a_stranger_who_names_no_session_finds_nothing_of_the_owner(world: World, operation: str) -> None:
    answer = await call(world.login, world.stranger, operation, query="private")
    assert next(iter(answer.values())) == []
    assert next(iter((await call(world.login, world.owner, operation, query="private")).values())) != []


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
