"""Brings the limits of users from the settings into the database, which judges by them whichever way a call comes."""

import asyncpg

from local.settings import Settings

_EXISTS = "select to_regclass('private.limits') is not null"


def statement_of(settings: Settings) -> str:
    """Return the statement that writes the limits which are set; empty where none is, so that all stay as they are."""
    wanted = {
        "messages_per_minute": settings.messages_per_minute,
        "files_per_user": settings.files_per_user,
        "file_bytes_per_user": settings.file_bytes_per_user,
    }
    changes = [f"{column} = {value}" for column, value in wanted.items() if value is not None]
    return f"update private.limits set {', '.join(changes)}" if changes else ""  # noqa: S608 (numbers)


async def set_limits(url: str, settings: Settings) -> None:
    """Write the limits into the database at `url`, as a role that may; a database without our tables is left alone."""
    statement = statement_of(settings)
    if not statement:
        return
    connection = await asyncpg.connect(url, timeout=10)
    try:
        if await connection.fetchval(_EXISTS):
            await connection.execute(statement)
    finally:
        await connection.close()
