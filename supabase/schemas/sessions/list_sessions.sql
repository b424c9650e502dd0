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

comment on function api.list_sessions(jsonb) is
'Lists the caller''s sessions, newest activity first: {page_size?, is_archived?, query?, before_updated_at?, '
'before_id?} -> {sessions, has_more}. The last two continue behind a session of the page before; query is a part '
'of the name, ignoring case.';

revoke all on function api.list_sessions(jsonb) from public, anon;
grant execute on function api.list_sessions(jsonb) to authenticated;
