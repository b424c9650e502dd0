import ast
import json
import re
from pathlib import Path

import pytest

from local.setup import lock
from servicekit import parts
from tests.support.contract import ROOT

SERVICES = sorted(path.name for path in (ROOT / "services").iterdir() if (path / "__init__.py").exists())
AGREED_FILES = {"__init__.py", "__main__.py", "README.md", "reasons.py", "settings.py", "tests"}
CLIENTS = ROOT / "tests" / "clients"
README_HEADINGS = ("## Owns", "## Rpcs", "## Environment", "## Run alone", "## Test alone")


def sources(*folders: str) -> list[Path]:
    return [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "tests" not in path.relative_to(ROOT).parts
    ]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_the_agreed_files_and_each_of_its_proto_services_a_servicer(service: str) -> None:
    names = {path.name for path in (ROOT / "services" / service).iterdir()}
    protos = (ROOT / "protos" / "concerto" / service / "v1").glob("*.proto")
    nouns = {file.stem for file in protos if re.search(r"^service ", file.read_text(), re.MULTILINE)}
    assert names >= AGREED_FILES
    assert {name for name in names if name.endswith("servicer.py")} == {f"{noun}_servicer.py" for noun in nouns}
    # A service without a database calls another one for what is kept.
    stores = {name for name in names if name.endswith("store.py")}
    assert stores in ({f"{noun}_store.py" for noun in nouns}, set())


@pytest.mark.parametrize("service", SERVICES)
def test_a_services_readme_has_the_agreed_parts_and_names_its_modules_and_no_others(service: str) -> None:
    folder = ROOT / "services" / service
    readme = (folder / "README.md").read_text()
    assert [heading for heading in README_HEADINGS if heading not in readme] == []
    # Paths from the root, such as those of tests, are looked up by test_pages.py.
    named = {name for name in re.findall(r"`([\w/]+\.py)`", readme) if not (ROOT / name.split("/")[0]).is_dir()}
    modules = {str(path.relative_to(folder)) for path in sources(f"services/{service}")}
    written = {name for name in modules if not name.endswith("__init__.py")} - AGREED_FILES
    assert sorted(written - named) == [], "the README names every module by its path below the service"
    assert sorted(named - modules) == [], "there is no such module"


@pytest.mark.parametrize("service", SERVICES)
def test_services_never_import_each_other(service: str) -> None:
    others = tuple(f"services.{other}" for other in SERVICES if other != service)
    for path in sources(f"services/{service}"):
        assert not [name for name in imports(path) if name.startswith((*others, "gateway", "local"))], path


def test_servicekit_and_gateway_know_no_service() -> None:
    for path in sources("servicekit", "gateway"):
        assert not [name for name in imports(path) if name.startswith(("services", "local"))], path


@pytest.mark.parametrize("part", [part for part in parts.SERVICES if not part.database], ids=lambda part: part.name)
def test_a_service_that_declares_no_database_has_none(part: parts.Part) -> None:
    for path in sources(f"services/{part.name}"):
        assert not [name for name in imports(path) if name.startswith(("servicekit.database", "asyncpg", "supabase"))]


def test_the_supabase_folder_never_shadows_the_library() -> None:
    assert not (ROOT / "supabase" / "__init__.py").exists()


def locks(name: str) -> list[Path]:
    return [ROOT / name, *([ROOT / "web" / name] if (ROOT / "web" / name).exists() else []), *CLIENTS.glob(f"*/{name}")]


@pytest.mark.parametrize("path", locks("requirements.lock"), ids=lambda path: path.parent.name)
def test_a_lock_of_python_packages_names_no_addresses_and_has_hashes(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert text.count("==") > 0
    assert [line for line in re.findall(r"^\S+==.*$", text, re.MULTILINE) if not line.endswith("\\")] == []


@pytest.mark.parametrize("path", locks("package-lock.json"), ids=lambda path: path.parent.name)
def test_a_lock_of_node_packages_names_no_addresses_and_has_hashes(path: Path) -> None:
    packages = json.loads(path.read_text())["packages"]
    entries = {name: entry for name, entry in packages.items() if name}
    assert [name for name, entry in entries.items() if "resolved" in entry] == []
    assert [name for name, entry in entries.items() if "integrity" not in entry and not entry.get("inBundle")] == []


@pytest.mark.parametrize("path", locks("package-lock.json"), ids=lambda path: path.parent.name)
def test_every_optional_package_of_a_lock_is_locked_itself(path: Path) -> None:
    # npm writes a lock without the packages of other platforms when a registry lags behind; `npm ci` then fails.
    assert lock.gaps(json.loads(path.read_text())) == [], "run `make lock` or `make lock-clients`"


def test_npm_versions_are_exact() -> None:
    package = json.loads((ROOT / "package.json").read_text())
    versions = {**package.get("dependencies", {}), **package.get("devDependencies", {})}
    assert [name for name, version in versions.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []


def test_no_npm_script_asks_for_a_database_in_docker() -> None:
    # Without --remote the Supabase CLI looks for its own local stack, which never runs here.
    scripts = json.loads((ROOT / "package.json").read_text())["scripts"]
    targeted = {
        name: script for name, script in scripts.items() if re.match(r"supabase (db|migration (up|list))", script)
    }
    assert targeted
    assert [name for name, script in targeted.items() if "--remote" not in script] == []
