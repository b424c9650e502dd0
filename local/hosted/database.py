"""What the services' own connection to a hosted database can and cannot do, found by trying it."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from urllib.parse import parse_qs, urlsplit

import asyncpg

from local.embedded.postgres import LOGIN_ROLE
from local.environment import LOOPBACK
from local.findings import Finding
from local.migrations.login_role import role_settings, role_statements
from local.settings import ROOT
from servicekit import parts
from servicekit.settings import TRANSACTION_POOLER_PORT
from services.sessions.settings import Settings

TIMEOUT_SECONDS = 10.0
NOTIFICATION_SECONDS = 2.0
WITH_DATABASE = tuple(part for part in parts.PARTS if part.database)
POOLER_HOSTS = ".pooler.supabase.com"
MEMBER_OF = ["anon", "authenticated"]
FAILURES = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError)

ROLE = """
select r.rolname::text as name, r.rolsuper as superuser, r.rolbypassrls as bypassrls, r.rolinherit as inherits,
       r.rolconfig as settings, r.rolcreaterole or r.rolcreatedb or r.rolreplication as administers,
       array(select g.rolname::text from pg_auth_members as m join pg_roles as g on g.oid = m.roleid
             where m.member = r.oid order by 1) as member_of
from pg_roles as r where r.rolname = session_user
"""
READABLE = """
select c.oid::regclass::text from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
where n.nspname in ('public', 'api', 'private', 'auth', 'storage') and c.relkind in ('r', 'p', 'v', 'm', 'f')
  and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
order by 1 limit 3
"""
CONNECTIONS = """
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true), '0')::int as allowed,
       (select count(*)::int from pg_stat_activity where backend_type = 'client backend') as open
"""


async def check_database(settings: Settings) -> list[Finding]:
    """Every finding about SUPABASE_DB_URL and SUPABASE_LISTEN_DB_URL, as the sessions service reads them."""
    if settings.db_url is None:
        advice = "Set it; over REST alone accounts and sessions work, and no answers can be given."
        return [Finding("SUPABASE_DB_URL", "is not set", advice)]
    url = settings.db_url.get_secret_value()
    listen_url = settings.listen_db_url.get_secret_value() if settings.listen_db_url else ""
    findings = [*check_url("SUPABASE_DB_URL", url)]
    if listen_url:
        findings += check_url("SUPABASE_LISTEN_DB_URL", listen_url)
    if any(finding.advice for finding in findings):
        return findings
    try:
        async with _connection(url) as connection:
            findings += await _login_role(connection)
            mode, found = await _pooling(settings, url, listen_url)
            findings += found
            findings += await _sizes(connection, settings, mode)
    except FAILURES as error:
        findings.append(_unreachable("SUPABASE_DB_URL", url, error))
    return findings


def check_url(name: str, url: str) -> Iterator[Finding]:
    """Whether an address is one that the services may use: the right role, in the pooler's spelling, with TLS."""
    try:
        address = urlsplit(url)
        host, port = address.hostname or "", address.port or 5432
    except ValueError:
        host, port, address = "", 0, urlsplit("")
    if address.scheme not in ("postgres", "postgresql") or not host:
        advice = "Copy it from the project (Connect), and put in the role and its password."
        yield Finding(name, "is not a postgresql:// address", advice)
        return
    role, _, ref = (address.username or "").partition(".")
    if role != LOGIN_ROLE:
        advice = f"Use {LOGIN_ROLE}, which the migrations make: other roles can do more than act for their caller."
        yield Finding(name, f"logs in as {role or 'nobody'}", advice)
    if host.endswith(POOLER_HOSTS) and not ref:
        yield Finding(name, "the pooler cannot tell the project", f"Write the role as {LOGIN_ROLE}.<ref>.")
    if ref and host.startswith("db.") and host.endswith(".supabase.co"):
        yield Finding(name, "names the project twice", f"Write the role as {LOGIN_ROLE}: only the pooler wants .{ref}.")
    tls = parse_qs(address.query).get("sslmode", ["prefer"])[-1]
    if host in LOOPBACK:
        return
    if tls not in ("require", "verify-ca", "verify-full"):
        advice = "Add ?sslmode=require, or verify-full (docs/hosted.md)."
        yield Finding(name, f"TLS is not demanded (sslmode {tls})", advice)
    elif tls == "require":
        hint = "sslmode=verify-full with the project's certificate also proves who answers (docs/hosted.md)."
        yield Finding(name, f"TLS to {host}:{port}", hint=hint)
    else:
        yield Finding(name, f"TLS to {host}:{port}, with its certificate checked")


@contextlib.asynccontextmanager
async def _connection(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        url, timeout=TIMEOUT_SECONDS, command_timeout=TIMEOUT_SECONDS, statement_cache_size=0
    )
    try:
        yield connection
    finally:
        with contextlib.suppress(*FAILURES):
            await connection.close(timeout=TIMEOUT_SECONDS)


def _unreachable(name: str, url: str, error: Exception) -> Finding:
    # The text of some errors quotes the address, so only its kind is told.
    host = urlsplit(url).hostname or ""
    detail = f"no connection ({type(error).__name__})"
    if isinstance(error, (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)):
        advice = f"Give the role its password in the SQL editor: alter role {LOGIN_ROLE} password '…';"
    elif isinstance(error, asyncpg.TooManyConnectionsError):
        advice = "Lower CONCERTO_DB_POOL_SIZE or the number of replicas; docs/hosted.md has the sums."
    elif isinstance(error, asyncpg.PostgresError) and host.endswith(POOLER_HOSTS):
        advice = "Copy the pooler's exact host from the project (Connect), and write the role as concerto_login.<ref>."
    elif isinstance(error, OSError) and host.startswith("db."):
        advice = "That host has IPv6 only, unless you pay for IPv4. Use the pooler's host from here (docs/hosted.md)."
    else:
        advice = "Check host, port and network, and that the project is not paused."
    return Finding(name, detail, advice)


async def _login_role(connection: asyncpg.Connection) -> list[Finding]:
    role = await connection.fetchrow(ROLE)
    wrong: dict[str, str] = {}
    if role["superuser"] or role["bypassrls"]:
        wrong["passes row level security"] = f"alter role {LOGIN_ROLE} nosuperuser nobypassrls;"
    if role["inherits"]:
        wrong["has its groups' rights without taking their role"] = f"alter role {LOGIN_ROLE} noinherit;"
    if role["administers"]:
        wrong["may administer"] = f"alter role {LOGIN_ROLE} nocreaterole nocreatedb noreplication;"
    more = [name for name in role["member_of"] if name not in MEMBER_OF]
    missing = [name for name in MEMBER_OF if name not in role["member_of"]]
    if more:
        wrong[f"is a member of {', '.join(more)}"] = f"revoke {', '.join(more)} from {LOGIN_ROLE};"
    if missing:
        wrong[f"is no member of {', '.join(missing)}"] = f"grant {', '.join(missing)} to {LOGIN_ROLE};"
    readable = [row[0] for row in await connection.fetch(READABLE)]
    if readable:
        wrong[f"may read {', '.join(readable)}"] = f"revoke all on {', '.join(readable)} from {LOGIN_ROLE}, public;"
    settings = dict(entry.split("=", 1) for entry in role["settings"] or [])
    if settings != role_settings(ROOT):
        wrong["has other settings than it was given"] = role_statements(ROOT)
    name = role["name"]
    findings = [
        Finding("login role", f"{name} {problem}", f"In the SQL editor: {how}") for problem, how in wrong.items()
    ]
    reached = await _sqlstate(connection, "select private.call('{\"role\": \"doctor\"}'::jsonb, 'get_me', '{}'::jsonb)")
    if reached != "PT403":  # what private.call answers to a role that is none of its own
        advice = "Apply the migrations: concerto migrate --target hosted."
        findings.append(Finding("login role", f"cannot run private.call ({reached})", advice))
    if await _sqlstate(connection, "select 1 from public.users limit 1") == "":
        findings.append(Finding("login role", "reads public.users by itself", "Apply the migrations anew."))
    return findings or [Finding("login role", f"{name} can act for its caller and do nothing by itself")]


async def _sqlstate(connection: asyncpg.Connection, statement: str) -> str:
    try:
        await connection.fetchval(statement)
    except asyncpg.PostgresError as error:
        return error.sqlstate or "unknown"
    return ""


async def _pooling(settings: Settings, url: str, listen_url: str) -> tuple[str, list[Finding]]:
    """What kind of pooler stands before the database, told by the address and by trying, and whether settings fit."""
    parts = urlsplit(url)
    is_delivered, kept = await delivers_notifications(url, url), await keeps_statements(url)
    pooled = (parts.hostname or "").endswith(POOLER_HOSTS) or parts.port == TRANSACTION_POOLER_PORT
    mode = "transaction" if not is_delivered else "session" if pooled else "direct"
    cache = settings.statement_cache_size
    findings: list[Finding] = []
    detail = "none, or one in session mode" if mode == "direct" else f"{mode} mode"
    if not kept and cache > 0:
        advice = "Set CONCERTO_DB_STATEMENT_CACHE_SIZE=0: another client's prepared statements are met there."
        findings.append(Finding("pooler", f"{detail}, which forgets prepared statements", advice))
    else:
        hint = (
            "CONCERTO_DB_STATEMENT_CACHE_SIZE=0 is not needed here, and costs more."
            if is_delivered and cache == 0
            else ""
        )
        findings.append(Finding("pooler", f"{detail}, {cache} prepared statements per connection", hint=hint))
    if listen_url:
        try:
            is_delivered = await delivers_notifications(listen_url, url)
        except FAILURES as error:
            return mode, [*findings, _unreachable("SUPABASE_LISTEN_DB_URL", listen_url, error)]
        if not is_delivered:
            advice = "Let it lead to the same database, directly or through a pooler in session mode (port 5432)."
            findings.append(Finding("SUPABASE_LISTEN_DB_URL", "notifications do not arrive", advice))
    if is_delivered:
        findings.append(Finding("notifications", "arrive"))
    elif not listen_url:
        hint = "Runs of other replicas are followed by looking, 4 times a second. Better: SUPABASE_LISTEN_DB_URL."
        findings.append(Finding("notifications", "do not arrive in transaction mode", hint=hint))
    return mode, findings


async def delivers_notifications(listen_url: str, notify_url: str) -> bool:
    """Whether what one connection notifies arrives at another one that listens."""
    channel, arrived = f"concerto_doctor_{secrets.token_hex(4)}", asyncio.Event()
    async with _connection(listen_url) as listener, _connection(notify_url) as sender:
        await listener.add_listener(channel, lambda *_: arrived.set())
        await sender.execute("select pg_notify($1, '')", channel)
        try:
            await asyncio.wait_for(arrived.wait(), NOTIFICATION_SECONDS)
        except TimeoutError:
            return False
        return True


async def keeps_statements(url: str) -> bool:
    """Whether a connection finds the statements that it has prepared, and no other one's, whatever others do."""
    name = f"concerto_doctor_{secrets.token_hex(4)}"
    async with _connection(url) as first, _connection(url) as second:
        try:
            one = await first.prepare("select 1", name=name)
            if await one.fetchval() != 1:
                return False
            # The same name again: in transaction mode it may meet the first one's statement.
            two = await second.prepare("select 2", name=name)
            if await two.fetchval() != 2:
                return False
            # While the second holds a server connection, the first is given another one.
            async with second.transaction():
                return bool(await two.fetchval() == 2 and await one.fetchval() == 1)
        except FAILURES:
            return False


async def _sizes(connection: asyncpg.Connection, settings: Settings, mode: str) -> list[Finding]:
    """How many connections a replica of every service may open, beside what there is room for."""
    is_chosen = "db_pool_size" in settings.model_fields_set  # for every service; otherwise each has its own size
    pools = sum(settings.db_pool_size if is_chosen else part.pool_size for part in WITH_DATABASE)
    listeners = sum(part.connections - part.pool_size for part in WITH_DATABASE)
    wanted = pools + listeners if settings.notification_url is not None and mode != "transaction" else pools
    row = await connection.fetchrow(CONNECTIONS)
    opener = f"a replica of {' and '.join(part.name for part in WITH_DATABASE)}"
    detail = f"{opener} opens up to {wanted}; the database has {row['open']} of {row['allowed']}"
    if mode == "transaction":
        return [Finding("connections", f"{opener} opens up to {pools} to the pooler")]
    if wanted > row["allowed"]:
        size = max((row["allowed"] - listeners) // len(WITH_DATABASE), 1)
        advice = f"Set CONCERTO_DB_POOL_SIZE to {size} or less."
        return [Finding("connections", detail, advice)]
    if mode == "session":
        hint = f"In session mode each takes a place of the pooler's pool size, which has to be {wanted} per replica."
        return [Finding("connections", detail, hint=hint)]
    replicas_left = max(row["allowed"] - row["open"], 0) // wanted
    hint = (
        ""
        if replicas_left
        else "There is no room for another replica now: lower CONCERTO_DB_POOL_SIZE or use a pooler."
    )
    return [Finding("connections", f"{detail}; room for {replicas_left} more replicas", hint=hint)]
