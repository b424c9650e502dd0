-- A run ends: its messages, last events, state and row in the ledger.

create function private.end_run(
  run public.runs, new_state text, new_messages jsonb, used jsonb, error jsonb, keeps_lease boolean
)
returns public.runs
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  was_started boolean := run.state = 'RUNNING';
  stored_id uuid;
  stored_role text;
  counted record;
  last_seq bigint;
  reason text;
begin
  if was_started then
    insert into public.messages (session_id, role, content, metadata, reasoning, reasoning_milliseconds)
    select
      run.session_id,
      n.value ->> 'role',
      coalesce(n.value ->> 'content', ''),
      coalesce(nullif(n.value -> 'metadata', 'null'), '{}'),
      coalesce(n.value ->> 'reasoning', ''),
      coalesce((n.value ->> 'reasoning_milliseconds')::integer, 0)
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

  perform private.tell_watchers(run.id);
  return run;
end
$$;

comment on function private.end_run(public.runs, text, jsonb, jsonb, jsonb, boolean) is
'Ends a run: its messages, last events, state and row in the ledger. A run that was still queued gets no messages and '
'no row. The caller has locked the session and the run.';

revoke all on function private.end_run(public.runs, text, jsonb, jsonb, jsonb, boolean)
from public, anon, authenticated;

create function private.finish_run(args jsonb)
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
  new_messages jsonb := coalesce(nullif(args -> 'messages', 'null'), '[]');
  too_large bigint;
  run public.runs;
begin
  perform from public.sessions as s
  where s.id = (select r.session_id from public.runs as r where r.id = wanted_id)
  for no key update;
  -- Waits for events that are being appended; none comes after.
  select r.* into run
  from public.runs as r
  where r.id = wanted_id and r.lease_hash = token_hash
  for update;
  if not found then
    perform private.refuse_lease(wanted_id);
  end if;

  if run.finished_at is null then
    select n.place - 1 into too_large
    from jsonb_array_elements(new_messages) with ordinality as n (value, place)
    where octet_length((n.value -> 'metadata')::text) > 98304
    order by n.place
    limit 1;
    if found then
      raise sqlstate 'PT400' using
        message = 'FIELD_TOO_LARGE',
        detail = jsonb_build_object(
          'field', format('messages[%s].metadata', too_large), 'limit', '65536 bytes'
        )::text,
        hint = 'Keep the metadata small.';
    end if;

    run := private.end_run(
      run,
      args ->> 'state',
      new_messages,
      nullif(args -> 'usage', 'null'),
      case when args ->> 'state' not in ('SUCCEEDED', 'CANCELLED') then nullif(args -> 'error', 'null') end,
      true
    );
  end if;

  return jsonb_build_object(
    'run',
    private.run_json(run),
    'events',
    (
      select
        jsonb_agg(jsonb_build_object('seq', e.seq, 'created_at', e.created_at, e.type, e.payload) order by e.seq)
      from public.run_events as e
      where e.run_id = run.id and e.type in ('message_completed', 'usage', 'error', 'run_finished')
    )
  );
end
$$;

comment on function private.finish_run(jsonb) is
'Ends a run, with the contract''s FinishRunRequest -> {run, events}. A repetition answers the same. The events follow '
'those that are stored, which is what next_seq counts as well. Raises PT409 LEASE_LOST, PT400 FIELD_TOO_LARGE.';

revoke all on function private.finish_run(jsonb) from public, anon, authenticated;
grant execute on function private.finish_run(jsonb) to concerto_login;
