set lock_timeout = '5s';

drop function private.tell_watchers(uuid);

create or replace function private.append_run_events(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
as $function$
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
$function$;

create or replace function private.end_run(
  run public.runs,
  new_state text,
  new_messages jsonb,
  used jsonb,
  error jsonb,
  keeps_lease boolean
)
returns public.runs
language plpgsql
security definer
set search_path to ''
as $function$
declare
  was_started boolean := run.state = 'RUNNING';
  stored_id uuid;
  stored_role text;
  counted record;
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
  end if;

  select * into counted from private.read_used(used, run.prices);
  reason := error -> 'details' -> 0 ->> 'reason';
  update public.runs as r
  set
    state = new_state,
    finished_at = clock_timestamp(),
    answer_message_id = case when stored_role = 'assistant' then stored_id end,
    error_reason = reason,
    lease_hash = case when keeps_lease then r.lease_hash end,
    usage_model = nullif(counted.model, ''),
    prompt_tokens = case when was_started then counted.prompt_tokens end,
    completion_tokens = case when was_started then counted.completion_tokens end,
    cached_tokens = case when was_started then counted.cached_tokens end,
    cost_micro_usd = case when was_started then counted.cost_micro_usd end,
    is_usage_estimated = case when was_started then counted.is_estimated end
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
$function$;

create or replace function private.interrupt_expired_runs(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
as $function$
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

  begin
    perform private.note_lost_model_calls(1000);
  exception
    when others then
      raise warning 'Lost calls of models could not be noted (%).', sqlstate;
  end;
  return jsonb_build_object('run_ids', to_jsonb(interrupted_ids));
end
$function$;

create or replace function private.mark_cancellation(
  wanted_id uuid
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
begin
  update public.runs as r
  set is_cancellation_requested = true
  where r.id = wanted_id
    and r.user_id = (select auth.uid())
    and r.finished_at is null
    and not r.is_cancellation_requested;
  if found then
    perform pg_notify('concerto_runs', wanted_id::text);
  end if;
end
$function$;

create or replace function private.open_run(
  run public.runs,
  turn private.turn,
  lease_token text,
  cancels boolean
)
returns jsonb
language plpgsql
security definer
set search_path to ''
set enable_indexonlyscan to 'off'
as $function$
declare
  -- 244 random bits, unless the caller made its own. Only the hash is stored, so nobody who reads the table can act for
  -- the run.
  token text := coalesce(
    nullif(lease_token, ''), replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')
  );
  must_wait boolean := run.state = 'QUEUED';
  events jsonb := '[]';
begin
  perform from public.sessions as s where s.id = run.session_id and s.user_id = (select auth.uid());
  if not found then
    perform private.refuse_session(run.session_id);
  end if;

  if cancels then
    update public.runs as r
    set is_cancellation_requested = true
    where r.session_id = run.session_id and r.finished_at is null and not r.is_cancellation_requested;
    perform pg_notify('concerto_runs', r.id::text)
    from public.runs as r
    where r.session_id = run.session_id and r.finished_at is null;
  end if;

  -- Counted now, as it is stored by the services when its turn comes.
  if must_wait then
    perform private.spend_messages(1 + octet_length(coalesce(turn.content, '')) / 65536);
  end if;
  run.user_message_id := case when not must_wait then private.store_question(run.session_id, turn) end;
  run.lease_seconds := least(greatest(coalesce(nullif(run.lease_seconds, 0), 10), 1), 3600);

  insert into public.runs (
    session_id, user_id, state, model, agent, source, request_id, request_hash, user_message_id, lease_hash,
    lease_seconds, lease_expires_at, process_id, prices, pending, started_at, created_at
  )
  values (
    run.session_id,
    (select auth.uid()),
    run.state,
    coalesce(turn.model, ''),
    coalesce(turn.agent, ''),
    run.source,
    turn.request_id,
    run.request_hash,
    run.user_message_id,
    sha256(convert_to(token, 'UTF8')),
    run.lease_seconds,
    clock_timestamp() + make_interval(secs => run.lease_seconds),
    run.process_id,
    run.prices,
    case when must_wait then to_jsonb(turn) end,
    case when not must_wait then clock_timestamp() end,
    -- Waiting runs begin in this order, so no two of a session are alike.
    greatest(
      clock_timestamp(),
      (
        select max(r.created_at) + interval '1 microsecond' from public.runs as r
        where r.session_id = run.session_id
      )
    )
  )
  returning * into run;

  if not must_wait then
    events := private.announce_run(run);
  end if;
  perform pg_notify('concerto_runs', run.id::text);

  return jsonb_build_object(
    'run', private.run_json(run),
    'lease', jsonb_build_object('run_id', run.id, 'token', token),
    'events', events
  );
end
$function$;

create or replace function private.promote_run(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  wanted_id uuid := (args -> 'lease' ->> 'run_id')::uuid;
  token_hash bytea := sha256(convert_to(coalesce(args -> 'lease' ->> 'token', ''), 'UTF8'));
  run public.runs;
  events jsonb;
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
    run.user_message_id := private.store_question(
      run.session_id, jsonb_populate_record(null::private.turn, run.pending)
    );
    update public.runs as r
    set state = 'RUNNING', pending = null, started_at = clock_timestamp(), user_message_id = run.user_message_id
    where r.id = run.id
    returning r.* into run;
    events := private.announce_run(run);
    perform pg_notify('concerto_runs', run.id::text);
  end if;

  return jsonb_build_object('run', private.run_json(run), 'events', coalesce(events, private.started_events(run.id)));
end
$function$;

create or replace function private.prune_run_events(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
as $function$
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
$function$;

comment on function private.interrupt_expired_runs(jsonb) is
'Ends runs whose lease is over as INTERRUPTED, with the given error and the text that they had said: {limit?, error} '
'-> {run_ids}. Calls of models outside of runs that are lost likewise are entered in the ledger. Any number of '
'processes may call it at once.';

comment on function private.prune_run_events(jsonb) is
'Deletes the deltas of up to 200 runs that ended long ago, as their messages hold the text: {older_than_seconds?} -> '
'{pruned}, the number of runs; call it until that is 0.';

reset lock_timeout;
