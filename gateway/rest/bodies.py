"""Reads the bodies of requests: how large each may be, how long it may take, and how much all may hold together."""

import asyncio
import random
from collections import Counter, OrderedDict

from concerto.options.v1 import options_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from starlette.requests import ClientDisconnect, Request

from gateway.rest.contract import Binding
from servicekit.errors import AppError
from servicekit.messages import json_size, validation
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

FREE_VALUES = 500
"""Values of JSON that a body may hold without being counted; reading fewer costs no more than the request itself."""
CREDIT_VALUES = 150_000
"""Values of larger bodies that a caller may have read at once: each takes some microseconds, in which nobody else is
served, and refusing a body that is wrong takes as long."""
CREDIT_PER_SECOND = 15_000
"""What a caller's credit grows by: about a tenth of a core. Who may store 600 messages a minute sends fewer."""
EXACT_FROM = 30_000
"""From this credit on commas within texts are told from those between values."""
REFUSAL_SECONDS = 1.0
"""How long a refusal for that takes, about."""
MOST_CREDITS = 10_000
"""Callers whose credit is known; who has sent nothing for longest goes first."""

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
        self._credits: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def read(self, request: Request, *, max_bytes: int) -> bytes:
        """Return the request's body; empty when there is none.

        max_bytes: no more is read. Raises AppError BODY_TOO_LARGE, BODY_TOO_SLOW, TOO_MANY_LARGE_BODIES (of this
        caller) or GATEWAY_FULL (of all), TOO_MANY_REQUESTS for more values than one caller may have
        read, ClientDisconnect.
        """
        announced = next((value for name, value in request.scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and int(announced[:20]) > max_bytes:
            raise _too_large(max_bytes)
        try:
            async with asyncio.timeout(self._piece_seconds) as patience:
                content = await self._read(request, max_bytes, patience)
        except TimeoutError:
            raise AppError("BODY_TOO_SLOW") from None
        missing_seconds = self._spend(content)
        if missing_seconds:
            del content
            # A client that repeats at once would keep the process busy with refusals.
            await asyncio.sleep(REFUSAL_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 (nothing secret)
            raise AppError("TOO_MANY_REQUESTS", retry_after_seconds=missing_seconds)
        return content

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

    def _spend(self, content: bytes) -> float:
        """Count the values of a body for its caller, whether or not it is good.

        Return in how many seconds it may be sent again; 0 when it may be read.
        """
        caller = identity.current_caller_or_none()
        if caller is None or len(content) < FREE_VALUES:  # others send small bodies, and not often
            return 0.0
        now = asyncio.get_running_loop().time()
        left, since = self._credits.get(caller.user_id, (float(CREDIT_VALUES), now))
        left = min(CREDIT_VALUES, left + (now - since) * CREDIT_PER_SECOND)
        # Who has little left is refused by what is known at once: to count what stands in texts takes time, too.
        values = json_size.values_of(content, exact_from=FREE_VALUES if left >= EXACT_FROM else json_size.MOST_VALUES)
        if values < FREE_VALUES:
            return 0.0
        values = min(values, json_size.MOST_VALUES)  # more are refused unread
        missing = values - left
        self._credits[caller.user_id] = (left if missing > 0 else -missing, now)
        self._credits.move_to_end(caller.user_id)
        if len(self._credits) > MOST_CREDITS:
            self._credits.popitem(last=False)
        return max(missing, 0.0) / CREDIT_PER_SECOND

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
