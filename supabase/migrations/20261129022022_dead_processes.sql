-- Dead processes.

set lock_timeout = '5s';

alter table public.runs
add column process_id uuid;

create or replace function api.start_run(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  asked record;
  turn private.turn;
  run public.runs;
  asked_hash bytea;
  target_id uuid;
  is_busy boolean;
  answer jsonb;
  user_message jsonb;
  page jsonb;
begin
  perform private.refuse_users('start_run');

  select r.* into asked
  from jsonb_to_record(args) as r (
    session_id uuid,
    turn private.turn,
    lease_seconds integer,
    max_user_runs integer,
    prices jsonb,
    source text,
    lease_token text,
    history_messages integer,
    process_id uuid
  );
  turn := asked.turn;
  perform private.check_turn(turn);

  perform from public.sessions as s where s.id = asked.session_id for no key update;
  if not found then
    perform private.refuse_session(asked.session_id);
  end if;

  asked_hash := sha256(
    convert_to(
      jsonb_build_array(
        coalesce(turn.content, ''),
        coalesce(turn.metadata, '{}'),
        turn.regenerate_message_id,
        turn.edit_message_id
      )::text,
      'UTF8'
    )
  );

  if turn.request_id is not null then
    select r.* into run
    from public.runs as r
    where r.session_id = asked.session_id and r.request_id = turn.request_id;
    if found and run.request_hash = asked_hash then
      return jsonb_build_object(
        'run', private.run_json(run), 'events', private.started_events(run.id)
      ) || case
        -- The process that executes the run asks again, because its first answer was lost.
        when run.finished_at is null and run.lease_hash = sha256(convert_to(asked.lease_token, 'UTF8'))
          then jsonb_build_object('lease', jsonb_build_object('run_id', run.id, 'token', asked.lease_token))
        else '{}'
      end;
    elsif found then
      raise sqlstate 'PT409' using
        message = 'REQUEST_ID_REUSED',
        detail = jsonb_build_object('session_id', asked.session_id, 'request_id', turn.request_id)::text,
        hint = 'Use a new request_id for another message.';
    end if;
  end if;

  target_id := coalesce(turn.regenerate_message_id, turn.edit_message_id);
  if target_id is not null and private.find_message(asked.session_id, target_id) <> 'user' then
    raise sqlstate 'PT400' using
      message = 'NOT_A_USER_MESSAGE',
      detail = jsonb_build_object('session_id', asked.session_id, 'message_id', target_id)::text,
      hint = 'Name a message that the user has said.';
  end if;

  if coalesce(turn.if_running, 'reject') = 'reject' then
    perform private.refuse_while_running(asked.session_id);
  end if;
  is_busy := exists (
    select from public.runs as r
    where r.session_id = asked.session_id and r.finished_at is null
  );

  if asked.max_user_runs > 0 then
    perform private.refuse_many_runs(asked.max_user_runs);
  end if;

  run.session_id := asked.session_id;
  run.state := case when is_busy then 'QUEUED' else 'RUNNING' end;
  run.source := coalesce(nullif(asked.source, ''), 'turn');
  run.request_hash := asked_hash;
  run.lease_seconds := asked.lease_seconds;
  run.prices := coalesce(asked.prices, '{}');
  run.process_id := asked.process_id;
  answer := private.open_run(run, turn, asked.lease_token, is_busy and turn.if_running = 'cancel');

  -- A queued run has no message yet, and before a first one there is nothing.
  user_message := answer #> '{events,0,run_started,user_message}';
  if asked.history_messages > 0 and (user_message ->> 'order')::integer > 1 then
    page := api.list_messages(
      jsonb_build_object(
        'session_id', asked.session_id,
        'page_size', asked.history_messages,
        'from_end', true,
        'before_order', user_message -> 'order'
      )
    );
    answer := answer || jsonb_build_object(
      'history', page -> 'messages', 'has_earlier_messages', page -> 'has_more'
    );
  end if;
  return answer;
end
$function$;

create or replace function private.end_leases(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
as $function$
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

comment on column public.runs.process_id is
'The process that executes the run, by the name that its supervisor gave it; null where nobody would tell of its '
'death.';

comment on function private.end_leases(jsonb) is
'Ends the leases of a dead process, so that its runs are interrupted at the next look: {process_id} -> {run_ids}. For '
'who has seen its end; were it alive, it would renew them a second later.';

comment on function private.open_run(public.runs, private.turn, text, boolean) is
'Makes a run of the caller''s session for api.start_run, which has locked the session and checked everything else: '
'session_id, state, source, request_hash, lease_seconds, process_id and prices are taken from the row. Raises PT404 '
'SESSION_NOT_FOUND for a session that is not the caller''s.';

revoke all on function private.end_leases(jsonb) from public;

grant execute on function private.end_leases(jsonb) to concerto_login;

reset lock_timeout;
