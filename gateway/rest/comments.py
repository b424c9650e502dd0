"""The contract's comments, which protoc leaves out of the generated modules: descriptions for OpenAPI."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import concerto
import structlog
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

_LOG = structlog.stdlib.get_logger(__name__)

FILE_NAME = "descriptors.binpb"
_MESSAGE, _ENUM, _SERVICE = 4, 5, 6
_FIELD, _NESTED, _NESTED_ENUM, _METHOD, _VALUE = 2, 3, 4, 2, 2


def load() -> Mapping[str, str]:
    """Return comment by full name of everything in the contract; empty, with a warning, when the file is absent."""
    path = Path(next(iter(concerto.__path__))) / FILE_NAME
    if not path.is_file():
        _LOG.warning("openapi.without_descriptions", missing=FILE_NAME)
        return {}
    return {
        name: text
        for file in FileDescriptorSet.FromString(path.read_bytes()).file
        if file.name.startswith("concerto/")
        for name, text in _comments_of(file).items()
    }


def _comments_of(file: FileDescriptorProto) -> dict[str, str]:
    names = _names(file)
    return {
        names[path]: _paragraphs(location.leading_comments)
        for location in file.source_code_info.location
        if location.leading_comments and (path := tuple(location.path)) in names
    }


def _names(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    names: dict[tuple[int, ...], str] = {}

    def add_enums(enums: Sequence[Any], prefix: str, path: tuple[int, ...]) -> None:
        for index, enum in enumerate(enums):
            names[*path, index] = f"{prefix}.{enum.name}"
            # A value's full name stands beside its enum, not inside.
            names.update({(*path, index, _VALUE, at): f"{prefix}.{value.name}" for at, value in enumerate(enum.value)})

    def add_message(message: DescriptorProto, prefix: str, path: tuple[int, ...]) -> None:
        name = f"{prefix}.{message.name}"
        names[path] = name
        names.update({(*path, _FIELD, at): f"{name}.{field.name}" for at, field in enumerate(message.field)})
        add_enums(message.enum_type, name, (*path, _NESTED_ENUM))
        for at, nested in enumerate(message.nested_type):
            add_message(nested, name, (*path, _NESTED, at))

    for index, message in enumerate(file.message_type):
        add_message(message, file.package, (_MESSAGE, index))
    add_enums(file.enum_type, file.package, (_ENUM,))
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        names[_SERVICE, index] = name
        names.update({(_SERVICE, index, _METHOD, at): f"{name}.{one.name}" for at, one in enumerate(service.method)})
    return names


def _paragraphs(comment: str) -> str:
    paragraphs = [[line.strip() for line in block.split("\n")] for block in comment.strip().split("\n\n")]
    return "\n\n".join(" ".join(lines) for lines in paragraphs)
