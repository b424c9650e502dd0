-- What a run says, by its lease token.

-- One statement holds the runs and appends their events, so that a batch is read and planned once.
create function private.append_run_events(args jsonb)
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
      sha256(convert_to(n.value -> 'lease' ->> 'token', 'UTF8')) as token_hash,
      n.value -> 'events' as events
    from jsonb_array_elements(args -> 'batches') as n
  ),

  -- Held until the events are in, so that nobody ends a run in between; renewals do not wait for it. Nor does this wait:
  -- who holds a run otherwise is ending it or deletes it, and the others' events must not stand still for that.
  held as materialized (
    select r.id, r.lease_hash, r.lease_expires_at, r.lease_seconds
    from public.runs as r
    where r.id = any(array(select g.run_id from given as g)) and r.state = 'RUNNING'
    for key share skip locked
  ),

  appended as (
    insert into public.run_events (run_id, seq, type, payload, created_at)
    select
      h.id,
      (e.value ->> 'seq')::bigint,
      payload.key,
      payload.value,
      coalesce((e.value ->> 'created_at')::timestamptz, clock_timestamp())
    from given as g
    inner join held as h on g.run_id = h.id and g.token_hash = h.lease_hash
    cross join lateral jsonb_array_elements(g.events) as e
    cross join lateral jsonb_each(e.value - '{seq,created_at}'::text[]) as payload
    on conflict (run_id, seq) do nothing
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

  perform private.tell_watchers(v.id) from unnest(valid_ids) as v (id);

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

comment on function private.append_run_events(jsonb) is
'Appends events to running runs: {batches: [{lease, events}]} -> {lost_run_ids}. An event whose seq is there is '
'passed over; nothing is stored for runs whose lease is not valid or that are being ended or deleted at this moment, '
'which the answer names. A writer whose lease is about to end, or has ended unnoticed, gets more time.';

revoke all on function private.append_run_events(jsonb) from public, anon, authenticated;
grant execute on function private.append_run_events(jsonb) to concerto_login;
