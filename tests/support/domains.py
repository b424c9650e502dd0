"""The words in which a domain declares what tests demand of its tables, operations and routes."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.support.api import Person

# What a statement does with the owner's rows: finds them, finds nothing, or is refused (42501).
FOUND, EMPTY, REFUSED = "found", "empty", "refused"
KEPT_BY_TRIGGERS = {
    "owner": {"select": FOUND, "insert": REFUSED, "update": FOUND, "delete": REFUSED},
    "stranger": {"select": EMPTY, "insert": REFUSED, "update": EMPTY, "delete": REFUSED},
}
READ_ONLY = {
    "owner": {"select": FOUND, "insert": REFUSED, "update": REFUSED, "delete": REFUSED},
    "stranger": {"select": EMPTY, "insert": REFUSED, "update": REFUSED, "delete": REFUSED},
}

Ids = Mapping[str, str]
"""Ids of what the owner has, by name: those of the resources, and what else a domain keeps for its operations."""


@dataclass(frozen=True)
class Table:
    """One table: its statements about the owner's rows ($1 owner, $2 the owner's session), and what they do.

    outcomes: by actor and verb; who is not named there is refused. insertable, updatable: the columns that users write.
    """

    key: str
    insert: str
    change: str
    outcomes: Mapping[str, Mapping[str, str]]
    insertable: frozenset[str] = frozenset()
    updatable: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Operation:
    """One operation of schema api, called with the owner's ids.

    refusal: the reason that a stranger gets; None for an answer of their own.
    lists: arguments with which the owner's rows are found, and by a stranger none, as the first list of the answer.
    """

    args: Callable[[Ids], dict[str, Any]]
    refusal: str | None = None
    lists: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Resource:
    """What a path names by an id: how one is made, what a stranger is told, and where its owner sees it as before."""

    make: Callable[[Person], Awaitable[str]]
    refusal: str
    path: str | None = None


@dataclass
class World:
    """Two users, one of them with something in every domain."""

    admin: asyncpg.Connection
    login: asyncpg.Connection
    owner: str
    stranger: str
    ids: dict[str, str] = field(default_factory=dict)

    def user(self, actor: str) -> str | None:
        """Return the id of an actor; None for who is not signed in."""
        return {"owner": self.owner, "stranger": self.stranger}.get(actor)


@dataclass(frozen=True)
class Domain:
    """What one domain's file declares as EXPECTED.

    resources: by the name of the path's field. bodies: a valid body of a route, by verb and path, where it needs one.
    bad_requests: of each route that is written by hand, GET requests with the status and the reason of their refusal.
    system_operations: functions of schema private that the services' login runs for no user: they act by a token of
    their own, or are upkeep.
    helpers: functions with more rights than the operation that calls them, with their signatures; each acts for
    auth.uid() alone.
    fill: gives the owner something and notes its ids; it runs after those of the domains in `needs`.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    operations: Mapping[str, Operation] = field(default_factory=dict)
    resources: Mapping[str, Resource] = field(default_factory=dict)
    bodies: Mapping[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    bad_requests: Mapping[str, Sequence[tuple[str, int, str]]] = field(default_factory=dict)
    system_operations: frozenset[str] = frozenset()
    helpers: frozenset[str] = frozenset()
    needs: Sequence[str] = ()
    fill: Callable[[World], Awaitable[None]] | None = None
