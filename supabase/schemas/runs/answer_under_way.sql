-- What an answer in the making has said and thought so far.

create function private.said_so_far(
  wanted_id uuid, until_at timestamptz,
  out said_text text, out reasoning text, out reasoning_milliseconds integer
)
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  free_bytes integer;
begin
  select
    coalesce(string_agg(e.payload ->> 'text', '' order by e.seq) filter (where e.type = 'message_delta'), ''),
    coalesce(string_agg(e.payload ->> 'text', '' order by e.seq) filter (where e.type = 'reasoning_delta'), '')
  into said_text, reasoning
  from public.run_events as e
  where e.run_id = wanted_id and e.type in ('message_delta', 'reasoning_delta');

  -- A character has at most four bytes, so a quarter as many always fit.
  if octet_length(said_text) > private.max_content_bytes() then
    said_text := left(said_text, private.max_content_bytes() / 4);
  end if;
  free_bytes := private.max_content_bytes() - octet_length(said_text);
  if octet_length(reasoning) > free_bytes then
    reasoning := left(reasoning, free_bytes / 4);
  end if;

  reasoning_milliseconds := 0;
  if reasoning <> '' then
    -- A thought lasts until whatever comes next.
    select least(sum(greatest(extract(epoch from t.ended_at - t.created_at) * 1000, 0)), 2147483647)::integer
    into reasoning_milliseconds
    from (
      select
        e.type,
        e.created_at,
        coalesce(lead(e.created_at) over (order by e.seq), until_at, e.created_at) as ended_at
      from public.run_events as e
      where e.run_id = wanted_id
    ) as t
    where t.type = 'reasoning_delta';
  end if;
end
$$;

comment on function private.said_so_far(uuid, timestamptz) is
'Returns the text and the thoughts of a run''s stored deltas, as much of them as a message may hold together, and for '
'how many milliseconds it thought; one that still thinks does so until until_at, or, where that is null, until its '
'last event. Asks nobody who they are: for functions that have done so.';

revoke all on function private.said_so_far(uuid, timestamptz) from public, anon, authenticated;

-- With its owner''s rights, as the policy of events would be asked anew for each of thousands of deltas.
create function private.answer_under_way(wanted_session_id uuid)
returns jsonb
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  run public.runs;
  said record;
begin
  select r.* into run
  from public.runs as r
  where r.user_id = (select auth.uid()) and r.session_id = wanted_session_id and r.finished_at is null
  order by r.state = 'RUNNING' desc, r.created_at, r.id
  limit 1;
  if not found then
    return null;
  end if;

  said := private.said_so_far(run.id, clock_timestamp());
  return jsonb_build_object(
    'run_id', run.id,
    'state', run.state,
    'user_message_id', run.user_message_id,
    'text', said.said_text,
    'last_seq', (select coalesce(max(e.seq), 0) from public.run_events as e where e.run_id = run.id),
    'model', run.model,
    'agent', run.agent,
    'reasoning', said.reasoning,
    'reasoning_milliseconds', said.reasoning_milliseconds
  );
end
$$;

comment on function private.answer_under_way(uuid) is
'Returns the answer in the making in a session as the contract''s AnswerUnderWay: of the caller''s running run, else '
'of the one that waits longest; null when there is none or the session is somebody else''s.';

revoke all on function private.answer_under_way(uuid) from public, anon, authenticated;
grant execute on function private.answer_under_way(uuid) to authenticated;
