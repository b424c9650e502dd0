-- The caller's runs: one, or a page of them.

create function api.get_run(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  wanted_id uuid := (args ->> 'run_id')::uuid;
  run public.runs;
begin
  select r.* into run from public.runs as r where r.id = wanted_id;
  if not found then
    perform private.refuse_run(wanted_id);
  end if;

  return jsonb_build_object('run', private.run_json(run));
end
$$;

comment on function api.get_run(jsonb) is 'Returns one run: {run_id} -> {run}. Raises PT404 RUN_NOT_FOUND.';

revoke all on function api.get_run(jsonb) from public, anon;
grant execute on function api.get_run(jsonb) to authenticated;

create function api.list_runs(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- As in api.list_sessions: only the index's own order is cheap for a user with many.
set enable_bitmapscan = off
as $$
declare
  p record;
  page_size integer;
  before_created_at timestamptz;
  before_id uuid;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    page_size integer, session_id uuid, before_created_at timestamptz, before_id uuid
  );
  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  before_created_at := coalesce(p.before_created_at, 'infinity');
  before_id := coalesce(p.before_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff');

  if p.session_id is not null then
    perform from public.sessions as s where s.id = p.session_id;
    if not found then
      perform private.refuse_session(p.session_id);
    end if;
  end if;

  select jsonb_build_object(
    'runs',
    coalesce(
      jsonb_agg(private.run_json(found.run) order by found.place) filter (where found.place <= page_size),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select page.run, row_number() over (order by page.created_at desc, page.id desc) as place
    from (
      (
        select r as run, r.created_at, r.id
        from public.runs as r
        where p.session_id is null
          and r.user_id = (select auth.uid())
          and (r.created_at, r.id) < (before_created_at, before_id)
        order by r.created_at desc, r.id desc
        limit page_size + 1
      )
      union all
      (
        select r as run, r.created_at, r.id
        from public.runs as r
        where p.session_id is not null
          and r.session_id = p.session_id
          and (r.created_at, r.id) < (before_created_at, before_id)
        order by r.created_at desc, r.id desc
        limit page_size + 1
      )
    ) as page
  ) as found;

  return answer;
end
$$;

comment on function api.list_runs(jsonb) is
'Lists the caller''s runs, newest first: {page_size?, session_id?, before_created_at?, before_id?} -> {runs, '
'has_more}. The last two continue behind a run of the page before. Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.list_runs(jsonb) from public, anon;
grant execute on function api.list_runs(jsonb) to authenticated;
