"""Who may sign up: the database judges, however the row of a user comes to be made."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from benchmarks import tables
from tests.support.database import INSUFFICIENT_PRIVILEGE, add_user
from tests.support.suites import RunningStack

INVITE = "insert into private.invitations (email, expires_at) values ($1, now() + $2::text::interval)"


@pytest.fixture(scope="module")
async def addresses(stack: RunningStack) -> AsyncIterator[tables.Addresses]:
    async with tables.database(stack, f"sign_up_{uuid4().hex}") as made:
        yield made


@pytest.fixture
async def admin(addresses: tables.Addresses) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(addresses.admin)
    yield connection
    await connection.execute("delete from private.invitations")
    await admits(connection, "open")
    await connection.close()


async def admits(admin: asyncpg.Connection, rule: str, *domains: str) -> None:
    await admin.execute("update private.sign_up_rule set admits = $1, domains = $2", rule, list(domains))


async def refusal_of(admin: asyncpg.Connection, email: str | None) -> str:
    """Sign somebody up; return why it was refused, or nothing."""
    try:
        await add_user(admin, email=email)
    except asyncpg.PostgresError as error:
        refused = error
    else:
        return ""
    assert refused.sqlstate == "PT403"
    assert email is None or email not in str(refused)
    return refused.message or ""


def new_email(domain: str = "example.com") -> str:
    return f"p-{uuid4().hex}@{domain}"


@pytest.mark.parametrize(
    ("rule", "domain", "expected"),
    [
        ("open", "example.com", ""),
        ("domains", "example.com", ""),
        ("domains", "Example.COM", ""),
        ("domains", "xn--bcher-kva.example", ""),
        ("domains", "sub.example.com", "SIGN_UP_DOMAIN_REFUSED"),
        ("domains", "evilexample.com", "SIGN_UP_DOMAIN_REFUSED"),
        ("domains", "example.com.evil", "SIGN_UP_DOMAIN_REFUSED"),
        ("domains", "example.com@evil.example", "SIGN_UP_DOMAIN_REFUSED"),
        ("domains", "b\u00fccher.example", "SIGN_UP_DOMAIN_REFUSED"),
        ("invitations", "example.com", "SIGN_UP_NOT_INVITED"),
        ("closed", "example.com", "SIGN_UP_CLOSED"),
    ],
)
async def test_the_rule_admits(admin: asyncpg.Connection, rule: str, domain: str, expected: str) -> None:
    await admits(admin, rule, "example.com", "xn--bcher-kva.example")
    assert await refusal_of(admin, new_email(domain)) == expected


@pytest.mark.parametrize(("rule", "is_admitted"), [("open", True), ("domains", False), ("invitations", False)])
async def test_who_has_no_address_has_no_domain_and_no_invitation(
    admin: asyncpg.Connection, rule: str, is_admitted: bool
) -> None:
    await admits(admin, rule, "", "example.com")
    assert (await refusal_of(admin, None) == "") is is_admitted


@pytest.mark.parametrize(
    ("rule", "is_admitted"), [("open", True), ("domains", True), ("invitations", True), ("closed", False)]
)
async def test_an_invitation_admits_its_address_in_any_spelling(
    admin: asyncpg.Connection, rule: str, is_admitted: bool
) -> None:
    email = new_email("b\u00fccher.example")
    await admin.execute(INVITE, email, "1 day")
    await admits(admin, rule, "example.com")
    assert (await refusal_of(admin, email.upper().replace("\u00dc", "U\u0308")) == "") is is_admitted
    assert await admin.fetchval("select count(*) from private.invitations") == (0 if is_admitted else 1)


async def test_an_invitation_is_spent_by_its_sign_up_and_runs_out(admin: asyncpg.Connection) -> None:
    await admits(admin, "invitations")
    used, old, other = new_email(), new_email(), new_email()
    await admin.execute(INVITE, used, None)
    await admin.execute(INVITE, old, "-1 second")
    assert await refusal_of(admin, other) == "SIGN_UP_NOT_INVITED"
    assert await refusal_of(admin, old) == "SIGN_UP_NOT_INVITED"
    assert [await refusal_of(admin, used) for _ in range(2)] == ["", "SIGN_UP_NOT_INVITED"]
    # One that comes to nothing spends nothing.
    await admin.execute(INVITE, used, None)
    transaction = admin.transaction()
    await transaction.start()
    assert await refusal_of(admin, used) == ""
    await transaction.rollback()
    assert await refusal_of(admin, used) == ""


async def test_of_many_at_once_one_spends_the_invitation(
    addresses: tables.Addresses, admin: asyncpg.Connection
) -> None:
    await admits(admin, "invitations")
    email = new_email()
    await admin.execute(INVITE, email, None)
    connections = await asyncio.gather(*(asyncpg.connect(addresses.admin) for _ in range(8)))
    try:
        answers = await asyncio.gather(*(refusal_of(each, email) for each in connections))
    finally:
        await asyncio.gather(*(each.close() for each in connections))
    assert sorted(answers) == [""] + ["SIGN_UP_NOT_INVITED"] * 7


async def test_a_rule_that_is_lost_admits_nobody(admin: asyncpg.Connection) -> None:
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("delete from private.sign_up_rule")
    try:
        with pytest.raises(asyncpg.PostgresError) as refused:
            await add_user(admin)
        assert refused.value.message == "SIGN_UP_CLOSED"
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("table", ["sign_up_rule", "invitations"])
@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", "concerto_login"])
@pytest.mark.parametrize(
    "statement",
    ["select from {}", "insert into {} default values", "update {} set {} = default", "delete from {}"],
)
async def test_nobody_but_the_owner_reads_or_changes_the_rule(
    admin: asyncpg.Connection, role: str, table: str, statement: str
) -> None:
    column = "admits" if table == "sign_up_rule" else "expires_at"
    transaction = admin.transaction()
    await transaction.start()
    try:
        await admin.execute(f"set local role {role}")
        with pytest.raises(asyncpg.PostgresError) as refused:
            await admin.execute(statement.format(f"private.{table}", column))
        assert refused.value.sqlstate == INSUFFICIENT_PRIVILEGE
    finally:
        await transaction.rollback()


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role", "concerto_login"])
async def test_nobody_calls_what_judges(admin: asyncpg.Connection, role: str) -> None:
    assert not await admin.fetchval("select has_function_privilege($1, 'private.admit_user()', 'execute')", role)
