-- Messages are appended to a session, all or none.

create function api.append_messages(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
set lock_timeout = '250ms'
as $$
declare
  p record;
  size integer;
  first_order integer;
  first_size integer;
  too_large bigint;
  is_same boolean;
  answer jsonb;
begin
  select r.* into p from jsonb_to_record(args) as r (
    session_id uuid, request_id uuid, messages jsonb, include_contents boolean
  );

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
          m.id,
          m.session_id,
          m.role,
          case when p.include_contents then m.content end,
          m."timestamp",
          m."order",
          case when p.include_contents then m.metadata end,
          m.parent_id,
          m.is_active,
          case when p.include_contents then m.reasoning end,
          m.reasoning_milliseconds
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
        a.id,
        a.session_id,
        a.role,
        case when p.include_contents then a.content end,
        a."timestamp",
        a."order",
        case when p.include_contents then a.metadata end,
        a.parent_id,
        a.is_active,
        case when p.include_contents then a.reasoning end,
        a.reasoning_milliseconds
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
        a.id,
        a.session_id,
        a.role,
        case when p.include_contents then a.content end,
        a."timestamp",
        a."order",
        case when p.include_contents then a.metadata end,
        a.parent_id,
        a.is_active,
        case when p.include_contents then a.reasoning end,
        a.reasoning_milliseconds
      )
      order by a."order"
    )
  into answer
  from appended as a;

  return jsonb_build_object('messages', answer);
end
$$;

comment on function api.append_messages(jsonb) is
'Appends 1 to 100 messages to a session, all or none: {session_id, request_id?, messages: [{role, content, '
'metadata?, reasoning?, reasoning_milliseconds?}], include_contents?} -> {messages}, with content, metadata and '
'reasoning null unless contents are asked for. A repeated request_id appends nothing and answers the same. Raises '
'PT404 SESSION_NOT_FOUND, PT400 INVALID_FIELD and FIELD_TOO_LARGE, PT409 REQUEST_ID_REUSED when it came with other '
'messages, PT429 TOO_MANY_MESSAGES.';

revoke all on function api.append_messages(jsonb) from public, anon;
grant execute on function api.append_messages(jsonb) to authenticated;
