"""Browsers that have signed in to an account before, told by a cookie: no stranger can use up their attempts.

The pattern is OWASP's device cookies; https://owasp.org/www-community/Slow_Down_Online_Guessing_Attacks_with_Device_Cookies
"""

from hashlib import sha256
from hmac import compare_digest

from cryptography.fernet import InvalidToken
from starlette.requests import Request
from starlette.responses import Response

from gateway import cookies

COOKIE = "concerto_device"
LIFE_SECONDS = 180 * 24 * 3600
MOST_ACCOUNTS = 4
"""Accounts that one browser is known for; the newest stay."""
_BETWEEN = "~"


class Devices:
    """Makes and reads the cookie. It holds a mark for each account, and no address in clear.

    secret: the same on every replica. is_secure: whether the cookie travels over HTTPS only.
    """

    def __init__(self, secret: bytes, *, is_secure: bool) -> None:
        self._fernet = cookies.fernet_of(secret, "device")
        self._is_secure = is_secure

    def mark_of(self, request: Request, email: str) -> str:
        """Return the mark that the request's browser has for the account; empty when it has none.

        email: in its one spelling.
        """
        wanted = _digest(email)
        return next((mark for mark, digest in self._marks(request) if compare_digest(digest, wanted)), "")

    def remember(self, request: Request, response: Response, email: str) -> None:
        """Give the browser a new mark for the account that it has just signed in to."""
        digest = _digest(email)
        others = [mark for mark, known in self._marks(request) if not compare_digest(known, digest)]
        marks = [self._fernet.encrypt(digest).decode(), *others][:MOST_ACCOUNTS]
        response.set_cookie(
            COOKIE, _BETWEEN.join(marks),
            max_age=LIFE_SECONDS, path=cookies.PATH, secure=self._is_secure, httponly=True, samesite="lax",
        )  # fmt: skip

    def _marks(self, request: Request) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        for mark in cookies.read(request, COOKIE).split(_BETWEEN, MOST_ACCOUNTS)[:MOST_ACCOUNTS]:
            try:
                found.append((mark, self._fernet.decrypt(mark.encode("latin-1"), ttl=LIFE_SECONDS)))
            except InvalidToken:
                continue
        return found


def _digest(email: str) -> bytes:
    return sha256(email.encode()).digest()
