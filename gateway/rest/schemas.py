"""JSON schemas of the contract's messages, as the converter reads and writes them."""

from collections.abc import Iterable, Mapping
from typing import Any

from concerto.options.v1 import options_pb2
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from servicekit.messages import validation
from servicekit.messages.json_fields import enum_spellings

Schema = dict[str, Any]

_INTEGERS: Mapping[int, tuple[str, int, int]] = {
    FieldDescriptor.TYPE_INT32: ("int32", -(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: ("int32", -(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SFIXED32: ("int32", -(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: ("int64", 0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: ("int64", 0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: ("int64", -(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SINT64: ("int64", -(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: ("int64", -(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: ("int64", 0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: ("int64", 0, 2**64 - 1),
}
_STRUCT = struct_pb2.Struct.DESCRIPTOR.full_name
_TIMESTAMP = timestamp_pb2.Timestamp.DESCRIPTOR.full_name


class Schemas:
    """Makes schemas and collects the named ones for `components.schemas`.

    comments: description by full name.
    A message in answers (every field is written, unset ones as null) and in requests (limits, required fields,
    nothing unknown) has two schemas. Ask for answers first: the second one is then named with `Input` at the end.
    """

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self._names: dict[tuple[str, bool], str] = {}
        self.components: dict[str, Schema] = {}

    def description(self, full_name: str) -> str:
        """Return what the contract says of a name; empty when it says nothing."""
        return self._comments.get(full_name, "")

    def output(self, descriptor: Descriptor) -> Schema:
        """Return the schema of a message in answers, as a reference."""
        return self._reference(descriptor, descriptor.fields, is_input=False)

    def input(self, descriptor: Descriptor, fields: Iterable[FieldDescriptor] | None = None) -> Schema:
        """Return the schema of a message in requests, as a reference.

        fields: those that the body carries, when others are in the path.
        """
        return self._reference(descriptor, descriptor.fields if fields is None else fields, is_input=True)

    def parameter(self, field: FieldDescriptor) -> Schema:
        """Return the schema of a query or path parameter."""
        return self._value(field, is_input=True)

    def add(self, name: str, schema: Schema) -> Schema:
        """Add a schema that no message has, and return a reference to it."""
        self.components[name] = schema
        return {"$ref": f"#/components/schemas/{name}"}

    def _reference(self, descriptor: Descriptor, fields: Iterable[FieldDescriptor], *, is_input: bool) -> Schema:
        key = (descriptor.full_name, is_input)
        if key not in self._names:
            name = self._free_name(descriptor, is_input=is_input)
            self._names[key] = name
            self.components[name] = {}  # a placeholder: a message may hold itself
            self.components[name] = self._object(descriptor, list(fields), is_input=is_input)
        return {"$ref": f"#/components/schemas/{self._names[key]}"}

    def _free_name(self, descriptor: Descriptor | EnumDescriptor, *, is_input: bool) -> str:
        package = descriptor.file.package.split(".")[1].capitalize()
        plain = descriptor.name + ("Input" if is_input and (descriptor.full_name, False) in self._names else "")
        return plain if plain not in self.components else package + plain

    def _object(self, descriptor: Descriptor, fields: list[FieldDescriptor], *, is_input: bool) -> Schema:
        properties = {field.name: self._field(field, is_input=is_input) for field in fields}
        schema: Schema = {"type": "object", "properties": properties}
        choices = {field.name for oneof in descriptor.oneofs for field in oneof.fields if len(oneof.fields) > 1}
        if is_input:
            required = [field.name for field in fields if validation.is_required(field)]
            schema["additionalProperties"] = False
        else:
            required = [field.name for field in fields if field.name not in choices]
        if required:
            schema["required"] = required
        return _described(schema, self.description(descriptor.full_name))

    def _field(self, field: FieldDescriptor, *, is_input: bool) -> Schema:
        schema = self._value(field, is_input=is_input)
        if field.has_presence and not is_input:
            schema = _nullable(schema)
        return _described(schema, self.description(field.full_name))

    def _value(self, field: FieldDescriptor, *, is_input: bool) -> Schema:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            entry = field.message_type.fields_by_name["value"]
            return {"type": "object", "additionalProperties": self._one(entry, is_input=is_input)}
        one = self._one(field, is_input=is_input)
        if not field.is_repeated:
            return one
        schema: Schema = {"type": "array", "items": one}
        limits = validation.limits_of(field)
        if is_input and limits.min_items:
            schema["minItems"] = limits.min_items
        if is_input and limits.max_items:
            schema["maxItems"] = limits.max_items
        return schema

    def _one(self, field: FieldDescriptor, *, is_input: bool) -> Schema:
        if field.message_type is not None:
            return self._message(field.message_type, is_input=is_input)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        limits = validation.limits_of(field)
        if field.type in _INTEGERS:
            kind, least, most = _INTEGERS[field.type]
            bounds = {"minimum": limits.min if limits.has_min else least, "maximum": most} if is_input else {}
            return {"type": "integer", "format": kind, **bounds}
        if field.type == FieldDescriptor.TYPE_STRING:
            return self._text(field, limits, is_input=is_input)
        return {"type": "number"}

    def _message(self, descriptor: Descriptor, *, is_input: bool) -> Schema:
        if descriptor.full_name == _TIMESTAMP:
            return {"type": "string", "format": "date-time"}
        if descriptor.full_name == _STRUCT:
            return {"type": "object", "additionalProperties": True}
        return self.input(descriptor) if is_input else self.output(descriptor)

    def _text(self, field: FieldDescriptor, limits: options_pb2.Limits, *, is_input: bool) -> Schema:
        schema: Schema = {"type": "string"}
        if validation.is_uuid(field):
            schema["format"] = "uuid"
        if not is_input:
            return schema
        if validation.is_required(field):
            schema["minLength"] = 1
        # A text has at least as many bytes as characters, so a bound in bytes also bounds its length.
        most = [bound for bound in (limits.max_chars, limits.max_bytes) if bound]
        if limits.format == options_pb2.STRING_FORMAT_EMAIL:
            schema["format"] = "email"
            most.append(254)
        elif limits.format == options_pb2.STRING_FORMAT_HTTP_URL:
            schema["format"] = "uri"
        if most:
            schema["maxLength"] = min(most)
        if limits.max_bytes:
            schema["x-max-bytes"] = limits.max_bytes
        return schema

    def _enum(self, enum: EnumDescriptor) -> Schema:
        key = (enum.full_name, False)
        if key not in self._names:
            self._names[key] = self._free_name(enum, is_input=False)
            spellings = enum_spellings(enum)
            numbers = {value.number: self.description(f"{enum.file.package}.{value.name}") for value in enum.values}
            meanings = [f"`{name}`: {numbers[number]}" for name, number in spellings.items() if numbers[number]]
            text = "\n\n".join(part for part in (self.description(enum.full_name), "\n".join(meanings)) if part)
            self.components[self._names[key]] = _described({"type": "string", "enum": list(spellings)}, text)
        return {"$ref": f"#/components/schemas/{self._names[key]}"}


def _nullable(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description} if description else schema
