"""Tickets by which a browser's own EventSource follows a stream: it can send no header, so its address lets it in.

A ticket is the caller's access token with the stream's path, sealed with the key that all replicas share. So nothing is
kept, every replica knows it, it lets in nobody whom the token would not (row level security judges by the same claims,
and a log-out ends both), and only a gateway can read it.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote_to_bytes

import orjson
from cryptography.fernet import InvalidToken
from starlette.requests import Request

from gateway import cookies
from gateway.settings import Settings
from servicekit.errors import AppError

PARAMETER = "ticket"
"""The query parameter of the stream's address."""
LIFE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket as it is given out."""

    text: str = field(repr=False)
    """What stands in the address; needs no percent-encoding."""
    expires_at: datetime
    """From then on no stream begins with it; those that have begun go on."""


class Tickets:
    """Makes and reads tickets."""

    def __init__(self, settings: Settings) -> None:
        self._fernet = cookies.fernet_of(settings.cookie_key(), "ticket")

    def make(self, path: str, token: str) -> Ticket:
        """Return a ticket for the stream at this path with the rights of the access token."""
        now = datetime.now(UTC).replace(microsecond=0)
        sealed = self._fernet.encrypt_at_time(orjson.dumps([path.lower(), token]), int(now.timestamp()))
        return Ticket(sealed.decode().rstrip("="), now + timedelta(seconds=LIFE_SECONDS))

    def open(self, text: bytes, path: str) -> str:
        """Return the access token of a ticket for the stream at this path.

        Raises AppError TICKET_INVALID for every other one.
        """
        try:
            padded = text + b"=" * (-len(text) % 4)
            of_path, token = orjson.loads(self._fernet.decrypt(padded, ttl=LIFE_SECONDS))
        except (InvalidToken, ValueError):
            raise AppError("TICKET_INVALID", cause="too old, or not ours") from None
        if of_path != path.lower():
            raise AppError("TICKET_INVALID", cause="of another stream")
        return str(token)


def take(request: Request) -> bytes | None:
    """Return the address's ticket and take it out of the address, so that nothing that reads that sees it.

    None where there is none. Raises AppError TICKET_INVALID for several.
    """
    query: bytes = request.scope["query_string"]
    name = PARAMETER.encode() + b"="
    pieces = query.split(b"&")
    found = [piece[len(name) :] for piece in pieces if piece.startswith(name)]
    if not found:
        return None
    request.scope["query_string"] = b"&".join(piece for piece in pieces if not piece.startswith(name))
    if len(found) > 1:
        raise AppError("TICKET_INVALID", cause="more than one")
    return unquote_to_bytes(found[0])
