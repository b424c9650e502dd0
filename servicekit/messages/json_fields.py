"""What the converters know of fields: their kinds, ranges and the spellings of enums."""

from functools import cache
from typing import cast

from concerto.options.v1 import options_pb2
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

INTEGERS = {
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
FLOATS = (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT)
STRUCT = struct_pb2.Struct.DESCRIPTOR.full_name
TIMESTAMP = timestamp_pb2.Timestamp.DESCRIPTOR.full_name


def enum_spellings(enum: EnumDescriptor) -> dict[str, int]:
    """Return JSON spelling -> number for each value of the enum that may be sent."""
    prefix = _upper_snake(enum.name) + "_"
    return {
        value.GetOptions().Extensions[options_pb2.json] or value.name.removeprefix(prefix): value.number
        for value in enum.values
        if value.number != 0
    }


def is_instant(field: FieldDescriptor) -> bool:
    """Say whether the field holds one instant."""
    return not field.is_repeated and field.message_type is not None and field.message_type.full_name == TIMESTAMP


def is_map(field: FieldDescriptor) -> bool:
    """Say whether the field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


@cache
def is_recursive(descriptor: Descriptor) -> bool:
    """Say whether a message of the type may hold another one; a Struct may, but has converters of its own."""
    return descriptor.full_name not in (STRUCT, TIMESTAMP) and descriptor in _held_by(descriptor, set())


def _held_by(descriptor: Descriptor, seen: set[Descriptor]) -> set[Descriptor]:
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type not in seen:
            seen.add(field.message_type)
            _held_by(field.message_type, seen)
    return seen


def entry_field(field: FieldDescriptor, name: str) -> FieldDescriptor:
    """Return the field `key` or `value` of a map's entries."""
    entry = cast("Descriptor", field.message_type)
    return entry.fields_by_name[name]


def _upper_snake(name: str) -> str:
    return "".join(f"_{char}" if char.isupper() and index else char for index, char in enumerate(name)).upper()
