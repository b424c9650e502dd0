-- A turn is read from JSON once, as private.turn, and a start answers with its events.

set lock_timeout = '5s';

drop function private.begin_run(public.runs, jsonb);

drop function private.open_run(jsonb, bytea, boolean, boolean);

drop function private.store_question(uuid, jsonb);

create type private.turn as (
  "content" text,
  "metadata" jsonb,
  "model" text,
  "request_id" uuid,
  "agent" text,
  "if_running" text,
  "regenerate_message_id" uuid,
  "edit_message_id" uuid
);

create or replace function api.start_run(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
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
  select r.* into asked
  from jsonb_to_record(args) as r (
    session_id uuid,
    turn private.turn,
    lease_seconds integer,
    max_user_runs integer,
    prices jsonb,
    source text,
    lease_token text,
    history_messages integer
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
    -- Starts of one user in several sessions count one after the other.
    perform pg_advisory_xact_lock(hashtextextended('runs of ' || (select auth.uid())::text, 0));
    if (
      select count(*) from public.runs as r
      where r.user_id = (select auth.uid()) and r.finished_at is null
    ) >= asked.max_user_runs then
      raise sqlstate 'PT429' using
        message = 'TOO_MANY_RUNS',
        detail = '{"scope": "per user", "retry_after_seconds": "2"}',
        hint = 'Wait until a run has ended.';
    end if;
  end if;

  run.session_id := asked.session_id;
  run.state := case when is_busy then 'QUEUED' else 'RUNNING' end;
  run.source := coalesce(nullif(asked.source, ''), 'turn');
  run.request_hash := asked_hash;
  run.lease_seconds := asked.lease_seconds;
  run.prices := coalesce(asked.prices, '{}');
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

create or replace function private.announce_run(
  run public.runs
)
returns jsonb
language plpgsql
security definer
set search_path to ''
as $function$
declare
  events jsonb;
begin
  insert into public.run_events as e (run_id, seq, type, payload)
  values (
    run.id,
    1,
    'run_started',
    jsonb_build_object(
      'run_id', run.id,
      'session_id', run.session_id,
      'user_message', private.stored_message(run.user_message_id),
      'model', run.model,
      'agent', run.agent
    )
  )
  returning jsonb_build_array(jsonb_build_object('seq', e.seq, 'created_at', e.created_at, e.type, e.payload)) into events;
  return events;
end
$function$;

create or replace function private.check_turn(
  turn private.turn
)
returns void
language plpgsql
immutable
set search_path to ''
as $function$
declare
  -- What Unicode calls white space, and the four separators of old that readers show as such.
  blanks constant text :=
    e'\t\n\x0b\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a'
    '\u2028\u2029\u202f\u205f\u3000';
  content text := coalesce(turn.content, '');
  excluded text := case
    when turn.regenerate_message_id is null then null
    when content <> '' then 'content'
    when turn.edit_message_id is not null then 'edit_message_id'
  end;
begin
  -- Trimming takes apart the whole text, so its first character is looked at before.
  if turn.regenerate_message_id is null and strpos(blanks, left(content, 1)) > 0 and btrim(content, blanks) = '' then
    raise sqlstate 'PT400' using
      message = 'MISSING_FIELD',
      detail = '{"field": "content"}',
      hint = 'Say something, or name the message that is to be answered again.';
  elsif excluded is not null then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = jsonb_build_object(
        'field', excluded, 'problem', 'it must be empty when regenerate_message_id is set'
      )::text,
      hint = 'Answering a message again takes no new content.';
  elsif octet_length(turn.metadata::text) > 98304 then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = '{"field": "metadata", "limit": "65536 bytes"}',
      hint = 'Keep the metadata small.';
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

  run.user_message_id := case when not must_wait then private.store_question(run.session_id, turn) end;
  run.lease_seconds := least(coalesce(nullif(run.lease_seconds, 0), 10), 3600);

  insert into public.runs (
    session_id, user_id, state, model, agent, source, request_id, request_hash, user_message_id, lease_hash,
    lease_seconds, lease_expires_at, prices, pending, started_at, created_at
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

create or replace function private.started_events(
  wanted_id uuid
)
returns jsonb
language plpgsql
stable
set search_path to ''
as $function$
declare
  events jsonb;
begin
  select jsonb_build_array(jsonb_build_object('seq', e.seq, 'created_at', e.created_at, e.type, e.payload)) into events
  from public.run_events as e
  where e.run_id = wanted_id and e.seq = 1 and e.type = 'run_started';
  return coalesce(events, '[]');
end
$function$;

create or replace function private.store_question(
  wanted_session_id uuid,
  turn private.turn
)
returns uuid
language plpgsql
security definer
set search_path to ''
as $function$
declare
  message_id uuid;
begin
  if turn.regenerate_message_id is not null then
    perform private.show_branch(wanted_session_id, turn.regenerate_message_id);
    return turn.regenerate_message_id;
  end if;

  if turn.edit_message_id is not null then
    perform private.show_branch(
      wanted_session_id, (select m.parent_id from public.messages as m where m.id = turn.edit_message_id)
    );
  end if;

  insert into public.messages (session_id, role, content, metadata)
  values (wanted_session_id, 'user', coalesce(turn.content, ''), coalesce(turn.metadata, '{}'))
  returning id into message_id;
  return message_id;
end
$function$;

comment on column public.runs.pending is
'The turn that a queued run will ask, as private.turn in JSON; null once it has begun.';

comment on function api.start_run(jsonb) is
'Stores the user''s message and opens its run, with the contract''s StartRunRequest -> {run, lease?, events, history?,'
' has_earlier_messages?}: with history_messages, the newest messages before the user''s come along, as one page of '
'api.list_messages. A repeated request_id answers the run that there is, without history, and with the lease only if '
'it names the same lease_token. Raises PT404 SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT400 MISSING_FIELD, '
'INVALID_FIELD, FIELD_TOO_LARGE and NOT_A_USER_MESSAGE, PT409 REQUEST_ID_REUSED and RUN_IN_PROGRESS, PT429 '
'TOO_MANY_RUNS.';

comment on function private.announce_run(public.runs) is
'Stores the first event of a run whose message is stored, and returns it as private.started_events does.';

comment on function private.check_turn(private.turn) is
'Raises PT400 MISSING_FIELD for a turn that says nothing, INVALID_FIELD for one that says something and has a message '
'answered again, FIELD_TOO_LARGE.';

comment on function private.open_run(public.runs, private.turn, text, boolean) is
'Makes a run of the caller''s session for api.start_run, which has locked the session and checked everything else: '
'session_id, state, source, request_hash, lease_seconds and prices are taken from the row. Raises PT404 '
'SESSION_NOT_FOUND for a session that is not the caller''s.';

comment on function private.promote_run(jsonb) is
'Begins a queued run once the runs before it have ended: {lease} -> {run, events}. Answers the same for one that runs.'
' Raises PT409 LEASE_LOST, PT400 RUN_NOT_NEXT.';

comment on function private.started_events(uuid) is
'Returns what private.announce_run has stored, as the contract''s RunEvents: one, or none while the run is queued.';

comment on function private.store_question(uuid, private.turn) is
'Makes the user''s message the end of the active branch and returns its id: a new one, one beside an edited one, or '
'the one that is answered again. The caller has locked the session and checked what the turn names.';

comment on type private.turn is 'The contract''s Turn; a field that is not given is null.';
comment on column private.turn.content is 'What the user says; empty when a message is answered again.';
comment on column private.turn.metadata is 'Notes about the user''s message.';
comment on column private.turn.model is 'The model that answers.';
comment on column private.turn.request_id is 'Chosen by the client so that a repetition starts one run.';
comment on column private.turn.agent is 'The agent that answers.';
comment on column private.turn.if_running is
'What happens while the session has a run that has not ended: reject, queue or cancel; null means reject.';
comment on column private.turn.regenerate_message_id is 'A user''s message that is answered again.';
comment on column private.turn.edit_message_id is 'A user''s message that the content takes the place of.';

revoke all on function private.announce_run(public.runs) from public;

revoke all on function private.check_turn(private.turn) from public;

grant execute on function private.check_turn(private.turn) to authenticated;

revoke all on function private.open_run(public.runs, private.turn, text, boolean) from public;

grant execute on function private.open_run(public.runs, private.turn, text, boolean) to authenticated;

revoke all on function private.started_events(uuid) from public;

grant execute on function private.started_events(uuid) to authenticated;

revoke all on function private.store_question(uuid, private.turn) from public;

reset lock_timeout;
