"""What the contract binds to HTTP: one Binding per google.api.http rule, found through the descriptors."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from concerto.options.v1 import options_pb2
from google.api import annotations_pb2, http_pb2
from google.protobuf import message_factory, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from gateway.rest.folding import folding_of
from servicekit import parts
from servicekit.rpc import contracts
from servicekit.rpc.interceptor import policy_of

# In the registry's order: where two name a message alike, the first one keeps the bare name in OpenAPI.
SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service for part in parts.SERVICES for service in contracts.public_services(part)
)
"""The services behind the gateway."""

INTERNAL_SERVICES: tuple[ServiceDescriptor, ...] = tuple(
    service for part in parts.SERVICES for service in contracts.internal_services(part)
)
"""Services that only other services call: the gateway checks that each of their rpcs says so, and opens no channel."""

AFTER_SEQ = "after_seq"
"""The field of a stream's request that says from where on; on a request over HTTP, Last-Event-ID stands for it."""
IN_BATCHES = "in_batches"
"""The field of a stream's request by which answers may hold several events."""
MORE = "more"
"""The field of such an answer that holds the events after the first."""
_TIMESTAMP = timestamp_pb2.Timestamp.DESCRIPTOR.full_name

_PARAMETER = re.compile(r"\{([^{}]*)\}")


class ContractError(Exception):
    """The contract asks for something that the gateway cannot serve; raised at start, never for a request."""


@dataclass(frozen=True)
class Binding:
    """One HTTP route of an rpc; what follows from it is worked out once."""

    method: MethodDescriptor
    """The rpc."""
    verb: str
    """GET, POST, PUT, PATCH or DELETE."""
    path: str
    """Path with its parameters in braces: `/things/{thing_id}`."""
    body: str
    """`*`, a field's name, or empty when the request has no body."""
    response_body: str
    """The field that is the answer; empty means the whole message."""

    @cached_property
    def operation_id(self) -> str:
        """Name of the operation: the rpc's."""
        return str(self.method.name)

    @cached_property
    def service(self) -> str:
        """Short name of the service: `things` for concerto.things.v1.ThingsService."""
        return short_name(self.method.containing_service)

    @cached_property
    def policy(self) -> options_pb2.MethodPolicy:
        """What the contract says about the rpc."""
        return policy_of(self.method)

    @cached_property
    def is_stream(self) -> bool:
        """Whether the rpc answers with a stream."""
        return bool(self.method.server_streaming)

    @cached_property
    def is_resumable(self) -> bool:
        """Whether the stream can be asked for from a place on."""
        return self.is_stream and AFTER_SEQ in self.method.input_type.fields_by_name

    @cached_property
    def request_type(self) -> type[Message]:
        """Class of the request message."""
        return message_factory.GetMessageClass(self.method.input_type)

    @cached_property
    def body_message(self) -> Descriptor:
        """The message that the body is: the request, or the field that the body stands for."""
        request: Descriptor = self.method.input_type
        return request if self.body in ("", "*") else message_of(request.fields_by_name[self.body])

    @cached_property
    def body_type(self) -> type[Message]:
        """Class of the message that the body is."""
        return message_factory.GetMessageClass(self.body_message)

    @cached_property
    def response_type(self) -> type[Message]:
        """Class of the response message."""
        return message_factory.GetMessageClass(self.method.output_type)

    @cached_property
    def answer(self) -> Descriptor:
        """The message that the answer (or, of a stream, each event) shows."""
        output: Descriptor = self.method.output_type
        return message_of(output.fields_by_name[self.response_body]) if self.response_body else output

    @cached_property
    def success_status(self) -> int:
        """HTTP status of success."""
        if self.policy.success_status:
            return int(self.policy.success_status)
        return 200 if self.method.output_type.fields else 204

    @cached_property
    def has_batches(self) -> bool:
        """Whether an answer holds several events, the further ones in MORE, where the request asks for it."""
        return IN_BATCHES in self.method.input_type.fields_by_name

    @cached_property
    def path_fields(self) -> tuple[str, ...]:
        """Fields that the path carries."""
        return tuple(_PARAMETER.findall(self.path))

    @cached_property
    def body_fields(self) -> tuple[FieldDescriptor, ...]:
        """Fields that the body carries, by the names that they have there."""
        if not self.body:
            return ()
        path_fields = self.path_fields if self.body == "*" else ()
        return tuple(field for field in self.body_message.fields if field.name not in path_fields)

    @cached_property
    def query_fields(self) -> dict[str, FieldDescriptor]:
        """Fields that query parameters carry, by the parameter's name (nested ones joined with dots)."""
        if self.body == "*":
            return {}
        return {
            name: field
            for name, field in _scalars(self.method.input_type, "", 0)
            if name.split(".")[0] not in (*self.path_fields, self.body)
            and not field.GetOptions().Extensions[options_pb2.rpc_only]
        }


def message_of(field: FieldDescriptor) -> Descriptor:
    """Return the message type of a field that is known to hold messages."""
    if field.message_type is None:
        raise ContractError(f"{field.full_name} does not hold messages")
    return field.message_type


def short_name(service: ServiceDescriptor) -> str:
    """Return `things` for concerto.things.v1.ThingsService."""
    return str(service.full_name.split(".")[1])


def bindings(services: Iterable[ServiceDescriptor]) -> list[Binding]:
    """Return the routes of all public rpcs; those with literal segments come before those with parameters.

    Raises ContractError for two rpcs on one route, an rpc with neither a route nor a reason, and for rules that the
    gateway cannot serve.
    """
    found = [binding for service in services for method in service.methods for binding in _bindings_of(method)]
    taken: dict[tuple[str, str], Binding] = {}
    for binding in found:
        _check(binding)
        key = (binding.verb, _PARAMETER.sub("{}", binding.path))
        if key in taken:
            names = f"{taken[key].method.full_name} and {binding.method.full_name}"
            raise ContractError(f"{names} are both bound to {binding.verb} {binding.path}")
        taken[key] = binding
    return sorted(found, key=lambda one: [("{" in segment, segment) for segment in one.path.split("/")])


def check_internal(services: Iterable[ServiceDescriptor]) -> None:
    """Raise ContractError for an rpc of these services that has a route, or no reason for having none."""
    for binding in bindings(services):
        raise ContractError(f"{binding.method.full_name} has a route, but its service is internal")


def _bindings_of(method: MethodDescriptor) -> Iterator[Binding]:
    options = method.GetOptions()
    policy = policy_of(method)
    if not options.HasExtension(annotations_pb2.http):
        if not policy.internal_reason:
            raise ContractError(f"{method.full_name} has neither a route nor an internal_reason")
        return
    if policy.internal_reason:
        raise ContractError(f"{method.full_name} has both a route and an internal_reason")
    rule: http_pb2.HttpRule = options.Extensions[annotations_pb2.http]
    for one in (rule, *rule.additional_bindings):
        verb = one.WhichOneof("pattern")
        if verb is None or verb == "custom":
            raise ContractError(f"{method.full_name}: the route needs get, post, put, patch or delete")
        yield Binding(method, verb.upper(), getattr(one, verb), one.body, one.response_body)


def _check(binding: Binding) -> None:
    name, fields = binding.method.full_name, binding.method.input_type.fields_by_name
    if binding.method.client_streaming:
        raise ContractError(f"{name}: client streams have no HTTP form")
    if not binding.path.startswith("/") or "*" in binding.path:
        raise ContractError(f"{name}: {binding.path} must begin with / and hold no wildcards")
    for parameter in binding.path_fields:
        if parameter not in fields or fields[parameter].message_type is not None:
            raise ContractError(f"{name}: {{{parameter}}} is not a scalar field of {binding.method.input_type.name}")
    if binding.body not in ("", "*"):
        field = fields.get(binding.body)
        if field is None or field.message_type is None or field.is_repeated:
            raise ContractError(f"{name}: body {binding.body!r} is not a message field of the request")
    if any(field.GetOptions().Extensions[options_pb2.rpc_only] for field in binding.body_fields):
        raise ContractError(f"{name}: a field that has no place in REST stands in the body")
    if binding.has_batches and MORE not in binding.method.output_type.fields_by_name:
        raise ContractError(f"{name}: answers that may hold several events need {MORE!r}")
    answer: Any = binding.method.output_type.fields_by_name
    if binding.response_body:
        field = answer.get(binding.response_body)
        if field is None or field.message_type is None or field.is_repeated:
            raise ContractError(f"{name}: response_body {binding.response_body!r} is not a message of the response")
    by_hand = bool(binding.policy.handwritten_reason)
    parts = {*binding.answer.fields_by_name, *binding.answer.oneofs_by_name}
    if binding.is_stream and not by_hand and not {"seq", "payload"} <= parts:
        raise ContractError(f"{name}: the events of a stream need `seq` and a oneof `payload`")
    if binding.is_stream and not by_hand:
        try:
            folding_of(binding.answer)
        except ValueError as error:
            raise ContractError(f"{name}: {error}") from None


def _scalars(descriptor: Descriptor, prefix: str, depth: int) -> Iterator[tuple[str, FieldDescriptor]]:
    for field in descriptor.fields:
        if field.message_type is None or (field.message_type.full_name == _TIMESTAMP and not field.is_repeated):
            yield prefix + field.name, field
        elif not field.is_repeated and depth < 2 and not field.message_type.full_name.startswith("google.protobuf."):
            yield from _scalars(field.message_type, f"{prefix}{field.name}.", depth + 1)
