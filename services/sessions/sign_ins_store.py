"""Sign-ins in the database."""

from servicekit.database.client import Database
from servicekit.rpc.identity import Caller


class SignInsStore:
    """Reads whether sign-ins stand."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def check(self, caller: Caller) -> None:
        """Return when the caller's sign-in stands. Raises SIGN_IN_ENDED."""
        # However many calls of the caller wait, this one does not wait behind them.
        await self._database.call("check_sign_in", {}, caller, queue="sign-in")
