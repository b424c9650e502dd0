set lock_timeout = '5s';

drop function private.announce_run(public.runs);

drop function private.check_turn(private.turn);

drop function private.open_run(public.runs, private.turn, text, boolean);

drop function private.started_events(uuid);

drop function private.store_question(uuid, private.turn);

drop type private.turn;

create or replace function api.start_run(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
as $function$
declare
  p record;
  run public.runs;
  asked_hash bytea;
  target_id uuid;
  is_busy boolean;
  if_running text;
  answer jsonb;
  page jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    session_id uuid,
    request_id uuid,
    content text,
    metadata jsonb,
    regenerate_message_id uuid,
    edit_message_id uuid,
    if_running text,
    max_user_runs integer,
    history_messages integer
  );

  perform from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  if coalesce(p.content, '') = '' and p.regenerate_message_id is null then
    raise sqlstate 'PT400' using
      message = 'MISSING_FIELD',
      detail = '{"field": "content"}',
      hint = 'Say something, or name the message that is to be answered again.';
  elsif coalesce(p.content, '') <> '' and p.regenerate_message_id is not null then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "content", "problem": "must be empty when regenerate_message_id is set"}',
      hint = 'Answering a message again takes no new content.';
  elsif p.edit_message_id is not null and p.regenerate_message_id is not null then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "edit_message_id", "problem": "must be absent when regenerate_message_id is set"}',
      hint = 'Edit a message, or have it answered again.';
  elsif octet_length(p.metadata::text) > 98304 then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = '{"field": "metadata", "limit": "65536 bytes"}',
      hint = 'Keep the metadata small.';
  end if;

  asked_hash := sha256(
    convert_to(
      jsonb_build_array(
        coalesce(p.content, ''),
        coalesce(nullif(p.metadata, 'null'), '{}'),
        p.regenerate_message_id,
        p.edit_message_id
      )::text,
      'UTF8'
    )
  );

  if p.request_id is not null then
    select r.* into run
    from public.runs as r
    where r.session_id = p.session_id and r.request_id = p.request_id;
    if found and run.request_hash = asked_hash then
      return jsonb_build_object(
        'run', private.run_json(run),
        'user_message', private.stored_message(run.user_message_id)
      ) || case
        -- The process that executes the run asks again, because its first answer was lost.
        when run.finished_at is null and run.lease_hash = sha256(convert_to(args ->> 'lease_token', 'UTF8'))
          then jsonb_build_object('lease', jsonb_build_object('run_id', run.id, 'token', args ->> 'lease_token'))
        else '{}'
      end;
    elsif found then
      raise sqlstate 'PT409' using
        message = 'REQUEST_ID_REUSED',
        detail = jsonb_build_object('session_id', p.session_id, 'request_id', p.request_id)::text,
        hint = 'Use a new request_id for another message.';
    end if;
  end if;

  target_id := coalesce(p.regenerate_message_id, p.edit_message_id);
  if target_id is not null and private.find_message(p.session_id, target_id) <> 'user' then
    raise sqlstate 'PT400' using
      message = 'NOT_A_USER_MESSAGE',
      detail = jsonb_build_object('session_id', p.session_id, 'message_id', target_id)::text,
      hint = 'Name a message that the user has said.';
  end if;

  if_running := coalesce(p.if_running, 'reject');
  if if_running = 'reject' then
    perform private.refuse_while_running(p.session_id);
  end if;
  is_busy := exists (
    select from public.runs as r
    where r.session_id = p.session_id and r.finished_at is null
  );

  if p.max_user_runs > 0 then
    -- Starts of one user in several sessions count one after the other.
    perform pg_advisory_xact_lock(hashtextextended('runs of ' || (select auth.uid())::text, 0));
    if (
      select count(*) from public.runs as r
      where r.user_id = (select auth.uid()) and r.finished_at is null
    ) >= p.max_user_runs then
      raise sqlstate 'PT429' using
        message = 'TOO_MANY_RUNS',
        detail = '{"scope": "per user", "retry_after_seconds": "2"}',
        hint = 'Wait until a run has ended.';
    end if;
  end if;

  answer := private.open_run(args, asked_hash, is_busy, is_busy and if_running = 'cancel');
  -- A queued run has no message yet, and before a first one there is nothing.
  if p.history_messages > 0 and (answer -> 'user_message' ->> 'order')::integer > 1 then
    page := api.list_messages(
      jsonb_build_object(
        'session_id', p.session_id,
        'page_size', p.history_messages,
        'from_end', true,
        'before_order', answer -> 'user_message' -> 'order'
      )
    );
    answer := answer || jsonb_build_object(
      'history', page -> 'messages', 'has_earlier_messages', page -> 'has_more'
    );
  end if;
  return answer;
end
$function$;

create or replace function private.begin_run(
  run public.runs,
  question jsonb
)
returns public.runs
language plpgsql
security definer
set search_path to ''
as $function$
begin
  run.user_message_id := private.store_question(run.session_id, question);

  update public.runs as r
  set state = 'RUNNING', pending = null, started_at = clock_timestamp(), user_message_id = run.user_message_id
  where r.id = run.id
  returning r.* into run;

  insert into public.run_events (run_id, seq, type, payload)
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
  );
  perform pg_notify('concerto_runs', run.id::text);
  return run;
end
$function$;

create or replace function private.open_run(
  args jsonb,
  request_hash bytea,
  must_wait boolean,
  cancels boolean
)
returns jsonb
language plpgsql
security definer
set search_path to ''
set enable_indexonlyscan to 'off'
as $function$
declare
  p record;
  question jsonb;
  question_id uuid;
  user_message jsonb;
  run public.runs;
  token text;
  lease_seconds integer;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    session_id uuid, request_id uuid, model text, agent text, source text, lease_seconds integer, prices jsonb
  );

  perform from public.sessions as s where s.id = p.session_id and s.user_id = (select auth.uid());
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  if cancels then
    update public.runs as r
    set is_cancellation_requested = true
    where r.session_id = p.session_id and r.finished_at is null and not r.is_cancellation_requested;
    perform pg_notify('concerto_runs', r.id::text)
    from public.runs as r
    where r.session_id = p.session_id and r.finished_at is null;
  end if;

  question := jsonb_build_object(
    'content', args -> 'content',
    'metadata', args -> 'metadata',
    'regenerate_message_id', nullif(args ->> 'regenerate_message_id', ''),
    'edit_message_id', nullif(args ->> 'edit_message_id', '')
  );
  -- 244 random bits, unless the caller made its own. Only the hash is stored, so nobody who reads the table can act for
  -- the run.
  token := coalesce(
    nullif(args ->> 'lease_token', ''), replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')
  );
  lease_seconds := least(coalesce(nullif(p.lease_seconds, 0), 10), 3600);
  if not must_wait then
    question_id := private.store_question(p.session_id, question);
  end if;

  insert into public.runs (
    session_id, user_id, state, model, agent, source, request_id, request_hash, user_message_id, lease_hash,
    lease_seconds, lease_expires_at, prices, pending, started_at, created_at
  )
  values (
    p.session_id,
    (select auth.uid()),
    case when must_wait then 'QUEUED' else 'RUNNING' end,
    coalesce(p.model, ''),
    coalesce(p.agent, ''),
    coalesce(nullif(p.source, ''), 'turn'),
    p.request_id,
    open_run.request_hash,
    question_id,
    sha256(convert_to(token, 'UTF8')),
    lease_seconds,
    clock_timestamp() + make_interval(secs => lease_seconds),
    coalesce(nullif(p.prices, 'null'), '{}'),
    case when must_wait then question end,
    case when not must_wait then clock_timestamp() end,
    -- Waiting runs begin in this order, so no two of a session are alike.
    greatest(
      clock_timestamp(),
      (
        select max(r.created_at) + interval '1 microsecond' from public.runs as r
        where r.session_id = p.session_id
      )
    )
  )
  returning * into run;

  if not must_wait then
    user_message := private.stored_message(question_id);
    insert into public.run_events (run_id, seq, type, payload)
    values (
      run.id,
      1,
      'run_started',
      jsonb_build_object(
        'run_id', run.id,
        'session_id', run.session_id,
        'user_message', user_message,
        'model', run.model,
        'agent', run.agent
      )
    );
  end if;
  perform pg_notify('concerto_runs', run.id::text);

  return jsonb_build_object(
    'run', private.run_json(run),
    'lease', jsonb_build_object('run_id', run.id, 'token', token),
    'user_message', user_message
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
$function$;

create or replace function private.store_question(
  wanted_session_id uuid,
  question jsonb
)
returns uuid
language plpgsql
security definer
set search_path to ''
as $function$
declare
  regenerate_id uuid := (question ->> 'regenerate_message_id')::uuid;
  edit_id uuid := (question ->> 'edit_message_id')::uuid;
  message_id uuid;
begin
  if regenerate_id is not null then
    perform private.show_branch(wanted_session_id, regenerate_id);
    return regenerate_id;
  end if;

  if edit_id is not null then
    perform private.show_branch(
      wanted_session_id, (select m.parent_id from public.messages as m where m.id = edit_id)
    );
  end if;

  insert into public.messages (session_id, role, content, metadata)
  values (
    wanted_session_id,
    'user',
    coalesce(question ->> 'content', ''),
    coalesce(nullif(question -> 'metadata', 'null'), '{}')
  )
  returning id into message_id;
  return message_id;
end
$function$;

comment on column public.runs.pending is
'What a queued run will ask: content, metadata, regenerate_message_id, edit_message_id; null once it has begun.';

comment on function api.start_run(jsonb) is
'Stores the user''s message and opens its run, with the contract''s StartRunRequest -> {run, lease?, user_message?, '
'history?, has_earlier_messages?}: with history_messages, the newest messages before the user''s come along, as one '
'page of api.list_messages. A repeated request_id answers the run that there is, without history, and with the lease '
'only if it names the same lease_token. Raises PT404 SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT400 MISSING_FIELD, '
'INVALID_FIELD, FIELD_TOO_LARGE and NOT_A_USER_MESSAGE, PT409 REQUEST_ID_REUSED and RUN_IN_PROGRESS, PT429 '
'TOO_MANY_RUNS.';

comment on function private.begin_run(public.runs, jsonb) is
'Turns a QUEUED run into a RUNNING one: stores the user''s message and the first event. The caller has locked the '
'session.';

comment on function private.open_run(jsonb, bytea, boolean, boolean) is
'Makes a run of the caller''s session for api.start_run, which has locked the session and checked everything else. '
'Raises PT404 SESSION_NOT_FOUND for a session that is not the caller''s.';

comment on function private.promote_run(jsonb) is
'Begins a queued run once the runs before it have ended: {lease} -> {run, user_message}. Answers the same for one that'
' runs. Raises PT409 LEASE_LOST, PT400 RUN_NOT_NEXT.';

comment on function private.store_question(uuid, jsonb) is
'Makes the user''s message the end of the active branch and returns its id: a new one, one beside an edited one, or '
'the one that is answered again. The caller has locked the session and checked what the question names.';

revoke all on function private.begin_run(public.runs, jsonb) from public;

revoke all on function private.open_run(jsonb, bytea, boolean, boolean) from public;

grant execute on function private.open_run(jsonb, bytea, boolean, boolean) to authenticated;

revoke all on function private.store_question(uuid, jsonb) from public;

reset lock_timeout;
