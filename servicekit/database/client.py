"""The one way to the database: run an operation of schema `api` as a caller, directly or over REST."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

import asyncpg
import httpx
import orjson

from servicekit.database.admission import Admission
from servicekit.database.pool import Connections
from servicekit.errors import AppError
from servicekit.outgoing import clients
from servicekit.reasons import REASONS
from servicekit.rpc import request
from servicekit.rpc.identity import Caller
from servicekit.settings import DatabaseSettings
from servicekit.telemetry import measures, observing

CALL_TIMEOUT_SECONDS = 10.0
CONNECT_TIMEOUT_SECONDS = 5.0
FREE_BYTES = 64 * 1024
"""What a call may bring and answer without being charged for it: more than nearly all do."""
BYTES_PER_SECOND = 24 * 1024 * 1024
"""How much of larger calls a core carries from Postgres to the client, about."""
FREE_SECONDS = 0.25
"""What the database may need for a call without its caller being charged for it, unless the operation is a long one."""
LOCKED_SECONDS = (0.05, 0.5)
"""The first and the longest pause before a call is repeated whose row another one has locked."""

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


_CALL = "select private.call($1::jsonb, $2, $3::jsonb)::text"
_LOCKED = ("55P03", "40P01")
"""SQL's codes of a lock that was waited for too long, and of two calls that waited for each other."""


class Database(Protocol):
    """Runs operations with the caller's rights."""

    async def call(
        self,
        operation: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        row: str = "",
        queue: str = "",
        statement_seconds: float | None = None,
    ) -> dict[str, Any]:
        """Run `api.<operation>(args)` as the caller in one transaction; return its answer.

        Of one caller a third of the connections are used at once; the caller's other calls wait for 5 s.
        row: the id of the row that the operation locks, such as a session's. Calls with one row follow each other in
        this process; when another process has it locked, the call is repeated, and holds no connection meanwhile.
        queue: the name of a queue that the caller has beside the ordinary one, with a share of its own: for a call that
        must not wait behind the caller's others.
        statement_seconds: how long the database may work on it, for an operation that may read very much. It takes two
        round trips more, its caller has no other call beside it, and a third of a core's time for all of them.
        Raises AppError with the operation's own reason, TOO_MANY_REQUESTS when the caller has too many calls under way,
        DATABASE_UNAVAILABLE when there is no connection (nothing was done, or it is not known whether it was done:
        repeat only with a request_id), DATABASE_BUSY after 10 s or when the current request's deadline is over.
        """
        ...

    async def call_system(self, operation: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """Run `private.<operation>(args)`, which acts for no user but by a secret in its arguments or for upkeep.

        operation: one that the service declared when it opened the database. It comes before the calls of users.
        Raises like `call`, and DIRECT_DATABASE_NEEDED over REST, which offers no such operations.
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
            Admission(settings.db_pool_size),
            system_operations=system_operations,
        )
    if settings.supabase_publishable_key is None:  # DatabaseSettings has refused this already
        raise ValueError("set SUPABASE_DB_URL or SUPABASE_PUBLISHABLE_KEY")
    return RestDatabase(
        settings.supabase_url,
        settings.supabase_publishable_key.get_secret_value(),
        connections=settings.db_pool_size,
    )


class DirectDatabase:
    """Connections as the role concerto_login; `private.call` takes the caller's role per statement."""

    def __init__(
        self, connections: Connections, admission: Admission, *, system_operations: Iterable[str] = ()
    ) -> None:
        self._connections = connections
        self._admission = admission
        self._system_operations = frozenset(system_operations)
        measures.watch_pool(self)

    def counts(self) -> measures.Counts:
        """Return what its connections do now, and how many calls wait for one."""
        counts = self._connections.counts()
        return counts._replace(waiting=counts.waiting + self._admission.waiting)

    async def call(
        self,
        operation: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        row: str = "",
        queue: str = "",
        statement_seconds: float | None = None,
    ) -> dict[str, Any]:
        """See Database.call."""
        text = orjson.dumps(args)
        values = (caller.claims_json, operation, text.decode())

        async def fetch(seconds: float) -> tuple[Any, int]:
            found = await self._fetch(_CALL, values, seconds, statement_seconds=statement_seconds)
            return found, len(found)

        with observing.querying(operation):
            answer = await _admitted(
                self._admission,
                fetch,
                caller=f"{queue}{caller.user_id}",
                row=row,
                is_long=statement_seconds is not None,
                size_bytes=len(text),
            )
        result: dict[str, Any] = orjson.loads(answer)
        return result

    async def call_system(self, operation: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """See Database.call_system."""
        if operation not in self._system_operations:
            raise AppError("UNIMPLEMENTED", cause="not a system operation of this service")
        with observing.querying(operation):
            answer = await self._fetch_own(f"select private.{operation}($1::jsonb)::text", orjson.dumps(args).decode())
        result: dict[str, Any] = orjson.loads(answer)
        return result

    async def notify(self, channel: str, payload: str) -> None:
        """See Database.notify."""
        await self._fetch_own("select pg_notify($1, $2)", channel, payload)

    async def ping(self) -> None:
        """See Database.ping."""
        with observing.querying("ping"):
            await self._fetch_own("select 1")

    async def close(self) -> None:
        """See Database.close."""
        try:
            await asyncio.wait_for(self._connections.close(), timeout=5.0)
        except TimeoutError:
            self._connections.terminate()

    async def _fetch_own(self, statement: str, *args: str) -> Any:
        async def fetch(seconds: float) -> tuple[Any, int]:
            return await self._fetch(statement, args, seconds), 0

        return await _admitted(self._admission, fetch)

    async def _fetch(
        self, statement: str, args: tuple[str, ...], seconds: float, *, statement_seconds: float | None = None
    ) -> Any:
        try:
            return await self._connections.fetchval(
                statement, *args, timeout=seconds, statement_seconds=statement_seconds
            )
        except asyncpg.QueryCanceledError as error:
            raise AppError("DATABASE_BUSY", cause=error) from error
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError) as error:
            raise _LockedError(error) from error
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

    The client object holds no user's state: the bearer token is a header of the one request. The interface has a pool
    of the database's connections that all of the project share, so each caller has a share of `connections` here too.
    """

    def __init__(self, url: str, publishable_key: str, *, connections: int) -> None:
        # Imported here: a process with direct connections does without the client.
        from postgrest import AsyncPostgrestClient

        self._admission = Admission(connections)
        self._http = clients.client(
            timeout=httpx.Timeout(CALL_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            limits=httpx.Limits(max_connections=connections + 1),  # one to look whether it answers
        )
        self._client = AsyncPostgrestClient(
            f"{url}/rest/v1",
            schema="api",
            headers={"apikey": publishable_key},
            http_client=self._http,
            retry_enabled=False,
        )

    async def call(
        self,
        operation: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        row: str = "",
        queue: str = "",
        statement_seconds: float | None = None,
    ) -> dict[str, Any]:
        """See Database.call. The interface takes the time of a statement from the function's own settings."""

        async def fetch(seconds: float) -> tuple[Any, int]:
            found = await self._execute(operation, args, caller, seconds)
            # Written once more to know its size; beside the network that is nothing.
            return found, len(orjson.dumps(found))

        with observing.querying(operation):
            answer = await _admitted(
                self._admission,
                fetch,
                caller=f"{queue}{caller.user_id}",
                row=row,
                is_long=statement_seconds is not None,
                size_bytes=len(orjson.dumps(args)),
            )
        result: dict[str, Any] = answer
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

    async def _execute(self, operation: str, args: Mapping[str, Any], caller: Caller, seconds: float) -> Any:
        from postgrest.exceptions import APIError

        query = self._client.rpc(operation, {"args": args})  # type: ignore[dict-item]
        query.request.headers["Authorization"] = f"Bearer {caller.token}"
        try:
            async with asyncio.timeout(seconds):
                answer = await query.execute()
        except APIError as error:
            if error.code in _LOCKED:
                raise _LockedError(error) from error
            raise _from_rest(error.code or "", error.message or "", error.details, error) from error
        except (httpx.TimeoutException, TimeoutError) as error:
            raise AppError("DATABASE_BUSY", cause=error) from error
        except httpx.TransportError as error:
            raise AppError("DATABASE_UNAVAILABLE", cause=error) from error
        return answer.data


class _LockedError(AppError):
    """Another call has the row locked that this one needs; nothing was done."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__("DATABASE_BUSY", cause=cause)


async def _admitted(
    admission: Admission,
    fetch: Callable[[float], Awaitable[tuple[Any, int]]],
    *,
    caller: str | None = None,
    row: str = "",
    is_long: bool = False,
    size_bytes: int = 0,
) -> Any:
    """Return what `fetch` answers once a connection is this caller's to use, and charge the caller for what was much.

    fetch: is given the seconds that are left, and returns its answer with the bytes that it holds. While another
    process has the row locked it is repeated, and between two tries the connection is others'.
    """
    loop = asyncio.get_running_loop()
    # A call that nobody waits for any more must not keep a connection.
    seconds = request.remaining_seconds(CALL_TIMEOUT_SECONDS)
    ends_at = loop.time() + seconds
    ticket = await admission.enter(caller, row=row, is_exclusive=is_long, size_bytes=size_bytes, seconds=seconds)
    try:
        pause_seconds, longest_seconds = LOCKED_SECONDS
        while True:
            began_at = loop.time()
            try:
                answer, answer_bytes = await fetch(ends_at - began_at)
            except _LockedError:
                if loop.time() + pause_seconds >= ends_at:
                    raise
            except BaseException:
                # One that is given up may have made work as well.
                admission.charge(ticket, _work_seconds(loop.time() - began_at, is_long=is_long))
                raise
            else:
                work_seconds = _work_seconds(loop.time() - began_at, is_long=is_long)
                work_seconds += max(0, size_bytes + answer_bytes - FREE_BYTES) / BYTES_PER_SECOND
                admission.charge(ticket, work_seconds)
                return answer
            admission.pause(ticket)
            # Not all at the same moment, when the row is free.
            await asyncio.sleep(pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311 (nothing secret)
            pause_seconds = min(pause_seconds * 2, longest_seconds)
            await admission.resume(ticket, seconds=ends_at - loop.time())
    finally:
        admission.leave(ticket)


def _work_seconds(seconds: float, *, is_long: bool) -> float:
    return seconds if is_long else max(0.0, seconds - FREE_SECONDS)


def _from_rest(code: str, message: str, detail: Any, cause: BaseException) -> AppError:
    # PGRST000 to 002: no connection; 3-digit codes: an answer without PostgREST's body, from something before it.
    if code in ("PGRST000", "PGRST001", "PGRST002", "502", "503", "504"):
        return AppError("DATABASE_UNAVAILABLE", cause=cause)
    if code in ("PGRST003", "429"):  # none of its connections became free; too many requests of the whole project
        return AppError("DATABASE_BUSY", cause=cause)
    if code == "PGRST202":  # no such function: this service is newer than the migrations
        return AppError("UNIMPLEMENTED", cause=cause)
    if code in ("PGRST301", "PGRST302", "PGRST303", "401"):
        return AppError("TOKEN_INVALID", cause=cause)
    return from_sql(sqlstate=code, message=message, detail=detail, cause=cause)


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
