-- What an append pays: one trigger per message instead of two, and no regular expressions over plain ASCII.

create or replace function private.search_text(content text)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  -- Punctuation ends words, so that no address, path or number with dots becomes a word of its own.
  words text := translate(left(content, 200000), '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32));
begin
  -- Nothing below concerns ASCII, whose characters are one byte each.
  if octet_length(words) = char_length(words) then
    return words;
  end if;

  -- What else is none (quotation marks, dashes, arrows, symbols, emoji) is named here, as not every locale knows it.
  return regexp_replace(
    regexp_replace(
      words,
      '[\u00A0-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u00D7\u00F7\u2000-\u206F\u20A0-\u20CF\u2190-\u2BFF'
      '\u3000-\u3004\u3008-\u3030\uFE0E\uFE0F\uFF01-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65\U0001F000-\U0001FAFF]',
      ' ',
      'g'
    ),
    '(' || private.unspaced() || ')',
    ' \1 ',
    'g'
  );
end
$$;

create or replace function private.search_vector(owner_id uuid, content text)
returns tsvector
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
begin
  -- No word of a text holds a colon, so none passes for an owner.
  return array_to_tsvector(array['owner:' || coalesce(owner_id::text, '')])
  || to_tsvector('pg_catalog.simple', private.search_text(content));
end
$$;

create or replace function private.place_message()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
declare
  last_activity timestamptz;
  owner_id uuid;
begin
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
$$;

comment on function private.place_message() is
'Trigger: locks the session and gives the message the next order, the present time, its place behind the active branch '
'and, for what users and assistants say, the words by which it is found.';

drop trigger messages_index on public.messages;
drop function private.index_message();

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
          m.id, m.session_id, m.role, m.content, m."timestamp", m."order", m.metadata, m.parent_id, m.is_active
        )
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

  if size = 1 then
    -- By far the most frequent: needs neither sorting nor aggregating.
    insert into public.messages as a (session_id, role, content, metadata, request_id, request_size)
    values (
      p.session_id,
      p.messages -> 0 ->> 'role',
      coalesce(p.messages -> 0 ->> 'content', ''),
      coalesce(nullif(p.messages -> 0 -> 'metadata', 'null'), '{}'),
      p.request_id,
      case when p.request_id is not null then 1 end
    )
    returning jsonb_build_array(
      private.message_json(
        a.id, a.session_id, a.role, a.content, a."timestamp", a."order", a.metadata, a.parent_id, a.is_active
      )
    ) into answer;
    return jsonb_build_object('messages', answer);
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
      private.message_json(
        a.id, a.session_id, a.role, a.content, a."timestamp", a."order", a.metadata, a.parent_id, a.is_active
      )
      order by a."order"
    )
  into answer
  from appended as a;

  return jsonb_build_object('messages', answer);
end
$$;
