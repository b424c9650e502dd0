-- What every operation pays, and lists above all: fewer queries around an operation, one pass from rows to JSON,
-- one plan per list.

-- Operations read a page each; what a generic plan is thought to cost must never start a compiler.
alter role concerto_login set jit = off;

create or replace function private.call(claims jsonb, operation text, args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  caller_role text := coalesce(claims ->> 'role', 'anon');
  settings text;
  answer jsonb;
begin
  if caller_role not in ('anon', 'authenticated') then
    raise sqlstate 'PT403' using
      message = 'PERMISSION_DENIED',
      detail = jsonb_build_object('role', caller_role)::text,
      hint = 'Call with the claims of a user''s access token.';
  end if;

  -- Both kinds of claim settings: Supabase's helpers read the second, older ones the first. Assigned, because that
  -- takes no query.
  settings := set_config('request.jwt.claim.sub', coalesce(claims ->> 'sub', ''), true)
    || set_config('request.jwt.claim.role', caller_role, true)
    || set_config('request.jwt.claim.email', coalesce(claims ->> 'email', ''), true)
    || set_config('request.jwt.claims', coalesce(claims, '{}')::text, true)
    || set_config('role', caller_role, true);

  -- As the caller, who may look into schema api: a look-up in the cache of names, where a query on pg_proc costs a
  -- tenth of a small operation.
  if operation is null or to_regprocedure(format('api.%I(jsonb)', operation)) is null then
    raise sqlstate 'PT501' using
      message = 'UNIMPLEMENTED',
      detail = jsonb_build_object('operation', coalesce(operation, ''))::text,
      hint = 'Apply the migrations that this version of the service needs.';
  end if;

  execute format('select api.%I($1)', operation) into answer using coalesce(args, '{}');
  return answer;
end
$$;

comment on function private.call(jsonb, text, jsonb) is
'Runs one operation of schema api as the user whose verified claims are given: one statement, one transaction. '
'Raises PT403 PERMISSION_DENIED for any role but anon and authenticated, PT501 UNIMPLEMENTED for a name that api '
'lacks, 42501 for whoever may not use api.';

-- With a search_path of its own a function is never inlined, and then this language is called at half the cost of sql.
create or replace function private.session_json(session public.sessions)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', session.id,
    'user_id', session.user_id,
    'name', session.name,
    'is_archived', session.is_archived,
    'message_count', session.message_count,
    'created_at', session.created_at,
    'updated_at', session.updated_at
  );
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
language plpgsql
stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', id,
    'session_id', session_id,
    'role', role,
    'content', content,
    'timestamp', "timestamp",
    'order', "order",
    'metadata', metadata,
    'parent_id', parent_id,
    'is_active', is_active
  );
end
$$;

create or replace function api.list_sessions(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- One plan for every page of everybody, made once: else the planner weighs each time whether a plan for these very
-- values is cheaper, and making it costs more than running it. It knows neither whose rows are read nor how many, and
-- only the index's own order is cheap in the long run.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
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
      to_jsonb(array_agg(session order by found.place) filter (where found.place <= page_size)),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select page.*, row_number() over (order by page.updated_at desc, page.id desc) as place
    from (
      select s.id, s.user_id, s.name, s.is_archived, s.message_count, s.created_at, s.updated_at
      from public.sessions as s
      where s.user_id = (select auth.uid())
        and s.is_archived = wants_archived
        and (s.updated_at, s.id) < (before_updated_at, before_id)
        and (p.query is null or s.name ilike pattern)
      order by s.updated_at desc, s.id desc
      limit page_size + 1
    ) as page
  ) as found
  cross join lateral (
    select
      found.id, found.user_id, found.name, found.is_archived, found.message_count, found.created_at, found.updated_at
  ) as session;

  return answer;
end
$$;

create or replace function api.list_messages(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- As in api.list_sessions.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
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
      to_jsonb(array_agg(message order by f."order") filter (where f.is_on_page)),
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
  ) as f
  -- Behind the filter, so that contents that do not fit are never read here either.
  cross join lateral (
    select f.id, f.session_id, f.role, f.content, f."timestamp", f."order", f.metadata, f.parent_id, f.is_active
  ) as message;

  return answer;
end
$$;
