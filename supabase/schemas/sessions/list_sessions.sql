-- The caller's sessions, page by page.

create function api.list_sessions(args jsonb)
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
  -- Names that one call looks at: more than almost anybody has, and few enough for a moment.
  most_names constant integer := 5000;
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

  if p.query is not null then
    perform private.refuse_long_text('query', p.query, 200);
    pattern := '%' || regexp_replace(p.query, '([\\%_])', '\\\1', 'g') || '%';
    with looked_at as materialized (
      select
        s.id, s.user_id, s.name, s.is_archived, s.message_count, s.created_at, s.updated_at,
        row_number() over (order by s.updated_at desc, s.id desc) as place
      from public.sessions as s
      where s.user_id = (select auth.uid())
        and s.is_archived = wants_archived
        and (s.updated_at, s.id) < (before_updated_at, before_id)
      order by s.updated_at desc, s.id desc
      limit most_names
    ),

    found as materialized (
      select l.*
      from looked_at as l
      where l.name ilike pattern
      order by l.place
      limit page_size + 1
    ),

    page as (
      select f.*
      from found as f
      order by f.place
      limit page_size
    ),

    -- Where the next page goes on: behind the last session of a full page, else behind the last one looked at.
    last as (
      select
        case
          when (select count(*) from found) > page_size then (select max(g.place) from page as g)
          when (select count(*) from looked_at) = most_names then most_names
        end as place
    )

    select jsonb_build_object(
      'sessions',
      coalesce(
        (
          select jsonb_agg(to_jsonb(g) - 'place' order by g.place)
          from page as g
        ),
        '[]'
      ),
      'has_more',
      l.place is not null,
      'next_updated_at',
      e.updated_at,
      'next_id',
      e.id
    )
    into answer
    from last as l
    left join looked_at as e on l.place = e.place;
    return answer;
  end if;

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

comment on function api.list_sessions(jsonb) is
'Lists the caller''s sessions, newest activity first: {page_size?, is_archived?, query?, before_updated_at?, '
'before_id?} -> {sessions, has_more, next_updated_at?, next_id?}. The last two continue behind a session of the page '
'before; query is a part of the name, ignoring case. With one, 5000 sessions are looked at: a page may hold fewer than '
'asked for, or none, and has_more; the answer then tells where it goes on. Raises PT400 FIELD_TOO_LARGE.';

revoke all on function api.list_sessions(jsonb) from public, anon;
grant execute on function api.list_sessions(jsonb) to authenticated;
