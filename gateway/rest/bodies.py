"""Reads the bodies of requests: how large each may be, how long it may take, and how much all may hold together."""

import asyncio
from collections import Counter

from concerto.options.v1 import options_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from starlette.requests import ClientDisconnect, Request

from gateway.rest.contract import Binding
from servicekit.errors import AppError
from servicekit.messages import validation
from servicekit.messages.json_fields import STRUCT, TIMESTAMP
from servicekit.rpc import identity

SMALL_BODY_BYTES = 16 * 1024
"""What every route takes that takes a body, and the most that those take which ask for nobody to be signed in."""
LARGE_BODY_BYTES = 64 * 1024
"""From then on a body counts with the others: so much of each one may wait in its connection anyway."""
SHARE_OF_ONE = 4
"""The part of all large bodies that one caller may hold: a quarter."""
WHOLE_BODY = 10
"""A whole body may take so many times as long as the next piece of it."""
RETRY_AFTER_SECONDS = 5.0

# The longest that JSON may need: for a byte of text \\u0000, for a character beyond the first plane \\ud83d\\ude00.
_JSON_BYTES_PER_BYTE = 6
_JSON_BYTES_PER_CHARACTER = 12
_EMAIL_BYTES = 254
_UUID_CHARACTERS = 36
# Numbers, enums and instants, with room for odd spellings.
_SCALAR_BYTES = 64
# Quotes, a colon, a comma, and some white space, beside a field's name.
_FRAME_BYTES = 16


class Bodies:
    """Reads bodies, and counts what the large ones hold until their requests are answered.

    piece_seconds: how long the next piece of a body may take. most_bytes: of all large bodies together.
    """

    def __init__(self, *, piece_seconds: float, most_bytes: int) -> None:
        self._piece_seconds = piece_seconds
        self._most_bytes = most_bytes
        self._held: Counter[str] = Counter()

    async def read(self, request: Request, *, max_bytes: int) -> bytes:
        """Return the request's body; empty when there is none.

        max_bytes: no more is read. Raises AppError BODY_TOO_LARGE, BODY_TOO_SLOW, TOO_MANY_LARGE_BODIES (of this
        caller) or GATEWAY_FULL (of all), ClientDisconnect.
        """
        announced = next((value for name, value in request.scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and int(announced[:20]) > max_bytes:
            raise _too_large(max_bytes)
        try:
            async with asyncio.timeout(self._piece_seconds) as patience:
                return await self._read(request, max_bytes, patience)
        except TimeoutError:
            raise AppError("BODY_TOO_SLOW") from None

    async def _read(self, request: Request, max_bytes: int, patience: asyncio.Timeout) -> bytes:
        clock = asyncio.get_running_loop().time
        end = clock() + self._piece_seconds * WHOLE_BODY
        pieces: list[bytes] = []
        size = counted = 0
        while True:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes)
            if size > LARGE_BODY_BYTES:
                self._take(size - counted)
                counted = size
            pieces.append(piece)
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if piece:
                patience.reschedule(min(clock() + self._piece_seconds, end))

    def _take(self, size: int) -> None:
        """Count so many bytes more for the caller, until the request's task has ended."""
        caller = identity.current_caller_or_none()
        who = caller.user_id if caller is not None else ""
        if self._held[who] + size > self._most_bytes // SHARE_OF_ONE:
            raise AppError("TOO_MANY_LARGE_BODIES", retry_after_seconds=RETRY_AFTER_SECONDS)
        if self._held.total() + size > self._most_bytes:
            raise AppError("GATEWAY_FULL", retry_after_seconds=RETRY_AFTER_SECONDS)
        self._held[who] += size
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda _: self._give_back(who, size))

    def _give_back(self, who: str, size: int) -> None:
        self._held[who] -= size
        if not self._held[who]:
            del self._held[who]


def most_bytes(binding: Binding, *, at_most: int) -> int:
    """Return the largest body that a route takes: what the contract lets its fields hold, spelt as long as JSON can.

    at_most: of any route. Routes that ask for nobody to be signed in take SMALL_BODY_BYTES, and none takes less.
    """
    if binding.policy.anonymous:
        return min(SMALL_BODY_BYTES, at_most)
    largest = _largest_message(binding.body_message, frozenset())
    return at_most if largest is None else min(max(SMALL_BODY_BYTES, largest), at_most)


def _largest_message(descriptor: Descriptor, above: frozenset[str]) -> int | None:
    """Return the length of the message's longest JSON; None when the contract sets no bound."""
    if descriptor.full_name in above:
        return None
    sizes = [_largest_field(field, above | {descriptor.full_name}) for field in descriptor.fields]
    return None if None in sizes else _FRAME_BYTES + sum(size for size in sizes if size is not None)


def _largest_field(field: FieldDescriptor, above: frozenset[str]) -> int | None:
    limits = validation.limits_of(field)
    value = _largest_value(field, limits, above)
    if field.is_repeated:
        if value is None or not limits.max_items:
            return None
        value = (value + _FRAME_BYTES) * limits.max_items
    return None if value is None else len(field.name) + _FRAME_BYTES + value


def _largest_value(field: FieldDescriptor, limits: options_pb2.Limits, above: frozenset[str]) -> int | None:
    if field.message_type is not None:
        if limits.max_bytes:
            return int(limits.max_bytes) * _JSON_BYTES_PER_BYTE
        if field.message_type.full_name == TIMESTAMP:
            return _SCALAR_BYTES
        return None if field.message_type.full_name == STRUCT else _largest_message(field.message_type, above)
    if field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        return _SCALAR_BYTES
    sizes = []
    if limits.max_bytes:
        sizes.append(int(limits.max_bytes) * _JSON_BYTES_PER_BYTE)
    if limits.max_chars:
        sizes.append(limits.max_chars * _JSON_BYTES_PER_CHARACTER)
    if limits.format == options_pb2.STRING_FORMAT_EMAIL:
        sizes.append(_EMAIL_BYTES * _JSON_BYTES_PER_BYTE)
    if validation.is_uuid(field):
        sizes.append(_UUID_CHARACTERS * _JSON_BYTES_PER_BYTE)
    return min(sizes) if sizes else None


def _too_large(max_bytes: int) -> AppError:
    return AppError("BODY_TOO_LARGE", metadata={"limit": str(max_bytes)})
