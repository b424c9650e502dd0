"""The gRPC services of the registered parts, as descriptors of the generated contract."""

import importlib

from google.protobuf.descriptor import ServiceDescriptor

from servicekit.parts import Part


def public_services(part: Part) -> tuple[ServiceDescriptor, ...]:
    """Return a part's services that have routes. Raises ImportError or KeyError for one that the contract lacks."""
    return tuple(_service(part, name) for name in part.services)


def internal_services(part: Part) -> tuple[ServiceDescriptor, ...]:
    """Return a part's services that only other services call. Raises as `public_services` does."""
    return tuple(_service(part, name) for name in part.internal_services)


def _service(part: Part, name: str) -> ServiceDescriptor:
    module = importlib.import_module(part.proto_module(name))
    found: ServiceDescriptor = module.DESCRIPTOR.services_by_name[name]
    return found
