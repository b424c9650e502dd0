-- The process that executes runs says that it lives.

create function private.renew_leases(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  seconds integer := least(greatest(coalesce(nullif((args ->> 'lease_seconds')::integer, 0), 10), 1), 3600);
  answer jsonb;
begin
  with given as (
    select
      (n.value ->> 'run_id')::uuid as run_id,
      sha256(convert_to(n.value ->> 'token', 'UTF8')) as token_hash
    from jsonb_array_elements(args -> 'leases') as n
  ),

  valid as (
    select r.id
    from public.runs as r
    inner join given as g on r.id = g.run_id and r.lease_hash = g.token_hash
    where r.finished_at is null
    union all
    select c.id
    from private.model_calls as c
    inner join given as g on c.id = g.run_id and c.lease_hash = g.token_hash
  ),

  -- One that another call holds is renewed the next time: everybody's leases must not wait for it.
  held as (
    select r.id
    from public.runs as r
    where r.id in (select v.id from valid as v)
    order by r.id
    for no key update of r skip locked
  ),

  renewed as (
    update public.runs as r
    set lease_expires_at = clock_timestamp() + make_interval(secs => seconds), lease_seconds = seconds
    from held as h
    where r.id = h.id
    returning r.id, r.is_cancellation_requested
  ),

  renewed_calls as (
    update private.model_calls as c
    set lease_expires_at = clock_timestamp() + make_interval(secs => seconds)
    from valid as v
    where c.id = v.id
  )

  select jsonb_build_object(
    'lost_run_ids',
    coalesce(jsonb_agg(distinct g.run_id) filter (where v.id is null), '[]'),
    'cancelled_run_ids',
    coalesce(jsonb_agg(distinct w.id) filter (where w.is_cancellation_requested), '[]')
  )
  into answer
  from given as g
  left join valid as v on g.run_id = v.id
  left join renewed as w on g.run_id = w.id;

  return answer;
end
$$;

comment on function private.renew_leases(jsonb) is
'Moves the end of leases to lease_seconds (10) from now: {leases, lease_seconds?} -> {lost_run_ids, '
'cancelled_run_ids}. Queued runs and calls of models outside of runs are renewed as well; a run that is being changed '
'at this moment keeps its end, and is not lost.';

revoke all on function private.renew_leases(jsonb) from public, anon, authenticated;
grant execute on function private.renew_leases(jsonb) to concerto_login;
