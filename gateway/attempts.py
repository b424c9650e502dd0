"""Limits how often somebody may try to sign in, sign up or have a password reset."""

import math
import time

from google.protobuf.message import Message
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.requests import Request

from gateway import addresses
from gateway.settings import Settings
from servicekit.errors import AppError

LIMITED = frozenset({"LogIn", "SignUp", "RequestPasswordReset", "VerifyOtp"})
"""The operations whose attempts are counted, each by itself."""


class Attempts:
    """Counts attempts per e-mail address and per client address, in this process, over a moving window."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._per_email = settings.email_limit
        self._per_address = settings.address_limit

    async def count_address(self, operation: str, request: Request) -> None:
        """Count one attempt of the client's address, before its body is read. Raises AppError TOO_MANY_ATTEMPTS."""
        await self._hit(self._per_address, operation, "address", client_network(request))

    async def count_account(self, operation: str, message: Message) -> None:
        """Count one attempt for an account, whether or not it will succeed.

        message: the valid request; its `email` names the account. Raises AppError TOO_MANY_ATTEMPTS.
        """
        email: str = message.email.strip().casefold()  # type: ignore[attr-defined]
        if email:  # a mail's link names none
            await self._hit(self._per_email, operation, "email", email)

    async def _hit(self, limit: RateLimitItem, *key: str) -> None:
        if await self._limiter.hit(limit, *key):
            return
        window = await self._limiter.get_window_stats(limit, *key)
        seconds = max(1, math.ceil(window.reset_time - time.time()))
        raise AppError(
            "TOO_MANY_ATTEMPTS",
            metadata={"retry_after_seconds": str(seconds)},
            retry_after_seconds=seconds,
        )


def client_network(request: Request) -> str:
    """Return who a client address counts as; see `addresses.network_of`."""
    return addresses.network_of(request.client.host if request.client else "unknown")
