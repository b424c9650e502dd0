"""Limits how often somebody may try to sign in, sign up or have a password reset."""

import math
import time

from google.protobuf.message import Message
from limits import RateLimitItem
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.requests import Request
from starlette.responses import Response

from gateway import addresses
from gateway.devices import Devices
from gateway.settings import Settings
from servicekit import spelling
from servicekit.errors import AppError

LIMITED = frozenset({"LogIn", "SignUp", "RequestPasswordReset", "VerifyOtp"})
"""The operations whose attempts are counted, each by itself."""
ASKS_AUTH_SERVER = LIMITED | {"RefreshSession"}
"""The operations by which anybody has the auth server asked, counted per address: a hosted project counts all of them
as one client's, so a stranger could use up what everybody may ask."""


class Attempts:
    """Counts attempts in this process, over moving windows.

    Per client address; per e-mail address from one client address; and per e-mail address from everywhere, but for the
    browsers that have signed in to it before. So many addresses together can guess slowly only, and whoever uses up the
    attempts of an account keeps its owner from a new browser at most, never from a known one.
    """

    def __init__(self, settings: Settings) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._per_email = settings.email_limit
        self._per_account = settings.account_limit
        self._per_address = settings.address_limit
        self._devices = Devices(settings.cookie_key(), is_secure=settings.base_url.startswith("https://"))

    async def count_address(self, operation: str, request: Request) -> None:
        """Count one attempt of the client's address, before its body is read. Raises AppError TOO_MANY_ATTEMPTS."""
        await self._hit(self._per_address, operation, "address", client_network(request))

    async def count_account(self, operation: str, request: Request, message: Message) -> None:
        """Count one attempt for an account, whether or not it will succeed.

        message: the valid request; its `email` names the account. Raises AppError TOO_MANY_ATTEMPTS.
        """
        given: str = message.email  # type: ignore[attr-defined]
        if not given:  # a mail's link names none
            return
        email = _spelt(given)
        mark = self._devices.mark_of(request, email)
        if mark:
            await self._hit(self._per_email, operation, "device", mark)
            return
        # In this order, one address alone uses up nothing but its own attempts.
        await self._hit(self._per_email, operation, "email", email, client_network(request))
        await self._hit(self._per_account, operation, "account", email)

    def note_success(self, request: Request, response: Response, answer: Message) -> None:
        """Let the answer make the browser known to the account that it names, if it holds a sign-in.

        answer: of an operation in `LIMITED`.
        """
        if "session" in answer.DESCRIPTOR.fields_by_name and answer.HasField("session"):
            email: str = answer.user.email  # type: ignore[attr-defined]
            self._devices.remember(request, response, _spelt(email))

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


def _spelt(email: str) -> str:
    try:
        return spelling.address(email)
    except ValueError:  # no account has it
        return email.lower()
