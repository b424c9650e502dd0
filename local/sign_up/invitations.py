"""Invitations in the database, written by whoever may apply migrations."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from local.migrations.supabase_cli import MigrationError

_INVITE = """
insert into private.invitations (email, expires_at)
select address, now() + make_interval(days => $2) from unnest($1::text[]) as given (address)
on conflict (email) do update set created_at = now(), expires_at = excluded.expires_at
"""
_WITHDRAW = "delete from private.invitations where email = any($1::text[])"
_LIST = "select email, created_at, expires_at from private.invitations order by created_at, email"
_TAKEN = "select email::text from public.users where email = any($1::text[])"


@dataclass(frozen=True)
class Invitation:
    """An address that may sign up."""

    email: str
    created_at: datetime
    expires_at: datetime | None
    """Until when; None: until it is withdrawn or used."""


class Invitations:
    """The invitations of one database."""

    def __init__(self, url: str) -> None:
        """url: of a role that owns our tables, or of the superuser."""
        self._url = url

    async def invite(self, emails: Sequence[str], *, days: int | None) -> list[str]:
        """Invite addresses, anew where they were; returns those that have an account already and need none.

        emails: in their one spelling. days: how long they may sign up; None without an end.
        """
        connection = await self._connect()
        try:
            taken = [row["email"] for row in await connection.fetch(_TAKEN, list(emails))]
            await connection.execute(_INVITE, [email for email in emails if email not in taken], days)
        finally:
            await connection.close()
        return taken

    async def withdraw(self, emails: Sequence[str]) -> int:
        """Take invitations back; returns how many there were."""
        connection = await self._connect()
        try:
            done = await connection.execute(_WITHDRAW, list(emails))
        finally:
            await connection.close()
        return int(done.rpartition(" ")[2])

    async def all(self) -> list[Invitation]:
        """Return the invitations that nobody has used yet, the oldest first."""
        connection = await self._connect()
        try:
            return [Invitation(**row) for row in await connection.fetch(_LIST)]
        finally:
            await connection.close()

    async def _connect(self) -> asyncpg.Connection:
        try:
            return await asyncpg.connect(self._url, timeout=10, statement_cache_size=0)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            # The text of some errors quotes the address.
            raise MigrationError(
                f"The database cannot be reached ({type(error).__name__}). Check that it runs, and its address."
            ) from None
