-- Answer under way.

set lock_timeout = '5s';

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
        and sum(octet_length(candidate.content)) over directed <= page_bytes
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
    select f.id, f.session_id, f.role, f.content, f."timestamp", f."order", f.metadata, f.parent_id, f.is_active
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
begin
  select r.* into run
  from public.runs as r
  where r.user_id = (select auth.uid()) and r.session_id = wanted_session_id and r.finished_at is null
  order by r.state = 'RUNNING' desc, r.created_at, r.id
  limit 1;
  if not found then
    return null;
  end if;

  return jsonb_build_object(
    'run_id', run.id,
    'state', run.state,
    'user_message_id', run.user_message_id,
    'text', private.said_text(run.id),
    'last_seq', (select coalesce(max(e.seq), 0) from public.run_events as e where e.run_id = run.id),
    'model', run.model,
    'agent', run.agent
  );
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
  said_text text;
  said jsonb := '[]';
  used jsonb;
begin
  if run.state = 'RUNNING' then
    said_text := private.said_text(run.id);
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
      'completion_tokens', ceil(octet_length(said_text) / 4.0)::bigint,
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
$function$;

create or replace function private.said_text(
  wanted_id uuid
)
returns text
language plpgsql
stable
security definer
set search_path to ''
as $function$
declare
  said_text text;
begin
  select string_agg(e.payload ->> 'text', '' order by e.seq) into said_text
  from public.run_events as e
  where e.run_id = wanted_id and e.type = 'message_delta';
  -- A character has at most four bytes, so a quarter as many always fit.
  if octet_length(said_text) > private.max_content_bytes() then
    said_text := left(said_text, private.max_content_bytes() / 4);
  end if;
  return coalesce(said_text, '');
end
$function$;

comment on function api.list_messages(jsonb) is
'Lists messages of a session''s active branch, orders rising: {session_id, page_size?, from_end?, after_order?, '
'before_order?, include_inactive?, include_answer_under_way?} -> {messages, has_more, answer_under_way?}. Pages from '
'the oldest, or with from_end from the newest; with include_inactive all branches. A page ends before its contents '
'pass 2 MiB but holds at least one message. The answer under way is that of private.answer_under_way at the same '
'moment. Raises PT404 SESSION_NOT_FOUND.';

comment on function private.answer_under_way(uuid) is
'Returns the answer in the making in a session as the contract''s AnswerUnderWay: of the caller''s running run, else '
'of the one that waits longest; null when there is none or the session is somebody else''s.';

comment on function private.said_text(uuid) is
'Returns the text of a run''s stored deltas, as much of it as a message may hold. Asks nobody who they are: for '
'functions that have done so.';

revoke all on function private.answer_under_way(uuid) from public;

grant execute on function private.answer_under_way(uuid) to authenticated;

revoke all on function private.said_text(uuid) from public;

reset lock_timeout;
