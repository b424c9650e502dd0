"""Messages to JSON values: one function per message type, made when it is first needed."""

import base64
import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from servicekit.messages.compiler import attribute, make_function
from servicekit.messages.json_fields import FLOATS, STRUCT, TIMESTAMP, entry_field, enum_spellings, is_map, is_recursive

Json = Any
Writer = Callable[[Any], Json]


@cache
def writer_of(descriptor: Descriptor) -> Writer:
    """Return what turns a message of the type into JSON values; a Struct and a Timestamp into theirs."""
    if descriptor.full_name == STRUCT:
        return _write_struct
    if descriptor.full_name == TIMESTAMP:
        return _write_timestamp
    # Unbound, so that no call makes a method object first.
    names: dict[str, Any] = {"has": GetMessageClass(descriptor).HasField}
    entries = [f"{field.name!r}: {_written(field, names)}," for field in descriptor.fields]
    # Of a oneof only the chosen part is written.
    choices = [field.name for oneof in descriptor.oneofs if len(oneof.fields) > 1 for field in oneof.fields]
    lines = ["result = {", *(f"    {entry}" for entry in entries), "}"]
    lines += [f"if result[{name!r}] is None: del result[{name!r}]" for name in choices]
    writer: Writer = make_function(descriptor, "write", ["m"], [*lines, "return result"], names)
    return writer


def _written(field: FieldDescriptor, names: dict[str, Any]) -> str:
    """Return the expression for a field's JSON; what it needs is added to `names`."""
    value = attribute("m", field.name)
    if is_map(field):
        one = _one_written("value", entry_field(field, "value"), names)
        return f"{{str(key): {one} for key, value in {value}.items()}}"
    if field.is_repeated:
        return f"[{_one_written('value', field, names)} for value in {value}]"
    one = _one_written(value, field, names)
    return f"{one} if has(m, {field.name!r}) else None" if field.has_presence else one


def _one_written(value: str, field: FieldDescriptor, names: dict[str, Any]) -> str:
    helper = f"write_{field.name}"
    if field.message_type is not None:
        names[helper] = _later_writer(field.message_type)
        return f"{helper}({value})"
    if field.enum_type is not None:
        names[helper] = {number: name for name, number in enum_spellings(field.enum_type).items()}.get
        return f"{helper}({value})"
    if field.type == FieldDescriptor.TYPE_BYTES:
        names[helper] = _write_bytes
        return f"{helper}({value})"
    if field.type in FLOATS:
        names[helper] = _write_float
        return f"{helper}({value})"
    return value


def _later_writer(descriptor: Descriptor) -> Writer:
    if is_recursive(descriptor):
        return lambda value: writer_of(descriptor)(value)
    return writer_of(descriptor)


def _write_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _write_float(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_timestamp(value: timestamp_pb2.Timestamp) -> str:
    nanos = value.nanos
    return f"{_second(value.seconds)}.{nanos // 1000:06d}Z" if nanos else f"{_second(value.seconds)}Z"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str:
    # Kept by the second, which entries of a page often share. isoformat and not strftime, which writes the year 208
    # with three digits.
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def _write_struct(value: struct_pb2.Struct) -> dict[str, Json]:
    fields = value.fields
    # Not items(), which protobuf leaves to a mixin in Python.
    return {key: _write_any(fields[key]) for key in fields} if fields else {}


def _write_any(value: struct_pb2.Value) -> Json:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        # Struct knows only doubles; a whole one was an integer in JSON.
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < 2**53 else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return _write_struct(value.struct_value)
    if kind == "list_value":
        return [_write_any(entry) for entry in value.list_value.values]
    return None
