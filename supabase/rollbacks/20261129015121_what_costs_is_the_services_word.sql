set lock_timeout = '5s';

alter table private.model_calls
drop constraint "model_calls_user_id_fkey";

drop function api.start_model_call(jsonb);

drop function private.finish_model_call(jsonb);

drop function private.note_lost_model_calls(integer);

drop function private.note_model_call(private.model_calls, jsonb);

drop function private.open_model_call(jsonb);

drop function private.read_used(jsonb, jsonb);

drop function private.refuse_many_runs(integer);

drop function private.refuse_users(text);

drop table private.model_calls;

create or replace function api.list_usage(
  args jsonb
)
returns jsonb
language plpgsql
stable
set search_path to ''
set statement_timeout to '3s'
as $function$
declare
  p record;
  page_size integer;
  until timestamptz;
  since timestamptz;
  grouping text;
  answer jsonb;
  -- Rows that one call sums up, in a few tenths of a second.
  most_rows constant integer := 200000;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    "from" timestamptz, "to" timestamptz, group_by text, page_size integer, after_key text
  );
  page_size := least(greatest(coalesce(p.page_size, 100), 1), 366);
  until := coalesce(p."to", now());
  since := coalesce(p."from", until - interval '30 days');
  grouping := coalesce(p.group_by, 'day');
  if grouping not in ('day', 'model', 'session') then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "group_by", "problem": "must be one of day, model, session"}',
      hint = 'Sum up by day, model or session.';
  end if;
  if since > until then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "from", "problem": "must not be after to"}',
      hint = 'Ask for a time that ends after it begins.';
  end if;

  if (
    select count(*) from (
      select from public.api_usage as u
      where u.user_id = (select auth.uid()) and u.created_at >= since and u.created_at < until
      limit most_rows + 1
    ) as counted
  ) > most_rows then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = jsonb_build_object(
        'field', 'from', 'problem', format('there are more than %s runs in this time', most_rows)
      )::text,
      hint = 'Ask for a shorter time.';
  end if;

  with entry as (
    select
      case grouping
        when 'day' then to_char(u.created_at at time zone 'UTC', 'YYYY-MM-DD')
        when 'model' then u.model
        else coalesce(u.session_id::text, '')
      end collate "C" as key,
      count(*) as runs,
      sum(u.prompt_tokens) as prompt_tokens,
      sum(u.completion_tokens) as completion_tokens,
      sum(u.cached_tokens) as cached_tokens,
      sum(u.cost_micro_usd) as cost_micro_usd
    from public.api_usage as u
    where u.user_id = (select auth.uid()) and u.created_at >= since and u.created_at < until
    group by 1
  ),

  page as (
    select e.*, row_number() over (order by e.key) as place
    from entry as e
    where p.after_key is null or e.key > p.after_key
    order by e.key
    limit page_size + 1
  )

  select jsonb_build_object(
    'entries',
    coalesce(
      (
        select jsonb_agg(to_jsonb(f) - 'place' order by f.key)
        from page as f
        where f.place <= page_size
      ),
      '[]'
    ),
    'has_more',
    (select count(*) > page_size from page),
    'total',
    (
      select jsonb_build_object(
        'key', '',
        'runs', coalesce(sum(e.runs), 0),
        'prompt_tokens', coalesce(sum(e.prompt_tokens), 0),
        'completion_tokens', coalesce(sum(e.completion_tokens), 0),
        'cached_tokens', coalesce(sum(e.cached_tokens), 0),
        'cost_micro_usd', coalesce(sum(e.cost_micro_usd), 0)
      )
      from entry as e
    ),
    'from', since,
    'to', until
  )
  into answer;

  return answer;
end
$function$;

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

  return jsonb_build_object('run_ids', to_jsonb(interrupted_ids));
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

create or replace function private.renew_leases(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
as $function$
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

  valid as (
    select r.id
    from public.runs as r
    inner join given as g on r.id = g.run_id and r.lease_hash = g.token_hash
    where r.finished_at is null
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
$function$;

comment on column public.api_usage.created_at is 'When the run ended.';

comment on column public.api_usage.run_id is 'The run; no foreign key, for the same reason.';

comment on column public.api_usage.session_id is
'The session of the run. No foreign key: deleting a session changes no total.';

comment on column public.api_usage.source is 'Who asked: turn or chat_completions.';

comment on column public.api_usage.user_id is 'Whose run it was.';

comment on function api.start_run(jsonb) is
'Stores the user''s message and opens its run, with the contract''s StartRunRequest -> {run, lease?, events, history?,'
' has_earlier_messages?}: with history_messages, the newest messages before the user''s come along, as one page of '
'api.list_messages. A repeated request_id answers the run that there is, without history, and with the lease only if '
'it names the same lease_token. Raises PT404 SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT400 MISSING_FIELD, '
'INVALID_FIELD, FIELD_TOO_LARGE and NOT_A_USER_MESSAGE, PT409 REQUEST_ID_REUSED and RUN_IN_PROGRESS, PT429 '
'TOO_MANY_RUNS and TOO_MANY_MESSAGES.';

comment on function private.interrupt_expired_runs(jsonb) is
'Ends runs whose lease is over as INTERRUPTED, with the given error and the text that they had said: {limit?, error} '
'-> {run_ids}. Any number of processes may call it at once.';

comment on function private.renew_leases(jsonb) is
'Moves the end of leases to lease_seconds (10) from now: {leases, lease_seconds?} -> {lost_run_ids, '
'cancelled_run_ids}. Queued runs are renewed as well; one that is being changed at this moment keeps its end, and is '
'not lost.';

comment on table public.api_usage is 'What runs have used: one row per run that was answered, never changed.';

reset lock_timeout;
