"""Checks a request against what the contract says of its fields, compiled once per message type."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import orjson
from concerto.options.v1 import options_pb2
from google.api import field_behavior_pb2, field_info_pb2
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from servicekit.errors import AppError
from servicekit.messages import converter
from servicekit.messages.json_fields import STRUCT, TIMESTAMP

Check = Callable[[Any, str], None]
"""Takes a value and its path. Raises AppError."""

# One @, no spaces or control characters, a dot-free or dotted domain: the auth server has the last word.
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f<>()\[\],;:\\\"]{1,64}@[^\s@\x00-\x1f\x7f<>()\[\],;:\\\"]{1,189}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HTTP_URL = re.compile(r"https?://[^\s/?#\x00-\x1f\x7f]+(?:[/?#][^\s\x00-\x1f\x7f]*)?", re.IGNORECASE)


def check(message: Message) -> None:
    """Return when the message keeps the contract: required fields, formats, limits, no NUL characters.

    Raises AppError MISSING_FIELD, INVALID_FIELD or FIELD_TOO_LARGE with the field's path (`messages[0].content`).
    """
    _message_check(message.DESCRIPTOR)(message, "")


def limits_of(field: FieldDescriptor) -> options_pb2.Limits:
    """Return the field's limits; all zero when the contract states none."""
    limits: options_pb2.Limits = field.GetOptions().Extensions[options_pb2.limits]
    return limits


def is_required(field: FieldDescriptor) -> bool:
    """Say whether the contract requires the field."""
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def is_uuid(field: FieldDescriptor) -> bool:
    """Say whether the field holds a UUID."""
    info: field_info_pb2.FieldInfo = field.GetOptions().Extensions[field_info_pb2.field_info]
    return bool(info.format == field_info_pb2.FieldInfo.UUID4)


@cache
def _message_check(descriptor: Descriptor) -> Check:
    """Return what checks a message of the type; the path is the message's own, empty for a whole request."""
    checks = [check for field in descriptor.fields if (check := _field_check(field)) is not None]

    def check_message(message: Any, path: str) -> None:
        prefix = f"{path}." if path else ""
        for check_field in checks:
            check_field(message, prefix)

    return check_message


def _field_check(field: FieldDescriptor) -> Check | None:
    """Return what checks the field of a message, given the prefix of its path; None when the contract asks nothing."""
    limits, required = limits_of(field), is_required(field)
    if field.is_repeated:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        checks = [] if is_map else _value_checks(field, limits)
        is_plain = not checks and not limits.min_items and not limits.max_items
        return None if is_plain and not required else _repeated(field.name, limits, checks, required=required)
    checks = _value_checks(field, limits)
    return _single(field, checks, required=required) if checks or required else None


def _single(field: FieldDescriptor, checks: list[Check], *, required: bool) -> Check:
    name, has_presence = field.name, field.has_presence

    def check_single(message: Any, prefix: str) -> None:
        value = getattr(message, name)
        # An empty text is an absent one, also where `optional` lets it remove a value.
        is_absent = (has_presence and not message.HasField(name)) or value == ""
        # What has presence is there when it is set, whatever its number; a blank text says nothing either way.
        is_blank = not value.strip() if isinstance(value, str) else not has_presence and not value
        if required and (is_absent or is_blank):
            raise AppError("MISSING_FIELD", metadata={"field": prefix + name})
        if not is_absent:
            for check_value in checks:
                check_value(value, prefix + name)

    return check_single


def _repeated(name: str, limits: options_pb2.Limits, checks: list[Check], *, required: bool) -> Check:
    least, most = limits.min_items, limits.max_items

    def check_repeated(message: Any, prefix: str) -> None:
        values, path = getattr(message, name), prefix + name
        if required and not values:
            raise AppError("MISSING_FIELD", metadata={"field": path})
        if len(values) < least:
            raise _invalid(path, f"must have at least {least} entries")
        if most and len(values) > most:
            raise AppError("FIELD_TOO_LARGE", metadata={"field": path, "limit": f"{most} entries"})
        if checks:
            for index, value in enumerate(values):
                for check_value in checks:
                    check_value(value, f"{path}[{index}]")

    return check_repeated


def _value_checks(field: FieldDescriptor, limits: options_pb2.Limits) -> list[Check]:
    checks: list[Check] = []
    if field.message_type is not None:
        # First, as what it refuses would take the others long.
        if limits.max_items and field.message_type.full_name == STRUCT and not field.is_repeated:
            checks.append(_values_inside(limits.max_items))
        if limits.max_bytes:
            checks.append(_json_bytes(limits.max_bytes))
        if field.message_type.full_name == STRUCT:
            checks.append(_no_nul_inside)
        elif field.message_type.full_name == TIMESTAMP:
            checks.append(_known_instant)
        else:
            descriptor = field.message_type
            # Looked up when it is needed, as a type may hold itself.
            checks.append(lambda value, path: _message_check(descriptor)(value, path))
    elif field.enum_type is not None:
        checks.append(_known_number(frozenset(value.number for value in field.enum_type.values)))
    elif field.type == FieldDescriptor.TYPE_STRING:
        checks.append(_text(limits))
        if is_uuid(field):
            checks.append(_pattern(_UUID, "must be a UUID"))
        if limits.format == options_pb2.STRING_FORMAT_EMAIL:
            checks.append(_pattern(_EMAIL, "must be an e-mail address"))
        if limits.format == options_pb2.STRING_FORMAT_HTTP_URL:
            checks.append(_pattern(_HTTP_URL, "must be an http or https address"))
    elif limits.has_min:
        checks.append(_at_least(limits.min))
    return checks


def _text(limits: options_pb2.Limits) -> Check:
    def check_text(value: str, path: str) -> None:
        if "\0" in value:
            raise _invalid(path, "must not contain NUL characters")
        if limits.max_chars and len(value) > limits.max_chars:
            raise AppError("FIELD_TOO_LARGE", metadata={"field": path, "limit": f"{limits.max_chars} characters"})
        # A text never has more bytes than four times its characters.
        too_long = limits.max_bytes and len(value) * 4 > limits.max_bytes and len(value.encode()) > limits.max_bytes
        if too_long:
            raise AppError("FIELD_TOO_LARGE", metadata={"field": path, "limit": f"{limits.max_bytes} bytes"})

    return check_text


def _json_bytes(most: int) -> Check:
    def check_json_bytes(value: Message, path: str) -> None:
        if len(orjson.dumps(converter.to_json(value))) > most:
            raise AppError("FIELD_TOO_LARGE", metadata={"field": path, "limit": f"{most} bytes"})

    return check_json_bytes


def _values_inside(most: int) -> Check:
    def check_values(value: struct_pb2.Struct, path: str) -> None:
        # A value has two bytes at least, so few bytes are few values.
        if value.ByteSize() > 2 * most and _is_beyond(value, most):
            raise AppError("FIELD_TOO_LARGE", metadata={"field": path, "limit": f"{most} values"})

    return check_values


def _is_beyond(struct: struct_pb2.Struct, most: int) -> bool:
    """Say whether there are more than so many values in it; looks at no more than that."""
    found, left = 0, [_entries(struct)]
    while left:
        for value in left[-1]:
            found += 1
            if found > most:
                return True
            kind = value.WhichOneof("kind")
            if kind == "struct_value":
                left.append(_entries(value.struct_value))
                break
            if kind == "list_value":
                left.append(iter(value.list_value.values))
                break
        else:
            left.pop()
    return False


def _entries(struct: struct_pb2.Struct) -> Iterator[struct_pb2.Value]:
    return (struct.fields[key] for key in struct.fields)


def _no_nul_inside(value: struct_pb2.Struct, path: str) -> None:
    # jsonb cannot hold NUL. The wire form shows one wherever a text does (and in numbers, hence the closer look).
    if b"\0" in value.SerializeToString() and _holds_nul(converter.to_json(value)):
        raise _invalid(path, "must not contain NUL characters")


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _holds_nul(entry) for key, entry in value.items())
    return isinstance(value, list) and any(_holds_nul(entry) for entry in value)


def _known_number(numbers: frozenset[int]) -> Check:
    def check_number(value: int, path: str) -> None:
        if value not in numbers:
            raise _invalid(path, "is not a known value")

    return check_number


def _known_instant(value: timestamp_pb2.Timestamp, path: str) -> None:
    # The range that RFC 3339 can write: years 1 to 9999.
    if not (-62135596800 <= value.seconds <= 253402300799 and 0 <= value.nanos <= 999_999_999):
        raise _invalid(path, "must be an instant of the years 1 to 9999")


def _pattern(pattern: re.Pattern[str], problem: str) -> Check:
    def check_pattern(value: str, path: str) -> None:
        if not pattern.fullmatch(value):
            raise _invalid(path, problem)

    return check_pattern


def _at_least(least: int) -> Check:
    def check_least(value: int, path: str) -> None:
        if value < least:
            raise _invalid(path, f"must be at least {least}")

    return check_least


def _invalid(path: str, problem: str) -> AppError:
    return AppError("INVALID_FIELD", metadata={"field": path, "problem": problem})
