"""What the services' login role can do if its password is known: nothing by itself, and its operations have bounds."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from benchmarks import tables
from tests.support.database import INSUFFICIENT_PRIVILEGE, add_user
from tests.support.runs import ERROR, RunsWorld
from tests.support.suites import RunningStack

RAISED = {**ERROR, "details": [{"reason": "MODEL_FAILED", "domain": "concerto", "metadata": {}}]}
LARGE = {**ERROR, "message": "x" * 2048}
SCHEMAS = ("public", "api", "private", "auth", "storage")
REFUSED = (
    "create schema own",
    *(f"create table {schema}.own (id integer)" for schema in SCHEMAS),
    "create role other",
    "create database other",
    "alter role concerto_login bypassrls",
    "alter role concerto_login superuser",
    "alter role authenticated set statement_timeout = 0",
    "alter role postgres password 'x'",
    "alter database postgres set statement_timeout = 0",
    "alter system set statement_timeout = 0",
    "set session authorization postgres",
    "set role postgres",
    "set role service_role",
    "set role supabase_auth_admin",
    "grant postgres to concerto_login",
    "select rolpassword from pg_authid",
    "select pg_read_file('/etc/passwd')",
    "select pg_ls_dir('.')",
    "copy (select 1) to program 'true'",
    "copy pg_class to '/tmp/own'",
    "select lo_import('/etc/passwd')",
    "select * from auth.users",
    "insert into auth.users (id) values (gen_random_uuid())",
    "select * from storage.objects",
    "select private.tell_watchers(gen_random_uuid())",
    "select private.interrupt_run(null, null)",
    "select private.end_run(null, null, null, null, null, null)",
    "select api.get_me('{}')",
)


@pytest.fixture(scope="module")
async def world(stack: RunningStack) -> AsyncIterator[RunsWorld]:
    async with tables.database(stack, f"login_{uuid4().hex}") as addresses:
        admin = await asyncpg.connect(addresses.admin)
        async with asyncpg.create_pool(addresses.login, min_size=1, max_size=4) as pool:
            yield RunsWorld(admin, pool, await add_user(admin))
        await admin.close()


@pytest.mark.parametrize("statement", REFUSED)
async def test_it_may_not(world: RunsWorld, statement: str) -> None:
    async with world.pool.acquire() as login:
        transaction = login.transaction()
        is_alone = statement.startswith(("create database", "alter system"))
        if not is_alone:
            await transaction.start()
        try:
            with pytest.raises(asyncpg.PostgresError) as refused:
                await login.execute(statement)
        finally:
            if not is_alone:
                await transaction.rollback()
    assert refused.value.sqlstate == INSUFFICIENT_PRIVILEGE


async def test_it_ends_no_connection_of_another_role(world: RunsWorld) -> None:
    other = await world.admin.fetchval("select pg_backend_pid()")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await world.pool.fetchval("select pg_terminate_backend($1)", other)


async def test_whoever_listens_learns_of_no_run(world: RunsWorld) -> None:
    received: asyncio.Queue[str] = asyncio.Queue()
    async with world.pool.acquire() as login:

        def note(_connection: object, _pid: int, _channel: str, payload: object) -> None:
            received.put_nowait(str(payload))

        await login.add_listener("concerto_runs", note)
        started = await world.start()
        payload = await received.get()
        run_id = started["run"]["id"]
        await world.append(started["lease"], ["a"])
        assert await received.get() == payload
        await login.remove_listener("concerto_runs", note)
    # Only who knows the run can tell that it is the one.
    assert payload == sha256(run_id.encode()).hexdigest()
    assert run_id not in payload


@pytest.mark.parametrize("asked", [0, -1, 59])
async def test_it_prunes_no_run_that_somebody_may_still_be_following(world: RunsWorld, asked: float) -> None:
    recent, older = [await world.answered(await world.new_session(), "1", "one") for _ in range(2)]
    ids = [one["run"]["id"] for one in (recent, older)]
    for run_id, seconds in zip(ids, (50, 61), strict=True):
        await world.admin.execute(
            "update public.runs set finished_at = now() - make_interval(secs => $2) where id = $1::text::uuid",
            run_id,
            seconds,
        )
    await world.system("prune_run_events", older_than_seconds=asked)
    pruned = await world.admin.fetch("select id::text from public.runs where deltas_pruned_at is not null")
    assert [run_id for run_id in ids if run_id in {row["id"] for row in pruned}] == [ids[1]]


@pytest.mark.parametrize("error", [RAISED, LARGE])
async def test_it_gives_no_run_another_error_than_that_its_process_died(world: RunsWorld, error: object) -> None:
    started = await world.start()
    run_id = started["run"]["id"]
    await world.admin.execute(
        "update public.runs set lease_expires_at = now() - interval '1 second' where id = $1::text::uuid", run_id
    )
    with pytest.raises(asyncpg.PostgresError) as refused:
        await world.system("interrupt_expired_runs", limit=1000, error=error)
    assert (refused.value.sqlstate, refused.value.message) == ("PT403", "PERMISSION_DENIED")
    assert run_id in (await world.system("interrupt_expired_runs", limit=1000, error=ERROR))["run_ids"]


@pytest.mark.parametrize("operation", ["append_run_events", "promote_run", "finish_run", "renew_leases"])
async def test_it_writes_no_run_whose_lease_it_does_not_hold(world: RunsWorld, operation: str) -> None:
    started = await world.start()
    lease = {"run_id": started["run"]["id"], "token": "0" * 64}
    batch = {"lease": lease, "events": [{"seq": 2, "message_delta": {"text": "forged"}}]}
    finish = {"lease": lease, "state": "SUCCEEDED", "messages": [], "next_seq": 2}
    args: dict[str, dict[str, Any]] = {
        "append_run_events": {"batches": [batch]},
        "promote_run": {"lease": lease},
        "finish_run": finish,
        "renew_leases": {"leases": [lease]},
    }
    before = await world.admin.fetchval("select r::text from public.runs as r where id::text = $1", lease["run_id"])
    try:
        answer = await world.system(operation, **args[operation])
    except asyncpg.PostgresError as error:
        assert error.message == "LEASE_LOST"  # noqa: PT017
    else:
        assert lease["run_id"] in answer["lost_run_ids"]
    assert before == await world.admin.fetchval(
        "select r::text from public.runs as r where id::text = $1", lease["run_id"]
    )
    await world.finish(started["lease"])
