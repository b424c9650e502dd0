create function private.message_json(
  id uuid, session_id uuid, role text, content text, "timestamp" timestamptz, "order" integer, metadata jsonb
)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', id,
    'session_id', session_id,
    'role', role,
    'content', content,
    'timestamp', "timestamp",
    'order', "order",
    'metadata', metadata
  )
$$;

comment on function private.message_json(uuid, uuid, text, text, timestamptz, integer, jsonb) is
'Returns a message as the contract''s Message. Takes columns, because a whole row as a value would load its content.';

revoke all on function private.message_json(uuid, uuid, text, text, timestamptz, integer, jsonb)
from public, anon, authenticated;
grant execute on function private.message_json(uuid, uuid, text, text, timestamptz, integer, jsonb)
to authenticated;

create or replace function api.append_messages(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
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

  -- Numbers like 1e300 grow in jsonb, so what the contract lets through may still be too large for the table.
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

  if p.request_id is not null then
    select m."order", m.request_size into first_order, first_size
    from public.messages as m
    where m.session_id = p.session_id and m.request_id = p.request_id;
  end if;

  if first_order is not null then
    -- A message has no state, so the rows themselves say whether this is the same request.
    select
      jsonb_agg(
        private.message_json(m.id, m.session_id, m.role, m.content, m."timestamp", m."order", m.metadata)
        order by m."order"
      ),
      count(*) = size and bool_and(
        m.role is not distinct from n.value ->> 'role'
        and m.content = coalesce(n.value ->> 'content', '')
        and m.metadata = coalesce(nullif(n.value -> 'metadata', 'null'), '{}')
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

  with appended as (
    insert into public.messages (session_id, role, content, metadata, request_id, request_size)
    select
      p.session_id,
      n.value ->> 'role',
      coalesce(n.value ->> 'content', ''),
      coalesce(nullif(n.value -> 'metadata', 'null'), '{}'),
      case when n.place = 1 then p.request_id end,
      case when n.place = 1 and p.request_id is not null then size end
    from jsonb_array_elements(p.messages) with ordinality as n (value, place)
    order by n.place
    returning messages.*
  )

  select
    jsonb_agg(
      private.message_json(a.id, a.session_id, a.role, a.content, a."timestamp", a."order", a.metadata)
      order by a."order"
    )
  into answer
  from appended as a;

  return jsonb_build_object('messages', answer);
end
$$;

create or replace function api.list_messages(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  p record;
  page_size integer;
  page_bytes constant integer := 2097152;
  low integer;
  high integer;
  backward boolean;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    session_id uuid, page_size integer, from_end boolean, after_order integer, before_order integer
  );

  perform from public.sessions as s where s.id = p.session_id;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  backward := coalesce(p.from_end, false);
  low := coalesce(p.after_order, 0);
  high := coalesce(nullif(p.before_order, 0), 2147483647);

  select jsonb_build_object(
    'messages',
    coalesce(
      jsonb_agg(
        private.message_json(f.id, f.session_id, f.role, f.content, f."timestamp", f."order", f.metadata)
        order by f."order"
      ) filter (where f.is_on_page),
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
      (
        select m.*, m."order" as place
        from public.messages as m
        where not backward and m.session_id = p.session_id and m."order" > low and m."order" < high
        order by m."order"
        limit page_size + 1
      )
      union all
      (
        select m.*, -m."order" as place
        from public.messages as m
        where backward and m.session_id = p.session_id and m."order" > low and m."order" < high
        order by m."order" desc
        limit page_size + 1
      )
    ) as candidate
    window directed as (order by candidate.place rows unbounded preceding)
  ) as f;

  return answer;
end
$$;

comment on function api.list_messages(jsonb) is
'Lists a session''s messages, orders rising: {session_id, page_size?, from_end?, after_order?, before_order?} -> '
'{messages, has_more}. Pages from the oldest, or with from_end from the newest; a page ends before its contents '
'pass 2 MiB but holds at least one message. Raises PT404 SESSION_NOT_FOUND.';

create or replace function private.place_message()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  last_activity timestamptz;
begin
  -- Writers of one session queue here; the next statement then sees what the one before has committed.
  select s.updated_at into last_activity
  from public.sessions as s
  where s.id = new.session_id
  for no key update;

  select coalesce(max(m."order"), 0) + 1 into new."order"
  from public.messages as m
  where m.session_id = new.session_id;

  new."timestamp" := greatest(last_activity, clock_timestamp());
  return new;
end
$$;

comment on function private.place_message() is
'Trigger: locks the session and gives the message the next order and the present time.';

drop function private.message_json(uuid, uuid, text, text, timestamptz, integer, jsonb, uuid, boolean);
drop function private.show_branch(uuid, uuid);

-- Without branches every message stands in the one line of its session.
drop index public.messages_children_idx;
drop index public.messages_active_idx;
alter table public.messages
drop column is_active,
drop column parent_id;
