"""Reads everything that a database defines as text, and says in which objects two databases differ."""

import json
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import asyncpg

from local.migrations.supabase_cli import MigrationError

Catalog = dict[str, dict[str, str]]
"""What there is: each object by a readable name, with everything about it by the name of the property."""

SET_ROLE = "authenticator"
"""The role of the platform that files give settings, where it exists: they are the whole cluster's."""
EXCERPT = 120
"""Characters of a property that are shown where two catalogs differ."""
_HELPERS, _QUERY = (Path(__file__).parent / "catalog.sql").read_text().rsplit("$$;\n\n", 1)
# The rows of this table are settings; everything else in them says when and by whom.
_BUCKETS = """
select format('bucket %s', b.id) as name,
    to_jsonb(b) - array['id', 'created_at', 'updated_at', 'owner', 'owner_id'] as properties
from storage.buckets as b
"""


async def read_catalog(connection: asyncpg.Connection) -> Catalog:
    """Everything that the database defines, with the roles of its cluster; what extensions bring along is left out.

    Within a transaction it sees what that one has done.
    """
    async with connection.transaction():
        # Names are told with their schemas.
        await connection.execute("set local search_path = ''")
        await connection.execute(_HELPERS + "$$;")
        rows = await connection.fetch(_QUERY)
        if await connection.fetchval("select to_regclass('storage.buckets') is not null"):
            rows += await connection.fetch(_BUCKETS)
    return {
        row["name"]: {name: _text(value) for name, value in json.loads(row["properties"]).items() if value is not None}
        for row in rows
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def roles_made_by(files: Sequence[Path]) -> set[str]:
    """The names of the roles that these files create."""
    return {name for file in files for name in re.findall(r"create role (\w+)", file.read_text())}


async def catalog_made_by(
    connection: asyncpg.Connection, files: Sequence[Path], *, role: str, hidden: Collection[str] = ()
) -> Catalog:
    """The catalog after these files, applied in turn by `role` in a transaction that is rolled back.

    connection: as a superuser, to a database that has what the files stand on. Roles are the whole cluster's, so those
    that the files make, and `hidden` ones, are out of sight meanwhile, and so are the settings of SET_ROLE. Raises
    MigrationError when a file fails.
    """
    texts = {file: file.read_text() for file in files}
    made = roles_made_by(files) | set(hidden)
    transaction = connection.transaction()
    await transaction.start()
    try:
        for row in await connection.fetch("select rolname from pg_roles where rolname = any($1::text[])", list(made)):
            await connection.execute(f"alter role {row['rolname']} rename to {row['rolname']}_of_before")
        if await connection.fetchval("select to_regrole($1) is not null", SET_ROLE):
            await connection.execute(f"alter role {SET_ROLE} reset all")
        await connection.execute(f"set local session authorization {role}")
        await apply_files(connection, texts)
        await connection.execute("reset session authorization")
        return await read_catalog(connection)
    finally:
        await transaction.rollback()


async def apply_files(connection: asyncpg.Connection, texts: dict[Path, str]) -> None:
    """Run files in turn. Raises MigrationError with the file and Postgres' own words when one fails."""
    for file, text in texts.items():
        try:
            # Within a transaction an index cannot be made concurrently, and in a scratch database it need not be.
            await connection.execute(re.sub(r"\bindex concurrently\b", "index", text))
        except asyncpg.PostgresError as error:
            raise MigrationError(f"{file.parent.name}/{file.name} failed: {error}") from error


def differences(first: Catalog, second: Catalog, *, names: tuple[str, str]) -> list[str]:
    """One sentence for each object that only one has, and for each property that is not the same.

    names: of the two, for the sentences.
    """
    found: list[str] = []
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second:
            found.append(f"{name} is only in {names[0] if name in first else names[1]}")
            continue
        one, other = first[name], second[name]
        found += [
            f"{name}: {each} is {_excerpt(one.get(each), other.get(each))} in {names[0]}, "
            f"{_excerpt(other.get(each), one.get(each))} in {names[1]}"
            for each in sorted(one.keys() | other.keys())
            if one.get(each) != other.get(each)
        ]
    return found


def _excerpt(text: str | None, other: str | None) -> str:
    """A short text as it is; of a long one the first line, or the part of a line, that is not the other's."""
    if text is None:
        return "nothing"
    if "\n" not in text:
        same = next((n for n, pair in enumerate(zip(text, other or "", strict=False)) if pair[0] != pair[1]), 0)
        start = same - EXCERPT // 3 if len(text) > EXCERPT and same > EXCERPT // 2 else 0
        end = start + EXCERPT
        return f"`{'…' if start else ''}{text[start:end]}{'…' if len(text) > end else ''}`"
    lines, others = text.splitlines(), (other or "").splitlines()
    index = next((n for n, line in enumerate(lines) if n >= len(others) or line != others[n]), len(lines))
    return f"`{lines[index].strip()}` (line {index + 1})" if index < len(lines) else "shorter"
