"""Accounts in the database: one method per operation of schema `api`, each run with the user's own rights."""

from concerto.auth.v1 import auth_pb2

from servicekit.database.client import Database
from servicekit.messages import converter
from servicekit.rpc.identity import Caller


class AuthStore:
    """Reads and changes accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_me(self, caller: Caller) -> auth_pb2.User:
        """Return the caller's account. Raises ACCOUNT_NOT_FOUND."""
        answer = await self._database.call("get_me", {}, caller)
        return converter.from_json(auth_pb2.User, answer["user"], ignore_unknown=True)

    async def update_me(self, changes: auth_pb2.UpdateMeRequest, caller: Caller) -> auth_pb2.User:
        """Change the caller's account and return it. Raises ACCOUNT_NOT_FOUND, USERNAME_TAKEN, INVALID_USERNAME."""
        # Unset fields are null there, and the operation leaves alone what is null.
        answer = await self._database.call("update_me", converter.to_json(changes), caller, row=caller.user_id)
        return converter.from_json(auth_pb2.User, answer["user"], ignore_unknown=True)

    async def check_sign_in(self, caller: Caller) -> None:
        """Return when the caller's sign-in stands. Raises SIGN_IN_ENDED."""
        await self._database.call("check_sign_in", {}, caller, queue="sign-in")

    async def ping(self) -> None:
        """Return when the database answers. Raises DATABASE_UNAVAILABLE or DATABASE_BUSY."""
        await self._database.ping()
