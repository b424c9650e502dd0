import importlib
import os
import re
import subprocess
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from local.settings import ROOT
from local.suite.processes import node_program
from servicekit.settings import ServiceKeySettings
from tests.support import contract

OURS = [file for file in contract.descriptors().file if file.package.startswith("concerto.")]
SERVICES = [(file, service) for file in OURS for service in file.service]
RPCS = [(service, rpc) for _, service in SERVICES for rpc in service.method]
ENUMS = [(file, enum) for file in OURS for enum in file.enum_type]


def fields(file: descriptor_pb2.FileDescriptorProto, name: str) -> set[str]:
    message = next(message for message in file.message_type if message.name == name)
    return {field.name for field in message.field}


def elements(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the path (as in SourceCodeInfo) and name of everything that wants a comment."""
    yield (12,), "package"
    for n, service in enumerate(file.service):
        yield (6, n), service.name
        for m, rpc in enumerate(service.method):
            yield (6, n, 2, m), f"{service.name}.{rpc.name}"
    for n, message in enumerate(file.message_type):
        yield (4, n), message.name
        for m, entry in enumerate(message.field):
            yield (4, n, 2, m), f"{message.name}.{entry.name}"
    for n, enum in enumerate(file.enum_type):
        yield (5, n), enum.name
        for m, value in enumerate(enum.value):
            yield (5, n, 2, m), f"{enum.name}.{value.name}"


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_a_package_is_named_for_its_folder_and_ends_in_a_version(file: descriptor_pb2.FileDescriptorProto) -> None:
    assert file.package.replace(".", "/") == str(Path(file.name).parent)
    assert file.package.split(".")[-1].startswith("v")


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.name)
def test_everything_has_a_comment(file: descriptor_pb2.FileDescriptorProto) -> None:
    commented = {tuple(source.path) for source in file.source_code_info.location if source.leading_comments.strip()}
    assert [name for path, name in elements(file) if path not in commented and path != (12,)] == []


@pytest.mark.parametrize(("file", "service"), SERVICES, ids=lambda item: item.name)
def test_a_service_says_so_in_its_name(
    file: descriptor_pb2.FileDescriptorProto, service: descriptor_pb2.ServiceDescriptorProto
) -> None:
    assert service.name.endswith("Service")
    assert file.service[0].name == service.name, "one service per file, first in it"


@pytest.mark.parametrize(("service", "rpc"), RPCS, ids=lambda item: item.name)
def test_an_rpc_owns_its_request_and_response(
    service: descriptor_pb2.ServiceDescriptorProto, rpc: descriptor_pb2.MethodDescriptorProto
) -> None:
    assert rpc.input_type.split(".")[-1] == f"{rpc.name}Request"
    assert rpc.output_type.split(".")[-1] == f"{rpc.name}Response"


@pytest.mark.parametrize(("service", "rpc"), RPCS, ids=lambda item: item.name)
def test_a_list_is_paged(
    service: descriptor_pb2.ServiceDescriptorProto, rpc: descriptor_pb2.MethodDescriptorProto
) -> None:
    if not rpc.name.startswith("List"):
        return
    file = next(file for file, found in SERVICES if found is service)
    assert {"page_size", "page_token"} <= fields(file, f"{rpc.name}Request")
    assert "next_page_token" in fields(file, f"{rpc.name}Response")


@pytest.mark.parametrize(("file", "enum"), ENUMS, ids=lambda item: item.name)
def test_an_enum_begins_with_unspecified_and_prefixes_its_values(
    file: descriptor_pb2.FileDescriptorProto, enum: descriptor_pb2.EnumDescriptorProto
) -> None:
    prefix = contract.upper_snake(enum.name)
    assert enum.value[0].number == 0
    assert enum.value[0].name == f"{prefix}_UNSPECIFIED"
    assert all(value.name.startswith(f"{prefix}_") for value in enum.value)


@pytest.mark.parametrize("method", contract.methods(), ids=lambda method: method.full_name)
def test_an_rpc_has_a_route_or_says_why_not(method: contract.Method) -> None:
    assert bool(method.bindings) != bool(method.policy.internal_reason)


def compared_with_what_landed(file: Path) -> "subprocess.CompletedProcess[str]":
    """Compare a descriptor set with the landed contract, as `make lint` does with the one that is compiled now."""
    command = next(
        line.strip() for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t$(BUF) breaking")
    )
    for name, value in (("BUF", ROOT / "node_modules/.bin/buf"), ("CONTRACT", file), ("LANDED", "protos/landed.binpb")):
        command = command.replace(f"$({name})", str(value))
    path = os.pathsep.join((str(node_program().parent), os.defpath))
    return subprocess.run(command.split(), cwd=ROOT, env={"PATH": path}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("change", ["field removed", "number changed", "type changed", "rpc removed"])
def test_a_change_that_breaks_clients_of_the_landed_contract_is_found(change: str, tmp_path: Path) -> None:
    landed = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "protos" / "landed.binpb").read_bytes())
    file = tmp_path / "changed.binpb"
    file.write_bytes(landed.SerializeToString())
    same = compared_with_what_landed(file)
    assert (same.returncode, same.stdout) == (0, ""), same.stderr
    auth = next(entry for entry in landed.file if entry.package == "concerto.auth.v1")
    message = next(entry for entry in auth.message_type if len(entry.field) > 1)
    if change == "field removed":
        del message.field[-1]
    elif change == "number changed":
        message.field[-1].number += 100
    elif change == "type changed":
        message.field[0].ClearField("type_name")
        message.field[0].type = descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE
    else:
        del auth.service[0].method[0]
    file.write_bytes(landed.SerializeToString())
    broken = compared_with_what_landed(file)
    assert broken.returncode == 100, broken.stderr
    assert "auth.proto" in broken.stdout


@pytest.mark.parametrize("method", contract.methods(), ids=lambda method: method.full_name)
def test_what_is_left_to_services_has_no_route_and_its_server_knows_their_key(method: contract.Method) -> None:
    if not method.policy.services_only:
        return
    assert method.policy.internal_reason
    service = method.full_name.split(".")[1]
    settings = importlib.import_module(f"services.{service}.settings").Settings
    assert issubclass(settings, ServiceKeySettings)


def test_prices_and_limits_are_left_to_services() -> None:
    """Whatever rpc takes them: they are never a user's to say."""
    taking = [method for method in contract.methods() if "prices" in method.descriptor.input_type.fields_by_name]
    assert [method.full_name for method in taking if not method.policy.services_only] == []
    assert len(taking) >= 2


KEPT = sorted((contract.ROOT / "protos" / "google").rglob("*.proto"))


def test_the_contract_holds_all_that_it_imports_but_what_every_compiler_brings() -> None:
    folder = contract.ROOT / "protos"
    missing = [
        f"{path.relative_to(folder)}: {name}"
        for path in folder.rglob("*.proto")
        for name in re.findall(r'^import "([^"]+)";', path.read_text(), re.MULTILINE)
        if not name.startswith("google/protobuf/") and not (folder / name).exists()
    ]
    assert missing == []
    assert "Apache License" in (folder / "google" / "LICENSE").read_text()


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_googles_files_are_those_of_its_package(path: Path) -> None:
    # Generated code for Python comes from there, so both have to be of one version.
    theirs = distribution("googleapis-common-protos").locate_file(path.relative_to(contract.ROOT / "protos"))
    assert path.read_bytes() == Path(str(theirs)).read_bytes(), f"copy {theirs} again"
