"""The one way to the database: run an operation of schema `api` as a caller, directly or over REST."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import asyncpg
import httpx
import orjson

from servicekit.database.pool import Connections
from servicekit.errors import AppError
from servicekit.reasons import REASONS
from servicekit.rpc import request
from servicekit.rpc.identity import Caller
from servicekit.settings import DatabaseSettings
from servicekit.telemetry import observing

CALL_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0

_CONNECTION_LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that dies between two steps of asyncpg's own
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
)


class Database(Protocol):
    """Runs operations with the caller's rights."""

    async def call(self, operation: str, args: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """Run `api.<operation>(args)` as the caller in one transaction and one round trip; return its answer.

        Raises AppError with the operation's own reason, DATABASE_UNAVAILABLE when there is no connection (nothing was
        done, or it is not known whether it was done: repeat only with a request_id), DATABASE_BUSY after 10 s or when
        the current request's deadline is over.
        """
        ...

    async def call_system(self, operation: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Run `private.<operation>(args)`, which acts for no user but by a secret in its arguments or for upkeep.

        operation: one that the service declared when it opened the database. Raises like `call`, and
        DIRECT_DATABASE_NEEDED over REST, which offers no such operations.
        """
        ...

    async def notify(self, channel: str, payload: str) -> None:
        """Send a notification to whoever listens on `channel`. Raises like `call_system`."""
        ...

    async def ping(self) -> None:
        """Return when the database answers. Raises AppError DATABASE_UNAVAILABLE or DATABASE_BUSY."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


async def open_database(settings: DatabaseSettings, *, system_operations: Iterable[str] = ()) -> Database:
    """Return the database that the settings name. It need not be reachable yet.

    system_operations: functions of schema `private` that the service may call by `call_system`.
    """
    if settings.db_url is not None:
        return DirectDatabase(
            Connections(
                settings.db_url.get_secret_value(),
                size=settings.db_pool_size,
                statement_cache_size=settings.statement_cache_size,
                connect_seconds=CONNECT_TIMEOUT_SECONDS,
            ),
            system_operations=system_operations,
        )
    if settings.supabase_publishable_key is None:  # DatabaseSettings has refused this already
        raise ValueError("set SUPABASE_DB_URL or SUPABASE_PUBLISHABLE_KEY")
    return RestDatabase(settings.supabase_url, settings.supabase_publishable_key.get_secret_value())


class DirectDatabase:
    """Connections as the role concerto_login; `private.call` takes the caller's role per statement."""

    def __init__(self, connections: Connections, *, system_operations: Iterable[str] = ()) -> None:
        self._connections = connections
        self._system_operations = frozenset(system_operations)

    async def call(self, operation: str, args: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """See Database.call."""
        with observing.querying(operation):
            answer = await self._fetch(
                "select private.call($1::jsonb, $2, $3::jsonb)::text",
                caller.claims_json,
                operation,
                orjson.dumps(args).decode(),
            )
        result: dict[str, Any] = orjson.loads(answer)
        return result

    async def call_system(self, operation: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """See Database.call_system."""
        if operation not in self._system_operations:
            raise AppError("UNIMPLEMENTED", cause="not a system operation of this service")
        with observing.querying(operation):
            answer = await self._fetch(f"select private.{operation}($1::jsonb)::text", orjson.dumps(args).decode())
        result: dict[str, Any] = orjson.loads(answer)
        return result

    async def notify(self, channel: str, payload: str) -> None:
        """See Database.notify."""
        await self._fetch("select pg_notify($1, $2)", channel, payload)

    async def ping(self) -> None:
        """See Database.ping."""
        with observing.querying("ping"):
            await self._fetch("select 1")

    async def close(self) -> None:
        """See Database.close."""
        try:
            await asyncio.wait_for(self._connections.close(), timeout=5.0)
        except TimeoutError:
            self._connections.terminate()

    async def _fetch(self, statement: str, *args: str) -> Any:
        try:
            return await self._connections.fetchval(statement, *args, timeout=_timeout_seconds())
        except asyncpg.QueryCanceledError as error:
            raise AppError("DATABASE_BUSY", cause=error) from error
        except _CONNECTION_LOST as error:
            if isinstance(error, TimeoutError):  # an OSError, but the database is there and slow
                raise AppError("DATABASE_BUSY", cause=error) from error
            raise AppError("DATABASE_UNAVAILABLE", cause=error) from error
        except asyncpg.PostgresError as error:
            raise from_sql(
                sqlstate=error.sqlstate or "",
                message=getattr(error, "message", None) or "",
                detail=getattr(error, "detail", None),
                cause=error,
            ) from error


class RestDatabase:
    """The project's REST interface with its publishable key; each request carries its own caller's token.

    The client object holds no user's state: the bearer token is a header of the one request.
    """

    def __init__(self, url: str, publishable_key: str) -> None:
        # Imported here: a process with direct connections does without the client.
        from postgrest import AsyncPostgrestClient

        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(CALL_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
        )
        self._client = AsyncPostgrestClient(
            f"{url}/rest/v1",
            schema="api",
            headers={"apikey": publishable_key},
            http_client=self._http,
            retry_enabled=False,
        )

    async def call(self, operation: str, args: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """See Database.call."""
        from postgrest.exceptions import APIError

        query = self._client.rpc(operation, {"args": args})  # type: ignore[dict-item]
        query.request.headers["Authorization"] = f"Bearer {caller.token}"
        with observing.querying(operation):
            try:
                async with asyncio.timeout(_timeout_seconds()):
                    answer = await query.execute()
            except APIError as error:
                raise _from_rest(error.code or "", error.message or "", error.details, error) from error
            except (httpx.TimeoutException, TimeoutError) as error:
                raise AppError("DATABASE_BUSY", cause=error) from error
            except httpx.TransportError as error:
                raise AppError("DATABASE_UNAVAILABLE", cause=error) from error
        result: dict[str, Any] = answer.data  # type: ignore[assignment]
        return result

    async def call_system(self, operation: str, args: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        """See Database.call_system."""
        raise AppError("DIRECT_DATABASE_NEEDED")

    async def notify(self, channel: str, payload: str) -> None:  # noqa: ARG002
        """See Database.notify."""
        raise AppError("DIRECT_DATABASE_NEEDED")

    async def ping(self) -> None:
        """See Database.ping."""
        with observing.querying("ping"):
            try:
                response = await self._http.head(str(self._client.base_url), headers=self._client.headers)
            except httpx.TransportError as error:
                raise AppError("DATABASE_UNAVAILABLE", cause=error) from error
            if response.status_code >= httpx.codes.BAD_GATEWAY:
                raise AppError("DATABASE_UNAVAILABLE", cause=f"REST answered {response.status_code}")

    async def close(self) -> None:
        """See Database.close."""
        await self._http.aclose()


def _from_rest(code: str, message: str, detail: Any, cause: BaseException) -> AppError:
    # PGRST000 to 002: no connection; 3-digit codes: an answer without PostgREST's body, from something before it.
    if code in ("PGRST000", "PGRST001", "PGRST002", "502", "503", "504"):
        return AppError("DATABASE_UNAVAILABLE", cause=cause)
    if code == "PGRST202":  # no such function: this service is newer than the migrations
        return AppError("UNIMPLEMENTED", cause=cause)
    if code in ("PGRST301", "PGRST302", "PGRST303", "401"):
        return AppError("TOKEN_INVALID", cause=cause)
    return from_sql(sqlstate=code, message=message, detail=detail, cause=cause)


def _timeout_seconds() -> float:
    # A call that nobody waits for any more must not keep a connection.
    return request.remaining_seconds(CALL_TIMEOUT_SECONDS)


def from_sql(*, sqlstate: str, message: str, detail: str | None, cause: BaseException | str) -> AppError:
    """Return the AppError for an error of SQL.

    Operations raise sqlstate PT<HTTP status> with a reason as message and its metadata as JSON in the detail, where
    `retry_after_seconds` also becomes the error's own; everything else is our mistake or the database's.
    """
    if sqlstate.startswith("PT") and message in REASONS:
        metadata = {key: str(value) for key, value in (orjson.loads(detail) if detail else {}).items()}
        wait = metadata.get("retry_after_seconds")
        return AppError(message, metadata=metadata, cause=cause, retry_after_seconds=float(wait) if wait else None)
    if sqlstate in (
        "57014",
        "55P03",
        "40P01",
        "40001",
    ):  # cancelled, lock not available, deadlock, serialisation
        return AppError("DATABASE_BUSY", cause=cause)
    if sqlstate == "42501":  # insufficient privilege, or a row that a policy refuses
        return AppError("PERMISSION_DENIED", cause=cause)
    return AppError("INTERNAL", cause=cause)
