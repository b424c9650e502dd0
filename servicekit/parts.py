"""The registry of parts: what services/parts.toml declares of each process of ours.

Whatever has to know a part reads this module: the gateway's targets, `concerto`, images, the contract tests. What
cannot (compose, manifests, Dockerfile, .env.example) is written from it by `make parts` and compared with it by tests.
Image builds read it too, so it needs the standard library alone.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parent.parent / "services" / "parts.toml"
"""Where the parts are declared."""
METRICS_PORT = 9464
"""Where every container serves its metrics."""
MOST_CONNECTIONS = 45
"""Most connections to Postgres of two replicas of every part: the smallest hosted projects give about 60."""


class PartError(Exception):
    """The registry is wrong, or there is no such part. The message says what to change."""


@dataclass(frozen=True, slots=True)
class Database:
    """What a part opens to Postgres."""

    pool_size: int = 2
    """Most connections of its pool, unless CONCERTO_DB_POOL_SIZE says otherwise."""
    listeners: int = 0
    """Further connections on which it listens for notifications."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A variable that Kubernetes takes from an entry of a Secret."""

    variable: str
    name: str
    """The Secret's name."""
    key: str
    """The entry's name in it."""
    optional: bool = False
    """Whether the part starts without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One process: a gRPC service `services.<name>` with the contract `concerto.<name>.v1`, or the gateway."""

    name: str
    """Lower-case letters alone, as it stands in names of modules, hosts and variables."""
    port: int
    """Where it listens by default and in containers; services have the numbers from 8003 on, without a gap."""
    services: tuple[str, ...] = ()
    """Its gRPC services that have routes, by their short names; absent: `NotesService` for notes."""
    internal_services: tuple[str, ...] = ()
    """Its gRPC services that only other services call, by their short names."""
    calls: tuple[str, ...] = ()
    """The parts that it calls; each gives it a variable `<NAME>_TARGET`."""
    database: Database | None = None
    """What it opens to Postgres; absent: it has no database."""
    publishable_key: bool = False
    """Whether it needs the Supabase project's publishable key even where it has a database."""
    prefixes: tuple[str, ...] = ()
    """What the names of its variables begin with, besides `<NAME>_` and what every part is given."""
    extras: tuple[str, ...] = ()
    """The extras of pyproject.toml that only it needs."""
    loads: tuple[str, ...] = ()
    """Modules that it loads later than at its start, and that its image must be able to load."""
    secrets: tuple[Secret, ...] = ()
    """Secrets of its own."""
    cpu_millicores: int = 100
    """Thousandths of a core that a pod requests."""
    memory_mib: int = 96
    """Memory that a pod requests, in MiB."""
    memory_limit_mib: int = 256
    """Memory at which a container is ended, in MiB."""
    memory_target_mib: int | None = None
    """Memory per pod, in MiB, above which the autoscaler adds one; absent: CPU alone counts."""

    @property
    def module(self) -> str:
        """The module that `python -m` starts, and the package of its settings."""
        return "gateway" if self.name == "gateway" else f"services.{self.name}"

    @property
    def variable(self) -> str:
        """What the names of its own variables begin with: `NOTES` for notes."""
        return self.name.upper()

    @property
    def target_variable(self) -> str:
        """The variable that tells others where it is."""
        return f"{self.variable}_TARGET"

    @property
    def pool_size(self) -> int:
        """Most connections of its pool; 0 without a database."""
        return self.database.pool_size if self.database else 0

    @property
    def connections(self) -> int:
        """Most connections to Postgres of one replica, its listeners among them."""
        return self.pool_size + (self.database.listeners if self.database else 0)

    @property
    def all_extras(self) -> tuple[str, ...]:
        """Every extra of pyproject.toml that it needs."""
        return (*(("database",) if self.database else ()), *self.extras, "telemetry")

    def proto_module(self, service: str) -> str:
        """Return the generated module of one of its gRPC services: `concerto.notes.v1.notes_pb2` for NotesService."""
        noun = re.sub(r"(?<!^)(?=[A-Z])", "_", service.removesuffix("Service")).lower()
        return f"concerto.{self.name}.v1.{noun}_pb2"


def read(text: str) -> tuple[Part, ...]:
    """Return the parts that a registry declares, the gateway last. Raises PartError."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(text)
    if "gateway" not in tables:
        raise PartError(f"{FILE.name} declares no [gateway].")
    services = [name for name in tables if name != "gateway"]
    tables["gateway"]["calls"] = services  # each of them, without being asked
    found: dict[str, Part] = {}
    for name in (*services, "gateway"):
        part = _part(name, tables[name])
        unknown = sorted(set(part.calls) - found.keys())
        if unknown:
            raise PartError(f"[{name}] calls {', '.join(unknown)}, which has to be declared before it.")
        found[name] = part
    ports = [part.port for part in found.values()]
    if len(set(ports)) < len(ports):
        raise PartError("Two parts have one port; take the next free number.")
    return tuple(found.values())


def _part(name: str, table: Mapping[str, Any]) -> Part:
    if not re.fullmatch(r"[a-z]+", name):
        raise PartError(f"[{name}]: a part's name is lower-case letters alone.")
    values: dict[str, Any] = {key: tuple(one) if isinstance(one, list) else one for key, one in table.items()}
    if name != "gateway":
        values.setdefault("services", (f"{name.capitalize()}Service",))
    try:
        if "database" in values:
            values["database"] = Database(**values["database"])
        values["secrets"] = tuple(Secret(**secret) for secret in values.get("secrets", ()))
        return Part(name=name, **values)
    except TypeError as error:
        raise PartError(f"[{name}] of {FILE.name} is wrong: {error}") from None


PARTS = read(FILE.read_text())
"""All parts in the order of starting: the services, then the gateway."""
SERVICES = PARTS[:-1]
"""The gRPC services."""
GATEWAY = PARTS[-1]
"""What answers browsers."""


def named(name: str) -> Part:
    """Return a part by its name. Raises PartError for one that is not declared."""
    for part in PARTS:
        if part.name == name:
            return part
    raise PartError(f"There is no part {name!r}; declare it in {FILE.name}.")
