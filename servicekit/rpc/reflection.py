"""Server reflection: tells tools such as grpcurl what a server serves, in both versions of the protocol."""

from collections.abc import Iterable
from functools import cache

import grpc
from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

ALPHA = reflection.SERVICE_NAME
FIRST = ALPHA.replace("v1alpha", "v1")


def enable(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Serve reflection beside the services, which are given by their full names.

    The library serves v1alpha only, while present tools ask for v1 and some for nothing else. On the wire both versions
    are the same but for the package's name, so one servicer answers both.
    """
    _know_first_version()
    servicer = reflection.aio.ReflectionServicer((*services, ALPHA, FIRST))
    method = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (ALPHA, FIRST):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": method}),))


@cache
def _know_first_version() -> None:
    """Make v1's descriptor known, which tools ask for when they describe all that a server serves."""
    alpha = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(alpha)
    first = json_format.Parse(json_format.MessageToJson(alpha).replace("v1alpha", "v1"), FileDescriptorProto())
    descriptor_pool.Default().AddSerializedFile(first.SerializeToString())
