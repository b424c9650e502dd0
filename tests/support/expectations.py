"""All domains' expectations together: what each file in tests/integration/expectations declares."""

import importlib
import re
from collections.abc import Sequence
from functools import cache
from graphlib import TopologicalSorter
from typing import Any
from uuid import uuid4

from tests.support.contract import ROOT
from tests.support.domains import Domain, Operation, Resource, Table, World

FOLDER = ROOT / "tests" / "integration" / "expectations"


@cache
def domains() -> dict[str, Domain]:
    """Return what the domains' files declare, each after those that it needs."""
    package = ".".join(FOLDER.relative_to(ROOT).parts)
    found: dict[str, Domain] = {
        file.stem: importlib.import_module(f"{package}.{file.stem}").EXPECTED for file in sorted(FOLDER.glob("*.py"))
    }
    order = TopologicalSorter({name: domain.needs for name, domain in found.items()}).static_order()
    return {name: found[name] for name in order}


def joined(part: str) -> dict[Any, Any]:
    """Return one part of all domains' declarations; no two may declare the same."""
    whole: dict[Any, Any] = {}
    for name, domain in domains().items():
        declared = getattr(domain, part)
        assert not whole.keys() & declared.keys(), f"{name} declares what another domain has: {part}"
        whole |= declared
    return whole


def path_fields(path: str) -> list[str]:
    """Return the names that a path template holds."""
    return re.findall(r"{(\w+)}", path)


def schema_folders() -> set[str]:
    """Return the domains of the database that hold tables or operations that users reach."""
    pattern = re.compile(r"^create (?:table public\.|(?:or replace )?function api\.)", re.MULTILINE)
    files = sorted((ROOT / "supabase" / "schemas").glob("*/*.sql"))
    return {file.parent.name for file in files if pattern.search(file.read_text())}


TABLES: dict[str, Table] = joined("tables")
OPERATIONS: dict[str, Operation] = joined("operations")
RESOURCES: dict[str, Resource] = joined("resources")
BODIES: dict[tuple[str, str], dict[str, Any]] = joined("bodies")
SYSTEM_OPERATIONS = frozenset(name for domain in domains().values() for name in domain.system_operations)
HELPERS = frozenset(name for domain in domains().values() for name in domain.helpers)
BAD_REQUESTS: dict[str, Sequence[tuple[str, int, str]]] = joined("bad_requests")


async def rows(world: World) -> dict[str, str]:
    """Return everything the owner has, by table."""
    answer = {}
    for name, table in TABLES.items():
        query = f"select jsonb_agg(t order by t::text)::text from public.{name} as t where {table.key}"
        answer[name] = await world.admin.fetchval(query, world.owner, world.ids["session_id"])
    return answer


def missing(world: World) -> dict[str, str]:
    """Return the world's ids, with ones that name nothing in place of those of its resources."""
    return {**world.ids, **{name: str(uuid4()) for name in RESOURCES}}
