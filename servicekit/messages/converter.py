"""Messages to JSON values and back, compiled once per message type.

The JSON is the contract's: field names as in the proto, RFC 3339 timestamps, numbers for integers, enums in the
spelling that the contract gives them, default values written, unset messages and unset `optional` fields as null.
google.protobuf.json_format does all this per call by reflection, which takes about ten times as long.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from servicekit.errors import AppError
from servicekit.messages.json_compiled import filler_of, writer_of
from servicekit.messages.json_fields import is_instant
from servicekit.messages.json_reader import json_scalar, read_timestamp, reader_of, scalar_reader, unknown_field

M = TypeVar("M", bound=Message)
Json = Any
# What a client has sent comes back from our own database within a few messages more.
_WRAPPING = 4


def to_json(message: Message) -> dict[str, Json]:
    """Return the message as a JSON object of Python values."""
    result: dict[str, Json] = writer_of(message.DESCRIPTOR)(message)
    return result


def from_json(message_type: type[M], data: Mapping[str, Json], *, ignore_unknown: bool = False) -> M:
    """Return the message that the JSON object describes.

    ignore_unknown: True for data of our own database, which may be newer than the process.
    Raises AppError UNKNOWN_FIELD or INVALID_FIELD with the field's path (`messages[0].role`).
    """
    # What is in order takes the short way; for anything else the long one finds out what is wrong, and where.
    descriptor = message_type.DESCRIPTOR
    message, depth = message_type(), -_WRAPPING if ignore_unknown else 0
    try:
        is_filled = filler_of(descriptor)(message, data, not ignore_unknown, depth)
    except (AppError, TypeError, ValueError, LookupError, OverflowError):
        is_filled = False
    if not is_filled:
        message = message_type()
        reader_of(descriptor)(message, data, "", ignore_unknown, depth)
    return message


def set_field_from_text(message: Message, path: str, text: str) -> None:
    """Set a scalar field or an instant from a URL's text (path or query parameter).

    path: field name; nested fields are joined with dots. Raises AppError UNKNOWN_FIELD or INVALID_FIELD.
    """
    parents, field = _field_at(message.DESCRIPTOR, path)
    for parent in parents:
        message = getattr(message, parent)
    name = field.name
    if field.message_type is not None:
        getattr(message, name).SetInParent()
        read_timestamp(getattr(message, name), text, path, False, 0)  # noqa: FBT003 (the readers' common form)
        return
    value = scalar_reader(field)(json_scalar(field, text, path), path)
    if field.is_repeated:
        getattr(message, name).append(value)
    else:
        setattr(message, name, value)


@lru_cache(maxsize=1024)
def _field_at(descriptor: Descriptor, path: str) -> tuple[tuple[str, ...], FieldDescriptor]:
    """Return the names on the way to a scalar field or an instant, and the field. Raises AppError UNKNOWN_FIELD."""
    *parents, name = path.split(".")
    for parent in parents:
        nested = _field(descriptor, parent)
        if nested is None or nested.message_type is None or nested.is_repeated:
            raise unknown_field(path)
        descriptor = nested.message_type
    field = _field(descriptor, name)
    if field is None or (field.message_type is not None and not is_instant(field)):
        raise unknown_field(path)
    return tuple(parents), field


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    found: Any = descriptor.fields_by_name.get(name)
    return cast("FieldDescriptor | None", found)
