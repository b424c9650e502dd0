-- What costs is the services word.

set lock_timeout = '5s';

set check_function_bodies = off;

create table private.model_calls (
  id uuid not null,
  user_id uuid not null,
  session_id uuid,
  model text not null,
  source text not null,
  prompt_tokens bigint not null,
  prices jsonb not null,
  lease_hash bytea not null,
  lease_expires_at timestamp with time zone not null,
  constraint model_calls_model_length check ((char_length(model) <= 200)),
  constraint model_calls_pkey primary key (id),
  constraint model_calls_source_length check (((char_length(source) >= 1) and (char_length(source) <= 50)))
);

alter table private.model_calls
enable row level security;

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
  -- What the contract's int64 holds; a sum that is larger is told as this.
  largest constant numeric := 9223372036854775807;
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
      count(*) filter (where u.source <> 'title') as runs,
      least(sum(u.prompt_tokens), largest) as prompt_tokens,
      least(sum(u.completion_tokens), largest) as completion_tokens,
      least(sum(u.cached_tokens), largest) as cached_tokens,
      least(sum(u.cost_micro_usd), largest) as cost_micro_usd
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
        'prompt_tokens', least(coalesce(sum(e.prompt_tokens), 0), largest),
        'completion_tokens', least(coalesce(sum(e.completion_tokens), 0), largest),
        'cached_tokens', least(coalesce(sum(e.cached_tokens), 0), largest),
        'cost_micro_usd', least(coalesce(sum(e.cost_micro_usd), 0), largest)
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

create or replace function api.start_model_call(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
begin
  perform private.refuse_users('start_model_call');
  perform private.open_model_call(args);
  return jsonb_build_object(
    'lease', jsonb_build_object('run_id', args -> 'request_id', 'token', args -> 'lease_token')
  );
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
    perform private.refuse_many_runs(asked.max_user_runs);
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

create or replace function private.finish_model_call(
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
  call private.model_calls;
begin
  delete from private.model_calls as c
  where c.id = wanted_id
    and c.lease_hash = sha256(convert_to(coalesce(args -> 'lease' ->> 'token', ''), 'UTF8'))
  returning c.* into call;
  if not found then
    perform private.refuse_lease(wanted_id);
  end if;

  if jsonb_typeof(args -> 'usage') = 'object' then
    perform private.note_model_call(call, args -> 'usage');
  end if;
  return '{}';
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

create or replace function private.note_lost_model_calls(
  most integer
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
declare
  lost private.model_calls;
begin
  for lost in
    delete from private.model_calls as c
    where c.id in (
      select o.id
      from private.model_calls as o
      where o.lease_expires_at < clock_timestamp()
      limit most
      for update skip locked
    )
    returning c.*
  loop
    -- Nobody knows what the model has said, nor what the provider counted.
    perform private.note_model_call(
      lost, jsonb_build_object('prompt_tokens', lost.prompt_tokens, 'is_estimated', true)
    );
  end loop;
end
$function$;

create or replace function private.note_model_call(
  call private.model_calls,
  used jsonb
)
returns void
language sql
security definer
set search_path to ''
as $function$
  insert into public.api_usage (
    user_id, session_id, run_id, model, source, prompt_tokens, completion_tokens, cached_tokens, cost_micro_usd,
    is_estimated
  )
  select
    call.user_id,
    call.session_id,
    call.id,
    coalesce(nullif(u.model, ''), call.model),
    call.source,
    u.prompt_tokens,
    u.completion_tokens,
    u.cached_tokens,
    u.cost_micro_usd,
    u.is_estimated
  from private.read_used(used, call.prices) as u
  on conflict (run_id) do nothing
$function$;

create or replace function private.open_model_call(
  args jsonb
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
declare
  asked record;
begin
  select r.* into asked
  from jsonb_to_record(args) as r (
    request_id uuid,
    session_id uuid,
    model text,
    source text,
    prompt_tokens numeric,
    prices jsonb,
    lease_token text,
    lease_seconds integer,
    max_user_runs integer
  );
  if asked.max_user_runs > 0
    and not exists (
      select from private.model_calls as c where c.id = asked.request_id and c.user_id = (select auth.uid())
    )
  then
    perform private.refuse_many_runs(asked.max_user_runs);
  end if;

  insert into private.model_calls (
    id, user_id, session_id, model, source, prompt_tokens, prices, lease_hash, lease_expires_at
  )
  values (
    asked.request_id,
    (select auth.uid()),
    asked.session_id,
    coalesce(asked.model, ''),
    asked.source,
    least(greatest(coalesce(asked.prompt_tokens, 0), 0), 1000000000000),
    coalesce(asked.prices, '{}'),
    sha256(convert_to(asked.lease_token, 'UTF8')),
    clock_timestamp()
    + make_interval(secs => least(greatest(coalesce(nullif(asked.lease_seconds, 0), 10), 1), 3600))
  )
  -- A call that is repeated because its answer was lost.
  on conflict (id) do nothing;
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

create or replace function private.read_used(
  used jsonb,
  prices jsonb,
  out model text,
  out prompt_tokens bigint,
  out completion_tokens bigint,
  out cached_tokens bigint,
  out is_estimated boolean,
  out cost_micro_usd bigint
)
returns record
language plpgsql
immutable
set search_path to ''
as $function$
declare
  -- Tokens of one answer, and millionths of a dollar per million of them. A larger number is a mistake of the
  -- provider's or of somebody's; what it belongs to must end all the same.
  most constant numeric := 1000000000000;
begin
  model := left(used ->> 'model', 200);
  prompt_tokens := least(greatest(coalesce((used ->> 'prompt_tokens')::numeric, 0), 0), most);
  completion_tokens := least(greatest(coalesce((used ->> 'completion_tokens')::numeric, 0), 0), most);
  cached_tokens := least(greatest(coalesce((used ->> 'cached_tokens')::numeric, 0), 0), prompt_tokens);
  is_estimated := coalesce((used ->> 'is_estimated')::boolean, false);
  cost_micro_usd := round(
    (
      (prompt_tokens - cached_tokens) * least(greatest(coalesce((prices ->> 'prompt')::numeric, 0), 0), most)
      + cached_tokens * least(greatest(coalesce((prices ->> 'cached')::numeric, 0), 0), most)
      + completion_tokens * least(greatest(coalesce((prices ->> 'completion')::numeric, 0), 0), most)
    ) / 1000000.0
  );
end
$function$;

create or replace function private.refuse_many_runs(
  most integer
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
begin
  -- Starts of one user in several sessions count one after the other.
  perform pg_advisory_xact_lock(hashtextextended('runs of ' || (select auth.uid())::text, 0));
  if (
    select count(*) from public.runs as r
    where r.user_id = (select auth.uid()) and r.finished_at is null
  ) + (
    select count(*) from private.model_calls as c
    where c.user_id = (select auth.uid()) and c.source <> 'title'
  ) >= most then
    raise sqlstate 'PT429' using
      message = 'TOO_MANY_RUNS',
      detail = '{"scope": "per user", "retry_after_seconds": "2"}',
      hint = 'Wait until a run has ended.';
  end if;
end
$function$;

create or replace function private.refuse_users(
  operation text
)
returns void
language plpgsql
stable
set search_path to ''
as $function$
begin
  -- Who has logged in, which neither a role that was taken nor a function's owner changes: behind Supabase's REST
  -- interface it is never ours.
  if session_user <> 'concerto_login' then
    raise sqlstate 'PT403' using
      message = 'PERMISSION_DENIED',
      detail = jsonb_build_object('operation', operation)::text,
      hint = 'Ask the orchestrator: this operation takes prices and limits, which only our services may say.';
  end if;
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
$function$;

alter table private.model_calls
add constraint model_calls_user_id_fkey foreign key (user_id) references public.users (id) on delete cascade;

create index model_calls_user_id_idx on private.model_calls using btree (user_id);

comment on column private.model_calls.id is 'Identifies the call, here and in the ledger.';

comment on column private.model_calls.lease_expires_at is 'When that process counts as dead.';

comment on column private.model_calls.lease_hash is
'SHA-256 of the lease token, a random secret of the process that makes the call.';

comment on column private.model_calls.model is 'The model that is asked.';

comment on column private.model_calls.prices is
'What the model costs: prompt, completion and cached, in millionths of a US dollar per million tokens.';

comment on column private.model_calls.prompt_tokens is
'About how many tokens the prompt has; goes into the ledger if nobody says what was used.';

comment on column private.model_calls.session_id is
'The session that it is for, such as the one that gets a title; null for none.';

comment on column private.model_calls.source is
'What for: chat_completions, or title, which does not count among the runs that a user has under way.';

comment on column private.model_calls.user_id is 'Who asks.';

comment on column public.api_usage.created_at is 'When the run or the call ended.';

comment on column public.api_usage.run_id is
'The run, or the call of a model that belongs to none; no foreign key, for the same reason.';

comment on column public.api_usage.session_id is
'The session of the run, or the one that a title is for; null for what belongs to none. No foreign key: deleting a '
'session changes no total.';

comment on column public.api_usage.source is 'What for: turn, chat_completions or title.';

comment on column public.api_usage.user_id is 'Who asked.';

comment on function api.start_model_call(jsonb) is
'Notes that a model is asked for the caller outside of any run, with the contract''s StartModelCallRequest -> {lease}.'
' Safe to repeat with the same request_id and lease_token. For our services alone: a user''s token gets PT403 '
'PERMISSION_DENIED. Raises PT429 TOO_MANY_RUNS.';

comment on function api.start_run(jsonb) is
'Stores the user''s message and opens its run, with the contract''s StartRunRequest -> {run, lease?, events, history?,'
' has_earlier_messages?}: with history_messages, the newest messages before the user''s come along, as one page of '
'api.list_messages. A repeated request_id answers the run that there is, without history, and with the lease only if '
'it names the same lease_token. For our services alone: a user''s token gets PT403 PERMISSION_DENIED. Raises PT404 '
'SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT400 MISSING_FIELD, INVALID_FIELD, FIELD_TOO_LARGE and NOT_A_USER_MESSAGE, '
'PT409 REQUEST_ID_REUSED and RUN_IN_PROGRESS, PT429 TOO_MANY_RUNS and TOO_MANY_MESSAGES.';

comment on function private.finish_model_call(jsonb) is
'Ends a call of a model and enters what it has used in the ledger: {lease, usage?} -> {}; without usage, the model was'
' never asked. Raises PT409 LEASE_LOST, also when it is repeated.';

comment on function private.interrupt_expired_runs(jsonb) is
'Ends runs whose lease is over as INTERRUPTED, with the given error and the text that they had said: {limit?, error} '
'-> {run_ids}. Calls of models outside of runs that are lost likewise are entered in the ledger. Any number of '
'processes may call it at once.';

comment on function private.note_lost_model_calls(integer) is
'Ends calls of models whose process is dead, at most so many, and enters their prompts in the ledger as estimated.';

comment on function private.note_model_call(private.model_calls, jsonb) is
'Enters in the ledger what a call of a model has used, the contract''s Usage, at its own prices.';

comment on function private.open_model_call(jsonb) is
'Makes the row of a call of a model for api.start_model_call, whose arguments it takes.';

comment on function private.read_used(jsonb, jsonb) is
'Reads the contract''s Usage and works out its cost by prices (prompt, completion, cached; in millionths of a US '
'dollar per million tokens). Counts and prices are taken as 0 where they are absent or less, and as 10^12 where they '
'are more; cached tokens are a part of the prompt''s.';

comment on function private.refuse_many_runs(integer) is
'Raises PT429 TOO_MANY_RUNS while the caller has so many runs under way, with calls of models that belong to none. '
'Holds off the caller''s other starts until the end of the transaction.';

comment on function private.refuse_users(text) is
'Raises PT403 PERMISSION_DENIED unless a service of ours is connected, as concerto_login. For operations whose '
'arguments hold what no user may choose, such as prices.';

comment on function private.renew_leases(jsonb) is
'Moves the end of leases to lease_seconds (10) from now: {leases, lease_seconds?} -> {lost_run_ids, '
'cancelled_run_ids}. Queued runs and calls of models outside of runs are renewed as well; a run that is being changed '
'at this moment keeps its end, and is not lost.';

comment on table private.model_calls is
'Calls of models that belong to no run and are under way: a row each, from before the model is asked until what it has'
' used is in the ledger.';

comment on table public.api_usage is
'What was used: one row for each run that was answered and for each call of a model that belongs to none, never '
'changed.';

revoke all on function api.start_model_call(jsonb) from public;

grant execute on function api.start_model_call(jsonb) to authenticated;

revoke all on function private.finish_model_call(jsonb) from public;

grant execute on function private.finish_model_call(jsonb) to concerto_login;

revoke all on function private.note_lost_model_calls(integer) from public;

revoke all on function private.note_model_call(private.model_calls, jsonb) from public;

revoke all on function private.open_model_call(jsonb) from public;

grant execute on function private.open_model_call(jsonb) to authenticated;

revoke all on function private.read_used(jsonb, jsonb) from public;

revoke all on function private.refuse_many_runs(integer) from public;

grant execute on function private.refuse_many_runs(integer) to authenticated;

revoke all on function private.refuse_users(text) from public;

grant execute on function private.refuse_users(text) to authenticated;

reset check_function_bodies;
reset lock_timeout;
