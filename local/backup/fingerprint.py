"""What a database holds, as numbers and hashes that two databases can be compared by."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

import asyncpg

from local.backup.archive import Table, no_progress

# How values are written as text must not depend on the server's or the client's settings.
_SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "search_path": "",
}

_NOT_OF_POSTGRES = "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"
_NO_EXTENSIONS = """not exists (
    select from pg_depend as d where d.classid = '{catalog}'::regclass and d.objid = {oid} and d.deptype = 'e'
)"""


def _own(catalog: str, oid: str) -> str:
    return f"{_NOT_OF_POSTGRES} and {_NO_EXTENSIONS.format(catalog=catalog, oid=oid)}"


# Generated columns are left out: a dump leaves them out as well, and a new version may compute them otherwise.
_TABLES = f"""
select
    format('%s.%s', n.nspname, c.relname) as name,
    format(
        'select %s from %I.%I order by %s',
        (
            select string_agg(quote_ident(a.attname), ', ' order by a.attnum) from pg_attribute as a
            where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
        ),
        n.nspname, c.relname,
        coalesce(
            (
                select string_agg(quote_ident(a.attname), ', ' order by array_position(i.indkey::int2[], a.attnum))
                from pg_index as i
                join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
                where i.indrelid = c.oid and i.indisprimary
            ),
            format('%I::text', c.relname)
        )
    ) as query
from pg_class as c
join pg_namespace as n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence <> 't' and {_own("pg_class", "c.oid")}
order by 1
"""  # noqa: S608 - made of constants

_SEQUENCES = """
select format('%s.%s', schemaname, sequencename) as name, coalesce(last_value, start_value - 1) as value
from pg_sequences where increment_by > 0
"""


def _grants(acl: str, kind: str, owner: str) -> str:
    """Rights in a fixed order; rights that were never touched count as the default ones that they are."""
    return f"""(
        select string_agg(item::text, ' ' order by item::text)
        from unnest(coalesce({acl}, acldefault({kind}, {owner}))) as item
    )"""  # noqa: S608 - made of constants


_RELATION_KIND = """(case c.relkind when 'S' then 's' else 'r' end)::"char" """

# Each row is a readable name and everything about that thing that a restore has to bring back.
_DEFINITIONS = f"""
select format('schema %s', n.nspname) as name,
    concat_ws('|', n.nspowner::regrole, {_grants("n.nspacl", "'n'", "n.nspowner")}) as definition
from pg_namespace as n where {_own("pg_namespace", "n.oid")}
union all
select format('relation %s.%s', n.nspname, c.relname),
    concat_ws('|', c.relkind, c.relpersistence, c.relowner::regrole, c.relrowsecurity, c.relforcerowsecurity,
        c.reloptions, {_grants("c.relacl", _RELATION_KIND, "c.relowner")},
        case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end)
from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'S', 'f') and {_own("pg_class", "c.oid")}
union all
select format('column %s.%s.%s', n.nspname, c.relname, a.attname),
    concat_ws('|', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
        pg_get_expr(d.adbin, d.adrelid), (select string_agg(i::text, ' ' order by i::text) from unnest(a.attacl) as i))
from pg_attribute as a
join pg_class as c on c.oid = a.attrelid
join pg_namespace as n on n.oid = c.relnamespace
left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
where a.attnum > 0 and not a.attisdropped and c.relkind in ('r', 'p', 'v', 'm') and {_own("pg_class", "c.oid")}
union all
select format('constraint %s.%s.%s', n.nspname, coalesce(c.relname, t.typname), k.conname),
    concat_ws('|', pg_get_constraintdef(k.oid), k.convalidated)
from pg_constraint as k
join pg_namespace as n on n.oid = k.connamespace
left join pg_class as c on c.oid = k.conrelid
left join pg_type as t on t.oid = k.contypid
where {_own("pg_constraint", "k.oid")}
union all
select format('index %s.%s', n.nspname, c.relname), concat_ws('|', pg_get_indexdef(c.oid), c.reloptions)
from pg_index as i join pg_class as c on c.oid = i.indexrelid join pg_namespace as n on n.oid = c.relnamespace
where {_own("pg_class", "i.indrelid")}
union all
select format('policy %s.%s.%s', n.nspname, c.relname, p.polname),
    concat_ws('|', p.polcmd, p.polpermissive,
        (select string_agg(r::regrole::text, ' ' order by r::regrole::text) from unnest(p.polroles) as r),
        pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
from pg_policy as p join pg_class as c on c.oid = p.polrelid join pg_namespace as n on n.oid = c.relnamespace
union all
select format('trigger %s.%s.%s', n.nspname, c.relname, t.tgname), concat_ws('|', pg_get_triggerdef(t.oid), t.tgenabled)
from pg_trigger as t join pg_class as c on c.oid = t.tgrelid join pg_namespace as n on n.oid = c.relnamespace
where not t.tgisinternal
union all
select format('function %s', p.oid::regprocedure),
    concat_ws('|', p.proowner::regrole, {_grants("p.proacl", "'f'", "p.proowner")},
        case when p.prokind in ('f', 'p') then pg_get_functiondef(p.oid) end)
from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace where {_own("pg_proc", "p.oid")}
union all
select format('type %s.%s', n.nspname, t.typname),
    concat_ws('|', t.typtype, t.typowner::regrole, format_type(t.typbasetype, t.typtypmod),
        (select string_agg(e.enumlabel, ' ' order by e.enumsortorder) from pg_enum as e where e.enumtypid = t.oid))
from pg_type as t join pg_namespace as n on n.oid = t.typnamespace
where t.typtype in ('e', 'd') and {_own("pg_type", "t.oid")}
union all
select format('default rights %s %s %s', d.defaclrole::regrole, n.nspname, d.defaclobjtype),
    (select string_agg(i::text, ' ' order by i::text) from unnest(d.defaclacl) as i)
from pg_default_acl as d left join pg_namespace as n on n.oid = d.defaclnamespace
union all
select format('extension %s', e.extname), n.nspname
from pg_extension as e join pg_namespace as n on n.oid = e.extnamespace
union all
select format('comment on %s', pg_describe_object(d.classoid, d.objoid, d.objsubid)), d.description
from pg_description as d where d.objoid >= 16384 and not exists (
    select from pg_depend as x where x.classid = d.classoid and x.objid = d.objoid and x.deptype = 'e'
)
union all
select format('database %s', b.datname),
    concat_ws('|', b.datdba::regrole, {_grants("b.datacl", "'d'", "b.datdba")}, b.datlocprovider, b.datlocale,
        (
            select string_agg(concat(s.setrole, s.setconfig), ' ' order by s.setrole) from pg_db_role_setting as s
            where s.setdatabase = b.oid and s.setrole = 0
        ))
from pg_database as b where b.datname = current_database()
union all
select format('role %s', r.rolname),
    concat_ws('|', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication,
        r.rolbypassrls, r.rolconnlimit, r.rolconfig,
        (
            select string_agg(concat_ws(' ', m.roleid::regrole, m.admin_option, m.inherit_option, m.set_option), ', '
                order by m.roleid::regrole::text, m.grantor::regrole::text)
            from pg_auth_members as m where m.member = r.oid
        ))
from pg_roles as r where r.rolname !~ '^pg_'
union all
select format('comment on role %s', r.rolname), d.description
from pg_shdescription as d join pg_roles as r on r.oid = d.objoid
where d.classoid = 'pg_authid'::regclass and r.rolname !~ '^pg_'
"""  # noqa: S608 - made of constants


@dataclass(frozen=True)
class Fingerprint:
    """Counts and hashes. `sequences` are lower bounds while others write, as sequences know no snapshot."""

    tables: dict[str, Table]
    sequences: dict[str, int]
    definitions: dict[str, str]


async def take(connection: asyncpg.Connection, progress: Callable[[int], None] = no_progress) -> Fingerprint:
    """Read everything in the database, within the caller's transaction, as a superuser.

    progress: is given the number of rows that have been read so far. Rows are never kept: they pass through a hash.
    """
    for name, value in _SETTINGS.items():
        await connection.execute("select set_config($1, $2, true)", name, value)
    sequences = {row["name"]: row["value"] for row in await connection.fetch(_SEQUENCES)}
    found = await connection.fetch(_DEFINITIONS)
    definitions = {row["name"]: _short(row["definition"]) for row in sorted(found, key=lambda row: row["name"])}
    tables: dict[str, Table] = {}
    rows = 0
    for table in await connection.fetch(_TABLES):
        digest = hashlib.sha256()

        async def add(chunk: bytes, update: Callable[[bytes], None] = digest.update) -> None:
            update(chunk)

        status = await connection.copy_from_query(table["query"], output=add)
        tables[table["name"]] = Table(rows=int(status.split()[-1]), sha256=digest.hexdigest())
        rows += tables[table["name"]].rows
        progress(rows)
    return Fingerprint(tables, sequences, definitions)


def _short(definition: str | None) -> str:
    # Postgres writes an expression that it has read again with other parentheses than the first time.
    return hashlib.sha256(re.sub(r"[()\s]", "", definition or "").encode()).hexdigest()[:32]


def differences(wanted: Fingerprint, found: Fingerprint) -> list[str]:
    """What of `wanted` is otherwise in `found`, a sentence each; empty when nothing is."""
    problems = [
        f"{name} has {_describe(found.tables.get(name))} instead of {_describe(wanted.tables.get(name))}."
        for name in sorted(wanted.tables.keys() | found.tables.keys())
        if wanted.tables.get(name) != found.tables.get(name)
    ]
    problems += [
        f"The sequence {name} stands at {found.sequences.get(name)} and not at {value} or more."
        for name, value in wanted.sequences.items()
        if found.sequences.get(name, value - 1) < value
    ]
    problems += [
        f"The definition is not the same: {name}."
        for name in sorted(wanted.definitions.keys() | found.definitions.keys())
        if wanted.definitions.get(name) != found.definitions.get(name)
    ]
    return problems


def _describe(table: Table | None) -> str:
    return "no such table" if table is None else f"{table.rows} rows ({table.sha256[:12]})"
