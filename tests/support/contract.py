"""The contract as the tests enumerate it: files, services, rpcs and their routes."""

import importlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from concerto.options.v1 import options_pb2
from concerto.sessions.v1 import sessions_pb2
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor

from servicekit import parts
from servicekit.messages import validation
from servicekit.rpc import contracts
from servicekit.settings import ProcessSettings

ROOT = Path(__file__).resolve().parent.parent.parent
PART_SETTINGS: dict[str, type[ProcessSettings]] = {
    part.name: importlib.import_module(f"{part.module}.settings").Settings for part in parts.PARTS
}
"""What each registered part reads its environment with."""
MAX_CONTENT_BYTES = validation.limits_of(sessions_pb2.NewMessage.DESCRIPTOR.fields_by_name["content"]).max_bytes
"""Most bytes of a message."""


@dataclass(frozen=True)
class Method:
    """One rpc."""

    descriptor: MethodDescriptor
    bindings: tuple[tuple[str, str], ...]
    """HTTP verb in capitals and path template, per google.api.http binding."""
    policy: options_pb2.MethodPolicy

    @property
    def full_name(self) -> str:
        """For instance concerto.auth.v1.AuthService.GetMe."""
        return str(self.descriptor.full_name)


@cache
def descriptors() -> descriptor_pb2.FileDescriptorSet:
    """Return all files with their comments."""
    return descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen" / "concerto" / "descriptors.binpb").read_bytes())


@cache
def methods() -> tuple[Method, ...]:
    """Return every rpc of every service."""
    return tuple(
        Method(
            descriptor=method,
            bindings=_bindings(method),
            policy=method.GetOptions().Extensions[options_pb2.policy],
        )
        for part in parts.SERVICES
        for service in (*contracts.public_services(part), *contracts.internal_services(part))
        for method in service.methods
    )


def upper_snake(name: str) -> str:
    """Return RunState as RUN_STATE."""
    return "".join(f"_{char}" if char.isupper() and index else char for index, char in enumerate(name)).upper()


def _bindings(method: MethodDescriptor) -> tuple[tuple[str, str], ...]:
    options = method.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return ()
    rule = options.Extensions[annotations_pb2.http]
    return tuple(
        (each.WhichOneof("pattern").upper(), getattr(each, each.WhichOneof("pattern")))
        for each in (rule, *rule.additional_bindings)
    )
