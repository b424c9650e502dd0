-- Upkeep: deltas go once the stored messages hold their text.

create function private.prune_run_events(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  -- Whoever follows an answer reads its end first, whatever the caller says.
  seconds double precision := greatest(coalesce((args ->> 'older_than_seconds')::double precision, 3600), 60);
  pruned integer;
begin
  with old as (
    select r.id
    from public.runs as r
    where r.finished_at < now() - make_interval(secs => seconds) and r.deltas_pruned_at is null
    order by r.finished_at
    limit 200
    for no key update skip locked
  ),

  marked as (
    update public.runs as r
    set deltas_pruned_at = now()
    from old as o
    where r.id = o.id
    returning r.id
  ),

  deleted as (
    delete from public.run_events as e
    using marked as m
    where e.run_id = m.id and e.type in ('message_delta', 'reasoning_delta')
  )

  select count(*) into pruned from marked;
  return jsonb_build_object('pruned', pruned);
end
$$;

comment on function private.prune_run_events(jsonb) is
'Deletes the deltas of up to 200 runs that ended long ago, as their messages hold the text: {older_than_seconds?} -> '
'{pruned}, the number of runs; call it until that is 0. Less than 60 seconds counts as 60.';

revoke all on function private.prune_run_events(jsonb) from public, anon, authenticated;
grant execute on function private.prune_run_events(jsonb) to concerto_login;
