import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest

from deploy import parts as written
from local.embedded.credentials import Credentials
from local.embedded.postgres import Postgres
from local.settings import DEFAULT_PORT, PORT_NAMES, load_settings
from local.suite.processes import service_environment, suite_variables
from servicekit import parts
from servicekit.parts import Part, PartError
from tests.contract.test_environment import variables
from tests.support.contract import PART_SETTINGS, ROOT, descriptors

SAMPLE = """
[accounts]
port = 8003
[gateway]
port = 8000
"""
CONTENTS = written.contents()


def by_name(part: Part) -> str:
    return part.name


def test_every_service_is_declared_and_has_its_folder() -> None:
    folders = {path.parent.name for path in (ROOT / "services").glob("*/__init__.py")}
    assert {part.name for part in parts.SERVICES} == folders


def test_every_grpc_service_of_the_contract_is_declared_by_the_part_whose_package_it_is_in() -> None:
    contract = {
        f"{file.package}.{service.name}"
        for file in descriptors().file
        if file.package.startswith("concerto.")
        for service in file.service
    }
    declared = [
        f"concerto.{part.name}.v1.{name}"
        for part in parts.SERVICES
        for name in (*part.services, *part.internal_services)
    ]
    assert sorted(contract) == sorted(declared)


@pytest.mark.parametrize("part", parts.SERVICES, ids=by_name)
def test_a_service_is_built_by_its_agreed_names(part: Part) -> None:
    build = importlib.import_module(f"{part.module}.__main__").build
    (settings,) = inspect.signature(build).parameters.values()
    assert settings.annotation in (PART_SETTINGS[part.name], "Settings")
    assert f'name="{part.name}"' in (ROOT / "services" / part.name / "__main__.py").read_text()


@pytest.mark.parametrize("part", parts.PARTS, ids=by_name)
def test_a_parts_settings_have_the_registrys_defaults(part: Part) -> None:
    fields = {field.validation_alias: field.default for field in PART_SETTINGS[part.name].model_fields.values()}
    assert fields[f"{part.variable}_HOST"] == "127.0.0.1"
    assert fields[f"{part.variable}_PORT"] == part.port
    assert fields.get("CONCERTO_DB_POOL_SIZE", 0) == part.pool_size
    targets = {name: default for name, default in fields.items() if str(name).endswith("_TARGET")}
    called = map(parts.named, part.calls)
    assert targets == {each.target_variable: f"127.0.0.1:{each.port}" for each in called}


@pytest.mark.parametrize("part", parts.PARTS, ids=by_name)
def test_in_the_suite_a_part_is_given_every_variable_that_it_reads(part: Part) -> None:
    read = variables(PART_SETTINGS[part.name])
    # Their kinds are not looked at, but those that `concerto` reads itself have to be right.
    numbers = {name: "9500" for name in read if re.search(r"PORT$|SECONDS$", name)}
    chosen = {**dict.fromkeys(read, "x"), **numbers, "CONCERTO_ENVIRONMENT": "production"}
    chosen |= {"SUPABASE_URL": "https://project.supabase.invalid", "CONCERTO_TLS_CLIENT_AUTH": "true"}
    chosen |= dict.fromkeys(read & {"GATEWAY_PUBLIC_URL"}, "https://concerto.invalid")
    del chosen["CONCERTO_ENVIRONMENT"]
    settings = load_settings(environment=chosen, env_file=None)
    suite = suite_variables(settings, None, None)
    suite |= {name: value for name, value in chosen.items() if name.startswith("SUPABASE_")}
    given = service_environment(part.name, settings, suite)
    # Over REST alone: with SUPABASE_DB_URL a part with a database needs no key.
    handed = {name for name in read - given.keys() if name != "SUPABASE_PUBLISHABLE_KEY" or part.publishable_key}
    assert handed - {"GATEWAY_SOCKET_FD", "CONCERTO_PROCESS_ID"} == set(), "add a prefix to services/parts.toml"


def test_the_ports_of_the_suite_are_the_default_ports() -> None:
    assert [part.port for part in parts.SERVICES] == list(range(8003, 8003 + len(parts.SERVICES)))
    for part in parts.PARTS:
        assert DEFAULT_PORT + PORT_NAMES.index(part.name) == part.port


def test_every_extra_that_a_part_needs_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for part in parts.PARTS:
        assert set(part.all_extras) <= extras.keys(), part.name


def test_two_replicas_of_every_part_open_no_more_connections_than_are_allowed() -> None:
    wanted = {part.name: 2 * part.connections for part in parts.PARTS if part.database}
    assert sum(wanted.values()) <= parts.MOST_CONNECTIONS, f"make pools of services/parts.toml smaller: {wanted}"


@pytest.mark.parametrize("file", CONTENTS, ids=str)
def test_what_is_written_from_the_registry_is_as_the_registry_has_it(file: Path) -> None:
    assert (ROOT / file).is_file(), "run `make parts`"
    assert (ROOT / file).read_text() == CONTENTS[file], "run `make parts`"


def test_nothing_is_left_of_a_service_that_is_not_declared() -> None:
    assert written.abandoned() == [], "run `make parts`"


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("[notes]\nport = 8006\ncalls = ['absent']", "calls absent"),
        ("[notes]\nport = 8003", "have one port"),
        ("[api_keys]\nport = 8006", "lower-case letters alone"),
        ("[notes]\nport = 8006\nreplicas = 2", "replicas"),
        ("[notes]\nport = 8006\ndatabase = { pool = 2 }", "pool"),
        ("[notes]", "port"),
    ],
)
def test_a_wrong_declaration_is_refused_with_what_is_wrong(addition: str, message: str) -> None:
    with pytest.raises(PartError, match=message):
        parts.read(f"{SAMPLE}{addition}\n")


def test_a_declaration_of_one_line_makes_a_part_that_the_gateway_calls() -> None:
    _, notes, gateway = parts.read(f"{SAMPLE}[notes]\nport = 8006\n")
    assert (notes.module, notes.services, notes.database) == ("services.notes", ("NotesService",), None)
    assert notes.proto_module("TeamNotesService") == "concerto.notes.v1.team_notes_pb2"
    assert gateway.calls == ("accounts", "notes")


def test_a_part_that_does_not_exist_is_named() -> None:
    with pytest.raises(PartError, match="no part 'seshions'"):
        parts.named("seshions")


def test_a_part_that_is_declared_before_its_settings_exist_is_answered_with_the_file_to_write(
    capsys: pytest.CaptureFixture[str],
) -> None:
    notes = next(part for part in parts.read(f"{SAMPLE}[notes]\nport = 8006\n") if part.name == "notes")
    assert written.main(["--check"], (*parts.SERVICES, notes)) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(
        "notes is declared in services/parts.toml, but there is no services/notes/settings.py,"
    )
    assert len(printed.err.splitlines()) == 1


def test_a_template_fills_words_and_whole_lines_and_refuses_what_it_does_not_know() -> None:
    filled = written.fill("a: {{name}}\n  {{lines}}\n  {{none}}\nb\n", {"name": "x", "lines": "1\n2\n", "none": ""})
    assert filled == "a: x\n  1\n  2\nb\n"
    with pytest.raises(written.TemplateError, match="absent"):
        written.fill("{{absent}}", {})


def test_the_registry_needs_the_standard_library_alone() -> None:
    source = (ROOT / "servicekit" / "parts.py").read_text()
    named = set(re.findall(r"^(?:import|from) (\w+)", source, flags=re.MULTILINE))
    assert named == {"re", "tomllib", "collections", "dataclasses", "pathlib", "typing"}


def test_a_suite_is_given_only_what_somebody_has_declared() -> None:
    settings = load_settings(environment={"UNDECLARED_KEY": "x"}, env_file=None)
    credentials = Credentials.generate()
    suite = suite_variables(settings, credentials, Postgres(Path("/nowhere"), 9102, credentials))
    for part in parts.PARTS:
        assert "UNDECLARED_KEY" not in service_environment(part.name, settings, suite)
