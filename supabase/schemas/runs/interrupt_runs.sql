-- A run ends because its process is dead.

create function private.interrupt_run(run public.runs, error jsonb)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  said_text text;
  said jsonb := '[]';
  used jsonb;
begin
  if run.state = 'RUNNING' then
    select string_agg(e.payload ->> 'text', '' order by e.seq) into said_text
    from public.run_events as e
    where e.run_id = run.id and e.type = 'message_delta';
    -- A character has at most four bytes, so a quarter as many always fit.
    if octet_length(said_text) > private.max_content_bytes() then
      said_text := left(said_text, private.max_content_bytes() / 4);
    end if;

    if said_text <> '' then
      said := jsonb_build_array(
        jsonb_build_object(
          'role', 'assistant',
          'content', said_text,
          'metadata', jsonb_build_object(
            'partial', true, 'error_reason', 'RUN_INTERRUPTED', 'model', run.model, 'run_id', run.id
          )
        )
      );
    end if;

    -- Nobody knows what the provider counted: about four bytes are a token, and a window holds so many messages.
    select jsonb_build_object(
      'model', run.model,
      'prompt_tokens', ceil(coalesce(sum(octet_length(asked.content)), 0) / 4.0)::bigint,
      'completion_tokens', ceil(coalesce(octet_length(said_text), 0) / 4.0)::bigint,
      'cached_tokens', 0,
      'is_estimated', true
    )
    into used
    from (
      select m.content
      from public.messages as m
      where m.session_id = run.session_id and m.is_active
      order by m."order" desc
      limit 100
    ) as asked;
  end if;

  perform private.end_run(run, 'INTERRUPTED', said, used, error, false);
end
$$;

comment on function private.interrupt_run(public.runs, jsonb) is
'Ends a run whose process is dead: what it had said becomes a partial message. The caller has locked the session and '
'the run.';

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
$$;

comment on function private.interrupt_expired_runs(jsonb) is
'Ends runs whose lease is over as INTERRUPTED, with the given error and the text that they had said: {limit?, error} '
'-> {run_ids}. Any number of processes may call it at once.';

revoke all on function private.interrupt_expired_runs(jsonb) from public, anon, authenticated;
grant execute on function private.interrupt_expired_runs(jsonb) to concerto_login;
