-- What the operations on runs share.

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

create function private.estimated_use(wanted_session_id uuid, model text, said_bytes bigint)
returns jsonb
language sql
stable
security definer
set search_path = ''
as $$
  -- Nobody knows what the provider counted: about four bytes are a token, and a window holds so many messages.
  select jsonb_build_object(
    'model', model,
    'prompt_tokens', ceil(coalesce(sum(octet_length(asked.content)), 0) / 4.0)::bigint,
    'completion_tokens', ceil(said_bytes / 4.0)::bigint,
    'cached_tokens', 0,
    'is_estimated', true
  )
  from (
    select m.content
    from public.messages as m
    where m.session_id = wanted_session_id and m.is_active
    order by m."order" desc
    limit 100
  ) as asked
$$;

comment on function private.estimated_use(uuid, text, bigint) is
'Returns the contract''s Usage of an answer that nobody has counted, by what the session holds and what was said. Asks '
'nobody who they are: for functions that have done so.';

revoke all on function private.estimated_use(uuid, text, bigint) from public, anon, authenticated;

create function private.announce_run(run public.runs)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
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
$$;

comment on function private.announce_run(public.runs) is
'Stores the first event of a run whose message is stored, and returns it as private.started_events does.';

revoke all on function private.announce_run(public.runs) from public, anon, authenticated;

create function private.started_events(wanted_id uuid)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  events jsonb;
begin
  select jsonb_build_array(jsonb_build_object('seq', e.seq, 'created_at', e.created_at, e.type, e.payload)) into events
  from public.run_events as e
  where e.run_id = wanted_id and e.seq = 1 and e.type = 'run_started';
  return coalesce(events, '[]');
end
$$;

comment on function private.started_events(uuid) is
'Returns what private.announce_run has stored, as the contract''s RunEvents: one, or none while the run is queued.';

revoke all on function private.started_events(uuid) from public, anon, authenticated;
grant execute on function private.started_events(uuid) to authenticated;
