"""Lets buf use the generators within grpcio-tools, which are no programs of their own.

`protoc_gen.py python` (or pyi, grpc_python) reads a CodeGeneratorRequest and writes a CodeGeneratorResponse.
"""

import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2
from grpc_tools import protoc


def main() -> int:
    """Generate and return the exit code; what is wrong with a contract stands in stderr."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    with tempfile.TemporaryDirectory() as folder:
        contract, output = Path(folder) / "contract.binpb", Path(folder) / "out"
        output.mkdir()
        contract.write_bytes(descriptor_pb2.FileDescriptorSet(file=request.proto_file).SerializeToString())
        arguments = [f"--descriptor_set_in={contract}", f"--{sys.argv[1]}_out={request.parameter}:{output}"]
        code = protoc.main(["protoc", *arguments, *request.file_to_generate])
        if code:
            return int(code)
        for path in sorted(path for path in output.rglob("*") if path.is_file()):
            response.file.add(name=str(path.relative_to(output)), content=path.read_text())
    sys.stdout.buffer.write(response.SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())
