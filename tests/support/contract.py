"""The contract as the tests enumerate it: files, services, rpcs and their routes."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from concerto.auth.v1 import auth_pb2
from concerto.options.v1 import options_pb2
from concerto.orchestrator.v1 import orchestrator_pb2
from concerto.sessions.v1 import runs_pb2, sessions_pb2
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import MethodDescriptor

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = (auth_pb2, sessions_pb2, runs_pb2, orchestrator_pb2)


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
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
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
