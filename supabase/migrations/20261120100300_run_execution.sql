-- How runs are executed: what the services do by a run's lease token, and the upkeep of runs whose process died.

create function private.promote_run(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  wanted_id uuid := (args -> 'lease' ->> 'run_id')::uuid;
  token_hash bytea := sha256(convert_to(coalesce(args -> 'lease' ->> 'token', ''), 'UTF8'));
  run public.runs;
begin
  -- The session first, as every writer of runs and messages does.
  perform from public.sessions as s
  where s.id = (select r.session_id from public.runs as r where r.id = wanted_id)
  for no key update;
  select r.* into run
  from public.runs as r
  where r.id = wanted_id and r.lease_hash = token_hash and r.finished_at is null
  for no key update;
  if not found then
    perform private.refuse_lease(wanted_id);
  end if;

  if run.state = 'QUEUED' then
    if exists (
      select from public.runs as r
      where r.session_id = run.session_id and r.finished_at is null and r.created_at < run.created_at
    ) then
      raise sqlstate 'PT400' using
        message = 'RUN_NOT_NEXT',
        detail = jsonb_build_object('run_id', run.id)::text,
        hint = 'Wait for the end of the runs before it.';
    end if;
    run := private.begin_run(run, run.pending);
  end if;

  return jsonb_build_object(
    'run', private.run_json(run), 'user_message', private.stored_message(run.user_message_id)
  );
end
$$;

comment on function private.promote_run(jsonb) is
'Begins a queued run once the runs before it have ended: {lease} -> {run, user_message}. Answers the same for one that '
'runs. Raises PT409 LEASE_LOST, PT400 RUN_NOT_NEXT.';

revoke all on function private.promote_run(jsonb) from public, anon, authenticated;
grant execute on function private.promote_run(jsonb) to concerto_login;

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

comment on function private.append_run_events(jsonb) is
'Appends events to running runs: {batches: [{lease, events}]} -> {lost_run_ids}. An event whose seq is there is passed '
'over; nothing is stored for runs whose lease is not valid, which the answer names. A writer whose lease is about to '
'end, or has ended unnoticed, gets more time.';

revoke all on function private.append_run_events(jsonb) from public, anon, authenticated;
grant execute on function private.append_run_events(jsonb) to concerto_login;

create function private.renew_leases(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  seconds integer := least(coalesce(nullif((args ->> 'lease_seconds')::integer, 0), 10), 3600);
  answer jsonb;
begin
  with given as (
    select
      (n.value ->> 'run_id')::uuid as run_id,
      sha256(convert_to(n.value ->> 'token', 'UTF8')) as token_hash
    from jsonb_array_elements(args -> 'leases') as n
  ),

  -- In one order, so that two renewals never wait for each other in turn.
  held as (
    select r.id
    from public.runs as r
    inner join given as g on r.id = g.run_id and r.lease_hash = g.token_hash
    where r.finished_at is null
    order by r.id
    for no key update of r
  ),

  renewed as (
    update public.runs as r
    set lease_expires_at = clock_timestamp() + make_interval(secs => seconds), lease_seconds = seconds
    from held as h
    where r.id = h.id
    returning r.id, r.is_cancellation_requested
  )

  select jsonb_build_object(
    'lost_run_ids',
    coalesce(jsonb_agg(distinct g.run_id) filter (where w.id is null), '[]'),
    'cancelled_run_ids',
    coalesce(jsonb_agg(distinct w.id) filter (where w.is_cancellation_requested), '[]')
  )
  into answer
  from given as g
  left join renewed as w on g.run_id = w.id;

  return answer;
end
$$;

comment on function private.renew_leases(jsonb) is
'Moves the end of leases to lease_seconds (10) from now: {leases, lease_seconds?} -> {lost_run_ids, '
'cancelled_run_ids}. Queued runs are renewed as well.';

revoke all on function private.renew_leases(jsonb) from public, anon, authenticated;
grant execute on function private.renew_leases(jsonb) to concerto_login;

create function private.end_run(
  run public.runs, new_state text, new_messages jsonb, used jsonb, error jsonb, keeps_lease boolean
)
returns public.runs
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  was_started boolean := run.state = 'RUNNING';
  stored_id uuid;
  stored_role text;
  prompt bigint;
  cached bigint;
  completion bigint;
  cost bigint;
  last_seq bigint;
  reason text;
begin
  if was_started then
    insert into public.messages (session_id, role, content, metadata)
    select
      run.session_id,
      n.value ->> 'role',
      coalesce(n.value ->> 'content', ''),
      coalesce(nullif(n.value -> 'metadata', 'null'), '{}')
    from jsonb_array_elements(new_messages) with ordinality as n (value, place)
    order by n.place;

    if jsonb_array_length(new_messages) > 0 then
      select m.id, m.role into stored_id, stored_role
      from public.messages as m
      where m.session_id = run.session_id
      order by m."order" desc
      limit 1;
    end if;

    prompt := greatest(coalesce((used ->> 'prompt_tokens')::bigint, 0), 0);
    completion := greatest(coalesce((used ->> 'completion_tokens')::bigint, 0), 0);
    cached := least(greatest(coalesce((used ->> 'cached_tokens')::bigint, 0), 0), prompt);
    cost := least(
      round(
        (
          (prompt - cached)::numeric * greatest(coalesce((run.prices ->> 'prompt')::numeric, 0), 0)
          + cached::numeric * greatest(coalesce((run.prices ->> 'cached')::numeric, 0), 0)
          + completion::numeric * greatest(coalesce((run.prices ->> 'completion')::numeric, 0), 0)
        ) / 1000000.0
      ),
      9223372036854775807
    )::bigint;
  end if;

  reason := error -> 'details' -> 0 ->> 'reason';
  update public.runs as r
  set
    state = new_state,
    finished_at = clock_timestamp(),
    answer_message_id = case when stored_role = 'assistant' then stored_id end,
    error_reason = reason,
    lease_hash = case when keeps_lease then r.lease_hash end,
    usage_model = nullif(used ->> 'model', ''),
    prompt_tokens = prompt,
    completion_tokens = completion,
    cached_tokens = cached,
    cost_micro_usd = cost,
    is_usage_estimated = case when was_started then coalesce((used ->> 'is_estimated')::boolean, false) end
  where r.id = run.id
  returning r.* into run;

  select coalesce(max(e.seq), 0) into last_seq from public.run_events as e where e.run_id = run.id;
  insert into public.run_events (run_id, seq, type, payload)
  select run.id, last_seq + row_number() over (order by f.place), f.type, f.payload
  from (
    values
    (
      1,
      'message_completed',
      case
        when run.answer_message_id is not null
          then jsonb_build_object('message', private.stored_message(run.answer_message_id))
      end
    ),
    (2, 'usage', case when was_started and jsonb_typeof(used) = 'object' then private.run_json(run) -> 'usage' end),
    (3, 'error', case when jsonb_typeof(error) = 'object' then jsonb_build_object('error', error) end),
    (4, 'run_finished', jsonb_build_object('state', run.state))
  ) as f (place, type, payload)
  where f.payload is not null;

  if was_started then
    insert into public.api_usage (
      user_id, session_id, run_id, model, source, prompt_tokens, completion_tokens, cached_tokens, cost_micro_usd,
      is_estimated
    )
    values (
      run.user_id,
      run.session_id,
      run.id,
      coalesce(run.usage_model, run.model),
      run.source,
      run.prompt_tokens,
      run.completion_tokens,
      run.cached_tokens,
      run.cost_micro_usd,
      run.is_usage_estimated
    );
  end if;

  perform pg_notify('concerto_runs', run.id::text);
  return run;
end
$$;

comment on function private.end_run(public.runs, text, jsonb, jsonb, jsonb, boolean) is
'Ends a run: its messages, last events, state and row in the ledger. A run that was still queued gets no messages and '
'no row. The caller has locked the session and the run.';

revoke all on function private.end_run(public.runs, text, jsonb, jsonb, jsonb, boolean)
from public, anon, authenticated;

create function private.finish_run(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  wanted_id uuid := (args -> 'lease' ->> 'run_id')::uuid;
  token_hash bytea := sha256(convert_to(coalesce(args -> 'lease' ->> 'token', ''), 'UTF8'));
  new_messages jsonb := coalesce(nullif(args -> 'messages', 'null'), '[]');
  too_large bigint;
  run public.runs;
begin
  perform from public.sessions as s
  where s.id = (select r.session_id from public.runs as r where r.id = wanted_id)
  for no key update;
  -- Waits for events that are being appended; none comes after.
  select r.* into run
  from public.runs as r
  where r.id = wanted_id and r.lease_hash = token_hash
  for update;
  if not found then
    perform private.refuse_lease(wanted_id);
  end if;

  if run.finished_at is null then
    select n.place - 1 into too_large
    from jsonb_array_elements(new_messages) with ordinality as n (value, place)
    where octet_length((n.value -> 'metadata')::text) > 98304
    order by n.place
    limit 1;
    if found then
      raise sqlstate 'PT400' using
        message = 'FIELD_TOO_LARGE',
        detail = jsonb_build_object(
          'field', format('messages[%s].metadata', too_large), 'limit', '65536 bytes'
        )::text,
        hint = 'Keep the metadata small.';
    end if;

    run := private.end_run(
      run,
      args ->> 'state',
      new_messages,
      nullif(args -> 'usage', 'null'),
      case when args ->> 'state' not in ('SUCCEEDED', 'CANCELLED') then nullif(args -> 'error', 'null') end,
      true
    );
  end if;

  return jsonb_build_object(
    'run',
    private.run_json(run),
    'events',
    (
      select
        jsonb_agg(jsonb_build_object('seq', e.seq, 'created_at', e.created_at, e.type, e.payload) order by e.seq)
      from public.run_events as e
      where e.run_id = run.id and e.type in ('message_completed', 'usage', 'error', 'run_finished')
    )
  );
end
$$;

comment on function private.finish_run(jsonb) is
'Ends a run, with the contract''s FinishRunRequest -> {run, events}. A repetition answers the same. The events follow '
'those that are stored, which is what next_seq counts as well. Raises PT409 LEASE_LOST, PT400 FIELD_TOO_LARGE.';

revoke all on function private.finish_run(jsonb) from public, anon, authenticated;
grant execute on function private.finish_run(jsonb) to concerto_login;

create function private.interrupt_run(run public.runs, error jsonb)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  said_text text;
  said jsonb := '[]';
  used jsonb;
begin
  if run.state = 'RUNNING' then
    select string_agg(e.payload ->> 'text', '' order by e.seq) into said_text
    from public.run_events as e
    where e.run_id = run.id and e.type = 'message_delta';
    -- A message holds 1 MiB, whatever the bytes of its characters.
    if octet_length(said_text) > 1048576 then
      said_text := left(said_text, 262144);
    end if;

    if said_text <> '' then
      said := jsonb_build_array(
        jsonb_build_object(
          'role', 'assistant',
          'content', said_text,
          'metadata', jsonb_build_object(
            'partial', true, 'error_reason', 'RUN_INTERRUPTED', 'model', run.model, 'run_id', run.id
          )
        )
      );
    end if;

    -- Nobody knows what the provider counted: about four bytes are a token, and a window holds so many messages.
    select jsonb_build_object(
      'model', run.model,
      'prompt_tokens', ceil(coalesce(sum(octet_length(asked.content)), 0) / 4.0)::bigint,
      'completion_tokens', ceil(coalesce(octet_length(said_text), 0) / 4.0)::bigint,
      'cached_tokens', 0,
      'is_estimated', true
    )
    into used
    from (
      select m.content
      from public.messages as m
      where m.session_id = run.session_id and m.is_active
      order by m."order" desc
      limit 100
    ) as asked;
  end if;

  perform private.end_run(run, 'INTERRUPTED', said, used, error, false);
end
$$;

comment on function private.interrupt_run(public.runs, jsonb) is
'Ends a run whose process is dead: what it had said becomes a partial message. The caller has locked the session and '
'the run.';

revoke all on function private.interrupt_run(public.runs, jsonb) from public, anon, authenticated;

create function private.interrupt_expired_runs(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  expired record;
  run public.runs;
  interrupted_ids uuid[] := '{}';
begin
  for expired in
    select r.id, r.session_id
    from public.runs as r
    where r.finished_at is null and r.lease_expires_at < clock_timestamp()
    order by r.lease_expires_at
    limit least(greatest(coalesce((args ->> 'limit')::integer, 100), 1), 1000)
  loop
    -- What another process holds is being ended, appended to or deleted there.
    perform from public.sessions as s where s.id = expired.session_id for no key update skip locked;
    continue when not found;
    select r.* into run
    from public.runs as r
    where r.id = expired.id and r.finished_at is null and r.lease_expires_at < clock_timestamp()
    for update skip locked;
    continue when not found;

    begin
      perform private.interrupt_run(run, nullif(args -> 'error', 'null'));
      interrupted_ids := interrupted_ids || run.id;
    exception
      when others then
        -- One run that cannot be ended must not keep the others from it.
        raise warning 'Run % could not be interrupted (%).', run.id, sqlstate;
    end;
  end loop;

  return jsonb_build_object('run_ids', to_jsonb(interrupted_ids));
end
$$;

comment on function private.interrupt_expired_runs(jsonb) is
'Ends runs whose lease is over as INTERRUPTED, with the given error and the text that they had said: {limit?, error} '
'-> {run_ids}. Any number of processes may call it at once.';

revoke all on function private.interrupt_expired_runs(jsonb) from public, anon, authenticated;
grant execute on function private.interrupt_expired_runs(jsonb) to concerto_login;

create function private.prune_run_events(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  seconds double precision := greatest(coalesce((args ->> 'older_than_seconds')::double precision, 3600), 0);
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
    where e.run_id = m.id and e.type = 'message_delta'
  )

  select count(*) into pruned from marked;
  return jsonb_build_object('pruned', pruned);
end
$$;

comment on function private.prune_run_events(jsonb) is
'Deletes the deltas of up to 200 runs that ended long ago, as their messages hold the text: {older_than_seconds?} -> '
'{pruned}, the number of runs; call it until that is 0.';

revoke all on function private.prune_run_events(jsonb) from public, anon, authenticated;
grant execute on function private.prune_run_events(jsonb) to concerto_login;

create function private.drop_runs()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  -- A run that goes with its session while it is being answered has used tokens nevertheless; one that goes with its
  -- user leaves nothing.
  insert into public.api_usage (user_id, session_id, run_id, model, source, completion_tokens, is_estimated)
  select
    d.user_id,
    d.session_id,
    d.id,
    d.model,
    d.source,
    ceil(coalesce(
      (
        select sum(octet_length(e.payload ->> 'text')) from public.run_events as e
        where e.run_id = d.id and e.type = 'message_delta'
      ),
      0
    ) / 4.0)::bigint,
    true
  from deleted_runs as d
  where d.state = 'RUNNING' and exists (select from public.users as u where u.id = d.user_id)
  on conflict (run_id) do nothing;

  delete from public.run_events as e
  using deleted_runs as d
  where e.run_id = d.id;
  return null;
end
$$;

comment on function private.drop_runs() is
'Trigger: deletes the events of runs that were deleted, and notes what those had used that were under way.';

revoke all on function private.drop_runs() from public, anon, authenticated;

create trigger runs_drop
after delete on public.runs
referencing old table as deleted_runs
for each statement
execute function private.drop_runs();
