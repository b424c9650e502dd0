"""How large messages on the wire are: what a server takes, and what a client with gRPC's own settings takes."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

MAX_REQUEST_BYTES = 16 * 1024 * 1024
"""Most bytes of a request. Twice the most that the gateway takes in, as JSON's escapes may be shorter on the wire."""

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Most bytes of an answer: a client of any language takes no more unless it is told to, and ours are told nothing."""

MAX_CONTENT_BYTES = 3 * 1024 * 1024
"""Most bytes of what users wrote in one answer; what is said about it fits beside it."""


def in_parts(messages: Iterable[M], *, most_bytes: int) -> Iterator[list[M]]:
    """Yield the messages in order, as many at once as have `most_bytes` on the wire together, but at least one."""
    part: list[M] = []
    size = 0
    for message in messages:
        message_size = message.ByteSize()
        if part and size + message_size > most_bytes:
            yield part
            part, size = [], 0
        part.append(message)
        size += message_size
    if part:
        yield part
