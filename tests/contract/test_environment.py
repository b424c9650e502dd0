import importlib
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from servicekit import parts
from tests.support.contract import ROOT

EXAMPLE = (ROOT / ".env.example").read_text()
NAMES = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", EXAMPLE, flags=re.MULTILINE))
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for folder in ("servicekit", "services", "gateway", "local")
    for path in sorted((ROOT / folder).rglob("settings.py"))
]


def settings_classes() -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for name in MODULES:
        module = importlib.import_module(name)
        found += [
            item
            for item in vars(module).values()
            if isinstance(item, type) and issubclass(item, BaseModel) and item.__module__ == name
        ]
    return found


def variables(settings: type[BaseModel]) -> set[str]:
    aliases = {field.validation_alias for field in settings.model_fields.values()}
    return {alias for alias in aliases if isinstance(alias, str)}


ALL = set().union(*(variables(settings) for settings in settings_classes()))


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_variable_that_is_read_is_explained(name: str) -> None:
    assert name in NAMES, "add it to .env.example with its meaning"


@pytest.mark.parametrize("part", parts.SERVICES, ids=lambda part: part.name)
def test_where_a_service_listens_and_is_found_is_explained(part: parts.Part) -> None:
    for line in (f"{part.variable}_HOST=127.0.0.1", f"{part.variable}_PORT={part.port}"):
        assert f"# {line}\n" in EXAMPLE, "run `make parts`"
    assert f"# {part.target_variable}=127.0.0.1:{part.port}\n" in EXAMPLE, "run `make parts`"


def test_every_variable_that_is_explained_is_read() -> None:
    elsewhere = {"CONCERTO_ENV_FILE"}  # needed before any settings are read
    elsewhere |= set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    assert NAMES - ALL - elsewhere == set()


def test_the_environment_is_read_in_settings_only() -> None:
    # local/ hands environments to the processes it starts, so it may read its own.
    for folder in ("servicekit", "services", "gateway"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "settings.py" and "tests" not in path.parts:
                assert "environ" not in path.read_text().replace("environment", ""), path


def test_the_example_holds_no_value_that_could_be_a_secret() -> None:
    for line in EXAMPLE.splitlines():
        name, _, value = line.lstrip("# ").partition("=")
        if re.search(r"KEY|SECRET|PASSWORD(?!_HASH_COST)|TOKEN(?!S|_SECONDS)|DB_URL", name):
            assert not value or value.startswith("<"), line


def test_settings_live_where_the_house_says() -> None:
    assert {Path(name.replace(".", "/")).parts[0] for name in MODULES} == {"servicekit", "services", "gateway", "local"}
