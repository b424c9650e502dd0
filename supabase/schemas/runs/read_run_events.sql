-- The log of one run, from any place on.

create function api.read_run_events(args jsonb)
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
  after_seq bigint;
  run_state text;
  answer jsonb;
begin
  select r.* into p from jsonb_to_record(args) as r (run_id uuid, after_seq bigint, page_size integer);
  page_size := least(greatest(coalesce(p.page_size, 200), 1), 1000);
  after_seq := coalesce(p.after_seq, 0);

  select r.state into run_state from public.runs as r where r.id = p.run_id;
  if not found then
    perform private.refuse_run(p.run_id);
  end if;

  select jsonb_build_object(
    'events',
    coalesce(
      jsonb_agg(
        jsonb_build_object('seq', page.seq, 'created_at', page.created_at, page.type, page.payload)
        order by page.seq
      ) filter (where page.is_on_page),
      '[]'
    ),
    'has_more',
    coalesce(bool_or(not page.is_on_page), false),
    'state',
    run_state
  )
  into answer
  from (
    select
      e.seq,
      e.created_at,
      e.type,
      e.payload,
      row_number() over in_order = 1 or (
        row_number() over in_order <= page_size
        and sum(octet_length(e.payload::text)) over in_order <= page_bytes
      ) as is_on_page
    from (
      select v.*
      from public.run_events as v
      where v.run_id = p.run_id and v.seq > after_seq
      order by v.seq
      limit page_size + 1
    ) as e
    window in_order as (order by e.seq rows unbounded preceding)
  ) as page;

  return answer;
end
$$;

comment on function api.read_run_events(jsonb) is
'Returns a run''s events behind after_seq, and where the run stood at that moment: {run_id, after_seq?, page_size?} -> '
'{events, has_more, state}. A page ends before its payloads pass 2 MiB but holds at least one event. Raises PT404 '
'RUN_NOT_FOUND.';

revoke all on function api.read_run_events(jsonb) from public, anon;
grant execute on function api.read_run_events(jsonb) to authenticated;
