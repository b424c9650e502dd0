import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto

from tests.support.contract import ROOT, descriptors

SHARED_PACKAGES = {"concerto.errors.v1", "concerto.options.v1"}
GENERAL_NAMES: set[str] = set()
FOLDERS = ("benchmarks", "deploy", "gateway", "local", "servicekit", "services", "tests")
PATHS = {path: path.stem for path in ROOT.glob("*.py")} | {
    path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
}
MODULES = frozenset(PATHS.values())


def imports(path: Path) -> Iterator[str]:
    """Yield what a module imports, at its top, within functions and for types alone: modules, or names within them."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom():
                raise AssertionError(f"{path} imports relatively")
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module)), *_]):
                yield module
            case _:
                pass


def module_of(name: str) -> str | None:
    """Return the module of ours that a name is or is in; None for others' names."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def graph() -> Mapping[str, frozenset[str]]:
    found = {
        name: frozenset(module for each in imports(path) if (module := module_of(each)) not in (None, name))
        for path, name in PATHS.items()
    }
    return {name: frozenset(str(module) for module in modules) for name, modules in found.items()}


def circles(edges: Mapping[str, frozenset[str]]) -> list[list[str]]:
    """Return the groups of modules of which each reaches all others."""
    reach = {name: set(direct) for name, direct in edges.items()}
    while True:
        grown = {name: known.union(*(reach[other] for other in known)) for name, known in reach.items()}
        if grown == reach:
            break
        reach = grown
    groups = {frozenset(other for other in reach[name] if name in reach[other]) for name in reach}
    return sorted(sorted(group) for group in groups if group)


def domain_names() -> set[str]:
    """Return what only a domain's own parts may speak of: services, rpcs, messages, payloads of events, operations."""
    found: set[str] = set()

    def add(message: DescriptorProto) -> None:
        found.add(message.name)
        found.update(
            field.name for field in message.field if field.HasField("oneof_index") and not field.proto3_optional
        )
        for inner in message.nested_type:
            add(inner)

    for file in descriptors().file:
        if file.package.startswith("concerto.") and file.package not in SHARED_PACKAGES:
            for service in file.service:
                found |= {service.name, *(method.name for method in service.method)}
            found |= {enum.name for enum in file.enum_type}
            for message in file.message_type:
                add(message)
    sql = "\n".join(path.read_text() for path in (ROOT / "supabase" / "schemas").rglob("*.sql"))
    found |= set(re.findall(r"create (?:or replace )?function (?:api|private)\.(\w+)", sql))
    # Words of the trade that the contract uses, too: a message of protobuf, Python's Run…
    return {name for name in found if "_" in name or re.fullmatch(r"(?:[A-Z]+[a-z0-9]+){2,}", name)} - GENERAL_NAMES


@pytest.mark.parametrize("folder", ["servicekit", "gateway/rest"])
def test_shared_code_knows_no_domain(folder: str) -> None:
    names = domain_names()
    assert {"RunEvent", "SessionsService", "GetRun", "message_delta", "append_run_events"} <= names
    packages = {package for file in descriptors().file if (package := file.package).startswith("concerto.")}
    modules = tuple(package for package in packages - SHARED_PACKAGES)
    assert len(modules) >= 3
    for path in (ROOT / folder).rglob("*.py"):
        if "tests" in path.relative_to(ROOT).parts:
            continue
        assert [name for name in imports(path) if name.startswith(modules)] == [], path
        spoken = set(re.findall(r"\w+", path.read_text()))
        assert spoken & names == set(), path


def test_no_modules_import_each_other_in_a_circle() -> None:
    edges = graph()
    assert sum(map(len, edges.values())) > 500
    assert circles(edges) == []


def test_a_circle_would_be_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set[str]()}
    assert circles({name: frozenset(found) for name, found in edges.items()}) == [["a", "b", "c"]]
