set lock_timeout = '5s';

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

reset lock_timeout;
