"""Limits how often somebody may try to sign in, sign up or have a password reset."""

import math
import time
from ipaddress import IPv6Address, ip_address

from google.protobuf.message import Message
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.requests import Request

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

    async def count(self, operation: str, request: Request, message: Message) -> None:
        """Count one attempt, whether or not it will succeed.

        message: the valid request; its `email` names the account. Raises AppError TOO_MANY_ATTEMPTS.
        """
        await self._hit(self._per_address, operation, "address", client_network(request))
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
    """Return who a client address counts as: an IPv4 address, or the /64 network that one IPv6 customer has."""
    host = request.client.host if request.client else "unknown"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
    return host
