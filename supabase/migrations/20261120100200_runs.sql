-- Runs: the durable log of answers in the making. Users start and read them; the process that executes a run writes by
-- its lease token, so that a run outlives the access token it was started with.

create table public.runs (
  id uuid primary key default gen_random_uuid(),
  session_id uuid not null references public.sessions (id) on delete cascade,
  user_id uuid not null,
  state text not null,
  model text not null default '',
  agent text not null default '',
  source text not null default 'turn',
  request_id uuid,
  request_hash bytea not null,
  user_message_id uuid,
  answer_message_id uuid,
  error_reason text,
  is_cancellation_requested boolean not null default false,
  lease_hash bytea,
  lease_seconds integer not null,
  lease_expires_at timestamptz not null,
  prices jsonb not null default '{}',
  pending jsonb,
  usage_model text,
  prompt_tokens bigint,
  completion_tokens bigint,
  cached_tokens bigint,
  cost_micro_usd bigint,
  is_usage_estimated boolean,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  deltas_pruned_at timestamptz,
  constraint runs_state_known check (
    state in ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'INTERRUPTED')
  ),
  constraint runs_end_complete check ((finished_at is null) = (state in ('QUEUED', 'RUNNING'))),
  constraint runs_model_length check (char_length(model) <= 200),
  constraint runs_agent_length check (char_length(agent) <= 100),
  constraint runs_source_length check (char_length(source) between 1 and 50)
)
-- Leases are renewed every few seconds: room on the page lets the row change without touching an index.
with (fillfactor = 70);

comment on table public.runs is
'Runs: one turn each, from the user''s message to the end of the answer. Written by functions of schema private only.';
comment on column public.runs.id is 'Identifies the run.';
comment on column public.runs.session_id is 'The session.';
comment on column public.runs.user_id is 'The session''s owner, with whose sessions it goes.';
comment on column public.runs.state is 'QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED or INTERRUPTED.';
comment on column public.runs.model is 'The model that answers.';
comment on column public.runs.agent is 'The agent that answers.';
comment on column public.runs.source is 'Who asked: turn or chat_completions.';
comment on column public.runs.request_id is
'Chosen by the client so that a repetition starts one run; unique per session.';
comment on column public.runs.request_hash is
'SHA-256 of what was asked, which tells a repetition from another request with the same request_id.';
comment on column public.runs.user_message_id is
'The user''s message that is answered; null while the run is queued. No foreign key, whose check would lock the row.';
comment on column public.runs.answer_message_id is 'The stored answer; null until there is one.';
comment on column public.runs.error_reason is 'Why it did not succeed, a name of docs/errors.md; null otherwise.';
comment on column public.runs.is_cancellation_requested is 'True when somebody has asked that it be cancelled.';
comment on column public.runs.lease_hash is
'SHA-256 of the lease token, a random secret of the process that executes the run; null once it was interrupted.';
comment on column public.runs.lease_seconds is 'How long the lease lasted when it was last renewed.';
comment on column public.runs.lease_expires_at is 'When the process that executes the run counts as dead.';
comment on column public.runs.prices is
'What the model costs: prompt, completion and cached, in millionths of a US dollar per million tokens.';
comment on column public.runs.pending is
'What a queued run will ask: content, metadata, regenerate_message_id, edit_message_id; null once it has begun.';
comment on column public.runs.usage_model is 'The model that answered, as the provider names it.';
comment on column public.runs.prompt_tokens is 'Tokens of prompts; null until the run has ended.';
comment on column public.runs.completion_tokens is 'Tokens of answers; null until the run has ended.';
comment on column public.runs.cached_tokens is 'Tokens of prompts that the provider had cached; null until the end.';
comment on column public.runs.cost_micro_usd is 'Cost in millionths of a US dollar; null until the run has ended.';
comment on column public.runs.is_usage_estimated is 'True when the provider did not report the counts.';
comment on column public.runs.created_at is 'When it was asked for; rises within a session.';
comment on column public.runs.started_at is 'When the model was asked; null while the run is queued.';
comment on column public.runs.finished_at is 'When it ended; null until then.';
comment on column public.runs.deltas_pruned_at is 'When its deltas were deleted; null while they are kept.';

create index runs_user_id_idx on public.runs (user_id, created_at desc, id desc);
create index runs_session_id_idx on public.runs (session_id, created_at desc, id desc);
create unique index runs_request_id_key on public.runs (session_id, request_id) where request_id is not null;
create unique index runs_running_key on public.runs (session_id) where state = 'RUNNING';
-- Few rows at any time. The end of the lease is left out, as it changes all the time.
create index runs_open_idx on public.runs (user_id) where finished_at is null;
create index runs_unpruned_idx on public.runs (finished_at) where finished_at is not null and deltas_pruned_at is null;

revoke all on table public.runs from public, anon, authenticated, service_role;
grant select on table public.runs to authenticated;
alter table public.runs enable row level security;

create policy "users read their own runs"
on public.runs for select to authenticated
using (user_id = (select auth.uid()));

create table public.run_events (
  run_id uuid not null,
  seq bigint not null,
  type text not null,
  payload jsonb not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint run_events_pkey primary key (run_id, seq),
  constraint run_events_seq_range check (seq > 0),
  constraint run_events_type_known check (
    type in (
      'run_started', 'message_delta', 'tool_started', 'tool_finished', 'message_completed', 'usage', 'error',
      'run_finished'
    )
  )
);

comment on table public.run_events is
'What happened in runs, in order. Goes with its run by a trigger: a foreign key would be checked for every delta.';
comment on column public.run_events.run_id is 'The run.';
comment on column public.run_events.seq is
'Place in the run, counted from 1 without gaps until old deltas are deleted.';
comment on column public.run_events.type is 'What happened: the name of the contract''s payload.';
comment on column public.run_events.payload is 'The contract''s payload as JSON.';
comment on column public.run_events.created_at is 'When it happened.';

revoke all on table public.run_events from public, anon, authenticated, service_role;
grant select on table public.run_events to authenticated;
alter table public.run_events enable row level security;

create policy "readers of a run read its events"
on public.run_events for select to authenticated
using (
  (
    select true from public.runs as r
    where r.id = run_events.run_id
  )
);

create function private.run_json(run public.runs)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', run.id,
    'session_id', run.session_id,
    'user_id', run.user_id,
    'state', run.state,
    'model', run.model,
    'agent', run.agent,
    'request_id', run.request_id,
    'user_message_id', run.user_message_id,
    'answer_message_id', run.answer_message_id,
    'error_reason', run.error_reason,
    'usage', case
      when run.prompt_tokens is not null then jsonb_build_object(
        'model', coalesce(run.usage_model, run.model),
        'prompt_tokens', run.prompt_tokens,
        'completion_tokens', run.completion_tokens,
        'cached_tokens', run.cached_tokens,
        'cost_micro_usd', run.cost_micro_usd,
        'is_estimated', run.is_usage_estimated
      )
    end,
    'created_at', run.created_at,
    'started_at', run.started_at,
    'finished_at', run.finished_at,
    'is_cancellation_requested', run.is_cancellation_requested
  )
$$;

comment on function private.run_json(public.runs) is 'Returns a run as the contract''s Run.';

revoke all on function private.run_json(public.runs) from public, anon, authenticated;
grant execute on function private.run_json(public.runs) to authenticated;

create function private.stored_message(wanted_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.message_json(
    m.id, m.session_id, m.role, m.content, m."timestamp", m."order", m.metadata, m.parent_id, m.is_active
  )
  from public.messages as m
  where m.id = wanted_id
$$;

comment on function private.stored_message(uuid) is
'Returns a message that the caller may read as the contract''s Message; null when there is none.';

revoke all on function private.stored_message(uuid) from public, anon, authenticated;
grant execute on function private.stored_message(uuid) to authenticated;

create function private.refuse_run(run_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  raise sqlstate 'PT404' using
    message = 'RUN_NOT_FOUND',
    detail = jsonb_build_object('run_id', coalesce(run_id::text, ''))::text,
    hint = 'List the runs to see which ones there are.';
end
$$;

comment on function private.refuse_run(uuid) is
'Raises PT404 RUN_NOT_FOUND: the one answer for a missing run and for somebody else''s.';

revoke all on function private.refuse_run(uuid) from public, anon, authenticated;
grant execute on function private.refuse_run(uuid) to authenticated;

create function private.refuse_lease(run_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  raise sqlstate 'PT409' using
    message = 'LEASE_LOST',
    detail = jsonb_build_object('run_id', coalesce(run_id::text, ''))::text,
    hint = 'Stop working on the run.';
end
$$;

comment on function private.refuse_lease(uuid) is
'Raises PT409 LEASE_LOST: the one answer for a wrong token, a missing run and one that was ended by somebody else.';

revoke all on function private.refuse_lease(uuid) from public, anon, authenticated;

create function private.refuse_while_running(wanted_session_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  other_id uuid;
begin
  select r.id into other_id
  from public.runs as r
  where r.session_id = wanted_session_id and r.finished_at is null
  order by r.state = 'RUNNING' desc, r.created_at, r.id
  limit 1;
  if found then
    raise sqlstate 'PT409' using
      message = 'RUN_IN_PROGRESS',
      detail = jsonb_build_object('session_id', wanted_session_id, 'run_id', other_id)::text,
      hint = 'Follow or cancel that run, or wait for its end.';
  end if;
end
$$;

comment on function private.refuse_while_running(uuid) is
'Raises PT409 RUN_IN_PROGRESS with the run''s id while a session has a run that has not ended.';

revoke all on function private.refuse_while_running(uuid) from public, anon, authenticated;
grant execute on function private.refuse_while_running(uuid) to authenticated;

create function private.find_message(wanted_session_id uuid, wanted_id uuid)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  found_role text;
begin
  select m.role into found_role
  from public.messages as m
  where m.id = wanted_id and m.session_id = wanted_session_id;
  if not found then
    raise sqlstate 'PT404' using
      message = 'MESSAGE_NOT_FOUND',
      detail = jsonb_build_object(
        'session_id', wanted_session_id, 'message_id', coalesce(wanted_id::text, '')
      )::text,
      hint = 'List the session''s messages, those of all branches.';
  end if;
  return found_role;
end
$$;

comment on function private.find_message(uuid, uuid) is
'Returns the role of a session''s message that the caller may read. Raises PT404 MESSAGE_NOT_FOUND.';

revoke all on function private.find_message(uuid, uuid) from public, anon, authenticated;
grant execute on function private.find_message(uuid, uuid) to authenticated;

create function private.store_question(wanted_session_id uuid, question jsonb)
returns uuid
language plpgsql
volatile
security definer
set search_path = ''
as $$
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
$$;

comment on function private.store_question(uuid, jsonb) is
'Makes the user''s message the end of the active branch and returns its id: a new one, one beside an edited one, or '
'the one that is answered again. The caller has locked the session and checked what the question names.';

revoke all on function private.store_question(uuid, jsonb) from public, anon, authenticated;

create function private.begin_run(run public.runs, question jsonb)
returns public.runs
language plpgsql
volatile
security definer
set search_path = ''
as $$
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
$$;

comment on function private.begin_run(public.runs, jsonb) is
'Turns a QUEUED run into a RUNNING one: stores the user''s message and the first event. The caller has locked the '
'session.';

revoke all on function private.begin_run(public.runs, jsonb) from public, anon, authenticated;

create function private.open_run(args jsonb, request_hash bytea, must_wait boolean, cancels boolean)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  p record;
  question jsonb;
  run public.runs;
  token text;
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
  run.lease_seconds := least(coalesce(nullif(p.lease_seconds, 0), 10), 3600);

  insert into public.runs (
    session_id, user_id, state, model, agent, source, request_id, request_hash, lease_hash, lease_seconds,
    lease_expires_at, prices, pending, created_at
  )
  values (
    p.session_id,
    (select auth.uid()),
    'QUEUED',
    coalesce(p.model, ''),
    coalesce(p.agent, ''),
    coalesce(nullif(p.source, ''), 'turn'),
    p.request_id,
    open_run.request_hash,
    sha256(convert_to(token, 'UTF8')),
    run.lease_seconds,
    clock_timestamp() + make_interval(secs => run.lease_seconds),
    coalesce(nullif(p.prices, 'null'), '{}'),
    case when must_wait then question end,
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

  if must_wait then
    perform pg_notify('concerto_runs', run.id::text);
  else
    run := private.begin_run(run, question);
  end if;

  return jsonb_build_object(
    'run', private.run_json(run),
    'lease', jsonb_build_object('run_id', run.id, 'token', token),
    'user_message', private.stored_message(run.user_message_id)
  );
end
$$;

comment on function private.open_run(jsonb, bytea, boolean, boolean) is
'Makes a run of the caller''s session for api.start_run, which has locked the session and checked everything else. '
'Raises PT404 SESSION_NOT_FOUND for a session that is not the caller''s.';

revoke all on function private.open_run(jsonb, bytea, boolean, boolean) from public, anon, authenticated;
grant execute on function private.open_run(jsonb, bytea, boolean, boolean) to authenticated;

create function api.start_run(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  p record;
  run public.runs;
  asked_hash bytea;
  target_id uuid;
  is_busy boolean;
  if_running text;
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
    max_user_runs integer
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

  return private.open_run(args, asked_hash, is_busy, is_busy and if_running = 'cancel');
end
$$;

comment on function api.start_run(jsonb) is
'Stores the user''s message and opens its run, with the contract''s StartRunRequest -> {run, lease?, user_message?}. A '
'repeated request_id answers the run that there is, with the lease only if it names the same lease_token. Raises '
'PT404 SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT400 MISSING_FIELD, INVALID_FIELD, FIELD_TOO_LARGE and '
'NOT_A_USER_MESSAGE, PT409 '
'REQUEST_ID_REUSED and RUN_IN_PROGRESS, PT429 TOO_MANY_RUNS.';

revoke all on function api.start_run(jsonb) from public, anon;
grant execute on function api.start_run(jsonb) to authenticated;

create function api.get_run(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  wanted_id uuid := (args ->> 'run_id')::uuid;
  run public.runs;
begin
  select r.* into run from public.runs as r where r.id = wanted_id;
  if not found then
    perform private.refuse_run(wanted_id);
  end if;

  return jsonb_build_object('run', private.run_json(run));
end
$$;

comment on function api.get_run(jsonb) is 'Returns one run: {run_id} -> {run}. Raises PT404 RUN_NOT_FOUND.';

revoke all on function api.get_run(jsonb) from public, anon;
grant execute on function api.get_run(jsonb) to authenticated;

create function api.list_runs(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- As in api.list_sessions: only the index's own order is cheap for a user with many.
set enable_bitmapscan = off
as $$
declare
  p record;
  page_size integer;
  before_created_at timestamptz;
  before_id uuid;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    page_size integer, session_id uuid, before_created_at timestamptz, before_id uuid
  );
  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  before_created_at := coalesce(p.before_created_at, 'infinity');
  before_id := coalesce(p.before_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff');

  if p.session_id is not null then
    perform from public.sessions as s where s.id = p.session_id;
    if not found then
      perform private.refuse_session(p.session_id);
    end if;
  end if;

  select jsonb_build_object(
    'runs',
    coalesce(
      jsonb_agg(private.run_json(found.run) order by found.place) filter (where found.place <= page_size),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select page.run, row_number() over (order by page.created_at desc, page.id desc) as place
    from (
      (
        select r as run, r.created_at, r.id
        from public.runs as r
        where p.session_id is null
          and r.user_id = (select auth.uid())
          and (r.created_at, r.id) < (before_created_at, before_id)
        order by r.created_at desc, r.id desc
        limit page_size + 1
      )
      union all
      (
        select r as run, r.created_at, r.id
        from public.runs as r
        where p.session_id is not null
          and r.session_id = p.session_id
          and (r.created_at, r.id) < (before_created_at, before_id)
        order by r.created_at desc, r.id desc
        limit page_size + 1
      )
    ) as page
  ) as found;

  return answer;
end
$$;

comment on function api.list_runs(jsonb) is
'Lists the caller''s runs, newest first: {page_size?, session_id?, before_created_at?, before_id?} -> {runs, '
'has_more}. The last two continue behind a run of the page before. Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.list_runs(jsonb) from public, anon;
grant execute on function api.list_runs(jsonb) to authenticated;

create function private.mark_cancellation(wanted_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
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
$$;

comment on function private.mark_cancellation(uuid) is
'Asks that a run of the caller be cancelled; anything else stays as it is.';

revoke all on function private.mark_cancellation(uuid) from public, anon, authenticated;
grant execute on function private.mark_cancellation(uuid) to authenticated;

create function api.request_run_cancellation(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  wanted_id uuid := (args ->> 'run_id')::uuid;
begin
  perform private.mark_cancellation(wanted_id);
  return api.get_run(args);
end
$$;

comment on function api.request_run_cancellation(jsonb) is
'Asks that a run be cancelled, which its process hears of: {run_id} -> {run}. A run that has ended stays as it is. '
'Raises PT404 RUN_NOT_FOUND.';

revoke all on function api.request_run_cancellation(jsonb) from public, anon;
grant execute on function api.request_run_cancellation(jsonb) to authenticated;

create function api.read_run_events(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  p record;
  page_size integer;
  page_bytes constant integer := 2097152;
  after_seq bigint;
  run_state text;
  answer jsonb;
begin
  select r.* into p from jsonb_to_record(args) as r (run_id uuid, after_seq bigint, page_size integer);
  page_size := least(greatest(coalesce(p.page_size, 200), 1), 1000);
  after_seq := coalesce(p.after_seq, 0);

  select r.state into run_state from public.runs as r where r.id = p.run_id;
  if not found then
    perform private.refuse_run(p.run_id);
  end if;

  select jsonb_build_object(
    'events',
    coalesce(
      jsonb_agg(
        jsonb_build_object('seq', page.seq, 'created_at', page.created_at, page.type, page.payload)
        order by page.seq
      ) filter (where page.is_on_page),
      '[]'
    ),
    'has_more',
    coalesce(bool_or(not page.is_on_page), false),
    'state',
    run_state
  )
  into answer
  from (
    select
      e.seq,
      e.created_at,
      e.type,
      e.payload,
      row_number() over in_order = 1 or (
        row_number() over in_order <= page_size
        and sum(octet_length(e.payload::text)) over in_order <= page_bytes
      ) as is_on_page
    from (
      select v.*
      from public.run_events as v
      where v.run_id = p.run_id and v.seq > after_seq
      order by v.seq
      limit page_size + 1
    ) as e
    window in_order as (order by e.seq rows unbounded preceding)
  ) as page;

  return answer;
end
$$;

comment on function api.read_run_events(jsonb) is
'Returns a run''s events behind after_seq, and where the run stood at that moment: {run_id, after_seq?, page_size?} -> '
'{events, has_more, state}. A page ends before its payloads pass 2 MiB but holds at least one event. Raises PT404 '
'RUN_NOT_FOUND.';

revoke all on function api.read_run_events(jsonb) from public, anon;
grant execute on function api.read_run_events(jsonb) to authenticated;

create function private.show_newest(wanted_session_id uuid, message_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  last_id uuid;
begin
  perform from public.sessions as s where s.id = wanted_session_id and s.user_id = (select auth.uid());
  if not found then
    perform private.refuse_session(wanted_session_id);
  end if;

  with recursive descend as (
    select m.id, m."order"
    from public.messages as m
    where m.id = message_id and m.session_id = wanted_session_id
    union all
    select child.id, child."order"
    from descend as d
    cross join lateral (
      select m.id, m."order"
      from public.messages as m
      where m.parent_id = d.id
      order by m."order" desc
      limit 1
    ) as child
  )

  select d.id into last_id from descend as d order by d."order" desc limit 1;
  perform private.show_branch(wanted_session_id, last_id);
end
$$;

comment on function private.show_newest(uuid, uuid) is
'Makes the branch through a message of the caller''s session the active one, the newest at each fork behind it, for '
'api.select_branch, which has locked the session.';

revoke all on function private.show_newest(uuid, uuid) from public, anon, authenticated;
grant execute on function private.show_newest(uuid, uuid) to authenticated;

create function api.select_branch(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  p record;
begin
  select r.* into p from jsonb_to_record(args) as r (session_id uuid, message_id uuid);

  perform from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;
  perform private.find_message(p.session_id, p.message_id);
  perform private.refuse_while_running(p.session_id);

  perform private.show_newest(p.session_id, p.message_id);
  return api.get_session(args);
end
$$;

comment on function api.select_branch(jsonb) is
'Makes the branch that holds a message the active one: {session_id, message_id} -> {session}. Raises PT404 '
'SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT409 RUN_IN_PROGRESS.';

revoke all on function api.select_branch(jsonb) from public, anon;
grant execute on function api.select_branch(jsonb) to authenticated;
