"""The fast way between messages and JSON values: functions in straight lines, one per message type and direction.

Loops over a type's fields take twice as long, which a page of 50 messages feels (docs/decisions/0013).
"""

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from keyword import iskeyword
from typing import Any

from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from servicekit.messages.json_fields import (
    FLOATS,
    INTEGERS,
    STRUCT,
    TIMESTAMP,
    entry_field,
    enum_spellings,
    is_map,
    is_recursive,
)
from servicekit.messages.json_reader import EPOCH, MAX_DEPTH, fill_value, setter_of

Json = Any
Writer = Callable[[Any], Json]
Filler = Callable[[Any, Any, bool, int], bool]


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
    writer: Writer = _make_function(descriptor, "write", ["m"], [*lines, "return result"], names)
    return writer


def _written(field: FieldDescriptor, names: dict[str, Any]) -> str:
    """Return the expression for a field's JSON; what it needs is added to `names`."""
    value = _attribute("m", field.name)
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


@cache
def filler_of(descriptor: Descriptor) -> Filler:
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
    filler: Filler = _make_function(descriptor, "fill", parameters, [*lines, "return True"], names)
    return filler


def _filled(field: FieldDescriptor, names: dict[str, Any]) -> list[str]:
    helper = f"fill_{field.name}"
    if field.message_type is not None and not is_map(field):
        names[helper] = _later_filler(field.message_type)
        if field.is_repeated:
            return [
                "if type(value) is not list: return False",
                f"add = {_attribute('m', field.name)}.add",
                "for entry in value:",
                f"    if not {helper}(add(), entry, strict, depth + 1): return False",
            ]
        names[f"set_{field.name}"] = GetMessageClass(field.message_type).SetInParent
        return [
            f"target = {_attribute('m', field.name)}",
            f"set_{field.name}(target)",
            f"if not {helper}(target, value, strict, depth + 1): return False",
        ]
    kind = {FieldDescriptor.TYPE_STRING: "str", FieldDescriptor.TYPE_BOOL: "bool"}.get(field.type)
    if field.is_repeated or (kind is None and field.type not in INTEGERS and field.enum_type is None):
        names[helper] = setter_of(field)
        return [f"{helper}(m, value, {field.name!r}, not strict, depth + 1)"]
    if field.enum_type is not None:
        names[helper] = enum_spellings(field.enum_type).get
        return [f"value = {helper}(value)", "if value is None: return False", _assignment("m", field.name, "value")]
    if field.type == FieldDescriptor.TYPE_STRING:
        return [_assignment("m", field.name, "value")]  # protobuf itself refuses what is no text, and bytes are no JSON
    wrong = "type(value) is not bool"
    if kind is None:
        least, most = INTEGERS[field.type]
        wrong = f"type(value) is not int or not {least} <= value <= {most}"
    return [f"if {wrong}: return False", _assignment("m", field.name, "value")]


def _later_filler(descriptor: Descriptor) -> Filler:
    if is_recursive(descriptor):
        return lambda message, data, strict, depth: filler_of(descriptor)(message, data, strict, depth)
    return filler_of(descriptor)


def _fill_timestamp(message: Any, data: Json, _: bool, __: int) -> bool:
    if len(data) < 20 or data[10] not in "Tt ":
        return False
    since = datetime.fromisoformat(data) - EPOCH  # raises for a time without an offset
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
            fill_value(fields[key], value, "", depth + 1)
    return True


def _make_function(
    descriptor: Descriptor, purpose: str, parameters: Iterable[str], body: Iterable[str], names: Mapping[str, Any]
) -> Any:
    """Return a function made for one message type.

    purpose: its name. body: the lines of its body. names: what the lines refer to, as locals of the function.
    The lines come from the contract's descriptors and never from what somebody has sent.
    """
    bound = ", ".join((*parameters, "*", *(f"{name}={name}" for name in names))) if names else ", ".join(parameters)
    source = "\n    ".join((f"def {purpose}({bound}):", *body))
    scope: dict[str, Any] = dict(names)
    code = compile(source, f"<{purpose} {descriptor.full_name}>", "exec")
    exec(code, scope)  # noqa: S102 (the text is made of the contract's own names)
    return scope[purpose]


def _attribute(message: str, name: str) -> str:
    """Return the expression for a field's value; a few fields have the name of a Python keyword."""
    return f"getattr({message}, {name!r})" if iskeyword(name) else f"{message}.{name}"


def _assignment(message: str, name: str, value: str) -> str:
    """Return the statement that sets a scalar field."""
    return f"setattr({message}, {name!r}, {value})" if iskeyword(name) else f"{message}.{name} = {value}"
