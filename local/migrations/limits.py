"""Brings what the settings say of users into the database, which judges by it whichever way a call comes.

These are the limits of one user, and who may sign up.
"""

import asyncpg

from local.settings import Settings

_EXISTS = "select to_regclass($1) is not null"


def statements_of(settings: Settings) -> dict[str, str]:
    """Return the statements that write what is set, by the table that each changes; what is not set stays as it is."""
    limits = {
        "messages_per_minute": settings.messages_per_minute,
        "files_per_user": settings.files_per_user,
        "file_bytes_per_user": settings.file_bytes_per_user,
    }
    changes = [f"{column} = {value}" for column, value in limits.items() if value is not None]
    found = {}
    if changes:
        found["private.limits"] = f"update private.limits set {', '.join(changes)}"  # noqa: S608 (numbers)
    if settings.sign_up is not None:
        domains = "{" + ",".join(settings.sign_up_domains) + "}"
        found["private.sign_up_rule"] = (
            f"update private.sign_up_rule set admits = '{settings.sign_up}', domains = '{domains}'"  # noqa: S608 (checked)
        )
    return found


async def set_limits(url: str, settings: Settings) -> None:
    """Write what is set into the database at `url`, as a role that may; tables that it does not have are left out."""
    statements = statements_of(settings)
    if not statements:
        return
    connection = await asyncpg.connect(url, timeout=10)
    try:
        for table, statement in statements.items():
            if await connection.fetchval(_EXISTS, table):
                await connection.execute(statement)
    finally:
        await connection.close()
