alter role concerto_login reset jit;

create or replace function api.list_messages(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  p record;
  page_size integer;
  page_bytes constant integer := 2097152;
  low integer;
  high integer;
  backward boolean;
  every_branch boolean;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    session_id uuid, page_size integer, from_end boolean, after_order integer, before_order integer,
    include_inactive boolean
  );

  perform from public.sessions as s where s.id = p.session_id;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  backward := coalesce(p.from_end, false);
  every_branch := coalesce(p.include_inactive, false);
  low := coalesce(p.after_order, 0);
  high := coalesce(nullif(p.before_order, 0), 2147483647);

  select jsonb_build_object(
    'messages',
    coalesce(
      jsonb_agg(
        private.message_json(
          f.id, f.session_id, f.role, f.content, f."timestamp", f."order", f.metadata, f.parent_id, f.is_active
        )
        order by f."order"
      ) filter (where f.is_on_page),
      '[]'
    ),
    'has_more',
    coalesce(bool_or(not f.is_on_page), false)
  )
  into answer
  from (
    select
      candidate.*,
      row_number() over directed = 1 or (
        row_number() over directed <= page_size
        -- Lengths come from the values' headers: contents that do not fit on the page are never read.
        and sum(octet_length(candidate.content)) over directed <= page_bytes
      ) as is_on_page
    from (
      -- Only one of the four is ever run; each reads an index and stops behind the page.
      (
        select m.*, m."order" as place
        from public.messages as m
        where not backward and not every_branch and m.session_id = p.session_id and m.is_active
          and m."order" > low and m."order" < high
        order by m."order"
        limit page_size + 1
      )
      union all
      (
        select m.*, -m."order" as place
        from public.messages as m
        where backward and not every_branch and m.session_id = p.session_id and m.is_active
          and m."order" > low and m."order" < high
        order by m."order" desc
        limit page_size + 1
      )
      union all
      (
        select m.*, m."order" as place
        from public.messages as m
        where not backward and every_branch and m.session_id = p.session_id
          and m."order" > low and m."order" < high
        order by m."order"
        limit page_size + 1
      )
      union all
      (
        select m.*, -m."order" as place
        from public.messages as m
        where backward and every_branch and m.session_id = p.session_id
          and m."order" > low and m."order" < high
        order by m."order" desc
        limit page_size + 1
      )
    ) as candidate
    window directed as (order by candidate.place rows unbounded preceding)
  ) as f;

  return answer;
end
$$;

create or replace function api.list_sessions(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- Whose rows are read is unknown when the plan is made; for a user with many, only the index's own order is cheap.
set enable_bitmapscan = off
as $$
declare
  p record;
  page_size integer;
  wants_archived boolean;
  before_updated_at timestamptz;
  before_id uuid;
  pattern text;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    page_size integer, is_archived boolean, query text, before_updated_at timestamptz, before_id uuid
  );
  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  -- Plain values: row level security lets no coalesce() into an index condition. The bounds are always there, so that
  -- one plan reads the index from the right place on.
  wants_archived := coalesce(p.is_archived, false);
  before_updated_at := coalesce(p.before_updated_at, 'infinity');
  before_id := coalesce(p.before_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
  pattern := '%' || regexp_replace(coalesce(p.query, ''), '([\\%_])', '\\\1', 'g') || '%';

  select jsonb_build_object(
    'sessions',
    coalesce(
      jsonb_agg(private.session_json(found.session) order by found.place)
      filter (where found.place <= page_size),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select page.session, row_number() over (order by page.updated_at desc, page.id desc) as place
    from (
      select s as session, s.updated_at, s.id
      from public.sessions as s
      where s.user_id = (select auth.uid())
        and s.is_archived = wants_archived
        and (s.updated_at, s.id) < (before_updated_at, before_id)
        and (p.query is null or s.name ilike pattern)
      order by s.updated_at desc, s.id desc
      limit page_size + 1
    ) as page
  ) as found;

  return answer;
end
$$;

create or replace function private.message_json(
  id uuid,
  session_id uuid,
  role text,
  content text,
  "timestamp" timestamptz,
  "order" integer,
  metadata jsonb,
  parent_id uuid,
  is_active boolean
)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', id,
    'session_id', session_id,
    'role', role,
    'content', content,
    'timestamp', "timestamp",
    'order', "order",
    'metadata', metadata,
    'parent_id', parent_id,
    'is_active', is_active
  )
$$;

create or replace function private.session_json(session public.sessions)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', session.id,
    'user_id', session.user_id,
    'name', session.name,
    'is_archived', session.is_archived,
    'message_count', session.message_count,
    'created_at', session.created_at,
    'updated_at', session.updated_at
  )
$$;

create or replace function private.call(claims jsonb, operation text, args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  caller_role text := coalesce(claims ->> 'role', 'anon');
  answer jsonb;
begin
  if caller_role not in ('anon', 'authenticated') then
    raise sqlstate 'PT403' using
      message = 'PERMISSION_DENIED',
      detail = jsonb_build_object('role', caller_role)::text,
      hint = 'Call with the claims of a user''s access token.';
  end if;

  if not exists (
    select from pg_catalog.pg_proc as p
    where p.proname = operation
      and p.pronamespace = 'api'::regnamespace
      and p.proargtypes = array['jsonb'::regtype::oid]::oidvector
  ) then
    raise sqlstate 'PT501' using
      message = 'UNIMPLEMENTED',
      detail = jsonb_build_object('operation', coalesce(operation, ''))::text,
      hint = 'Apply the migrations that this version of the service needs.';
  end if;

  -- Both kinds of claim settings: Supabase's helpers read the second, older ones the first.
  perform
    set_config('request.jwt.claim.sub', coalesce(claims ->> 'sub', ''), true),
    set_config('request.jwt.claim.role', caller_role, true),
    set_config('request.jwt.claim.email', coalesce(claims ->> 'email', ''), true),
    set_config('request.jwt.claims', coalesce(claims, '{}')::text, true),
    set_config('role', caller_role, true);

  execute format('select api.%I($1)', operation) into answer using coalesce(args, '{}');
  return answer;
end
$$;

comment on function private.call(jsonb, text, jsonb) is
'Runs one operation of schema api as the user whose verified claims are given: one statement, one transaction. '
'Raises PT403 PERMISSION_DENIED for any role but anon and authenticated, PT501 UNIMPLEMENTED for a name that api '
'lacks.';
