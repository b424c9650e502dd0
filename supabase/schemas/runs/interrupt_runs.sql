-- A run ends because its process is dead.

create function private.interrupt_run(run public.runs, error jsonb)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  so_far record;
  said jsonb := '[]';
  used jsonb;
begin
  if run.state = 'RUNNING' then
    so_far := private.said_so_far(run.id, null);
    if so_far.said_text <> '' or so_far.reasoning <> '' then
      said := jsonb_build_array(
        jsonb_build_object(
          'role', 'assistant',
          'content', so_far.said_text,
          'reasoning', so_far.reasoning,
          'reasoning_milliseconds', so_far.reasoning_milliseconds,
          'metadata', jsonb_build_object(
            'partial', true, 'error_reason', 'RUN_INTERRUPTED', 'model', run.model, 'run_id', run.id
          )
        )
      );
    end if;

    used := private.estimated_use(
      run.session_id, run.model, octet_length(so_far.said_text) + octet_length(so_far.reasoning)
    );
  end if;

  perform private.end_run(run, 'INTERRUPTED', said, used, error, false);
end
$$;

comment on function private.interrupt_run(public.runs, jsonb) is
'Ends a run whose process is dead: what it had said and thought becomes a partial message. The caller has '
'locked the session and the run.';

revoke all on function private.interrupt_run(public.runs, jsonb) from public, anon, authenticated;

create function private.interrupt_expired_runs(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  expired record;
  run public.runs;
  interrupted_ids uuid[] := '{}';
begin
  if octet_length(args ->> 'error') > 2048
    or coalesce(args #>> '{error,details,0,reason}', 'RUN_INTERRUPTED') <> 'RUN_INTERRUPTED' then
    raise sqlstate 'PT403' using
      message = 'PERMISSION_DENIED',
      detail = '{}',
      hint = 'Runs whose process died end with RUN_INTERRUPTED.';
  end if;

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
$$;

comment on function private.interrupt_expired_runs(jsonb) is
'Ends runs whose lease is over as INTERRUPTED, with the given error and what they had said and thought: {limit?, '
'error} -> {run_ids}. Calls of models outside of runs that are lost likewise are entered in the ledger. Any number of '
'processes may call it at once. Raises PT403 PERMISSION_DENIED for an error that is another one than RUN_INTERRUPTED.';

revoke all on function private.interrupt_expired_runs(jsonb) from public, anon, authenticated;
grant execute on function private.interrupt_expired_runs(jsonb) to concerto_login;
