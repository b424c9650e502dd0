-- Reasoning of messages.

set lock_timeout = '5s';

set check_function_bodies = off;

alter table public.run_events
drop constraint "run_events_type_known";

drop function private.message_json(uuid, uuid, text, text, timestamp with time zone, integer, jsonb, uuid, boolean);

drop function private.said_text(uuid);

alter table public.messages
add column reasoning text not null default ''::text;

alter table public.messages
add column reasoning_milliseconds integer not null default 0;

create or replace function api.append_messages(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  p record;
  size integer;
  first_order integer;
  first_size integer;
  too_large bigint;
  is_same boolean;
  answer jsonb;
begin
  select r.* into p from jsonb_to_record(args) as r (session_id uuid, request_id uuid, messages jsonb);

  perform from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  size := coalesce(jsonb_array_length(p.messages), 0);
  if size not between 1 and 100 then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "messages", "problem": "must have 1 to 100 entries"}',
      hint = 'Append 1 to 100 messages at once.';
  end if;

  if octet_length(p.messages::text) > 16777216 then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = '{"field": "messages", "limit": "16777216 bytes"}',
      hint = 'Append fewer messages at once.';
  end if;

  -- Numbers like 1e300 grow in jsonb, so what the contract lets through may still be too large for the table.
  if octet_length(p.messages::text) > 98304 then
    select n.place - 1 into too_large
    from jsonb_array_elements(p.messages) with ordinality as n (value, place)
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
  end if;

  if p.request_id is not null then
    select m."order", m.request_size into first_order, first_size
    from public.messages as m
    where m.session_id = p.session_id and m.request_id = p.request_id;
  end if;

  if first_order is not null then
    -- A message has no state, so the rows themselves say whether this is the same request.
    select
      jsonb_agg(
        private.message_json(
          m.id, m.session_id, m.role, m.content, m."timestamp", m."order", m.metadata, m.parent_id, m.is_active,
          m.reasoning, m.reasoning_milliseconds
        )
        order by m."order"
      ),
      count(*) = size and bool_and(
        m.role is not distinct from n.value ->> 'role'
        and m.content = coalesce(n.value ->> 'content', '')
        and m.metadata = coalesce(nullif(n.value -> 'metadata', 'null'), '{}')
        and m.reasoning = coalesce(n.value ->> 'reasoning', '')
        and m.reasoning_milliseconds = coalesce((n.value ->> 'reasoning_milliseconds')::integer, 0)
      )
    into answer, is_same
    from public.messages as m
    left join jsonb_array_elements(p.messages) with ordinality as n (value, place)
      on n.place = m."order" - first_order + 1
    where m.session_id = p.session_id
      and m."order" between first_order and first_order + first_size - 1;
    if is_same then
      return jsonb_build_object('messages', answer);
    end if;
    raise sqlstate 'PT409' using
      message = 'REQUEST_ID_REUSED',
      detail = jsonb_build_object('session_id', p.session_id, 'request_id', p.request_id)::text,
      hint = 'Use a new request_id for other messages.';
  end if;

  if size = 1 then
    -- By far the most frequent: needs neither sorting nor aggregating.
    insert into public.messages as a (
      session_id, role, content, metadata, request_id, request_size, reasoning, reasoning_milliseconds
    )
    values (
      p.session_id,
      p.messages -> 0 ->> 'role',
      coalesce(p.messages -> 0 ->> 'content', ''),
      coalesce(nullif(p.messages -> 0 -> 'metadata', 'null'), '{}'),
      p.request_id,
      case when p.request_id is not null then 1 end,
      coalesce(p.messages -> 0 ->> 'reasoning', ''),
      coalesce((p.messages -> 0 ->> 'reasoning_milliseconds')::integer, 0)
    )
    returning jsonb_build_array(
      private.message_json(
        a.id, a.session_id, a.role, a.content, a."timestamp", a."order", a.metadata, a.parent_id, a.is_active,
        a.reasoning, a.reasoning_milliseconds
      )
    ) into answer;
    return jsonb_build_object('messages', answer);
  end if;

  with appended as (
    insert into public.messages (
      session_id, role, content, metadata, request_id, request_size, reasoning, reasoning_milliseconds
    )
    select
      p.session_id,
      n.value ->> 'role',
      coalesce(n.value ->> 'content', ''),
      coalesce(nullif(n.value -> 'metadata', 'null'), '{}'),
      case when n.place = 1 then p.request_id end,
      case when n.place = 1 and p.request_id is not null then size end,
      coalesce(n.value ->> 'reasoning', ''),
      coalesce((n.value ->> 'reasoning_milliseconds')::integer, 0)
    from jsonb_array_elements(p.messages) with ordinality as n (value, place)
    order by n.place
    returning messages.*
  )

  select
    jsonb_agg(
      private.message_json(
        a.id, a.session_id, a.role, a.content, a."timestamp", a."order", a.metadata, a.parent_id, a.is_active,
        a.reasoning, a.reasoning_milliseconds
      )
      order by a."order"
    )
  into answer
  from appended as a;

  return jsonb_build_object('messages', answer);
end
$function$;

create or replace function api.list_messages(
  args jsonb
)
returns jsonb
language plpgsql
stable
set search_path to ''
set plan_cache_mode to 'force_generic_plan'
set enable_seqscan to 'off'
set enable_bitmapscan to 'off'
as $function$
declare
  p record;
  page_size integer;
  page_bytes constant integer := 2097152;
  low integer;
  high integer;
  backward boolean;
  every_branch boolean;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    session_id uuid, page_size integer, from_end boolean, after_order integer, before_order integer,
    include_inactive boolean, include_answer_under_way boolean
  );

  perform from public.sessions as s where s.id = p.session_id;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  backward := coalesce(p.from_end, false);
  every_branch := coalesce(p.include_inactive, false);
  low := coalesce(p.after_order, 0);
  high := coalesce(nullif(p.before_order, 0), 2147483647);

  select jsonb_build_object(
    'messages',
    coalesce(
      to_jsonb(array_agg(message order by f."order") filter (where f.is_on_page)),
      '[]'
    ),
    'has_more',
    coalesce(bool_or(not f.is_on_page), false)
  )
  into answer
  from (
    select
      candidate.*,
      row_number() over directed = 1 or (
        row_number() over directed <= page_size
        -- Lengths come from the values' headers: contents that do not fit on the page are never read.
        and sum(octet_length(candidate.content) + octet_length(candidate.reasoning)) over directed <= page_bytes
      ) as is_on_page
    from (
      -- Only one of the four is ever run; each reads an index and stops behind the page.
      (
        select m.*, m."order" as place
        from public.messages as m
        where not backward and not every_branch and m.session_id = p.session_id and m.is_active
          and m."order" > low and m."order" < high
        order by m."order"
        limit page_size + 1
      )
      union all
      (
        select m.*, -m."order" as place
        from public.messages as m
        where backward and not every_branch and m.session_id = p.session_id and m.is_active
          and m."order" > low and m."order" < high
        order by m."order" desc
        limit page_size + 1
      )
      union all
      (
        select m.*, m."order" as place
        from public.messages as m
        where not backward and every_branch and m.session_id = p.session_id
          and m."order" > low and m."order" < high
        order by m."order"
        limit page_size + 1
      )
      union all
      (
        select m.*, -m."order" as place
        from public.messages as m
        where backward and every_branch and m.session_id = p.session_id
          and m."order" > low and m."order" < high
        order by m."order" desc
        limit page_size + 1
      )
    ) as candidate
    window directed as (order by candidate.place rows unbounded preceding)
  ) as f
  -- Behind the filter, so that contents that do not fit are never read here either.
  cross join lateral (
    select
      f.id, f.session_id, f.role, f.content, f."timestamp", f."order", f.metadata, f.parent_id, f.is_active,
      f.reasoning, f.reasoning_milliseconds
  ) as message;

  -- The function is stable: it sees what the page's statement sees, so an answer that ends meanwhile is in one of them.
  if p.include_answer_under_way then
    answer := answer || jsonb_build_object('answer_under_way', private.answer_under_way(p.session_id));
  end if;
  return answer;
end
$function$;

create or replace function private.answer_under_way(
  wanted_session_id uuid
)
returns jsonb
language plpgsql
stable
security definer
set search_path to ''
as $function$
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
$function$;

create or replace function private.count_messages()
returns trigger
language plpgsql
security definer
set search_path to ''
set enable_hashjoin to 'off'
set enable_mergejoin to 'off'
as $function$
declare
  due integer;
begin
  with counted as (
    update public.sessions as s
    set message_count = s.message_count + a.appended
    from (
      select
        n.session_id,
        count(*)::integer as appended,
        -- What a message holds beyond the usual counts as further messages. Lengths come from the values' headers.
        sum((octet_length(n.content) + octet_length(n.reasoning)) / 65536)::integer as further
      from appended_messages as n
      group by n.session_id
    ) as a
    where s.id = a.session_id
    returning (s.message_count / 10 - (s.message_count - a.appended) / 10) * 10 + a.further as due
  )

  select sum(c.due) into due from counted as c;
  if due > 0 then
    perform private.spend_messages(due);
  end if;
  return null;
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
$function$;

create or replace function private.interrupt_run(
  run public.runs,
  error jsonb
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
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
$function$;

create or replace function private.message_json(
  id uuid,
  session_id uuid,
  role text,
  content text,
  "timestamp" timestamp with time zone,
  "order" integer,
  metadata jsonb,
  parent_id uuid,
  is_active boolean,
  reasoning text,
  reasoning_milliseconds integer
)
returns jsonb
language plpgsql
stable
set search_path to ''
as $function$
begin
  return jsonb_build_object(
    'id', id,
    'session_id', session_id,
    'role', role,
    'content', content,
    'timestamp', "timestamp",
    'order', "order",
    'metadata', metadata,
    'parent_id', parent_id,
    'is_active', is_active,
    'reasoning', reasoning,
    'reasoning_milliseconds', reasoning_milliseconds
  );
end
$function$;

create or replace function private.note_dropped_run(
  wanted_id uuid
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
begin
  insert into public.api_usage (
    user_id, session_id, run_id, model, source, prompt_tokens, completion_tokens, cached_tokens, cost_micro_usd,
    is_estimated
  )
  select
    r.user_id,
    r.session_id,
    r.id,
    r.model,
    r.source,
    u.prompt_tokens,
    u.completion_tokens,
    u.cached_tokens,
    u.cost_micro_usd,
    u.is_estimated
  from public.runs as r
  cross join lateral private.said_so_far(r.id, null) as f
  cross join lateral private.read_used(
    private.estimated_use(r.session_id, r.model, octet_length(f.said_text) + octet_length(f.reasoning)), r.prices
  ) as u
  where r.id = wanted_id and exists (select from public.users as p where p.id = r.user_id)
  on conflict (run_id) do nothing;
end
$function$;

create or replace function private.place_message()
returns trigger
language plpgsql
security definer
set search_path to ''
as $function$
declare
  last_activity timestamptz;
  owner_id uuid;
begin
  perform private.refuse_rich_metadata(new.metadata);
  perform private.refuse_reasoning(new.role, new.content, new.reasoning);
  -- Writers of one session queue here; the next statement then sees what the one before has committed.
  select s.updated_at, s.user_id into last_activity, owner_id
  from public.sessions as s
  where s.id = new.session_id
  for no key update;

  select
    coalesce(
      (
        select m."order" from public.messages as m
        where m.session_id = new.session_id
        order by m."order" desc
        limit 1
      ),
      0
    ) + 1,
    (
      select m.id from public.messages as m
      where m.session_id = new.session_id and m.is_active
      order by m."order" desc
      limit 1
    )
  into new."order", new.parent_id;

  new."timestamp" := greatest(last_activity, clock_timestamp());
  if new.role in ('user', 'assistant') then
    new.search := private.search_vector(owner_id, new.content);
  end if;
  return new;
end
$function$;

create or replace function private.prune_run_events(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
as $function$
declare
  -- Whoever follows an answer reads its end first, whatever the caller says.
  seconds double precision := greatest(coalesce((args ->> 'older_than_seconds')::double precision, 3600), 60);
  pruned integer;
begin
  with old as (
    select r.id
    from public.runs as r
    where r.finished_at < now() - make_interval(secs => seconds) and r.deltas_pruned_at is null
    order by r.finished_at
    limit 200
    for no key update skip locked
  ),

  marked as (
    update public.runs as r
    set deltas_pruned_at = now()
    from old as o
    where r.id = o.id
    returning r.id
  ),

  deleted as (
    delete from public.run_events as e
    using marked as m
    where e.run_id = m.id and e.type in ('message_delta', 'reasoning_delta')
  )

  select count(*) into pruned from marked;
  return jsonb_build_object('pruned', pruned);
end
$function$;

create or replace function private.refuse_reasoning(
  role text,
  content text,
  reasoning text
)
returns void
language plpgsql
immutable
set search_path to ''
as $function$
begin
  if reasoning = '' then
    return;
  end if;
  if role <> 'assistant' then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "reasoning", "problem": "only an assistant''s message has it"}',
      hint = 'Leave it out, or name the role assistant.';
  end if;
  if octet_length(content) + octet_length(reasoning) > private.max_content_bytes() then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = jsonb_build_object(
        'field', 'reasoning', 'limit', private.max_content_bytes() || ' bytes, content included'
      )::text,
      hint = 'Keep less of what the model thought.';
  end if;
end
$function$;

create or replace function private.said_so_far(
  wanted_id uuid,
  until_at timestamp with time zone,
  out said_text text,
  out reasoning text,
  out reasoning_milliseconds integer
)
returns record
language plpgsql
stable
security definer
set search_path to ''
as $function$
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
$function$;

create or replace function private.stored_message(
  wanted_id uuid
)
returns jsonb
language sql
stable
set search_path to ''
as $function$
  select private.message_json(
    m.id, m.session_id, m.role, m.content, m."timestamp", m."order", m.metadata, m.parent_id, m.is_active,
    m.reasoning, m.reasoning_milliseconds
  )
  from public.messages as m
  where m.id = wanted_id
$function$;

alter table public.messages
add constraint messages_reasoning_milliseconds_range check ((reasoning_milliseconds >= 0));

alter table public.run_events
add constraint run_events_type_known
check
((type = any(array[
  'run_started'::text,
  'message_delta'::text,
  'reasoning_delta'::text,
  'tool_started'::text,
  'tool_finished'::text,
  'message_completed'::text,
  'usage'::text,
  'error'::text, 'run_finished'::text
])));

comment on column public.messages.reasoning is
'What the model thought beside the text, only of an assistant; with it at most private.max_content_bytes(). Not '
'searched.';

comment on column public.messages.reasoning_milliseconds is 'How long the model thought.';

comment on function api.append_messages(jsonb) is
'Appends 1 to 100 messages to a session, all or none: {session_id, request_id?, messages: [{role, content, metadata?, '
'reasoning?, reasoning_milliseconds?}]} -> {messages}. A repeated request_id appends nothing and answers the same. '
'Raises PT404 SESSION_NOT_FOUND, PT400 INVALID_FIELD and FIELD_TOO_LARGE, PT409 REQUEST_ID_REUSED when it came with '
'other messages, PT429 TOO_MANY_MESSAGES.';

comment on function api.list_messages(jsonb) is
'Lists messages of a session''s active branch, orders rising: {session_id, page_size?, from_end?, after_order?, '
'before_order?, include_inactive?, include_answer_under_way?} -> {messages, has_more, answer_under_way?}. Pages from '
'the oldest, or with from_end from the newest; with include_inactive all branches. A page ends before its contents, '
'thoughts included, pass 2 MiB but holds at least one message. The answer under way is that of '
'private.answer_under_way at the same moment. Raises PT404 SESSION_NOT_FOUND.';

comment on function private.interrupt_expired_runs(jsonb) is
'Ends runs whose lease is over as INTERRUPTED, with the given error and what they had said and thought: {limit?, '
'error} -> {run_ids}. Calls of models outside of runs that are lost likewise are entered in the ledger. Any number of '
'processes may call it at once. Raises PT403 PERMISSION_DENIED for an error that is another one than RUN_INTERRUPTED.';

comment on function private.interrupt_run(public.runs, jsonb) is
'Ends a run whose process is dead: what it had said and thought becomes a partial message. The caller has locked the '
'session and the run.';

comment on function private.max_content_bytes() is
'Returns the most bytes of UTF-8 that a message holds, its thoughts included: what the contract says of '
'NewMessage.content.';

comment on function private.message_json(
  uuid, uuid, text, text, timestamp with time zone, integer, jsonb, uuid, boolean, text, integer
) is
'Returns a message as the contract''s Message. Takes columns, because a whole row as a value would load its content.';

comment on function private.place_message() is
'Trigger: locks the session and gives the message the next order, the present time, its place behind the active branch'
' and, for what users and assistants say, the words by which it is found. Raises PT400 FIELD_TOO_LARGE and '
'INVALID_FIELD.';

comment on function private.refuse_reasoning(text, text, text) is
'Raises PT400 INVALID_FIELD for thoughts of somebody who is no assistant, and FIELD_TOO_LARGE where they and the text '
'are more than a message holds.';

comment on function private.said_so_far(uuid, timestamp with time zone) is
'Returns the text and the thoughts of a run''s stored deltas, as much of them as a message may hold together, and for '
'how many milliseconds it thought; one that still thinks does so until until_at, or, where that is null, until its '
'last event. Asks nobody who they are: for functions that have done so.';

revoke all on function private.message_json(
  uuid, uuid, text, text, timestamp with time zone, integer, jsonb, uuid, boolean, text, integer
) from public;

grant execute on function private.message_json(
  uuid, uuid, text, text, timestamp with time zone, integer, jsonb, uuid, boolean, text, integer
) to authenticated;

revoke all on function private.refuse_reasoning(text, text, text) from public;

revoke all on function private.said_so_far(uuid, timestamp with time zone) from public;

revoke all (reasoning_milliseconds) on table public.messages from authenticated;

grant insert (reasoning_milliseconds) on table public.messages to authenticated;

revoke all (reasoning) on table public.messages from authenticated;

grant insert (reasoning) on table public.messages to authenticated;

alter table public.messages
add constraint messages_reasoning_size
check (
  (
    (reasoning = ''::text)
    or (
      (role = 'assistant'::text) and ((octet_length(content) + octet_length(reasoning)) <= private.max_content_bytes())
    )
  )
);

reset check_function_bodies;
reset lock_timeout;
