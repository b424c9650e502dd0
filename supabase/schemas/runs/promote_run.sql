-- A queued run begins, by its lease token.

create function private.promote_run(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set lock_timeout = '250ms'
as $$
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
    perform private.tell_watchers(run.id);
  end if;

  return jsonb_build_object('run', private.run_json(run), 'events', coalesce(events, private.started_events(run.id)));
end
$$;

comment on function private.promote_run(jsonb) is
'Begins a queued run once the runs before it have ended: {lease} -> {run, events}. Answers the same for one that runs. '
'Raises PT409 LEASE_LOST, PT400 RUN_NOT_NEXT.';

revoke all on function private.promote_run(jsonb) from public, anon, authenticated;
grant execute on function private.promote_run(jsonb) to concerto_login;
