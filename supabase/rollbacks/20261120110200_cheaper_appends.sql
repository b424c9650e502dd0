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

create function private.index_message()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  new.search := private.search_vector(
    (select s.user_id from public.sessions as s where s.id = new.session_id), new.content
  );
  return new;
end
$$;

comment on function private.index_message() is 'Trigger: makes a message findable by its words.';

revoke all on function private.index_message() from public, anon, authenticated;

create trigger messages_index
before insert on public.messages
for each row
when (new.role in ('user', 'assistant'))
execute function private.index_message();

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

  select m.id into new.parent_id
  from public.messages as m
  where m.session_id = new.session_id and m.is_active
  order by m."order" desc
  limit 1;

  new."timestamp" := greatest(last_activity, clock_timestamp());
  return new;
end
$$;

comment on function private.place_message() is
'Trigger: locks the session and gives the message the next order, the present time and its place behind the active '
'branch.';

create or replace function private.search_vector(owner_id uuid, content text)
returns tsvector
language sql
immutable
parallel safe
set search_path = ''
as $$
  -- No word of a text holds a colon, so none passes for an owner.
  select
    array_to_tsvector(array['owner:' || coalesce(owner_id::text, '')])
    || to_tsvector('pg_catalog.simple', private.search_text(content))
$$;

create or replace function private.search_text(content text)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  -- Punctuation ends words, so that no address, path or number with dots becomes a word of its own. What else is
  -- none (quotation marks, dashes, arrows, symbols, emoji) is named here, as not every locale knows it.
  select regexp_replace(
    regexp_replace(
      translate(left(content, 200000), '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32)),
      '[\u00A0-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u00D7\u00F7\u2000-\u206F\u20A0-\u20CF\u2190-\u2BFF'
      '\u3000-\u3004\u3008-\u3030\uFE0E\uFE0F\uFF01-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65\U0001F000-\U0001FAFF]',
      ' ',
      'g'
    ),
    '(' || private.unspaced() || ')',
    ' \1 ',
    'g'
  )
$$;
