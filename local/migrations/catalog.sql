-- Everything that a database defines, one row an object. Two statements: helpers of this session, and the query.
-- The place of a column in its table is left out: a column that is added comes last, whatever the schema file says.

-- Rights in a fixed order; rights that were never touched are the default ones.
create or replace function pg_temp.grants(acl aclitem[], kind "char", owner oid) returns text
language sql stable set search_path = ''
as $$
    select string_agg(
        format('%s may %s%s, granted by %s', e.grantee, e.privilege, e.further, e.grantor),
        '; ' order by e.grantee, e.privilege, e.grantor
    )
    from (
        select
            case when g.grantee = 0 then 'public' else g.grantee::regrole::text end as grantee,
            lower(g.privilege_type) as privilege,
            case when g.is_grantable then ' and grant it' else '' end as further,
            g.grantor::regrole::text as grantor
        from aclexplode(coalesce(acl, acldefault(kind, owner))) as g
    ) as e
$$;

create or replace function pg_temp.is_ours(schema name) returns boolean
language sql immutable
as $$ select schema !~ '^pg_' and schema <> 'information_schema' $$;

-- What extensions bring along is theirs.
create or replace function pg_temp.is_own(catalog regclass, object oid) returns boolean
language sql stable
as $$
    select not exists (
        select from pg_catalog.pg_depend as d where d.classid = catalog and d.objid = object and d.deptype = 'e'
    )
$$;

select format('schema %s', n.nspname) as name, jsonb_build_object(
    'owner', n.nspowner::regrole, 'grants', pg_temp.grants(n.nspacl, 'n', n.nspowner),
    'comment', obj_description(n.oid, 'pg_namespace')
) as properties
from pg_namespace as n where pg_temp.is_ours(n.nspname) and pg_temp.is_own('pg_namespace', n.oid)

union all
select
    format('%s %s', case c.relkind
        when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'f' then 'foreign table'
        when 'c' then 'type' else 'table' end, c.oid::regclass),
    jsonb_build_object(
        'owner', c.relowner::regrole, 'kind', c.relkind, 'persistence', c.relpersistence,
        'row level security', c.relrowsecurity, 'row level security of the owner', c.relforcerowsecurity,
        'options', c.reloptions, 'replica identity', c.relreplident,
        'partition', pg_get_expr(c.relpartbound, c.oid), 'partition key', pg_get_partkeydef(c.oid),
        'parents', (
            select array_agg(i.inhparent::regclass order by i.inhseqno) from pg_inherits as i where i.inhrelid = c.oid
        ),
        'query', case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end,
        'sequence', (
            select format('%s from %s by %s between %s and %s, cache %s, cycle %s', s.seqtypid::regtype, s.seqstart,
                s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle)
            from pg_sequence as s where s.seqrelid = c.oid
        ),
        'grants', pg_temp.grants(c.relacl, (case c.relkind when 'S' then 's' else 'r' end)::"char", c.relowner),
        'comment', obj_description(c.oid, 'pg_class')
    )
from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f', 'c', 'S') and c.relpersistence <> 't'
  and pg_temp.is_ours(n.nspname) and pg_temp.is_own('pg_class', c.oid)

union all
select
    format('column %s.%I', c.oid::regclass, a.attname),
    jsonb_build_object(
        'type', format_type(a.atttypid, a.atttypmod), 'not null', a.attnotnull,
        'default', pg_get_expr(f.adbin, f.adrelid), 'identity', a.attidentity, 'generated', a.attgenerated,
        'collation', nullif(a.attcollation, t.typcollation)::regcollation, 'storage', a.attstorage,
        'compression', a.attcompression, 'statistics', nullif(a.attstattarget, -1), 'options', a.attoptions,
        'grants', pg_temp.grants(a.attacl, 'c', c.relowner), 'comment', col_description(c.oid, a.attnum)
    )
from pg_attribute as a
join pg_class as c on c.oid = a.attrelid join pg_namespace as n on n.oid = c.relnamespace
join pg_type as t on t.oid = a.atttypid
left join pg_attrdef as f on f.adrelid = c.oid and f.adnum = a.attnum
where c.relkind in ('r', 'p', 'v', 'm', 'f', 'c') and c.relpersistence <> 't' and a.attnum > 0 and not a.attisdropped
  and pg_temp.is_ours(n.nspname) and pg_temp.is_own('pg_class', c.oid)

union all
select
    format(
        'constraint %I on %s', o.conname,
        case when o.conrelid = 0 then o.contypid::regtype::text else o.conrelid::regclass::text end
    ),
    jsonb_build_object(
        'definition', pg_get_constraintdef(o.oid), 'validated', o.convalidated,
        'comment', obj_description(o.oid, 'pg_constraint')
    )
from pg_constraint as o join pg_namespace as n on n.oid = o.connamespace
where pg_temp.is_ours(n.nspname) and pg_temp.is_own('pg_constraint', o.oid)

union all
select
    format('index %s', c.oid::regclass),
    jsonb_build_object(
        'definition', pg_get_indexdef(c.oid), 'valid', i.indisvalid, 'clustered', i.indisclustered,
        'replica identity', i.indisreplident, 'comment', obj_description(c.oid, 'pg_class')
    )
from pg_index as i
join pg_class as c on c.oid = i.indexrelid join pg_namespace as n on n.oid = c.relnamespace
where pg_temp.is_ours(n.nspname) and pg_temp.is_own('pg_class', i.indrelid)

union all
select
    format('function %s', p.oid::regprocedure),
    jsonb_build_object(
        'definition', case when p.prokind <> 'a' then pg_get_functiondef(p.oid) else pg_get_function_result(p.oid) end,
        'owner', p.proowner::regrole, 'grants', pg_temp.grants(p.proacl, 'f', p.proowner),
        'comment', obj_description(p.oid, 'pg_proc')
    )
from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
where pg_temp.is_ours(n.nspname) and pg_temp.is_own('pg_proc', p.oid)

union all
select
    format('trigger %I on %s', t.tgname, t.tgrelid::regclass),
    jsonb_build_object(
        'definition', pg_get_triggerdef(t.oid), 'enabled', t.tgenabled, 'comment', obj_description(t.oid, 'pg_trigger')
    )
from pg_trigger as t
join pg_class as c on c.oid = t.tgrelid join pg_namespace as n on n.oid = c.relnamespace
where not t.tgisinternal and pg_temp.is_ours(n.nspname) and pg_temp.is_own('pg_trigger', t.oid)

union all
select
    format('policy %I on %s', p.polname, p.polrelid::regclass),
    jsonb_build_object(
        'command', p.polcmd, 'permissive', p.polpermissive,
        'roles', array(
            select case when r.id = 0 then 'public' else r.id::regrole::text end
            from unnest(p.polroles) as r (id) order by 1
        ),
        'using', pg_get_expr(p.polqual, p.polrelid), 'with check', pg_get_expr(p.polwithcheck, p.polrelid),
        'comment', obj_description(p.oid, 'pg_policy')
    )
from pg_policy as p

union all
select
    format('rule %I on %s', r.rulename, r.ev_class::regclass),
    jsonb_build_object('definition', pg_get_ruledef(r.oid), 'comment', obj_description(r.oid, 'pg_rewrite'))
from pg_rewrite as r
join pg_class as c on c.oid = r.ev_class join pg_namespace as n on n.oid = c.relnamespace
where r.rulename <> '_RETURN' and pg_temp.is_ours(n.nspname)

union all
select
    format('type %s', t.oid::regtype),
    jsonb_build_object(
        'owner', t.typowner::regrole, 'kind', t.typtype, 'not null', t.typnotnull, 'default', t.typdefault,
        'base', case when t.typtype = 'd' then format_type(t.typbasetype, t.typtypmod) end,
        'labels', (select array_agg(e.enumlabel order by e.enumsortorder) from pg_enum as e where e.enumtypid = t.oid),
        'range of', (select r.rngsubtype::regtype from pg_range as r where r.rngtypid = t.oid),
        'grants', pg_temp.grants(t.typacl, 'T', t.typowner), 'comment', obj_description(t.oid, 'pg_type')
    )
from pg_type as t join pg_namespace as n on n.oid = t.typnamespace
where t.typtype in ('e', 'd', 'r') and pg_temp.is_ours(n.nspname) and pg_temp.is_own('pg_type', t.oid)

union all
select
    format(
        'default privileges of %s%s for %s', d.defaclrole::regrole,
        case when d.defaclnamespace = 0 then '' else ' in ' || d.defaclnamespace::regnamespace::text end,
        case d.defaclobjtype
            when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types'
            when 'n' then 'schemas' else d.defaclobjtype::text end
    ),
    jsonb_build_object('grants', pg_temp.grants(d.defaclacl, d.defaclobjtype, d.defaclrole))
from pg_default_acl as d

union all
select
    format('extension %s', e.extname),
    jsonb_build_object('schema', e.extnamespace::regnamespace, 'version', e.extversion)
from pg_extension as e

union all
select
    format('event trigger %s', e.evtname),
    jsonb_build_object(
        'event', e.evtevent, 'function', e.evtfoid::regprocedure, 'enabled', e.evtenabled, 'tags', e.evttags,
        'comment', obj_description(e.oid, 'pg_event_trigger')
    )
from pg_event_trigger as e where pg_temp.is_own('pg_event_trigger', e.oid)

union all
select
    format('publication %s', p.pubname),
    jsonb_build_object(
        'owner', p.pubowner::regrole, 'all tables', p.puballtables, 'insert', p.pubinsert, 'update', p.pubupdate,
        'delete', p.pubdelete, 'truncate', p.pubtruncate, 'by root', p.pubviaroot,
        'tables', (
            select array_agg(
                format('%s %s %s', r.prrelid::regclass, r.prattrs, pg_get_expr(r.prqual, r.prrelid))
                order by r.prrelid::regclass::text
            )
            from pg_publication_rel as r where r.prpubid = p.oid
        ),
        'schemas', (
            select array_agg(s.pnnspid::regnamespace order by s.pnnspid::regnamespace::text)
            from pg_publication_namespace as s where s.pnpubid = p.oid
        ),
        'comment', obj_description(p.oid, 'pg_publication')
    )
from pg_publication as p

union all
select
    format('statistics %I.%I', n.nspname, s.stxname),
    jsonb_build_object(
        'definition', pg_get_statisticsobjdef(s.oid), 'comment', obj_description(s.oid, 'pg_statistic_ext')
    )
from pg_statistic_ext as s join pg_namespace as n on n.oid = s.stxnamespace where pg_temp.is_ours(n.nspname)

union all
select
    format('role %s', r.rolname),
    jsonb_build_object(
        'attributes', format(
            'login %s, inherit %s, superuser %s, createrole %s, createdb %s, replication %s, bypassrls %s, limit %s',
            r.rolcanlogin, r.rolinherit, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolreplication, r.rolbypassrls,
            r.rolconnlimit
        ),
        'settings', (
            select array_agg(format('%s%s', setting, case when s.setdatabase <> 0 then ' (here)' end) order by setting)
            from pg_db_role_setting as s cross join unnest(s.setconfig) as setting
            where s.setrole = r.oid
              and s.setdatabase in (0, (select b.oid from pg_database as b where b.datname = current_database()))
        ),
        'member of', (
            select array_agg(
                format(
                    '%s by %s, admin %s, inherit %s, set %s', m.roleid::regrole, m.grantor::regrole, m.admin_option,
                    m.inherit_option, m.set_option
                )
                order by m.roleid::regrole::text, m.grantor::regrole::text
            )
            from pg_auth_members as m where m.member = r.oid and m.roleid::regrole::text !~ '_of_before$'
        ),
        'comment', shobj_description(r.oid, 'pg_authid')
    )
-- Those whose name says that they are of before are hidden by `catalog_made_by`.
from pg_roles as r where r.rolname !~ '^pg_|_of_before$'

union all
select
    format('%s %s', i.type, i.identity),
    jsonb_build_object('comment', obj_description(o.objid, o.classid::regclass::name))
from (
    select distinct d.classid, d.objid
    from pg_depend as d
    where d.objid >= 16384 and d.classid in (
        'pg_cast'::regclass, 'pg_collation'::regclass, 'pg_conversion'::regclass, 'pg_operator'::regclass,
        'pg_opclass'::regclass, 'pg_opfamily'::regclass, 'pg_am'::regclass, 'pg_language'::regclass,
        'pg_transform'::regclass, 'pg_ts_config'::regclass, 'pg_ts_dict'::regclass, 'pg_ts_parser'::regclass,
        'pg_ts_template'::regclass, 'pg_foreign_data_wrapper'::regclass, 'pg_foreign_server'::regclass
    )
) as o
cross join lateral pg_identify_object(o.classid, o.objid, 0) as i
where pg_temp.is_own(o.classid, o.objid)
