"""JSON values to messages, the plain way: whatever is wrong is refused with the field's path."""

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from servicekit.errors import AppError
from servicekit.messages.json_fields import FLOATS, INTEGERS, STRUCT, TIMESTAMP, entry_field, enum_spellings, is_map

Json = Any
Reader = Callable[[Any, Any, str, bool, int], None]
"""Fills a message from JSON, given its path, whether unknown fields are ignored, and its depth. Raises AppError."""

# A Struct nests three messages per level of JSON, and protobuf parses at most 100 messages inside each other.
MAX_DEPTH = 30
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@cache
def reader_of(descriptor: Descriptor) -> Reader:
    """Return what fills a message of the type."""
    if descriptor.full_name == STRUCT:
        return _read_struct
    if descriptor.full_name == TIMESTAMP:
        return read_timestamp
    fields: dict[str, Callable[[Any, Json, str, bool, int], None]] = {}

    def read(message: Any, data: Json, path: str, ignore_unknown: bool, depth: int) -> None:
        if not isinstance(data, Mapping):
            raise invalid_field(path or "The body", "must be an object")
        if depth > MAX_DEPTH:
            raise invalid_field(path, "is nested too deeply")
        prefix = f"{path}." if path else ""
        for name, value in data.items():
            setter = fields.get(name)
            if setter is None:
                if ignore_unknown:
                    continue
                raise unknown_field(prefix + str(name)[:64])
            if value is not None:
                setter(message, value, prefix + name, ignore_unknown, depth + 1)

    for field in descriptor.fields:
        fields[field.name] = setter_of(field)
    return read


def setter_of(field: FieldDescriptor) -> Reader:
    """Return what sets the field of a message."""
    name = field.name
    if is_map(field):
        return _map_setter(field)
    if field.message_type is not None:
        descriptor = field.message_type
        if field.is_repeated:

            def set_messages(message: Any, value: Json, path: str, ignore_unknown: bool, depth: int) -> None:
                if not isinstance(value, list):
                    raise invalid_field(path, "must be a list")
                entries = getattr(message, name)
                for index, entry in enumerate(value):
                    reader_of(descriptor)(entries.add(), entry, f"{path}[{index}]", ignore_unknown, depth)

            return set_messages

        def set_message(message: Any, value: Json, path: str, ignore_unknown: bool, depth: int) -> None:
            target = getattr(message, name)
            target.SetInParent()
            reader_of(descriptor)(target, value, path, ignore_unknown, depth)

        return set_message
    one = scalar_reader(field)
    if field.is_repeated:

        def set_values(message: Any, value: Json, path: str, _: bool, __: int) -> None:
            if not isinstance(value, list):
                raise invalid_field(path, "must be a list")
            getattr(message, name).extend(one(entry, f"{path}[{index}]") for index, entry in enumerate(value))

        return set_values

    def set_value(message: Any, value: Json, path: str, _: bool, __: int) -> None:
        setattr(message, name, one(value, path))

    return set_value


def _map_setter(field: FieldDescriptor) -> Callable[[Any, Json, str, bool, int], None]:
    value_field = entry_field(field, "value")
    key_field = entry_field(field, "key")
    if value_field.message_type is not None or key_field.type != FieldDescriptor.TYPE_STRING:
        raise TypeError(f"{field.full_name}: only maps from text to scalars have a JSON form here")
    one = scalar_reader(value_field)

    def set_map(message: Any, value: Json, path: str, _: bool, __: int) -> None:
        if not isinstance(value, Mapping):
            raise invalid_field(path, "must be an object")
        entries = getattr(message, field.name)
        for key, entry in value.items():
            entries[key] = one(entry, f"{path}.{key}")

    return set_map


@cache
def scalar_reader(field: FieldDescriptor) -> Callable[[Json, str], Any]:
    """Return what makes a scalar field's value (one entry of a repeated one) of JSON, given its path."""
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    if field.type in INTEGERS:
        return _integer_reader(*INTEGERS[field.type])
    if field.type == FieldDescriptor.TYPE_STRING:
        return _read_text
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _read_bool
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _read_bytes
    return _read_number


def _enum_reader(enum: EnumDescriptor) -> Callable[[Json, str], int]:
    numbers = enum_spellings(enum)
    problem = "must be one of " + ", ".join(numbers)

    def read(value: Json, path: str) -> int:
        number = numbers.get(value) if isinstance(value, str) else None
        if number is None:
            raise invalid_field(path, problem)
        return number

    return read


def _integer_reader(least: int, most: int) -> Callable[[Json, str], int]:
    def read(value: Json, path: str) -> int:
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise invalid_field(path, "must be an integer")
        if not least <= value <= most:
            raise invalid_field(path, f"must be between {least} and {most}")
        return value

    return read


def _read_text(value: Json, path: str) -> str:
    if not isinstance(value, str):
        raise invalid_field(path, "must be a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise invalid_field(path, "has a broken surrogate pair") from None
    return value


def _read_bool(value: Json, path: str) -> bool:
    if not isinstance(value, bool):
        raise invalid_field(path, "must be true or false")
    return value


def _read_number(value: Json, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid_field(path, "must be a number")
    try:
        return float(value)
    except OverflowError:
        raise invalid_field(path, "is too large") from None


def _read_bytes(value: Json, path: str) -> bytes:
    try:
        return base64.b64decode(_read_text(value, path), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_field(path, "must be base64") from None


def _parse_timestamp(text: str) -> timestamp_pb2.Timestamp:
    """Return the instant of an RFC 3339 text with an offset. Raises ValueError."""
    if len(text) < 20 or text[10] not in "Tt ":
        raise ValueError("not an RFC 3339 timestamp")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("without an offset")
    moment = moment.astimezone(UTC)
    seconds = int((moment.replace(microsecond=0) - EPOCH).total_seconds())
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=moment.microsecond * 1000)


def read_timestamp(message: Any, value: Json, path: str, _: bool, __: int) -> None:
    """Fill a Timestamp from an RFC 3339 text with an offset. Raises AppError INVALID_FIELD."""
    try:
        message.CopyFrom(_parse_timestamp(_read_text(value, path)))
    except (ValueError, OverflowError):
        raise invalid_field(path, "must be an RFC 3339 timestamp with an offset") from None


def _read_struct(message: Any, value: Json, path: str, _: bool, depth: int) -> None:
    if not isinstance(value, Mapping):
        raise invalid_field(path, "must be an object")
    _fill_struct(message, value, path, depth)


def _fill_struct(struct: struct_pb2.Struct, data: Mapping[str, Json], path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise invalid_field(path, "is nested too deeply")
    for key, value in data.items():
        fill_value(struct.fields[_read_text(key, path)], value, path, depth + 1)


def fill_value(target: struct_pb2.Value, value: Json, path: str, depth: int) -> None:
    """Fill a value of free-form JSON. Raises AppError INVALID_FIELD."""
    if value is None:
        target.null_value = struct_pb2.NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = _read_text(value, path)
    elif isinstance(value, int | float):
        target.number_value = _read_number(value, path)
    elif isinstance(value, Mapping):
        target.struct_value.SetInParent()
        _fill_struct(target.struct_value, value, path, depth)
    else:
        if depth > MAX_DEPTH:
            raise invalid_field(path, "is nested too deeply")
        target.list_value.SetInParent()
        for entry in value:
            fill_value(target.list_value.values.add(), entry, path, depth + 1)


def json_scalar(field: FieldDescriptor, text: str, path: str) -> Json:
    """Return the JSON that a URL's text stands for. Raises AppError INVALID_FIELD."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in ("true", "false"):
            raise invalid_field(path, "must be true or false")
        return text == "true"
    if field.type in INTEGERS:
        if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
            raise invalid_field(path, "must be an integer")
        return int(text)
    if field.type in FLOATS:
        try:
            return float(text)
        except ValueError:
            raise invalid_field(path, "must be a number") from None
    return text


def invalid_field(path: str, problem: str) -> AppError:
    """Return the error for a field whose value is wrong."""
    return AppError("INVALID_FIELD", metadata={"field": path, "problem": problem})


def unknown_field(path: str) -> AppError:
    """Return the error for a field that the contract does not know."""
    return AppError("UNKNOWN_FIELD", metadata={"field": path})
