-- Messages of sessions: only ever appended. Each knows the one before it, and one branch is the one that lists show.

create function private.max_content_bytes()
returns integer
language sql
immutable
parallel safe
set search_path = ''
as $$
  select 1048576
$$;

comment on function private.max_content_bytes() is
'Returns the most bytes of UTF-8 that a message holds, its thoughts included: what the contract says of '
'NewMessage.content.';

revoke all on function private.max_content_bytes() from public, anon, authenticated;
-- Whoever appends runs the table's check.
grant execute on function private.max_content_bytes() to authenticated;

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
  parent_id uuid,
  is_active boolean not null default true,
  search tsvector,
  reasoning text not null default '',
  reasoning_milliseconds integer not null default 0,
  constraint messages_session_id_order_key unique (session_id, "order"),
  constraint messages_order_range check ("order" > 0),
  constraint messages_role_known check (role in ('user', 'assistant', 'system', 'tool')),
  constraint messages_content_size check (octet_length(content) <= private.max_content_bytes()),
  -- The contract's 64 KiB count compact JSON; jsonb writes a space after each comma and colon.
  constraint messages_metadata_size check (
    jsonb_typeof(metadata) = 'object' and octet_length(metadata::text) <= 98304
  ),
  constraint messages_reasoning_size check (
    reasoning = ''
    or (role = 'assistant' and octet_length(content) + octet_length(reasoning) <= private.max_content_bytes())
  ),
  constraint messages_reasoning_milliseconds_range check (reasoning_milliseconds >= 0),
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
comment on column public.messages.content is 'The text, at most private.max_content_bytes() of UTF-8.';
comment on column public.messages.timestamp is
'When it was stored; never earlier than the message before it. Given by a trigger.';
comment on column public.messages.metadata is
'What the writer noted about it: a JSON object, at most 64 KiB as compact JSON and 1,000 values.';
comment on column public.messages.request_id is
'On the first message of an append: chosen by the client so that a repetition appends once; unique per session.';
comment on column public.messages.request_size is
'On the first message of an append with a request_id: how many messages it appended, 1 to 100.';
comment on column public.messages.parent_id is
'The message before it on its branch; null for a first one. Given by a trigger: the last message of the active branch.'
' No foreign key, whose check would lock, and so rewrite, the message before; messages only go with their session.';
comment on column public.messages.is_active is
'True when it is on the branch that lists show: one way from a first message to a last one.';
comment on column public.messages.search is
'Words and owner, for private.find_messages; null for messages of tools and instructions. Given by a trigger.';
comment on column public.messages.reasoning is
'What the model thought beside the text, only of an assistant; with it at most private.max_content_bytes(). Not '
'searched.';
comment on column public.messages.reasoning_milliseconds is 'How long the model thought.';

create unique index messages_request_id_key on public.messages (session_id, request_id)
where request_id is not null;
create index messages_active_idx on public.messages (session_id, "order") where is_active;
create index messages_children_idx on public.messages (parent_id, "order") where parent_id is not null;
-- The index takes new messages into a list first and sorts them in when that is full, at the cost of whoever appends
-- the message that fills it: at the default of 4 MiB that one waited half a second and more, and every search reads the
-- list. Eight times shorter, it costs the same in all, and the longest wait is under a tenth.
create index messages_search_idx on public.messages using gin (search) with (gin_pending_list_limit = 512);

revoke all on table public.messages from public, anon, authenticated, service_role;
grant
select,
insert (session_id, role, content, metadata, request_id, request_size, reasoning, reasoning_milliseconds)
on table public.messages to authenticated;
alter table public.messages enable row level security;

-- Which sessions the caller sees is decided by the policies of public.sessions alone. A scalar subquery in both,
-- because an exists may be planned as a hash of all sessions.
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
  (
    select s.user_id from public.sessions as s
    where s.id = messages.session_id
  ) = (select auth.uid())
);

create function private.refuse_rich_metadata(metadata jsonb)
returns void
language plpgsql
immutable
set search_path = ''
as $$
declare
  -- What the contract says of NewMessage.metadata.
  most constant integer := 1000;
begin
  -- A value has two characters at least, so a short text holds few. The whole is not one of them.
  if octet_length(metadata::text) > 2 * most
    and (select count(*) - 1 > most from jsonb_path_query(metadata, 'strict $.**')) then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = jsonb_build_object('field', 'metadata', 'limit', most || ' values')::text,
      hint = 'Keep the metadata small.';
  end if;
end
$$;

comment on function private.refuse_rich_metadata(jsonb) is
'Raises PT400 FIELD_TOO_LARGE for metadata of more than 1,000 values, those inside each other counted: each costs '
'whoever reads it far more than it has bytes.';

revoke all on function private.refuse_rich_metadata(jsonb) from public, anon, authenticated;

create function private.refuse_reasoning(role text, content text, reasoning text)
returns void
language plpgsql
immutable
set search_path = ''
as $$
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
$$;

comment on function private.refuse_reasoning(text, text, text) is
'Raises PT400 INVALID_FIELD for thoughts of somebody who is no assistant, and FIELD_TOO_LARGE where they and the text '
'are more than a message holds.';

revoke all on function private.refuse_reasoning(text, text, text) from public, anon, authenticated;

create function private.place_message()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
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
$$;

comment on function private.place_message() is
'Trigger: locks the session and gives the message the next order, the present time, its place behind the active branch '
'and, for what users and assistants say, the words by which it is found. Raises PT400 FIELD_TOO_LARGE and '
'INVALID_FIELD.';

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
-- Its plan is made with whatever statement comes first: after one of a hundred messages, every single message would be
-- joined with a hash of all sessions.
set enable_hashjoin = off
set enable_mergejoin = off
as $$
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
$$;

comment on function private.count_messages() is
'Trigger: adds the messages of one statement to their sessions'' message_count, which also moves updated_at, and '
'counts them for private.limits: ten with every tenth message of a session, and one for each 64 KiB of a large '
'message.';

revoke all on function private.count_messages() from public, anon, authenticated;

create trigger messages_count
after insert on public.messages
referencing new table as appended_messages
for each statement
execute function private.count_messages();
