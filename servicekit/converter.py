"""Messages to JSON values and back, compiled once per message type.

The JSON is the contract's: field names as in the proto, RFC 3339 timestamps, numbers for integers, enums in the
spelling that the contract gives them, default values written, unset messages and unset `optional` fields as null.
google.protobuf.json_format does all this per call by reflection, about ten times dearer.
"""

import base64
import binascii
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, cast

from concerto.options.v1 import options_pb2
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from servicekit.errors import AppError

M = TypeVar("M", bound=Message)
Json = Any
# A Struct nests three messages per level of JSON, and protobuf parses at most 100 messages inside each other.
MAX_DEPTH = 30

_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
}
_FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
_STRUCT = struct_pb2.Struct.DESCRIPTOR.full_name
_TIMESTAMP = timestamp_pb2.Timestamp.DESCRIPTOR.full_name


def to_json(message: Message) -> dict[str, Json]:
    """Return the message as a JSON object of Python values."""
    result: dict[str, Json] = _writer(message.DESCRIPTOR)(message)
    return result


def from_json(message_type: type[M], data: Mapping[str, Json], *, ignore_unknown: bool = False) -> M:
    """Return the message that the JSON object describes.

    ignore_unknown: True for data of our own database, which may be newer than the process.
    Raises AppError UNKNOWN_FIELD or INVALID_FIELD with the field's path (`messages[0].role`).
    """
    message = message_type()
    _reader(message_type.DESCRIPTOR)(message, data, "", ignore_unknown, 0)
    return message


def enum_spellings(enum: EnumDescriptor) -> dict[str, int]:
    """Return JSON spelling -> number for each value of the enum that may be sent."""
    prefix = _upper_snake(enum.name) + "_"
    return {
        value.GetOptions().Extensions[options_pb2.json] or value.name.removeprefix(prefix): value.number
        for value in enum.values
        if value.number != 0
    }


def set_field_from_text(message: Message, path: str, text: str) -> None:
    """Set a scalar field or an instant from a URL's text (path or query parameter).

    path: field name; nested fields are joined with dots. Raises AppError UNKNOWN_FIELD or INVALID_FIELD.
    """
    *parents, name = path.split(".")
    for parent in parents:
        nested = _field(message, parent)
        if nested is None or nested.message_type is None or nested.is_repeated:
            raise _unknown(path)
        message = getattr(message, parent)
    field = _field(message, name)
    if field is not None and _is_instant(field):
        getattr(message, name).SetInParent()
        _read_timestamp(getattr(message, name), text, path, False, 0)  # noqa: FBT003 (the readers' common form)
        return
    if field is None or field.message_type is not None:
        raise _unknown(path)
    value = _scalar_reader(field)(_json_scalar(field, text, path), path)
    if field.is_repeated:
        getattr(message, name).append(value)
    else:
        setattr(message, name, value)


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

Writer = Callable[[Any], Json]
Reader = Callable[[Any, Any, str, bool, int], None]


@cache
def _writer(descriptor: Descriptor) -> Writer:
    if descriptor.full_name == _STRUCT:
        return _write_struct
    if descriptor.full_name == _TIMESTAMP:
        return _write_timestamp
    # Filled after it is made, so that a message type may hold itself.
    fields: list[tuple[str, bool, Writer]] = []

    def write(message: Any) -> dict[str, Json]:
        return {
            name: value(getattr(message, name)) if not presence or message.HasField(name) else None
            for name, presence, value in fields
        }

    oneofs = {field.name for oneof in descriptor.oneofs for field in oneof.fields if len(oneof.fields) > 1}

    def write_without_unset_choices(message: Any) -> dict[str, Json]:
        result = write(message)
        for name in oneofs:
            if result[name] is None:
                del result[name]
        return result

    fields += [(field.name, field.has_presence, _value_writer(field)) for field in descriptor.fields]
    return write_without_unset_choices if oneofs else write


def _value_writer(field: FieldDescriptor) -> Writer:
    if _is_map(field):
        one = _value_writer(_entry_field(field, "value"))
        return lambda entries: {str(key): one(value) for key, value in entries.items()}
    one = _one_writer(field)
    if field.is_repeated:
        return lambda values: [one(value) for value in values]
    return one


def _one_writer(field: FieldDescriptor) -> Writer:
    if field.message_type is not None:
        descriptor = field.message_type
        return lambda value: _writer(descriptor)(value)
    if field.enum_type is not None:
        names = {number: name for name, number in enum_spellings(field.enum_type).items()}
        return lambda number: names.get(number)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    if field.type in _FLOATS:
        return lambda value: value if math.isfinite(value) else None
    return lambda value: value


def _write_timestamp(value: timestamp_pb2.Timestamp) -> str:
    # isoformat and not strftime, which writes the year 208 with three digits.
    text = datetime.fromtimestamp(value.seconds, UTC).isoformat()[:19]
    return f"{text}.{value.nanos // 1000:06d}Z" if value.nanos else f"{text}Z"


def _write_struct(value: struct_pb2.Struct) -> dict[str, Json]:
    return {key: _write_any(entry) for key, entry in value.fields.items()}


def _write_any(value: struct_pb2.Value) -> Json:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            # Struct knows only doubles; a whole one was an integer in JSON.
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _write_struct(value.struct_value)
        case "list_value":
            return [_write_any(entry) for entry in value.list_value.values]
        case _:
            return None


@cache
def _reader(descriptor: Descriptor) -> Reader:
    if descriptor.full_name == _STRUCT:
        return _read_struct
    if descriptor.full_name == _TIMESTAMP:
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
    if _is_map(field):
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
    value_field = _entry_field(field, "value")
    key_field = _entry_field(field, "key")
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


def _scalar_reader(field: FieldDescriptor) -> Callable[[Json, str], Any]:
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    if field.type in _INTEGERS:
        return _integer_reader(*_INTEGERS[field.type])
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
    if field.type in _INTEGERS:
        if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
            raise _invalid(path, "must be an integer")
        return int(text)
    if field.type in _FLOATS:
        try:
            return float(text)
        except ValueError:
            raise _invalid(path, "must be a number") from None
    return text


def _is_instant(field: FieldDescriptor) -> bool:
    return not field.is_repeated and field.message_type is not None and field.message_type.full_name == _TIMESTAMP


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _field(message: Message, name: str) -> FieldDescriptor | None:
    found: Any = message.DESCRIPTOR.fields_by_name.get(name)
    return cast("FieldDescriptor | None", found)


def _entry_field(field: FieldDescriptor, name: str) -> FieldDescriptor:
    entry = cast("Descriptor", field.message_type)
    return entry.fields_by_name[name]


def _upper_snake(name: str) -> str:
    return "".join(f"_{char}" if char.isupper() and index else char for index, char in enumerate(name)).upper()


def _invalid(path: str, problem: str) -> AppError:
    return AppError("INVALID_FIELD", metadata={"field": path, "problem": problem})


def _unknown(path: str) -> AppError:
    return AppError("UNKNOWN_FIELD", metadata={"field": path})
