"""Opaque page tokens: the place in a list, never a permission."""

import base64
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from servicekit.errors import AppError


def encode(*values: str | int) -> str:
    """Return a token that holds the values, which `decode` gives back in the same order."""
    return base64.urlsafe_b64encode(orjson.dumps(values)).rstrip(b"=").decode()


def decode(token: str, types: Sequence[type]) -> tuple[Any, ...]:
    """Return the token's values, each checked against its type.

    types: str, int, bool, UUID or datetime per value; a UUID and a datetime are checked and given back as text.
    Raises AppError INVALID_PAGE_TOKEN for anything that `encode` could not have made for these types.
    """
    try:
        values = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
        if not isinstance(values, list) or len(values) != len(types):
            raise ValueError
        return tuple(_checked(value, kind) for value, kind in zip(values, types, strict=True))
    except (ValueError, TypeError):
        raise AppError("INVALID_PAGE_TOKEN") from None


def _checked(value: object, kind: type) -> object:
    if kind is UUID:
        return str(UUID(_text(value)))
    if kind is datetime:
        if datetime.fromisoformat(_text(value)).tzinfo is None:
            raise ValueError
        return value
    # bool is an int to isinstance, so the type itself is compared.
    if type(value) is not kind or (kind is int and not -(2**31) <= _integer(value) < 2**31):
        raise ValueError
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError
    return value
