"""Messages to JSON values and back, compiled once per message type.

The JSON is the contract's: field names as in the proto, RFC 3339 timestamps, numbers for integers, enums in the
spelling that the contract gives them, default values written, unset messages and unset `optional` fields as null.
google.protobuf.json_format does all this per call by reflection, about ten times dearer.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, TypeVar, cast

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from servicekit.errors import AppError
from servicekit.messages.compiler import assignment, attribute, make_function
from servicekit.messages.json_fields import (
    FLOATS,
    INTEGERS,
    STRUCT,
    TIMESTAMP,
    entry_field,
    enum_spellings,
    is_instant,
    is_map,
    is_recursive,
)
from servicekit.messages.json_writer import writer_of

M = TypeVar("M", bound=Message)
Json = Any
# A Struct nests three messages per level of JSON, and protobuf parses at most 100 messages inside each other.
MAX_DEPTH = 30
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
        is_filled = _filler(descriptor)(message, data, not ignore_unknown, depth)
    except (AppError, TypeError, ValueError, LookupError, OverflowError):
        is_filled = False
    return message if is_filled else from_json_in_full(message_type, data, ignore_unknown=ignore_unknown)


def from_json_in_full(message_type: type[M], data: Mapping[str, Json], *, ignore_unknown: bool = False) -> M:
    """Do as `from_json` without its short way: slower, and the one that finds what is wrong, and where."""
    message, depth = message_type(), -_WRAPPING if ignore_unknown else 0
    _reader(message_type.DESCRIPTOR)(message, data, "", ignore_unknown, depth)
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
        _read_timestamp(getattr(message, name), text, path, False, 0)  # noqa: FBT003 (the readers' common form)
        return
    value = _scalar_reader(field)(_json_scalar(field, text, path), path)
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
            raise _unknown(path)
        descriptor = nested.message_type
    field = _field(descriptor, name)
    if field is None or (field.message_type is not None and not is_instant(field)):
        raise _unknown(path)
    return tuple(parents), field


def parse_timestamp(text: str) -> timestamp_pb2.Timestamp:
    """Return the instant of an RFC 3339 text with an offset. Raises ValueError."""
    if len(text) < 20 or text[10] not in "Tt ":
        raise ValueError("not an RFC 3339 timestamp")
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("without an offset")
    moment = moment.astimezone(UTC)
    seconds = int((moment.replace(microsecond=0) - _EPOCH).total_seconds())
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=moment.microsecond * 1000)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Reader = Callable[[Any, Any, str, bool, int], None]
Filler = Callable[[Any, Any, bool, int], bool]


@cache
def _filler(descriptor: Descriptor) -> Filler:
    """Return what fills a message from JSON that is in order: True when it was, and all of it is in the message.

    It tells nothing of what is wrong: it returns False, or raises.
    """
    if descriptor.full_name == STRUCT:
        return _fill_struct_quickly
    if descriptor.full_name == TIMESTAMP:
        return _fill_timestamp
    names: dict[str, Any] = {"known": frozenset(field.name for field in descriptor.fields), "most": MAX_DEPTH}
    lines = [
        "if type(data) is not dict or depth > most or (strict and not data.keys() <= known): return False",
        "get = data.get",
    ]
    for oneof in descriptor.oneofs:
        if len(oneof.fields) > 1:  # of several choices the last one in the data wins
            names[f"of_{oneof.name}"] = frozenset(field.name for field in oneof.fields)
            lines.append(f"if len(of_{oneof.name} & data.keys()) > 1: return False")
    for field in descriptor.fields:
        lines += [f"value = get({field.name!r})", "if value is not None:"]
        lines += [f"    {line}" for line in _filled(field, names)]
    parameters = ["m", "data", "strict", "depth"]
    filler: Filler = make_function(descriptor, "fill", parameters, [*lines, "return True"], names)
    return filler


def _filled(field: FieldDescriptor, names: dict[str, Any]) -> list[str]:
    helper = f"fill_{field.name}"
    if field.message_type is not None and not is_map(field):
        names[helper] = _later_filler(field.message_type)
        if field.is_repeated:
            return [
                "if type(value) is not list: return False",
                f"add = {attribute('m', field.name)}.add",
                "for entry in value:",
                f"    if not {helper}(add(), entry, strict, depth + 1): return False",
            ]
        names[f"set_{field.name}"] = GetMessageClass(field.message_type).SetInParent
        return [
            f"target = {attribute('m', field.name)}",
            f"set_{field.name}(target)",
            f"if not {helper}(target, value, strict, depth + 1): return False",
        ]
    kind = {FieldDescriptor.TYPE_STRING: "str", FieldDescriptor.TYPE_BOOL: "bool"}.get(field.type)
    if field.is_repeated or (kind is None and field.type not in INTEGERS and field.enum_type is None):
        names[helper] = _setter(field)
        return [f"{helper}(m, value, {field.name!r}, not strict, depth + 1)"]
    if field.enum_type is not None:
        names[helper] = enum_spellings(field.enum_type).get
        return [f"value = {helper}(value)", "if value is None: return False", assignment("m", field.name, "value")]
    if field.type == FieldDescriptor.TYPE_STRING:
        return [assignment("m", field.name, "value")]  # protobuf itself refuses what is no text, and bytes are no JSON
    wrong = "type(value) is not bool"
    if kind is None:
        least, most = INTEGERS[field.type]
        wrong = f"type(value) is not int or not {least} <= value <= {most}"
    return [f"if {wrong}: return False", assignment("m", field.name, "value")]


def _later_filler(descriptor: Descriptor) -> Filler:
    if is_recursive(descriptor):
        return lambda message, data, strict, depth: _filler(descriptor)(message, data, strict, depth)
    return _filler(descriptor)


def _fill_timestamp(message: Any, data: Json, _: bool, __: int) -> bool:
    if len(data) < 20 or data[10] not in "Tt ":
        return False
    since = datetime.fromisoformat(data) - _EPOCH  # raises for a time without an offset
    days = since.days
    if not -719162 <= days <= 2932896:  # the years 1 to 9999
        return False
    message.seconds = days * 86400 + since.seconds
    message.nanos = since.microseconds * 1000
    return True


def _fill_struct_quickly(message: Any, data: Json, _: bool, depth: int) -> bool:
    if type(data) is not dict or depth > MAX_DEPTH:
        return False
    if not data:
        return True
    fields = message.fields
    for key, value in data.items():
        kind = type(value)
        if kind is str:
            fields[key].string_value = value
        elif kind is bool:
            fields[key].bool_value = value
        elif kind is int or kind is float:
            fields[key].number_value = value
        else:
            _fill_value(fields[key], value, "", depth + 1)
    return True


@cache
def _reader(descriptor: Descriptor) -> Reader:
    if descriptor.full_name == STRUCT:
        return _read_struct
    if descriptor.full_name == TIMESTAMP:
        return _read_timestamp
    fields: dict[str, Callable[[Any, Json, str, bool, int], None]] = {}

    def read(message: Any, data: Json, path: str, ignore_unknown: bool, depth: int) -> None:
        if not isinstance(data, Mapping):
            raise _invalid(path or "The body", "must be an object")
        if depth > MAX_DEPTH:
            raise _invalid(path, "is nested too deeply")
        prefix = f"{path}." if path else ""
        for name, value in data.items():
            setter = fields.get(name)
            if setter is None:
                if ignore_unknown:
                    continue
                raise _unknown(prefix + str(name)[:64])
            if value is not None:
                setter(message, value, prefix + name, ignore_unknown, depth + 1)

    for field in descriptor.fields:
        fields[field.name] = _setter(field)
    return read


def _setter(field: FieldDescriptor) -> Callable[[Any, Json, str, bool, int], None]:
    name = field.name
    if is_map(field):
        return _map_setter(field)
    if field.message_type is not None:
        descriptor = field.message_type
        if field.is_repeated:

            def set_messages(message: Any, value: Json, path: str, ignore_unknown: bool, depth: int) -> None:
                if not isinstance(value, list):
                    raise _invalid(path, "must be a list")
                entries = getattr(message, name)
                for index, entry in enumerate(value):
                    _reader(descriptor)(entries.add(), entry, f"{path}[{index}]", ignore_unknown, depth)

            return set_messages

        def set_message(message: Any, value: Json, path: str, ignore_unknown: bool, depth: int) -> None:
            target = getattr(message, name)
            target.SetInParent()
            _reader(descriptor)(target, value, path, ignore_unknown, depth)

        return set_message
    one = _scalar_reader(field)
    if field.is_repeated:

        def set_values(message: Any, value: Json, path: str, _: bool, __: int) -> None:
            if not isinstance(value, list):
                raise _invalid(path, "must be a list")
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
    one = _scalar_reader(value_field)

    def set_map(message: Any, value: Json, path: str, _: bool, __: int) -> None:
        if not isinstance(value, Mapping):
            raise _invalid(path, "must be an object")
        entries = getattr(message, field.name)
        for key, entry in value.items():
            entries[key] = one(entry, f"{path}.{key}")

    return set_map


@cache
def _scalar_reader(field: FieldDescriptor) -> Callable[[Json, str], Any]:
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
            raise _invalid(path, problem)
        return number

    return read


def _integer_reader(least: int, most: int) -> Callable[[Json, str], int]:
    def read(value: Json, path: str) -> int:
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _invalid(path, "must be an integer")
        if not least <= value <= most:
            raise _invalid(path, f"must be between {least} and {most}")
        return value

    return read


def _read_text(value: Json, path: str) -> str:
    if not isinstance(value, str):
        raise _invalid(path, "must be a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _invalid(path, "has a broken surrogate pair") from None
    return value


def _read_bool(value: Json, path: str) -> bool:
    if not isinstance(value, bool):
        raise _invalid(path, "must be true or false")
    return value


def _read_number(value: Json, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(path, "must be a number")
    try:
        return float(value)
    except OverflowError:
        raise _invalid(path, "is too large") from None


def _read_bytes(value: Json, path: str) -> bytes:
    try:
        return base64.b64decode(_read_text(value, path), validate=True)
    except (binascii.Error, ValueError):
        raise _invalid(path, "must be base64") from None


def _read_timestamp(message: Any, value: Json, path: str, _: bool, __: int) -> None:
    try:
        message.CopyFrom(parse_timestamp(_read_text(value, path)))
    except (ValueError, OverflowError):
        raise _invalid(path, "must be an RFC 3339 timestamp with an offset") from None


def _read_struct(message: Any, value: Json, path: str, _: bool, depth: int) -> None:
    if not isinstance(value, Mapping):
        raise _invalid(path, "must be an object")
    _fill_struct(message, value, path, depth)


def _fill_struct(struct: struct_pb2.Struct, data: Mapping[str, Json], path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise _invalid(path, "is nested too deeply")
    for key, value in data.items():
        _fill_value(struct.fields[_read_text(key, path)], value, path, depth + 1)


def _fill_value(target: struct_pb2.Value, value: Json, path: str, depth: int) -> None:
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
            raise _invalid(path, "is nested too deeply")
        target.list_value.SetInParent()
        for entry in value:
            _fill_value(target.list_value.values.add(), entry, path, depth + 1)


def _json_scalar(field: FieldDescriptor, text: str, path: str) -> Json:
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in ("true", "false"):
            raise _invalid(path, "must be true or false")
        return text == "true"
    if field.type in INTEGERS:
        if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
            raise _invalid(path, "must be an integer")
        return int(text)
    if field.type in FLOATS:
        try:
            return float(text)
        except ValueError:
            raise _invalid(path, "must be a number") from None
    return text


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    found: Any = descriptor.fields_by_name.get(name)
    return cast("FieldDescriptor | None", found)


def _invalid(path: str, problem: str) -> AppError:
    return AppError("INVALID_FIELD", metadata={"field": path, "problem": problem})


def _unknown(path: str) -> AppError:
    return AppError("UNKNOWN_FIELD", metadata={"field": path})


__all__ = ["MAX_DEPTH", "enum_spellings", "from_json", "parse_timestamp", "set_field_from_text", "to_json"]
