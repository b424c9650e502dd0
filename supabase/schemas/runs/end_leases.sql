-- A process that executes runs is dead, says whoever has started it.

create function private.end_leases(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  ended_ids uuid[];
begin
  -- One that another call holds is being ended or deleted.
  with held as (
    select r.id
    from public.runs as r
    where r.finished_at is null and r.process_id = (args ->> 'process_id')::uuid
    order by r.id
    for no key update skip locked
  ),

  ended as (
    update public.runs as r
    set lease_expires_at = least(r.lease_expires_at, clock_timestamp())
    from held as h
    where r.id = h.id
    returning r.id
  )

  select array_agg(e.id) into ended_ids from ended as e;

  return jsonb_build_object('run_ids', coalesce(to_jsonb(ended_ids), '[]'));
end
$$;

comment on function private.end_leases(jsonb) is
'Ends the leases of a dead process, so that its runs are interrupted at the next look: {process_id} -> {run_ids}. For '
'who has seen its end; were it alive, it would renew them a second later.';

revoke all on function private.end_leases(jsonb) from public, anon, authenticated;
grant execute on function private.end_leases(jsonb) to concerto_login;
