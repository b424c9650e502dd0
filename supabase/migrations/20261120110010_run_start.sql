-- A run that begins at once is written once, as RUNNING with its message, and not first as QUEUED.

create or replace function private.open_run(args jsonb, request_hash bytea, must_wait boolean, cancels boolean)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
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
$$;

comment on function private.open_run(jsonb, bytea, boolean, boolean) is
'Makes a run of the caller''s session for api.start_run, which has locked the session and checked everything else. '
'Raises PT404 SESSION_NOT_FOUND for a session that is not the caller''s.';
