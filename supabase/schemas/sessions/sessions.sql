-- Conversations, each of one user.

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

-- By its key, whoever asks: a look-up of one session must not become a walk through all of its owner's. Written as an
-- equality, the owner is a condition that an index can take, and the indexes of the lists hold the key as well: the
-- planner, which reckons with an average owner, then reads them from end to end. Lists name the owner themselves.
create policy "owners read their sessions"
on public.sessions for select to authenticated
using (user_id is not distinct from (select auth.uid()));

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
