"""Page sizes and page tokens of the service's lists. A token holds a place and a fingerprint of the list's filters."""

import hashlib
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson

from servicekit.errors import AppError
from servicekit.messages import paging


def size(wanted: int, *, default: int = 50, most: int = 100) -> int:
    """Return how many entries a page holds: `default` for 0, never more than `most`."""
    return min(wanted, most) or default


def fingerprint(*filters: str | int) -> str:
    """Return a short text that differs for lists with other filters."""
    # A token is short, while a filter may be long; two lists with one fingerprint would only mix up places.
    return hashlib.blake2b(orjson.dumps(filters), digest_size=8).hexdigest()


def position(token: str, filters: str, types: tuple[type, ...]) -> tuple[Any, ...]:
    """Return the values behind the fingerprint. Raises AppError INVALID_PAGE_TOKEN for a token of another list."""
    given, *values = paging.decode(token, (str, *types))
    if given != filters:
        raise AppError("INVALID_PAGE_TOKEN", cause="token of another list")
    return tuple(values)


def time_position(token: str, filters: str) -> tuple[str, str]:
    """Return the time (RFC 3339, UTC) and the id that a token of a list by time holds."""
    time, identifier = position(token, filters, (datetime, UUID))
    return moment(time), identifier


def moment(text: str) -> str:
    """Return a token's time in UTC, as Python reads more spellings and offsets than Postgres."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    except OverflowError as error:
        raise AppError("INVALID_PAGE_TOKEN", cause=error) from None
