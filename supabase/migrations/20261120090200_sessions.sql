-- Conversations: sessions of a user and their messages, which are only ever appended.

create table public.sessions (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null default auth.uid() references public.users (id) on delete cascade,
  name text not null default '',
  is_archived boolean not null default false,
  message_count integer not null default 0,
  request_id uuid,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint sessions_name_length check (char_length(name) <= 200),
  constraint sessions_message_count_range check (message_count >= 0)
);

comment on table public.sessions is 'Conversations, each of one user.';
comment on column public.sessions.id is 'Identifies the session.';
comment on column public.sessions.user_id is 'The owner; always the user who inserts the row.';
comment on column public.sessions.name is
'Title shown in lists, at most 200 characters; empty until the user or the first exchange names it.';
comment on column public.sessions.is_archived is 'True when the user has put it out of the usual list.';
comment on column public.sessions.message_count is
'Number of messages, which is also the order of the newest one. Kept by a trigger.';
comment on column public.sessions.request_id is
'Chosen by the client so that a repeated creation makes one session; unique per user.';
comment on column public.sessions.created_at is 'When the session was created.';
comment on column public.sessions.updated_at is 'When a message was last appended or the session last changed.';

create index sessions_activity_idx on public.sessions (user_id, is_archived, updated_at desc, id desc);
create unique index sessions_request_id_key on public.sessions (user_id, request_id)
where request_id is not null;

revoke all on table public.sessions from public, anon, authenticated, service_role;
grant
select,
insert (name, is_archived, request_id),
update (name, is_archived),
delete
on table public.sessions to authenticated;
alter table public.sessions enable row level security;

create policy "owners read their sessions"
on public.sessions for select to authenticated
using (user_id = (select auth.uid()));

create policy "users create sessions of their own"
on public.sessions for insert to authenticated
with check (user_id = (select auth.uid()));

create policy "owners change their sessions"
on public.sessions for update to authenticated
using (user_id = (select auth.uid()))
with check (user_id = (select auth.uid()));

create policy "owners delete their sessions"
on public.sessions for delete to authenticated
using (user_id = (select auth.uid()));

create trigger sessions_touch_updated_at
before update on public.sessions
for each row
when (old.* is distinct from new.*)
execute function private.touch_updated_at();

create table public.messages (
  id uuid primary key default gen_random_uuid(),
  session_id uuid not null references public.sessions (id) on delete cascade,
  "order" integer not null,
  role text not null,
  content text not null default '',
  timestamp timestamptz not null default now(),
  metadata jsonb not null default '{}',
  request_id uuid,
  request_size smallint,
  constraint messages_session_id_order_key unique (session_id, "order"),
  constraint messages_order_range check ("order" > 0),
  constraint messages_role_known check (role in ('user', 'assistant', 'system', 'tool')),
  constraint messages_content_size check (octet_length(content) <= 1048576),
  -- The contract's 64 KiB count compact JSON; jsonb writes a space after each comma and colon.
  constraint messages_metadata_size check (
    jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 98304
  ),
  constraint messages_request_size_range check (
    (request_id is null) = (request_size is null) and request_size between 1 and 100
  )
);

comment on table public.messages is 'Entries of conversations; never changed once stored.';
comment on column public.messages.id is 'Identifies the message.';
comment on column public.messages.session_id is 'The session it belongs to.';
comment on column public.messages."order" is
'Its place in the session, counted from 1 without gaps. Given by a trigger, whatever the writer says.';
comment on column public.messages.role is 'Who speaks: user, assistant, system or tool.';
comment on column public.messages.content is 'The text, at most 1 MiB of UTF-8.';
comment on column public.messages.timestamp is
'When it was stored; never earlier than the message before it. Given by a trigger.';
comment on column public.messages.metadata is
'What the writer noted about it: a JSON object, at most 64 KiB as compact JSON.';
comment on column public.messages.request_id is
'On the first message of an append: chosen by the client so that a repetition appends once; unique per session.';
comment on column public.messages.request_size is
'On the first message of an append with a request_id: how many messages it appended, 1 to 100.';

create unique index messages_request_id_key on public.messages (session_id, request_id)
where request_id is not null;

revoke all on table public.messages from public, anon, authenticated, service_role;
grant
select,
insert (session_id, role, content, metadata, request_id, request_size)
on table public.messages to authenticated;
alter table public.messages enable row level security;

-- Which sessions the caller sees is decided by the policies of public.sessions alone. A scalar subquery, because an
-- exists would be planned as a hash of all the caller's sessions.
create policy "readers of a session read its messages"
on public.messages for select to authenticated
using (
  (
    select true from public.sessions as s
    where s.id = messages.session_id
  )
);

create policy "owners append to their sessions"
on public.messages for insert to authenticated
with check (
  exists (
    select from public.sessions as s
    where s.id = messages.session_id and s.user_id = (select auth.uid())
  )
);

create function private.place_message()
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

revoke all on function private.place_message() from public, anon, authenticated;

create trigger messages_place
before insert on public.messages
for each row
execute function private.place_message();

create function private.count_messages()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  update public.sessions as s
  set message_count = s.message_count + a.appended
  from (
    select n.session_id, count(*)::integer as appended
    from appended_messages as n
    group by n.session_id
  ) as a
  where s.id = a.session_id;
  return null;
end
$$;

comment on function private.count_messages() is
'Trigger: adds the messages of one statement to their sessions'' message_count, which also moves updated_at.';

revoke all on function private.count_messages() from public, anon, authenticated;

create trigger messages_count
after insert on public.messages
referencing new table as appended_messages
for each statement
execute function private.count_messages();

create function private.session_json(session public.sessions)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', session.id,
    'user_id', session.user_id,
    'name', session.name,
    'is_archived', session.is_archived,
    'message_count', session.message_count,
    'created_at', session.created_at,
    'updated_at', session.updated_at
  )
$$;

comment on function private.session_json(public.sessions) is 'Returns a session as the contract''s Session.';

revoke all on function private.session_json(public.sessions) from public, anon, authenticated;
grant execute on function private.session_json(public.sessions) to authenticated;

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

create function private.refuse_session(session_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  raise sqlstate 'PT404' using
    message = 'SESSION_NOT_FOUND',
    detail = jsonb_build_object('session_id', coalesce(session_id::text, ''))::text,
    hint = 'List the sessions to see which ones there are.';
end
$$;

comment on function private.refuse_session(uuid) is
'Raises PT404 SESSION_NOT_FOUND: the one answer for a missing session and for somebody else''s.';

revoke all on function private.refuse_session(uuid) from public, anon, authenticated;
grant execute on function private.refuse_session(uuid) to authenticated;

create function api.create_session(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  p record;
  session public.sessions;
begin
  select r.* into p from jsonb_to_record(args) as r (name text, request_id uuid);

  -- An access token outlives its deleted account by up to an hour.
  if not exists (select from public.users as u where u.id = (select auth.uid())) then
    raise sqlstate 'PT404' using
      message = 'ACCOUNT_NOT_FOUND',
      detail = jsonb_build_object('user_id', coalesce(auth.uid()::text, ''))::text,
      hint = 'Sign in again; the account may have been deleted.';
  end if;

  insert into public.sessions (name, request_id)
  values (coalesce(p.name, ''), p.request_id)
  on conflict (user_id, request_id) where request_id is not null do nothing
  returning * into session;

  if session.id is null then
    select s.* into session
    from public.sessions as s
    where s.user_id = (select auth.uid()) and s.request_id = p.request_id;
  end if;

  return jsonb_build_object('session', private.session_json(session));
end
$$;

comment on function api.create_session(jsonb) is
'Creates an empty session of the caller: {name?, request_id?} -> {session}. A repeated request_id answers the '
'session that it made. Raises PT404 ACCOUNT_NOT_FOUND.';

revoke all on function api.create_session(jsonb) from public, anon;
grant execute on function api.create_session(jsonb) to authenticated;

create function api.list_sessions(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- Whose rows are read is unknown when the plan is made; for a user with many, only the index's own order is cheap.
set enable_bitmapscan = off
as $$
declare
  p record;
  page_size integer;
  wants_archived boolean;
  before_updated_at timestamptz;
  before_id uuid;
  pattern text;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    page_size integer, is_archived boolean, query text, before_updated_at timestamptz, before_id uuid
  );
  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  -- Plain values: row level security lets no coalesce() into an index condition. The bounds are always there, so that
  -- one plan reads the index from the right place on.
  wants_archived := coalesce(p.is_archived, false);
  before_updated_at := coalesce(p.before_updated_at, 'infinity');
  before_id := coalesce(p.before_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
  pattern := '%' || regexp_replace(coalesce(p.query, ''), '([\\%_])', '\\\1', 'g') || '%';

  select jsonb_build_object(
    'sessions',
    coalesce(
      jsonb_agg(private.session_json(found.session) order by found.place)
      filter (where found.place <= page_size),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select page.session, row_number() over (order by page.updated_at desc, page.id desc) as place
    from (
      select s as session, s.updated_at, s.id
      from public.sessions as s
      where s.user_id = (select auth.uid())
        and s.is_archived = wants_archived
        and (s.updated_at, s.id) < (before_updated_at, before_id)
        and (p.query is null or s.name ilike pattern)
      order by s.updated_at desc, s.id desc
      limit page_size + 1
    ) as page
  ) as found;

  return answer;
end
$$;

comment on function api.list_sessions(jsonb) is
'Lists the caller''s sessions, newest activity first: {page_size?, is_archived?, query?, before_updated_at?, '
'before_id?} -> {sessions, has_more}. The last two continue behind a session of the page before; query is a part '
'of the name, ignoring case.';

revoke all on function api.list_sessions(jsonb) from public, anon;
grant execute on function api.list_sessions(jsonb) to authenticated;

create function api.get_session(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  wanted_id uuid := (args ->> 'session_id')::uuid;
  session public.sessions;
begin
  select s.* into session from public.sessions as s where s.id = wanted_id;
  if not found then
    perform private.refuse_session(wanted_id);
  end if;

  return jsonb_build_object('session', private.session_json(session));
end
$$;

comment on function api.get_session(jsonb) is
'Returns one session: {session_id} -> {session}. Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.get_session(jsonb) from public, anon;
grant execute on function api.get_session(jsonb) to authenticated;

create function api.update_session(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  p record;
  session public.sessions;
begin
  select r.* into p
  from jsonb_to_record(args) as r (session_id uuid, name text, is_archived boolean, expected_name text);

  select s.* into session from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;
  -- A repetition of a call that was carried out finds nothing left to change, which is no conflict.
  if session.name <> p.expected_name and (
    p.name is distinct from session.name
    or coalesce(p.is_archived, session.is_archived) <> session.is_archived
  ) then
    raise sqlstate 'PT400' using
      message = 'SESSION_NAME_CHANGED',
      detail = jsonb_build_object('session_id', session.id)::text,
      hint = 'Read the session again and decide anew.';
  end if;

  update public.sessions as s
  set name = coalesce(p.name, s.name), is_archived = coalesce(p.is_archived, s.is_archived)
  where s.id = p.session_id
  returning s.* into session;

  return jsonb_build_object('session', private.session_json(session));
end
$$;

comment on function api.update_session(jsonb) is
'Renames, archives or restores a session: {session_id, name?, is_archived?, expected_name?} -> {session}. Absent '
'values stay. Raises PT404 SESSION_NOT_FOUND, PT400 SESSION_NAME_CHANGED when its name is not the expected one.';

revoke all on function api.update_session(jsonb) from public, anon;
grant execute on function api.update_session(jsonb) to authenticated;

create function api.delete_session(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  wanted_id uuid := (args ->> 'session_id')::uuid;
begin
  delete from public.sessions as s where s.id = wanted_id;
  if not found then
    perform private.refuse_session(wanted_id);
  end if;

  return '{}';
end
$$;

comment on function api.delete_session(jsonb) is
'Deletes a session with all its messages: {session_id} -> {}. Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.delete_session(jsonb) from public, anon;
grant execute on function api.delete_session(jsonb) to authenticated;

create function api.append_messages(args jsonb)
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

comment on function api.append_messages(jsonb) is
'Appends 1 to 100 messages to a session, all or none: {session_id, request_id?, messages: [{role, content, '
'metadata?}]} -> {messages}. A repeated request_id appends nothing and answers the same. Raises PT404 '
'SESSION_NOT_FOUND, PT400 INVALID_FIELD and FIELD_TOO_LARGE, PT409 REQUEST_ID_REUSED when it came with other '
'messages.';

revoke all on function api.append_messages(jsonb) from public, anon;
grant execute on function api.append_messages(jsonb) to authenticated;

create function api.list_messages(args jsonb)
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

revoke all on function api.list_messages(jsonb) from public, anon;
grant execute on function api.list_messages(jsonb) to authenticated;
