"""Checks a request against what the contract says of its fields, compiled once per message type."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any
from uuid import UUID

import orjson
from concerto.options.v1 import options_pb2
from google.api import field_behavior_pb2, field_info_pb2
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from servicekit.errors import AppError
from servicekit.messages import converter
from servicekit.messages.compiler import attribute, make_function

Check = Callable[[Any, str], None]
Test = Callable[[Any], bool]

# One @, no spaces or control characters, a dot-free or dotted domain: the auth server has the last word.
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f<>()\[\],;:\\\"]{1,64}@[^\s@\x00-\x1f\x7f<>()\[\],;:\\\"]{1,189}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HTTP_URL = re.compile(r"https?://[^\s/?#\x00-\x1f\x7f]+(?:[/?#][^\s\x00-\x1f\x7f]*)?", re.IGNORECASE)


def check(message: Message) -> None:
    """Return when the message keeps the contract: required fields, formats, limits, no NUL characters.

    Raises AppError MISSING_FIELD, INVALID_FIELD or FIELD_TOO_LARGE with the field's path (`messages[0].content`).
    """
    descriptor = message.DESCRIPTOR
    # What is in order takes the short way; for anything else the long one finds out what is wrong, and where.
    if not _message_test(descriptor)(message):
        _message_check(descriptor)(message, "")


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
def _message_test(descriptor: Descriptor) -> Test:
    """Return what tells whether a message surely keeps the contract; False leaves it to `_message_check`."""
    names: dict[str, Any] = {}
    lines = [line for field in descriptor.fields for line in _tested(field, names)]
    test: Test = make_function(descriptor, "test", ["m"], [*lines, "return True"], names)
    return test


def _tested(field: FieldDescriptor, names: dict[str, Any]) -> list[str]:
    limits, value = limits_of(field), attribute("m", field.name)
    if field.is_repeated:
        lines = []
        if is_required(field) or limits.min_items or limits.max_items:
            least = max(limits.min_items, int(is_required(field)))
            lines.append(f"if not {least} <= len({value}) <= {limits.max_items or 2**31}: return False")
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        entry = [] if is_map else _tested_value("v", field, limits, names)
        return [*lines, f"for v in {value}:", *(f"    {line}" for line in entry)] if entry else lines
    tests = _tested_value("v", field, limits, names)
    if field.message_type is not None:
        if is_required(field):
            return [f"if not m.HasField({field.name!r}): return False", f"v = {value}", *tests]
        inner = [f"    {line}" for line in (f"v = {value}", *tests)]
        return [f"if m.HasField({field.name!r}):", *inner] if tests else []
    if is_required(field):
        missing = "not v.strip()" if field.type == FieldDescriptor.TYPE_STRING else "not v"
        return [f"v = {value}", f"if {missing}: return False", *tests]
    if not tests:
        return []
    # An absent number is tested, too, as it is 0 then; one that must not be 0 and may be absent goes the long way.
    guard = "if v:" if field.type == FieldDescriptor.TYPE_STRING else "if True:"
    return [f"v = {value}", guard, *(f"    {line}" for line in tests)]


def _tested_value(v: str, field: FieldDescriptor, limits: options_pb2.Limits, names: dict[str, Any]) -> list[str]:
    """Return lines that return False for a value that is not surely right."""
    wrong: list[str] = []
    helper = f"{field.name}_"
    if field.message_type is not None:
        if field.message_type.full_name == struct_pb2.Struct.DESCRIPTOR.full_name:
            names[helper] = _is_harmless_struct
            return [f"if not {helper}({v}, {limits.max_bytes or 2**40}): return False"]
        if field.message_type.full_name == timestamp_pb2.Timestamp.DESCRIPTOR.full_name:
            wrong.append(f"not (-62135596800 <= {v}.seconds <= 253402300799 and 0 <= {v}.nanos <= 999999999)")
        elif limits.max_bytes:
            wrong.append("True")
        else:
            descriptor = field.message_type
            names[helper] = lambda value: _message_test(descriptor)(value)
            wrong.append(f"not {helper}({v})")
    elif field.enum_type is not None:
        names[helper] = frozenset(value.number for value in field.enum_type.values)
        wrong.append(f"{v} not in {helper}")
    elif field.type == FieldDescriptor.TYPE_STRING:
        wrong.append(f"'\\0' in {v}")
        if limits.max_chars:
            wrong.append(f"len({v}) > {limits.max_chars}")
        if limits.max_bytes:
            wrong.append(f"len({v}) * 4 > {limits.max_bytes}")
        if is_uuid(field):
            names[helper] = _UUID.fullmatch
            wrong.append(f"not {helper}({v})")
        if limits.format:
            wrong.append("True")
    elif limits.has_min:
        wrong.append(f"{v} < {limits.min}")
    return [f"if {' or '.join(wrong)}: return False"] if wrong else []


def _is_harmless_struct(value: struct_pb2.Struct, most: int) -> bool:
    size = value.ByteSize()
    # JSON takes at most six times the bytes of the wire form (an escaped control character), and two braces.
    return size == 0 or (size * 6 + 2 <= most and b"\0" not in value.SerializeToString())


@cache
def _message_check(descriptor: Descriptor) -> Check:
    checks: list[tuple[str, Check]] = []

    def check_message(message: Any, path: str) -> None:
        for name, check_field in checks:
            check_field(message, f"{path}.{name}" if path else name)

    for field in descriptor.fields:
        checks += [(field.name, one) for one in _field_checks(field)]
    return check_message


def _field_checks(field: FieldDescriptor) -> list[Check]:
    limits = limits_of(field)
    checks: list[Check] = []
    if is_required(field):
        checks.append(_required(field))
    if field.is_repeated:
        if limits.min_items or limits.max_items:
            checks.append(_items(field, limits))
        one = [] if field.message_type and field.message_type.GetOptions().map_entry else _value_checks(field, limits)
        if one:
            checks.append(_each(field, one))
        return checks
    one = _value_checks(field, limits)
    if one:
        checks.append(_present(field, one))
    return checks


def _value_checks(field: FieldDescriptor, limits: options_pb2.Limits) -> list[Check]:
    checks: list[Check] = []
    if field.message_type is not None:
        if limits.max_bytes:
            checks.append(_json_bytes(limits.max_bytes))
        if field.message_type.full_name == struct_pb2.Struct.DESCRIPTOR.full_name:
            checks.append(_no_nul_inside)
        elif field.message_type.full_name == timestamp_pb2.Timestamp.DESCRIPTOR.full_name:
            checks.append(_known_instant)
        else:
            descriptor = field.message_type
            checks.append(lambda value, path: _message_check(descriptor)(value, path))
    elif field.enum_type is not None:
        numbers = frozenset(value.number for value in field.enum_type.values)
        checks.append(_known_number(numbers))
    elif field.type == FieldDescriptor.TYPE_STRING:
        checks.append(_text(limits))
        if is_uuid(field):
            checks.append(_uuid)
        if limits.format == options_pb2.STRING_FORMAT_EMAIL:
            checks.append(_pattern(_EMAIL, "must be an e-mail address"))
        if limits.format == options_pb2.STRING_FORMAT_HTTP_URL:
            checks.append(_pattern(_HTTP_URL, "must be an http or https address"))
    elif limits.has_min:
        checks.append(_at_least(limits.min))
    return checks


def _required(field: FieldDescriptor) -> Check:
    name = field.name

    def check_required(message: Any, path: str) -> None:
        value = getattr(message, name)
        missing = not message.HasField(name) if field.has_presence else not value
        if missing or (isinstance(value, str) and not value.strip()):
            raise AppError("MISSING_FIELD", metadata={"field": path})

    return check_required


def _present(field: FieldDescriptor, checks: list[Check]) -> Check:
    name, presence = field.name, field.has_presence

    def check_present(message: Any, path: str) -> None:
        value = getattr(message, name)
        # An empty text is an absent one, also where `optional` lets it remove a value.
        if (presence and not message.HasField(name)) or value == "":
            return
        for one in checks:
            one(value, path)

    return check_present


def _each(field: FieldDescriptor, checks: list[Check]) -> Check:
    name = field.name

    def check_each(message: Any, path: str) -> None:
        for index, value in enumerate(getattr(message, name)):
            for one in checks:
                one(value, f"{path}[{index}]")

    return check_each


def _items(field: FieldDescriptor, limits: options_pb2.Limits) -> Check:
    def check_items(message: Any, path: str) -> None:
        count = len(getattr(message, field.name))
        if count < limits.min_items:
            raise _invalid(path, f"must have at least {limits.min_items} entries")
        if limits.max_items and count > limits.max_items:
            raise AppError("FIELD_TOO_LARGE", metadata={"field": path, "limit": f"{limits.max_items} entries"})

    return check_items


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


def _uuid(value: str, path: str) -> None:
    try:
        if str(UUID(value)) == value.lower():
            return
    except ValueError:
        pass
    raise _invalid(path, "must be a UUID")


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
