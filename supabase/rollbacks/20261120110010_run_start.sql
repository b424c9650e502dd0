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
