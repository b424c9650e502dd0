create or replace function private.append_run_events(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  given_ids uuid[];
  valid_ids uuid[];
  late_ids uuid[];
begin
  with given as materialized (
    select
      (n.value -> 'lease' ->> 'run_id')::uuid as run_id,
      sha256(convert_to(n.value -> 'lease' ->> 'token', 'UTF8')) as token_hash
    from jsonb_array_elements(args -> 'batches') as n
  ),

  -- Held until the events are in, so that nobody ends a run in between; renewals do not wait for it.
  held as (
    select r.id, r.lease_hash, r.lease_expires_at, r.lease_seconds
    from public.runs as r
    where r.id = any(array(select g.run_id from given as g)) and r.state = 'RUNNING'
    for key share
  )

  select
    array_agg(g.run_id),
    array_agg(h.id) filter (where h.id is not null),
    array_agg(h.id) filter (
      where h.lease_expires_at < clock_timestamp() + make_interval(secs => h.lease_seconds / 2.0)
    )
  into given_ids, valid_ids, late_ids
  from given as g
  left join held as h on g.run_id = h.id and g.token_hash = h.lease_hash;

  insert into public.run_events (run_id, seq, type, payload, created_at)
  select
    (b.value -> 'lease' ->> 'run_id')::uuid,
    (e.value ->> 'seq')::bigint,
    payload.key,
    payload.value,
    coalesce((e.value ->> 'created_at')::timestamptz, clock_timestamp())
  from jsonb_array_elements(args -> 'batches') as b
  cross join lateral jsonb_array_elements(b.value -> 'events') as e
  cross join lateral jsonb_each(e.value - '{seq,created_at}'::text[]) as payload
  where (b.value -> 'lease' ->> 'run_id')::uuid = any(valid_ids)
  on conflict (run_id, seq) do nothing;

  -- A writer is a sign of life. Renewals come first as a rule, so this changes nothing.
  if late_ids is not null then
    update public.runs as r
    set lease_expires_at = clock_timestamp() + make_interval(secs => r.lease_seconds)
    where r.id in (
      select l.id from public.runs as l
      where l.id = any(late_ids)
      order by l.id
      for no key update skip locked
    );
  end if;

  perform pg_notify('concerto_runs', v.id::text) from unnest(valid_ids) as v (id);

  return jsonb_build_object(
    'lost_run_ids',
    coalesce(
      (
        select jsonb_agg(distinct g.id)
        from unnest(given_ids) as g (id)
        where g.id <> all(coalesce(valid_ids, '{}'))
      ),
      '[]'
    )
  );
end
$$;
