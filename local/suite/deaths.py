"""Tells the database that a process of ours is dead, so that its answers end now and not when their leases are over."""

import json

import asyncpg

REPORT_SECONDS = 5.0


class NotReportedError(Exception):
    """The database could not be told. The message says what happens then."""


async def end_leases(db_url: str, process_id: str) -> None:
    """End the leases of a process (UUID) that has ended; any sessions service interrupts its runs within a second.

    db_url: as the services have it. Raises NotReportedError when the database is away or older than the operation.
    """
    try:
        connection = await asyncpg.connect(db_url, timeout=REPORT_SECONDS, statement_cache_size=0)
        try:
            args = json.dumps({"process_id": process_id})
            await connection.execute("select private.end_leases($1::jsonb)", args, timeout=REPORT_SECONDS)
        finally:
            await connection.close(timeout=REPORT_SECONDS)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise NotReportedError(
            "The database could not be told of that. Answers that were under way are shown as interrupted within 12 s"
            f" of its return. ({type(error).__name__})"
        ) from error
