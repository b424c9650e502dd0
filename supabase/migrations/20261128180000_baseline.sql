-- The state of supabase/schemas on the day when the migrations before it were folded into this one. A database that has
-- those is at this state: local/migrations/baseline.py knows their versions.

set lock_timeout = '5s';

-- The login role of the services.

-- Roles belong to the whole cluster, so another database may have made this one before.
do $$
begin
  if not exists (select from pg_catalog.pg_roles as r where r.rolname = 'concerto_login') then
    create role concerto_login with login noinherit;
  end if;
  grant anon, authenticated to concerto_login;
end
$$;

alter role concerto_login set statement_timeout = '8s';
alter role concerto_login set idle_in_transaction_session_timeout = '10s';
-- Operations read a page each; what a generic plan is thought to cost must never start a compiler.
alter role concerto_login set jit = off;
comment on role concerto_login is
'Login of the services: becomes anon or authenticated inside private.call and may do nothing by itself. Give it a'
' password before use.';

-- The two schemas beside public: operations, and what only they and the services use.

-- Whoever may execute a function is said beside it.
alter default privileges revoke execute on functions from public;

create schema api;
comment on schema api is
'The operations: one function per rpc that needs data, (args jsonb) returns jsonb, run with the caller''s own rights.';
grant usage on schema api to authenticated;

create schema private;
comment on schema private is
'Helpers of policies, triggers and operations, and the services'' way in. Never exposed over REST.';
grant usage on schema private to authenticated, concerto_login;

-- The one way in: an operation, run as the user whose claims are given.

create function private.call(claims jsonb, operation text, args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  caller_role text := coalesce(claims ->> 'role', 'anon');
  settings text;
  answer jsonb;
begin
  if caller_role not in ('anon', 'authenticated') then
    raise sqlstate 'PT403' using
      message = 'PERMISSION_DENIED',
      detail = jsonb_build_object('role', caller_role)::text,
      hint = 'Call with the claims of a user''s access token.';
  end if;

  -- Both kinds of claim settings: Supabase's helpers read the second, older ones the first. Assigned, because that
  -- takes no query.
  settings := set_config('request.jwt.claim.sub', coalesce(claims ->> 'sub', ''), true)
    || set_config('request.jwt.claim.role', caller_role, true)
    || set_config('request.jwt.claim.email', coalesce(claims ->> 'email', ''), true)
    || set_config('request.jwt.claims', coalesce(claims, '{}')::text, true)
    || set_config('role', caller_role, true);

  -- As the caller, who may look into schema api: a look-up in the cache of names, where a query on pg_proc costs a
  -- tenth of a small operation.
  if operation is null or to_regprocedure(format('api.%I(jsonb)', operation)) is null then
    raise sqlstate 'PT501' using
      message = 'UNIMPLEMENTED',
      detail = jsonb_build_object('operation', coalesce(operation, ''))::text,
      hint = 'Apply the migrations that this version of the service needs.';
  end if;

  execute format('select api.%I($1)', operation) into answer using coalesce(args, '{}');
  return answer;
end
$$;

comment on function private.call(jsonb, text, jsonb) is
'Runs one operation of schema api as the user whose verified claims are given: one statement, one transaction. '
'Raises PT403 PERMISSION_DENIED for any role but anon and authenticated, PT501 UNIMPLEMENTED for a name that api '
'lacks, 42501 for whoever may not use api.';

revoke all on function private.call(jsonb, text, jsonb) from public, anon, authenticated;
grant execute on function private.call(jsonb, text, jsonb) to concerto_login;

-- Keeps updated_at of every table that has one.

create function private.touch_updated_at()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.updated_at := greatest(old.updated_at, clock_timestamp());
  return new;
end
$$;

comment on function private.touch_updated_at() is
'Trigger: sets updated_at to the present, never back, when a row changes.';

revoke all on function private.touch_updated_at() from public, anon, authenticated;

-- Accounts: one row per user of Supabase Auth, kept in step with it by the triggers of auth_users.sql.

create table public.users (
  id uuid primary key references auth.users (id) on delete cascade,
  email text,
  display_name text not null,
  role text not null default 'user',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  last_login_at timestamptz,
  constraint users_display_name_length check (char_length(display_name) between 1 and 100),
  constraint users_role_known check (role in ('user', 'admin'))
);

comment on table public.users is 'Accounts: one row per user of Supabase Auth, made at sign-up.';
comment on column public.users.id is 'The same as in auth.users.';
comment on column public.users.email is
'E-mail address as Supabase Auth knows it; readable by its owner only; null for a user without one.';
comment on column public.users.display_name is 'Name that others see, 1 to 100 characters.';
comment on column public.users.role is 'What the user may do in Concerto: user or admin. No user can change it.';
comment on column public.users.created_at is 'When the account was created.';
comment on column public.users.updated_at is 'When e-mail, name or role last changed.';
comment on column public.users.last_login_at is 'When the user last signed in; null before the first time.';

-- Older hosted projects grant every new table to the API's roles, so each table begins by taking that back.
revoke all on table public.users from public, anon, authenticated, service_role;
grant select, update (display_name) on table public.users to authenticated;
alter table public.users enable row level security;

create policy "users read their own account"
on public.users for select to authenticated
using (id = (select auth.uid()));

create policy "users change their own account"
on public.users for update to authenticated
using (id = (select auth.uid()))
with check (id = (select auth.uid()));

create trigger users_touch_updated_at
before update on public.users
for each row
when ((old.email, old.display_name, old.role) is distinct from (new.email, new.display_name, new.role))
execute function private.touch_updated_at();

-- Keeps accounts in step with the users of Supabase Auth, whose table the platform owns.

create function private.display_name_from(wanted text, email text)
returns text
language sql
immutable
set search_path = ''
as $$
  select coalesce(
    nullif(btrim(left(btrim(wanted, e' \t\n\r\f\v'), 100), e' \t\n\r\f\v'), ''),
    nullif(btrim(left(split_part(email, '@', 1), 100), e' \t\n\r\f\v'), ''),
    'user'
  )
$$;

comment on function private.display_name_from(text, text) is
'Returns a name of 1 to 100 characters for any input: the wanted one, else the e-mail''s part before the @, else '
'user.';

revoke all on function private.display_name_from(text, text) from public, anon, authenticated;
grant execute on function private.display_name_from(text, text) to authenticated;

create function private.create_account()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  insert into public.users (id, email, display_name, last_login_at)
  values (
    new.id,
    new.email,
    private.display_name_from(
      -- Whoever signs up writes this metadata, so it may be anything.
      case
        when jsonb_typeof(new.raw_user_meta_data -> 'display_name') = 'string'
          then new.raw_user_meta_data ->> 'display_name'
      end,
      new.email
    ),
    new.last_sign_in_at
  )
  on conflict (id) do nothing;
  insert into public.profiles (id) values (new.id) on conflict (id) do nothing;
  insert into public.user_settings (user_id) values (new.id) on conflict (user_id) do nothing;
  return null;
end
$$;

comment on function private.create_account() is
'Trigger: makes account, profile and settings of a new user. Takes any metadata, so that it never fails a sign-up.';

revoke all on function private.create_account() from public, anon, authenticated;

create trigger concerto_create_account
after insert on auth.users
for each row
execute function private.create_account();

create function private.sync_account()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  update public.users as u
  set
    email = new.email,
    last_login_at = coalesce(new.last_sign_in_at, u.last_login_at)
  where u.id = new.id
    and (u.email, u.last_login_at)
    is distinct from (new.email, coalesce(new.last_sign_in_at, u.last_login_at));
  return null;
end
$$;

comment on function private.sync_account() is
'Trigger: carries a changed e-mail address and the time of the last sign-in over from auth.users.';

revoke all on function private.sync_account() from public, anon, authenticated;

create trigger concerto_sync_account
after update of email, last_sign_in_at on auth.users
for each row
execute function private.sync_account();

-- The caller's own account.

create function api.get_me(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  account jsonb;
begin
  select jsonb_build_object(
    'id', u.id,
    'email', coalesce(u.email, ''),
    'display_name', u.display_name,
    'role', u.role,
    'created_at', u.created_at,
    'updated_at', greatest(u.updated_at, p.updated_at, s.updated_at),
    'last_login_at', u.last_login_at,
    'profile', jsonb_build_object(
      'username', coalesce(p.username, ''),
      'full_name', coalesce(p.full_name, ''),
      'avatar_url', coalesce(p.avatar_url, ''),
      'status_text', coalesce(p.status_text, ''),
      'status_emoji', coalesce(p.status_emoji, ''),
      'status_expires_at', p.status_expires_at
    ),
    'settings', jsonb_build_object(
      'theme', s.theme,
      'notification_preferences', s.notification_preferences
    )
  )
  into account
  from public.users as u
  inner join public.profiles as p on p.id = u.id
  inner join public.user_settings as s on s.user_id = u.id
  where u.id = (select auth.uid());

  if account is null then
    raise sqlstate 'PT404' using
      message = 'ACCOUNT_NOT_FOUND',
      detail = jsonb_build_object('user_id', coalesce(auth.uid()::text, ''))::text,
      hint = 'Sign in again; the account may have been deleted.';
  end if;

  return jsonb_build_object('user', account);
end
$$;

comment on function api.get_me(jsonb) is
'Returns the caller''s account: {} -> {user}. Raises PT404 ACCOUNT_NOT_FOUND when it has been deleted.';

revoke all on function api.get_me(jsonb) from public, anon;
grant execute on function api.get_me(jsonb) to authenticated;

create function api.update_me(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  caller_id uuid := auth.uid();
  p record;
  s record;
  wanted_username text;
begin
  perform from public.users as u where u.id = caller_id for no key update;
  if not found then
    raise sqlstate 'PT404' using
      message = 'ACCOUNT_NOT_FOUND',
      detail = jsonb_build_object('user_id', coalesce(caller_id::text, ''))::text,
      hint = 'Sign in again; the account may have been deleted.';
  end if;

  if args ->> 'display_name' is not null then
    update public.users as u
    set display_name = private.display_name_from(args ->> 'display_name', u.email)
    where u.id = caller_id;
  end if;

  if jsonb_typeof(args -> 'profile') = 'object' then
    select r.* into p
    from jsonb_to_record(args -> 'profile') as r (
      username text, full_name text, avatar_url text,
      status_text text, status_emoji text, status_expires_at timestamptz
    );

    wanted_username := lower(btrim(p.username));
    if wanted_username <> '' and wanted_username !~ '^[a-z0-9._-]{3,32}$' then
      raise sqlstate 'PT400' using
        message = 'INVALID_USERNAME',
        detail = jsonb_build_object('username', p.username)::text,
        hint = 'Choose 3 to 32 of a-z, 0-9, dot, dash and underscore.';
    end if;

    begin
      -- An absent value stays as it is, an empty text removes it.
      update public.profiles as t
      set
        username = case when p.username is null then t.username else nullif(wanted_username, '') end,
        full_name = case when p.full_name is null then t.full_name else nullif(p.full_name, '') end,
        avatar_url = case when p.avatar_url is null then t.avatar_url else nullif(p.avatar_url, '') end,
        status_text = case when p.status_text is null then t.status_text else nullif(p.status_text, '') end,
        status_emoji = case when p.status_emoji is null then t.status_emoji else nullif(p.status_emoji, '') end,
        -- A new status without an end stays, so the old status's end goes.
        status_expires_at = case
          when p.status_text is null then coalesce(p.status_expires_at, t.status_expires_at)
          else p.status_expires_at
        end
      where t.id = caller_id;
    exception
      when unique_violation then
        raise sqlstate 'PT409' using
          message = 'USERNAME_TAKEN',
          detail = jsonb_build_object('username', wanted_username)::text,
          hint = 'Choose another one.';
    end;
  end if;

  if jsonb_typeof(args -> 'settings') = 'object' then
    select r.* into s
    from jsonb_to_record(args -> 'settings') as r (theme text, notification_preferences jsonb);

    if octet_length(s.notification_preferences::text) > 24576 then
      raise sqlstate 'PT400' using
        message = 'FIELD_TOO_LARGE',
        detail = '{"field": "settings.notification_preferences", "limit": "16384 bytes"}',
        hint = 'Keep fewer preferences.';
    end if;

    update public.user_settings as t
    set
      theme = coalesce(s.theme, t.theme),
      notification_preferences = coalesce(s.notification_preferences, t.notification_preferences)
    where t.user_id = caller_id;
  end if;

  return api.get_me('{}');
end
$$;

comment on function api.update_me(jsonb) is
'Changes the caller''s account: {display_name?, profile?, settings?} -> {user}. Absent values stay, empty texts '
'remove. Raises PT404 ACCOUNT_NOT_FOUND, PT400 INVALID_USERNAME and FIELD_TOO_LARGE, PT409 USERNAME_TAKEN.';

revoke all on function api.update_me(jsonb) from public, anon;
grant execute on function api.update_me(jsonb) to authenticated;

-- What users show of themselves.

create table public.profiles (
  id uuid primary key references public.users (id) on delete cascade,
  username text,
  full_name text,
  avatar_url text,
  status_text text,
  status_emoji text,
  status_expires_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint profiles_username_key unique (username),
  constraint profiles_username_pattern check (username ~ '^[a-z0-9._-]{3,32}$'),
  constraint profiles_full_name_length check (char_length(full_name) between 1 and 200),
  constraint profiles_avatar_url_http check (avatar_url ~* '^https?://' and octet_length(avatar_url) <= 2048),
  constraint profiles_status_text_length check (char_length(status_text) between 1 and 200),
  constraint profiles_status_emoji_length check (char_length(status_emoji) between 1 and 32),
  constraint profiles_status_expires_at_range check (
    status_expires_at between '0001-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
  )
);

comment on table public.profiles is 'What users show of themselves: one row per account, made at sign-up.';
comment on column public.profiles.id is 'The account.';
comment on column public.profiles.username is
'Unique handle, 3 to 32 of a-z, 0-9, dot, dash and underscore, always lowercase; null until chosen.';
comment on column public.profiles.full_name is 'Full name, at most 200 characters.';
comment on column public.profiles.avatar_url is 'Address of a picture (http or https), at most 2048 bytes.';
comment on column public.profiles.status_text is 'What the user is doing, at most 200 characters.';
comment on column public.profiles.status_emoji is 'Emoji beside the status, at most 32 characters.';
comment on column public.profiles.status_expires_at is 'When the status ends; null means that it stays.';
comment on column public.profiles.created_at is 'When the profile was created.';
comment on column public.profiles.updated_at is 'When the profile last changed.';

revoke all on table public.profiles from public, anon, authenticated, service_role;
grant
select,
update (username, full_name, avatar_url, status_text, status_emoji, status_expires_at)
on table public.profiles to authenticated;
alter table public.profiles enable row level security;

create policy "users read their own profile"
on public.profiles for select to authenticated
using (id = (select auth.uid()));

create policy "users change their own profile"
on public.profiles for update to authenticated
using (id = (select auth.uid()))
with check (id = (select auth.uid()));

create trigger profiles_touch_updated_at
before update on public.profiles
for each row
when (old.* is distinct from new.*)
execute function private.touch_updated_at();

-- How users want Concerto to behave.

create table public.user_settings (
  user_id uuid primary key references public.users (id) on delete cascade,
  theme text not null default 'system',
  notification_preferences jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint user_settings_theme_known check (theme in ('system', 'light', 'dark')),
  -- The contract's 16 KiB count compact JSON; jsonb writes a space after each comma and colon.
  constraint user_settings_notification_preferences_size check (
    jsonb_typeof(notification_preferences) = 'object'
    and octet_length(notification_preferences::text) <= 24576
  )
);

comment on table public.user_settings is
'How users want Concerto to behave: one row per account, made at sign-up.';
comment on column public.user_settings.user_id is 'The account.';
comment on column public.user_settings.theme is 'Colours of the web app: system (follows the device), light or dark.';
comment on column public.user_settings.notification_preferences is
'Which notifications the user wants, by name: a JSON object, at most 16 KiB as compact JSON.';
comment on column public.user_settings.created_at is 'When the settings were created.';
comment on column public.user_settings.updated_at is 'When the settings last changed.';

revoke all on table public.user_settings from public, anon, authenticated, service_role;
grant select, update (theme, notification_preferences) on table public.user_settings to authenticated;
alter table public.user_settings enable row level security;

create policy "users read their own settings"
on public.user_settings for select to authenticated
using (user_id = (select auth.uid()));

create policy "users change their own settings"
on public.user_settings for update to authenticated
using (user_id = (select auth.uid()))
with check (user_id = (select auth.uid()));

create trigger user_settings_touch_updated_at
before update on public.user_settings
for each row
when (old.* is distinct from new.*)
execute function private.touch_updated_at();

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

-- Messages of sessions: only ever appended. Each knows the one before it, and one branch is the one that lists show.

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
comment on column public.messages.parent_id is
'The message before it on its branch; null for a first one. Given by a trigger: the last message of the active branch.'
' No foreign key, whose check would lock, and so rewrite, the message before; messages only go with their session.';
comment on column public.messages.is_active is
'True when it is on the branch that lists show: one way from a first message to a last one.';
comment on column public.messages.search is
'Words and owner, for private.find_messages; null for messages of tools and instructions. Given by a trigger.';

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
insert (session_id, role, content, metadata, request_id, request_size)
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

-- Messages are appended to a session, all or none.

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

comment on function api.append_messages(jsonb) is
'Appends 1 to 100 messages to a session, all or none: {session_id, request_id?, messages: [{role, content, '
'metadata?}]} -> {messages}. A repeated request_id appends nothing and answers the same. Raises PT404 '
'SESSION_NOT_FOUND, PT400 INVALID_FIELD and FIELD_TOO_LARGE, PT409 REQUEST_ID_REUSED when it came with other '
'messages.';

revoke all on function api.append_messages(jsonb) from public, anon;
grant execute on function api.append_messages(jsonb) to authenticated;

-- Which branch of a session is the active one.

create function private.show_branch(wanted_session_id uuid, last_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  new_ids uuid[];
  fork_order integer;
begin
  -- Climbs only to the first active message: what is before an active message is active as well.
  with recursive climb as (
    select m.id, m.parent_id, m."order", m.is_active
    from public.messages as m
    where m.id = last_id and m.session_id = wanted_session_id
    union all
    select m.id, m.parent_id, m."order", m.is_active
    from climb as c
    inner join public.messages as m on c.parent_id = m.id
    where not c.is_active
  )

  select
    array_agg(c.id) filter (where not c.is_active),
    coalesce(max(c."order") filter (where c.is_active), 0)
  into new_ids, fork_order
  from climb as c;

  update public.messages as m
  set is_active = false
  where m.session_id = wanted_session_id and m.is_active and m."order" > fork_order;

  update public.messages as m
  set is_active = true
  where m.id = any(new_ids);
end
$$;

comment on function private.show_branch(uuid, uuid) is
'Makes the way from the first message to last_id the active branch; null leaves none active. The caller has locked '
'the session. Touches only messages that change.';

revoke all on function private.show_branch(uuid, uuid) from public, anon, authenticated;

create function private.show_newest(wanted_session_id uuid, message_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
-- It asks for a session by key and owner, which needs no policy and must not become a walk through all of its owner's.
set enable_indexonlyscan = off
as $$
declare
  last_id uuid;
begin
  perform from public.sessions as s where s.id = wanted_session_id and s.user_id = (select auth.uid());
  if not found then
    perform private.refuse_session(wanted_session_id);
  end if;

  with recursive descend as (
    select m.id, m."order"
    from public.messages as m
    where m.id = message_id and m.session_id = wanted_session_id
    union all
    select child.id, child."order"
    from descend as d
    cross join lateral (
      select m.id, m."order"
      from public.messages as m
      where m.parent_id = d.id
      order by m."order" desc
      limit 1
    ) as child
  )

  select d.id into last_id from descend as d order by d."order" desc limit 1;
  perform private.show_branch(wanted_session_id, last_id);
end
$$;

comment on function private.show_newest(uuid, uuid) is
'Makes the branch through a message of the caller''s session the active one, the newest at each fork behind it, for '
'api.select_branch, which has locked the session.';

revoke all on function private.show_newest(uuid, uuid) from public, anon, authenticated;
grant execute on function private.show_newest(uuid, uuid) to authenticated;

create function api.select_branch(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  p record;
begin
  select r.* into p from jsonb_to_record(args) as r (session_id uuid, message_id uuid);

  perform from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;
  perform private.find_message(p.session_id, p.message_id);
  perform private.refuse_while_running(p.session_id);

  perform private.show_newest(p.session_id, p.message_id);
  return api.get_session(args);
end
$$;

comment on function api.select_branch(jsonb) is
'Makes the branch that holds a message the active one: {session_id, message_id} -> {session}. Raises PT404 '
'SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT409 RUN_IN_PROGRESS.';

revoke all on function api.select_branch(jsonb) from public, anon;
grant execute on function api.select_branch(jsonb) to authenticated;

-- A session begins.

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

-- A session's messages, page by page.

create function api.list_messages(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- As in api.list_sessions.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
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
    include_inactive boolean
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

  return answer;
end
$$;

comment on function api.list_messages(jsonb) is
'Lists messages of a session''s active branch, orders rising: {session_id, page_size?, from_end?, after_order?, '
'before_order?, include_inactive?} -> {messages, has_more}. Pages from the oldest, or with from_end from the newest; '
'with include_inactive all branches. A page ends before its contents pass 2 MiB but holds at least one message. '
'Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.list_messages(jsonb) from public, anon;
grant execute on function api.list_messages(jsonb) to authenticated;

-- The caller's sessions, page by page.

create function api.list_sessions(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- One plan for every page of everybody, made once: else the planner weighs each time whether a plan for these very
-- values is cheaper, and making it costs more than running it. It knows neither whose rows are read nor how many, and
-- only the index's own order is cheap in the long run.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
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
      to_jsonb(array_agg(session order by found.place) filter (where found.place <= page_size)),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select page.*, row_number() over (order by page.updated_at desc, page.id desc) as place
    from (
      select s.id, s.user_id, s.name, s.is_archived, s.message_count, s.created_at, s.updated_at
      from public.sessions as s
      where s.user_id = (select auth.uid())
        and s.is_archived = wants_archived
        and (s.updated_at, s.id) < (before_updated_at, before_id)
        and (p.query is null or s.name ilike pattern)
      order by s.updated_at desc, s.id desc
      limit page_size + 1
    ) as page
  ) as found
  cross join lateral (
    select
      found.id, found.user_id, found.name, found.is_archived, found.message_count, found.created_at, found.updated_at
  ) as session;

  return answer;
end
$$;

comment on function api.list_sessions(jsonb) is
'Lists the caller''s sessions, newest activity first: {page_size?, is_archived?, query?, before_updated_at?, '
'before_id?} -> {sessions, has_more}. The last two continue behind a session of the page before; query is a part '
'of the name, ignoring case.';

revoke all on function api.list_sessions(jsonb) from public, anon;
grant execute on function api.list_sessions(jsonb) to authenticated;

-- What the operations on messages and runs share.

create function private.message_json(
  id uuid,
  session_id uuid,
  role text,
  content text,
  "timestamp" timestamptz,
  "order" integer,
  metadata jsonb,
  parent_id uuid,
  is_active boolean
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
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
    'is_active', is_active
  );
end
$$;

comment on function private.message_json(uuid, uuid, text, text, timestamptz, integer, jsonb, uuid, boolean) is
'Returns a message as the contract''s Message. Takes columns, because a whole row as a value would load its content.';

revoke all on function private.message_json(uuid, uuid, text, text, timestamptz, integer, jsonb, uuid, boolean)
from public, anon, authenticated;
grant execute on function private.message_json(uuid, uuid, text, text, timestamptz, integer, jsonb, uuid, boolean)
to authenticated;

create function private.stored_message(wanted_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.message_json(
    m.id, m.session_id, m.role, m.content, m."timestamp", m."order", m.metadata, m.parent_id, m.is_active
  )
  from public.messages as m
  where m.id = wanted_id
$$;

comment on function private.stored_message(uuid) is
'Returns a message that the caller may read as the contract''s Message; null when there is none.';

revoke all on function private.stored_message(uuid) from public, anon, authenticated;
grant execute on function private.stored_message(uuid) to authenticated;

create function private.find_message(wanted_session_id uuid, wanted_id uuid)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  found_role text;
begin
  select m.role into found_role
  from public.messages as m
  where m.id = wanted_id and m.session_id = wanted_session_id;
  if not found then
    raise sqlstate 'PT404' using
      message = 'MESSAGE_NOT_FOUND',
      detail = jsonb_build_object(
        'session_id', wanted_session_id, 'message_id', coalesce(wanted_id::text, '')
      )::text,
      hint = 'List the session''s messages, those of all branches.';
  end if;
  return found_role;
end
$$;

comment on function private.find_message(uuid, uuid) is
'Returns the role of a session''s message that the caller may read. Raises PT404 MESSAGE_NOT_FOUND.';

revoke all on function private.find_message(uuid, uuid) from public, anon, authenticated;
grant execute on function private.find_message(uuid, uuid) to authenticated;

-- Operations on one session.

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

-- What the operations on sessions share.

-- With a search_path of its own a function is never inlined, and then this language is called at half the cost of sql.
create function private.session_json(session public.sessions)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', session.id,
    'user_id', session.user_id,
    'name', session.name,
    'is_archived', session.is_archived,
    'message_count', session.message_count,
    'created_at', session.created_at,
    'updated_at', session.updated_at
  );
end
$$;

comment on function private.session_json(public.sessions) is 'Returns a session as the contract''s Session.';

revoke all on function private.session_json(public.sessions) from public, anon, authenticated;
grant execute on function private.session_json(public.sessions) to authenticated;

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

-- Runs: the durable log of answers in the making. Users start and read them; the process that executes a run writes by
-- its lease token, so that a run outlives the access token it was started with.

create table public.runs (
  id uuid primary key default gen_random_uuid(),
  session_id uuid not null references public.sessions (id) on delete cascade,
  user_id uuid not null,
  state text not null,
  model text not null default '',
  agent text not null default '',
  source text not null default 'turn',
  request_id uuid,
  request_hash bytea not null,
  user_message_id uuid,
  answer_message_id uuid,
  error_reason text,
  is_cancellation_requested boolean not null default false,
  lease_hash bytea,
  lease_seconds integer not null,
  lease_expires_at timestamptz not null,
  prices jsonb not null default '{}',
  pending jsonb,
  usage_model text,
  prompt_tokens bigint,
  completion_tokens bigint,
  cached_tokens bigint,
  cost_micro_usd bigint,
  is_usage_estimated boolean,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  deltas_pruned_at timestamptz,
  constraint runs_state_known check (
    state in ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'INTERRUPTED')
  ),
  constraint runs_end_complete check ((finished_at is null) = (state in ('QUEUED', 'RUNNING'))),
  constraint runs_model_length check (char_length(model) <= 200),
  constraint runs_agent_length check (char_length(agent) <= 100),
  constraint runs_source_length check (char_length(source) between 1 and 50)
)
-- Leases are renewed every few seconds: room on the page lets the row change without touching an index.
with (fillfactor = 70);

comment on table public.runs is
'Runs: one turn each, from the user''s message to the end of the answer. Written by functions of schema private only.';
comment on column public.runs.id is 'Identifies the run.';
comment on column public.runs.session_id is 'The session.';
comment on column public.runs.user_id is 'The session''s owner, with whose sessions it goes.';
comment on column public.runs.state is 'QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED or INTERRUPTED.';
comment on column public.runs.model is 'The model that answers.';
comment on column public.runs.agent is 'The agent that answers.';
comment on column public.runs.source is 'Who asked: turn or chat_completions.';
comment on column public.runs.request_id is
'Chosen by the client so that a repetition starts one run; unique per session.';
comment on column public.runs.request_hash is
'SHA-256 of what was asked, which tells a repetition from another request with the same request_id.';
comment on column public.runs.user_message_id is
'The user''s message that is answered; null while the run is queued. No foreign key, whose check would lock the row.';
comment on column public.runs.answer_message_id is 'The stored answer; null until there is one.';
comment on column public.runs.error_reason is 'Why it did not succeed, a name of docs/errors.md; null otherwise.';
comment on column public.runs.is_cancellation_requested is 'True when somebody has asked that it be cancelled.';
comment on column public.runs.lease_hash is
'SHA-256 of the lease token, a random secret of the process that executes the run; null once it was interrupted.';
comment on column public.runs.lease_seconds is 'How long the lease lasted when it was last renewed.';
comment on column public.runs.lease_expires_at is 'When the process that executes the run counts as dead.';
comment on column public.runs.prices is
'What the model costs: prompt, completion and cached, in millionths of a US dollar per million tokens.';
comment on column public.runs.pending is
'What a queued run will ask: content, metadata, regenerate_message_id, edit_message_id; null once it has begun.';
comment on column public.runs.usage_model is 'The model that answered, as the provider names it.';
comment on column public.runs.prompt_tokens is 'Tokens of prompts; null until the run has ended.';
comment on column public.runs.completion_tokens is 'Tokens of answers; null until the run has ended.';
comment on column public.runs.cached_tokens is 'Tokens of prompts that the provider had cached; null until the end.';
comment on column public.runs.cost_micro_usd is 'Cost in millionths of a US dollar; null until the run has ended.';
comment on column public.runs.is_usage_estimated is 'True when the provider did not report the counts.';
comment on column public.runs.created_at is 'When it was asked for; rises within a session.';
comment on column public.runs.started_at is 'When the model was asked; null while the run is queued.';
comment on column public.runs.finished_at is 'When it ended; null until then.';
comment on column public.runs.deltas_pruned_at is 'When its deltas were deleted; null while they are kept.';

create index runs_user_id_idx on public.runs (user_id, created_at desc, id desc);
create index runs_session_id_idx on public.runs (session_id, created_at desc, id desc);
create unique index runs_request_id_key on public.runs (session_id, request_id) where request_id is not null;
create unique index runs_running_key on public.runs (session_id) where state = 'RUNNING';
-- Few rows at any time. The end of the lease is left out, as it changes all the time.
create index runs_open_idx on public.runs (user_id) where finished_at is null;
create index runs_unpruned_idx on public.runs (finished_at) where finished_at is not null and deltas_pruned_at is null;

revoke all on table public.runs from public, anon, authenticated, service_role;
grant select on table public.runs to authenticated;
alter table public.runs enable row level security;

-- No equality, for the reason that stands beside the policy of public.sessions.
create policy "users read their own runs"
on public.runs for select to authenticated
using (user_id is not distinct from (select auth.uid()));

create function private.drop_runs()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  -- A run that goes with its session while it is being answered has used tokens nevertheless; one that goes with its
  -- user leaves nothing.
  insert into public.api_usage (user_id, session_id, run_id, model, source, completion_tokens, is_estimated)
  select
    d.user_id,
    d.session_id,
    d.id,
    d.model,
    d.source,
    ceil(coalesce(
      (
        select sum(octet_length(e.payload ->> 'text')) from public.run_events as e
        where e.run_id = d.id and e.type = 'message_delta'
      ),
      0
    ) / 4.0)::bigint,
    true
  from deleted_runs as d
  where d.state = 'RUNNING' and exists (select from public.users as u where u.id = d.user_id)
  on conflict (run_id) do nothing;

  delete from public.run_events as e
  using deleted_runs as d
  where e.run_id = d.id;
  return null;
end
$$;

comment on function private.drop_runs() is
'Trigger: deletes the events of runs that were deleted, and notes what those had used that were under way.';

revoke all on function private.drop_runs() from public, anon, authenticated;

create trigger runs_drop
after delete on public.runs
referencing old table as deleted_runs
for each statement
execute function private.drop_runs();

-- What a run says, by its lease token.

-- One statement holds the runs and appends their events, so that a batch is read and planned once.
create function private.append_run_events(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  given_ids uuid[];
  valid_ids uuid[];
  late_ids uuid[];
begin
  with given as materialized (
    select
      (n.value -> 'lease' ->> 'run_id')::uuid as run_id,
      sha256(convert_to(n.value -> 'lease' ->> 'token', 'UTF8')) as token_hash,
      n.value -> 'events' as events
    from jsonb_array_elements(args -> 'batches') as n
  ),

  -- Held until the events are in, so that nobody ends a run in between; renewals do not wait for it.
  held as materialized (
    select r.id, r.lease_hash, r.lease_expires_at, r.lease_seconds
    from public.runs as r
    where r.id = any(array(select g.run_id from given as g)) and r.state = 'RUNNING'
    for key share
  ),

  appended as (
    insert into public.run_events (run_id, seq, type, payload, created_at)
    select
      h.id,
      (e.value ->> 'seq')::bigint,
      payload.key,
      payload.value,
      coalesce((e.value ->> 'created_at')::timestamptz, clock_timestamp())
    from given as g
    inner join held as h on g.run_id = h.id and g.token_hash = h.lease_hash
    cross join lateral jsonb_array_elements(g.events) as e
    cross join lateral jsonb_each(e.value - '{seq,created_at}'::text[]) as payload
    on conflict (run_id, seq) do nothing
  )

  select
    array_agg(g.run_id),
    array_agg(h.id) filter (where h.id is not null),
    array_agg(h.id) filter (
      where h.lease_expires_at < clock_timestamp() + make_interval(secs => h.lease_seconds / 2.0)
    )
  into given_ids, valid_ids, late_ids
  from given as g
  left join held as h on g.run_id = h.id and g.token_hash = h.lease_hash;

  -- A writer is a sign of life. Renewals come first as a rule, so this changes nothing.
  if late_ids is not null then
    update public.runs as r
    set lease_expires_at = clock_timestamp() + make_interval(secs => r.lease_seconds)
    where r.id in (
      select l.id from public.runs as l
      where l.id = any(late_ids)
      order by l.id
      for no key update skip locked
    );
  end if;

  perform pg_notify('concerto_runs', v.id::text) from unnest(valid_ids) as v (id);

  return jsonb_build_object(
    'lost_run_ids',
    coalesce(
      (
        select jsonb_agg(distinct g.id)
        from unnest(given_ids) as g (id)
        where g.id <> all(coalesce(valid_ids, '{}'))
      ),
      '[]'
    )
  );
end
$$;

comment on function private.append_run_events(jsonb) is
'Appends events to running runs: {batches: [{lease, events}]} -> {lost_run_ids}. An event whose seq is there is passed '
'over; nothing is stored for runs whose lease is not valid, which the answer names. A writer whose lease is about to '
'end, or has ended unnoticed, gets more time.';

revoke all on function private.append_run_events(jsonb) from public, anon, authenticated;
grant execute on function private.append_run_events(jsonb) to concerto_login;

-- The caller asks that a run be cancelled.

create function private.mark_cancellation(wanted_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  update public.runs as r
  set is_cancellation_requested = true
  where r.id = wanted_id
    and r.user_id = (select auth.uid())
    and r.finished_at is null
    and not r.is_cancellation_requested;
  if found then
    perform pg_notify('concerto_runs', wanted_id::text);
  end if;
end
$$;

comment on function private.mark_cancellation(uuid) is
'Asks that a run of the caller be cancelled; anything else stays as it is.';

revoke all on function private.mark_cancellation(uuid) from public, anon, authenticated;
grant execute on function private.mark_cancellation(uuid) to authenticated;

create function api.request_run_cancellation(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  wanted_id uuid := (args ->> 'run_id')::uuid;
begin
  perform private.mark_cancellation(wanted_id);
  return api.get_run(args);
end
$$;

comment on function api.request_run_cancellation(jsonb) is
'Asks that a run be cancelled, which its process hears of: {run_id} -> {run}. A run that has ended stays as it is. '
'Raises PT404 RUN_NOT_FOUND.';

revoke all on function api.request_run_cancellation(jsonb) from public, anon;
grant execute on function api.request_run_cancellation(jsonb) to authenticated;

-- A run ends: its messages, last events, state and row in the ledger.

create function private.end_run(
  run public.runs, new_state text, new_messages jsonb, used jsonb, error jsonb, keeps_lease boolean
)
returns public.runs
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  was_started boolean := run.state = 'RUNNING';
  stored_id uuid;
  stored_role text;
  prompt bigint;
  cached bigint;
  completion bigint;
  cost bigint;
  last_seq bigint;
  reason text;
begin
  if was_started then
    insert into public.messages (session_id, role, content, metadata)
    select
      run.session_id,
      n.value ->> 'role',
      coalesce(n.value ->> 'content', ''),
      coalesce(nullif(n.value -> 'metadata', 'null'), '{}')
    from jsonb_array_elements(new_messages) with ordinality as n (value, place)
    order by n.place;

    if jsonb_array_length(new_messages) > 0 then
      select m.id, m.role into stored_id, stored_role
      from public.messages as m
      where m.session_id = run.session_id
      order by m."order" desc
      limit 1;
    end if;

    prompt := greatest(coalesce((used ->> 'prompt_tokens')::bigint, 0), 0);
    completion := greatest(coalesce((used ->> 'completion_tokens')::bigint, 0), 0);
    cached := least(greatest(coalesce((used ->> 'cached_tokens')::bigint, 0), 0), prompt);
    cost := least(
      round(
        (
          (prompt - cached)::numeric * greatest(coalesce((run.prices ->> 'prompt')::numeric, 0), 0)
          + cached::numeric * greatest(coalesce((run.prices ->> 'cached')::numeric, 0), 0)
          + completion::numeric * greatest(coalesce((run.prices ->> 'completion')::numeric, 0), 0)
        ) / 1000000.0
      ),
      9223372036854775807
    )::bigint;
  end if;

  reason := error -> 'details' -> 0 ->> 'reason';
  update public.runs as r
  set
    state = new_state,
    finished_at = clock_timestamp(),
    answer_message_id = case when stored_role = 'assistant' then stored_id end,
    error_reason = reason,
    lease_hash = case when keeps_lease then r.lease_hash end,
    usage_model = nullif(used ->> 'model', ''),
    prompt_tokens = prompt,
    completion_tokens = completion,
    cached_tokens = cached,
    cost_micro_usd = cost,
    is_usage_estimated = case when was_started then coalesce((used ->> 'is_estimated')::boolean, false) end
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

  perform pg_notify('concerto_runs', run.id::text);
  return run;
end
$$;

comment on function private.end_run(public.runs, text, jsonb, jsonb, jsonb, boolean) is
'Ends a run: its messages, last events, state and row in the ledger. A run that was still queued gets no messages and '
'no row. The caller has locked the session and the run.';

revoke all on function private.end_run(public.runs, text, jsonb, jsonb, jsonb, boolean)
from public, anon, authenticated;

create function private.finish_run(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  wanted_id uuid := (args -> 'lease' ->> 'run_id')::uuid;
  token_hash bytea := sha256(convert_to(coalesce(args -> 'lease' ->> 'token', ''), 'UTF8'));
  new_messages jsonb := coalesce(nullif(args -> 'messages', 'null'), '[]');
  too_large bigint;
  run public.runs;
begin
  perform from public.sessions as s
  where s.id = (select r.session_id from public.runs as r where r.id = wanted_id)
  for no key update;
  -- Waits for events that are being appended; none comes after.
  select r.* into run
  from public.runs as r
  where r.id = wanted_id and r.lease_hash = token_hash
  for update;
  if not found then
    perform private.refuse_lease(wanted_id);
  end if;

  if run.finished_at is null then
    select n.place - 1 into too_large
    from jsonb_array_elements(new_messages) with ordinality as n (value, place)
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

    run := private.end_run(
      run,
      args ->> 'state',
      new_messages,
      nullif(args -> 'usage', 'null'),
      case when args ->> 'state' not in ('SUCCEEDED', 'CANCELLED') then nullif(args -> 'error', 'null') end,
      true
    );
  end if;

  return jsonb_build_object(
    'run',
    private.run_json(run),
    'events',
    (
      select
        jsonb_agg(jsonb_build_object('seq', e.seq, 'created_at', e.created_at, e.type, e.payload) order by e.seq)
      from public.run_events as e
      where e.run_id = run.id and e.type in ('message_completed', 'usage', 'error', 'run_finished')
    )
  );
end
$$;

comment on function private.finish_run(jsonb) is
'Ends a run, with the contract''s FinishRunRequest -> {run, events}. A repetition answers the same. The events follow '
'those that are stored, which is what next_seq counts as well. Raises PT409 LEASE_LOST, PT400 FIELD_TOO_LARGE.';

revoke all on function private.finish_run(jsonb) from public, anon, authenticated;
grant execute on function private.finish_run(jsonb) to concerto_login;

-- A run ends because its process is dead.

create function private.interrupt_run(run public.runs, error jsonb)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  said_text text;
  said jsonb := '[]';
  used jsonb;
begin
  if run.state = 'RUNNING' then
    select string_agg(e.payload ->> 'text', '' order by e.seq) into said_text
    from public.run_events as e
    where e.run_id = run.id and e.type = 'message_delta';
    -- A message holds 1 MiB, whatever the bytes of its characters.
    if octet_length(said_text) > 1048576 then
      said_text := left(said_text, 262144);
    end if;

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
      'completion_tokens', ceil(coalesce(octet_length(said_text), 0) / 4.0)::bigint,
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
$$;

comment on function private.interrupt_run(public.runs, jsonb) is
'Ends a run whose process is dead: what it had said becomes a partial message. The caller has locked the session and '
'the run.';

revoke all on function private.interrupt_run(public.runs, jsonb) from public, anon, authenticated;

create function private.interrupt_expired_runs(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  expired record;
  run public.runs;
  interrupted_ids uuid[] := '{}';
begin
  for expired in
    select r.id, r.session_id
    from public.runs as r
    where r.finished_at is null and r.lease_expires_at < clock_timestamp()
    order by r.lease_expires_at
    limit least(greatest(coalesce((args ->> 'limit')::integer, 100), 1), 1000)
  loop
    -- What another process holds is being ended, appended to or deleted there.
    perform from public.sessions as s where s.id = expired.session_id for no key update skip locked;
    continue when not found;
    select r.* into run
    from public.runs as r
    where r.id = expired.id and r.finished_at is null and r.lease_expires_at < clock_timestamp()
    for update skip locked;
    continue when not found;

    begin
      perform private.interrupt_run(run, nullif(args -> 'error', 'null'));
      interrupted_ids := interrupted_ids || run.id;
    exception
      when others then
        -- One run that cannot be ended must not keep the others from it.
        raise warning 'Run % could not be interrupted (%).', run.id, sqlstate;
    end;
  end loop;

  return jsonb_build_object('run_ids', to_jsonb(interrupted_ids));
end
$$;

comment on function private.interrupt_expired_runs(jsonb) is
'Ends runs whose lease is over as INTERRUPTED, with the given error and the text that they had said: {limit?, error} '
'-> {run_ids}. Any number of processes may call it at once.';

revoke all on function private.interrupt_expired_runs(jsonb) from public, anon, authenticated;
grant execute on function private.interrupt_expired_runs(jsonb) to concerto_login;

-- A queued run begins, by its lease token.

create function private.promote_run(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  wanted_id uuid := (args -> 'lease' ->> 'run_id')::uuid;
  token_hash bytea := sha256(convert_to(coalesce(args -> 'lease' ->> 'token', ''), 'UTF8'));
  run public.runs;
begin
  -- The session first, as every writer of runs and messages does.
  perform from public.sessions as s
  where s.id = (select r.session_id from public.runs as r where r.id = wanted_id)
  for no key update;
  select r.* into run
  from public.runs as r
  where r.id = wanted_id and r.lease_hash = token_hash and r.finished_at is null
  for no key update;
  if not found then
    perform private.refuse_lease(wanted_id);
  end if;

  if run.state = 'QUEUED' then
    if exists (
      select from public.runs as r
      where r.session_id = run.session_id and r.finished_at is null and r.created_at < run.created_at
    ) then
      raise sqlstate 'PT400' using
        message = 'RUN_NOT_NEXT',
        detail = jsonb_build_object('run_id', run.id)::text,
        hint = 'Wait for the end of the runs before it.';
    end if;
    run := private.begin_run(run, run.pending);
  end if;

  return jsonb_build_object(
    'run', private.run_json(run), 'user_message', private.stored_message(run.user_message_id)
  );
end
$$;

comment on function private.promote_run(jsonb) is
'Begins a queued run once the runs before it have ended: {lease} -> {run, user_message}. Answers the same for one that '
'runs. Raises PT409 LEASE_LOST, PT400 RUN_NOT_NEXT.';

revoke all on function private.promote_run(jsonb) from public, anon, authenticated;
grant execute on function private.promote_run(jsonb) to concerto_login;

-- Upkeep: deltas go once the stored messages hold their text.

create function private.prune_run_events(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  seconds double precision := greatest(coalesce((args ->> 'older_than_seconds')::double precision, 3600), 0);
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
    where e.run_id = m.id and e.type = 'message_delta'
  )

  select count(*) into pruned from marked;
  return jsonb_build_object('pruned', pruned);
end
$$;

comment on function private.prune_run_events(jsonb) is
'Deletes the deltas of up to 200 runs that ended long ago, as their messages hold the text: {older_than_seconds?} -> '
'{pruned}, the number of runs; call it until that is 0.';

revoke all on function private.prune_run_events(jsonb) from public, anon, authenticated;
grant execute on function private.prune_run_events(jsonb) to concerto_login;

-- The log of one run, from any place on.

create function api.read_run_events(args jsonb)
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
  after_seq bigint;
  run_state text;
  answer jsonb;
begin
  select r.* into p from jsonb_to_record(args) as r (run_id uuid, after_seq bigint, page_size integer);
  page_size := least(greatest(coalesce(p.page_size, 200), 1), 1000);
  after_seq := coalesce(p.after_seq, 0);

  select r.state into run_state from public.runs as r where r.id = p.run_id;
  if not found then
    perform private.refuse_run(p.run_id);
  end if;

  select jsonb_build_object(
    'events',
    coalesce(
      jsonb_agg(
        jsonb_build_object('seq', page.seq, 'created_at', page.created_at, page.type, page.payload)
        order by page.seq
      ) filter (where page.is_on_page),
      '[]'
    ),
    'has_more',
    coalesce(bool_or(not page.is_on_page), false),
    'state',
    run_state
  )
  into answer
  from (
    select
      e.seq,
      e.created_at,
      e.type,
      e.payload,
      row_number() over in_order = 1 or (
        row_number() over in_order <= page_size
        and sum(octet_length(e.payload::text)) over in_order <= page_bytes
      ) as is_on_page
    from (
      select v.*
      from public.run_events as v
      where v.run_id = p.run_id and v.seq > after_seq
      order by v.seq
      limit page_size + 1
    ) as e
    window in_order as (order by e.seq rows unbounded preceding)
  ) as page;

  return answer;
end
$$;

comment on function api.read_run_events(jsonb) is
'Returns a run''s events behind after_seq, and where the run stood at that moment: {run_id, after_seq?, page_size?} -> '
'{events, has_more, state}. A page ends before its payloads pass 2 MiB but holds at least one event. Raises PT404 '
'RUN_NOT_FOUND.';

revoke all on function api.read_run_events(jsonb) from public, anon;
grant execute on function api.read_run_events(jsonb) to authenticated;

-- The caller's runs: one, or a page of them.

create function api.get_run(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  wanted_id uuid := (args ->> 'run_id')::uuid;
  run public.runs;
begin
  select r.* into run from public.runs as r where r.id = wanted_id;
  if not found then
    perform private.refuse_run(wanted_id);
  end if;

  return jsonb_build_object('run', private.run_json(run));
end
$$;

comment on function api.get_run(jsonb) is 'Returns one run: {run_id} -> {run}. Raises PT404 RUN_NOT_FOUND.';

revoke all on function api.get_run(jsonb) from public, anon;
grant execute on function api.get_run(jsonb) to authenticated;

create function api.list_runs(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- As in api.list_sessions: only the index's own order is cheap for a user with many.
set enable_bitmapscan = off
as $$
declare
  p record;
  page_size integer;
  before_created_at timestamptz;
  before_id uuid;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    page_size integer, session_id uuid, before_created_at timestamptz, before_id uuid
  );
  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  before_created_at := coalesce(p.before_created_at, 'infinity');
  before_id := coalesce(p.before_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff');

  if p.session_id is not null then
    perform from public.sessions as s where s.id = p.session_id;
    if not found then
      perform private.refuse_session(p.session_id);
    end if;
  end if;

  select jsonb_build_object(
    'runs',
    coalesce(
      jsonb_agg(private.run_json(found.run) order by found.place) filter (where found.place <= page_size),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select page.run, row_number() over (order by page.created_at desc, page.id desc) as place
    from (
      (
        select r as run, r.created_at, r.id
        from public.runs as r
        where p.session_id is null
          and r.user_id = (select auth.uid())
          and (r.created_at, r.id) < (before_created_at, before_id)
        order by r.created_at desc, r.id desc
        limit page_size + 1
      )
      union all
      (
        select r as run, r.created_at, r.id
        from public.runs as r
        where p.session_id is not null
          and r.session_id = p.session_id
          and (r.created_at, r.id) < (before_created_at, before_id)
        order by r.created_at desc, r.id desc
        limit page_size + 1
      )
    ) as page
  ) as found;

  return answer;
end
$$;

comment on function api.list_runs(jsonb) is
'Lists the caller''s runs, newest first: {page_size?, session_id?, before_created_at?, before_id?} -> {runs, '
'has_more}. The last two continue behind a run of the page before. Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.list_runs(jsonb) from public, anon;
grant execute on function api.list_runs(jsonb) to authenticated;

-- The process that executes runs says that it lives.

create function private.renew_leases(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  seconds integer := least(coalesce(nullif((args ->> 'lease_seconds')::integer, 0), 10), 3600);
  answer jsonb;
begin
  with given as (
    select
      (n.value ->> 'run_id')::uuid as run_id,
      sha256(convert_to(n.value ->> 'token', 'UTF8')) as token_hash
    from jsonb_array_elements(args -> 'leases') as n
  ),

  -- In one order, so that two renewals never wait for each other in turn.
  held as (
    select r.id
    from public.runs as r
    inner join given as g on r.id = g.run_id and r.lease_hash = g.token_hash
    where r.finished_at is null
    order by r.id
    for no key update of r
  ),

  renewed as (
    update public.runs as r
    set lease_expires_at = clock_timestamp() + make_interval(secs => seconds), lease_seconds = seconds
    from held as h
    where r.id = h.id
    returning r.id, r.is_cancellation_requested
  )

  select jsonb_build_object(
    'lost_run_ids',
    coalesce(jsonb_agg(distinct g.run_id) filter (where w.id is null), '[]'),
    'cancelled_run_ids',
    coalesce(jsonb_agg(distinct w.id) filter (where w.is_cancellation_requested), '[]')
  )
  into answer
  from given as g
  left join renewed as w on g.run_id = w.id;

  return answer;
end
$$;

comment on function private.renew_leases(jsonb) is
'Moves the end of leases to lease_seconds (10) from now: {leases, lease_seconds?} -> {lost_run_ids, '
'cancelled_run_ids}. Queued runs are renewed as well.';

revoke all on function private.renew_leases(jsonb) from public, anon, authenticated;
grant execute on function private.renew_leases(jsonb) to concerto_login;

-- What happened in runs, in order.

create table public.run_events (
  run_id uuid not null,
  seq bigint not null,
  type text not null,
  payload jsonb not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint run_events_pkey primary key (run_id, seq),
  constraint run_events_seq_range check (seq > 0),
  constraint run_events_type_known check (
    type in (
      'run_started', 'message_delta', 'tool_started', 'tool_finished', 'message_completed', 'usage', 'error',
      'run_finished'
    )
  )
);

comment on table public.run_events is
'What happened in runs, in order. Goes with its run by a trigger: a foreign key would be checked for every delta.';
comment on column public.run_events.run_id is 'The run.';
comment on column public.run_events.seq is
'Place in the run, counted from 1 without gaps until old deltas are deleted.';
comment on column public.run_events.type is 'What happened: the name of the contract''s payload.';
comment on column public.run_events.payload is 'The contract''s payload as JSON.';
comment on column public.run_events.created_at is 'When it happened.';

revoke all on table public.run_events from public, anon, authenticated, service_role;
grant select on table public.run_events to authenticated;
alter table public.run_events enable row level security;

create policy "readers of a run read its events"
on public.run_events for select to authenticated
using (
  (
    select true from public.runs as r
    where r.id = run_events.run_id
  )
);

-- What the operations on runs share.

create function private.run_json(run public.runs)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select jsonb_build_object(
    'id', run.id,
    'session_id', run.session_id,
    'user_id', run.user_id,
    'state', run.state,
    'model', run.model,
    'agent', run.agent,
    'request_id', run.request_id,
    'user_message_id', run.user_message_id,
    'answer_message_id', run.answer_message_id,
    'error_reason', run.error_reason,
    'usage', case
      when run.prompt_tokens is not null then jsonb_build_object(
        'model', coalesce(run.usage_model, run.model),
        'prompt_tokens', run.prompt_tokens,
        'completion_tokens', run.completion_tokens,
        'cached_tokens', run.cached_tokens,
        'cost_micro_usd', run.cost_micro_usd,
        'is_estimated', run.is_usage_estimated
      )
    end,
    'created_at', run.created_at,
    'started_at', run.started_at,
    'finished_at', run.finished_at,
    'is_cancellation_requested', run.is_cancellation_requested
  )
$$;

comment on function private.run_json(public.runs) is 'Returns a run as the contract''s Run.';

revoke all on function private.run_json(public.runs) from public, anon, authenticated;
grant execute on function private.run_json(public.runs) to authenticated;

create function private.refuse_run(run_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  raise sqlstate 'PT404' using
    message = 'RUN_NOT_FOUND',
    detail = jsonb_build_object('run_id', coalesce(run_id::text, ''))::text,
    hint = 'List the runs to see which ones there are.';
end
$$;

comment on function private.refuse_run(uuid) is
'Raises PT404 RUN_NOT_FOUND: the one answer for a missing run and for somebody else''s.';

revoke all on function private.refuse_run(uuid) from public, anon, authenticated;
grant execute on function private.refuse_run(uuid) to authenticated;

create function private.refuse_lease(run_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  raise sqlstate 'PT409' using
    message = 'LEASE_LOST',
    detail = jsonb_build_object('run_id', coalesce(run_id::text, ''))::text,
    hint = 'Stop working on the run.';
end
$$;

comment on function private.refuse_lease(uuid) is
'Raises PT409 LEASE_LOST: the one answer for a wrong token, a missing run and one that was ended by somebody else.';

revoke all on function private.refuse_lease(uuid) from public, anon, authenticated;

create function private.refuse_while_running(wanted_session_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  other_id uuid;
begin
  select r.id into other_id
  from public.runs as r
  where r.session_id = wanted_session_id and r.finished_at is null
  order by r.state = 'RUNNING' desc, r.created_at, r.id
  limit 1;
  if found then
    raise sqlstate 'PT409' using
      message = 'RUN_IN_PROGRESS',
      detail = jsonb_build_object('session_id', wanted_session_id, 'run_id', other_id)::text,
      hint = 'Follow or cancel that run, or wait for its end.';
  end if;
end
$$;

comment on function private.refuse_while_running(uuid) is
'Raises PT409 RUN_IN_PROGRESS with the run''s id while a session has a run that has not ended.';

revoke all on function private.refuse_while_running(uuid) from public, anon, authenticated;
grant execute on function private.refuse_while_running(uuid) to authenticated;

-- A turn begins: the user's message is stored and its run opened.

create function private.store_question(wanted_session_id uuid, question jsonb)
returns uuid
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  regenerate_id uuid := (question ->> 'regenerate_message_id')::uuid;
  edit_id uuid := (question ->> 'edit_message_id')::uuid;
  message_id uuid;
begin
  if regenerate_id is not null then
    perform private.show_branch(wanted_session_id, regenerate_id);
    return regenerate_id;
  end if;

  if edit_id is not null then
    perform private.show_branch(
      wanted_session_id, (select m.parent_id from public.messages as m where m.id = edit_id)
    );
  end if;

  insert into public.messages (session_id, role, content, metadata)
  values (
    wanted_session_id,
    'user',
    coalesce(question ->> 'content', ''),
    coalesce(nullif(question -> 'metadata', 'null'), '{}')
  )
  returning id into message_id;
  return message_id;
end
$$;

comment on function private.store_question(uuid, jsonb) is
'Makes the user''s message the end of the active branch and returns its id: a new one, one beside an edited one, or '
'the one that is answered again. The caller has locked the session and checked what the question names.';

revoke all on function private.store_question(uuid, jsonb) from public, anon, authenticated;

create function private.begin_run(run public.runs, question jsonb)
returns public.runs
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  run.user_message_id := private.store_question(run.session_id, question);

  update public.runs as r
  set state = 'RUNNING', pending = null, started_at = clock_timestamp(), user_message_id = run.user_message_id
  where r.id = run.id
  returning r.* into run;

  insert into public.run_events (run_id, seq, type, payload)
  values (
    run.id,
    1,
    'run_started',
    jsonb_build_object(
      'run_id', run.id,
      'session_id', run.session_id,
      'user_message', private.stored_message(run.user_message_id),
      'model', run.model,
      'agent', run.agent
    )
  );
  perform pg_notify('concerto_runs', run.id::text);
  return run;
end
$$;

comment on function private.begin_run(public.runs, jsonb) is
'Turns a QUEUED run into a RUNNING one: stores the user''s message and the first event. The caller has locked the '
'session.';

revoke all on function private.begin_run(public.runs, jsonb) from public, anon, authenticated;

-- A run that begins at once is written once, as RUNNING with its message, and not first as QUEUED.
create function private.open_run(args jsonb, request_hash bytea, must_wait boolean, cancels boolean)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
-- It asks for a session by key and owner, which needs no policy and must not become a walk through all of its owner's.
set enable_indexonlyscan = off
as $$
declare
  p record;
  question jsonb;
  question_id uuid;
  user_message jsonb;
  run public.runs;
  token text;
  lease_seconds integer;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    session_id uuid, request_id uuid, model text, agent text, source text, lease_seconds integer, prices jsonb
  );

  perform from public.sessions as s where s.id = p.session_id and s.user_id = (select auth.uid());
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  if cancels then
    update public.runs as r
    set is_cancellation_requested = true
    where r.session_id = p.session_id and r.finished_at is null and not r.is_cancellation_requested;
    perform pg_notify('concerto_runs', r.id::text)
    from public.runs as r
    where r.session_id = p.session_id and r.finished_at is null;
  end if;

  question := jsonb_build_object(
    'content', args -> 'content',
    'metadata', args -> 'metadata',
    'regenerate_message_id', nullif(args ->> 'regenerate_message_id', ''),
    'edit_message_id', nullif(args ->> 'edit_message_id', '')
  );
  -- 244 random bits, unless the caller made its own. Only the hash is stored, so nobody who reads the table can act for
  -- the run.
  token := coalesce(
    nullif(args ->> 'lease_token', ''), replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')
  );
  lease_seconds := least(coalesce(nullif(p.lease_seconds, 0), 10), 3600);
  if not must_wait then
    question_id := private.store_question(p.session_id, question);
  end if;

  insert into public.runs (
    session_id, user_id, state, model, agent, source, request_id, request_hash, user_message_id, lease_hash,
    lease_seconds, lease_expires_at, prices, pending, started_at, created_at
  )
  values (
    p.session_id,
    (select auth.uid()),
    case when must_wait then 'QUEUED' else 'RUNNING' end,
    coalesce(p.model, ''),
    coalesce(p.agent, ''),
    coalesce(nullif(p.source, ''), 'turn'),
    p.request_id,
    open_run.request_hash,
    question_id,
    sha256(convert_to(token, 'UTF8')),
    lease_seconds,
    clock_timestamp() + make_interval(secs => lease_seconds),
    coalesce(nullif(p.prices, 'null'), '{}'),
    case when must_wait then question end,
    case when not must_wait then clock_timestamp() end,
    -- Waiting runs begin in this order, so no two of a session are alike.
    greatest(
      clock_timestamp(),
      (
        select max(r.created_at) + interval '1 microsecond' from public.runs as r
        where r.session_id = p.session_id
      )
    )
  )
  returning * into run;

  if not must_wait then
    user_message := private.stored_message(question_id);
    insert into public.run_events (run_id, seq, type, payload)
    values (
      run.id,
      1,
      'run_started',
      jsonb_build_object(
        'run_id', run.id,
        'session_id', run.session_id,
        'user_message', user_message,
        'model', run.model,
        'agent', run.agent
      )
    );
  end if;
  perform pg_notify('concerto_runs', run.id::text);

  return jsonb_build_object(
    'run', private.run_json(run),
    'lease', jsonb_build_object('run_id', run.id, 'token', token),
    'user_message', user_message
  );
end
$$;

comment on function private.open_run(jsonb, bytea, boolean, boolean) is
'Makes a run of the caller''s session for api.start_run, which has locked the session and checked everything else. '
'Raises PT404 SESSION_NOT_FOUND for a session that is not the caller''s.';

revoke all on function private.open_run(jsonb, bytea, boolean, boolean) from public, anon, authenticated;
grant execute on function private.open_run(jsonb, bytea, boolean, boolean) to authenticated;

-- A run's start brings along what was said before, so that a turn needs no second call to read it.
create function api.start_run(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  p record;
  run public.runs;
  asked_hash bytea;
  target_id uuid;
  is_busy boolean;
  if_running text;
  answer jsonb;
  page jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    session_id uuid,
    request_id uuid,
    content text,
    metadata jsonb,
    regenerate_message_id uuid,
    edit_message_id uuid,
    if_running text,
    max_user_runs integer,
    history_messages integer
  );

  perform from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  if coalesce(p.content, '') = '' and p.regenerate_message_id is null then
    raise sqlstate 'PT400' using
      message = 'MISSING_FIELD',
      detail = '{"field": "content"}',
      hint = 'Say something, or name the message that is to be answered again.';
  elsif coalesce(p.content, '') <> '' and p.regenerate_message_id is not null then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "content", "problem": "must be empty when regenerate_message_id is set"}',
      hint = 'Answering a message again takes no new content.';
  elsif p.edit_message_id is not null and p.regenerate_message_id is not null then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "edit_message_id", "problem": "must be absent when regenerate_message_id is set"}',
      hint = 'Edit a message, or have it answered again.';
  elsif octet_length(p.metadata::text) > 98304 then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = '{"field": "metadata", "limit": "65536 bytes"}',
      hint = 'Keep the metadata small.';
  end if;

  asked_hash := sha256(
    convert_to(
      jsonb_build_array(
        coalesce(p.content, ''),
        coalesce(nullif(p.metadata, 'null'), '{}'),
        p.regenerate_message_id,
        p.edit_message_id
      )::text,
      'UTF8'
    )
  );

  if p.request_id is not null then
    select r.* into run
    from public.runs as r
    where r.session_id = p.session_id and r.request_id = p.request_id;
    if found and run.request_hash = asked_hash then
      return jsonb_build_object(
        'run', private.run_json(run),
        'user_message', private.stored_message(run.user_message_id)
      ) || case
        -- The process that executes the run asks again, because its first answer was lost.
        when run.finished_at is null and run.lease_hash = sha256(convert_to(args ->> 'lease_token', 'UTF8'))
          then jsonb_build_object('lease', jsonb_build_object('run_id', run.id, 'token', args ->> 'lease_token'))
        else '{}'
      end;
    elsif found then
      raise sqlstate 'PT409' using
        message = 'REQUEST_ID_REUSED',
        detail = jsonb_build_object('session_id', p.session_id, 'request_id', p.request_id)::text,
        hint = 'Use a new request_id for another message.';
    end if;
  end if;

  target_id := coalesce(p.regenerate_message_id, p.edit_message_id);
  if target_id is not null and private.find_message(p.session_id, target_id) <> 'user' then
    raise sqlstate 'PT400' using
      message = 'NOT_A_USER_MESSAGE',
      detail = jsonb_build_object('session_id', p.session_id, 'message_id', target_id)::text,
      hint = 'Name a message that the user has said.';
  end if;

  if_running := coalesce(p.if_running, 'reject');
  if if_running = 'reject' then
    perform private.refuse_while_running(p.session_id);
  end if;
  is_busy := exists (
    select from public.runs as r
    where r.session_id = p.session_id and r.finished_at is null
  );

  if p.max_user_runs > 0 then
    -- Starts of one user in several sessions count one after the other.
    perform pg_advisory_xact_lock(hashtextextended('runs of ' || (select auth.uid())::text, 0));
    if (
      select count(*) from public.runs as r
      where r.user_id = (select auth.uid()) and r.finished_at is null
    ) >= p.max_user_runs then
      raise sqlstate 'PT429' using
        message = 'TOO_MANY_RUNS',
        detail = '{"scope": "per user", "retry_after_seconds": "2"}',
        hint = 'Wait until a run has ended.';
    end if;
  end if;

  answer := private.open_run(args, asked_hash, is_busy, is_busy and if_running = 'cancel');
  -- A queued run has no message yet, and before a first one there is nothing.
  if p.history_messages > 0 and (answer -> 'user_message' ->> 'order')::integer > 1 then
    page := api.list_messages(
      jsonb_build_object(
        'session_id', p.session_id,
        'page_size', p.history_messages,
        'from_end', true,
        'before_order', answer -> 'user_message' -> 'order'
      )
    );
    answer := answer || jsonb_build_object(
      'history', page -> 'messages', 'has_earlier_messages', page -> 'has_more'
    );
  end if;
  return answer;
end
$$;

comment on function api.start_run(jsonb) is
'Stores the user''s message and opens its run, with the contract''s StartRunRequest -> {run, lease?, user_message?, '
'history?, has_earlier_messages?}: with history_messages, the newest messages before the user''s come along, as one '
'page of api.list_messages. A repeated request_id answers the run that there is, without history, and with the lease '
'only if it names the same lease_token. Raises PT404 SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT400 MISSING_FIELD, '
'INVALID_FIELD, FIELD_TOO_LARGE and NOT_A_USER_MESSAGE, PT409 REQUEST_ID_REUSED and RUN_IN_PROGRESS, PT429 '
'TOO_MANY_RUNS.';

revoke all on function api.start_run(jsonb) from public, anon;
grant execute on function api.start_run(jsonb) to authenticated;

-- The caller's messages, found by their words.

create function private.find_messages(
  query text, wanted_session_id uuid, page_size integer, before_rank real, before_timestamp timestamptz, before_id uuid
)
returns table (message_id uuid, rank real, place bigint, pattern text)
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  -- Neither inside a longer word.
  word_start constant text := '(?<![[:alnum:]])';
  word_end constant text := '(?![[:alnum:]])';
  caller_id uuid := auth.uid();
  term text;
  term_words text[];
  term_query tsquery;
  words tsquery;
  written text[] := '{}';
  patterns text[] := '{}';
begin
  foreach term in array regexp_split_to_array(lower(btrim(query)), '\s+')
  loop
    term_words := array_remove(regexp_split_to_array(private.search_text(term), '\s+'), '');
    continue when cardinality(term_words) = 0;

    term_query := phraseto_tsquery('pg_catalog.simple', array_to_string(term_words, ' '));
    if term ~ private.unspaced() or numnode(term_query) = 0 then
      -- The index forgets positions in long texts and knows no symbols: it only tells that the characters occur.
      -- Whether they stand there as written is looked up in the text.
      term_query := plainto_tsquery('pg_catalog.simple', array_to_string(term_words, ' '));
      written := written || term;
      patterns := patterns || regexp_replace(term, '([^[:alnum:]])', '\\\1', 'g');
    else
      patterns := patterns || (word_start || array_to_string(term_words, '[^[:alnum:]]+') || word_end);
    end if;
    continue when numnode(term_query) = 0;

    words := coalesce(words && term_query, term_query);
  end loop;

  if words is null or caller_id is null then
    return;
  end if;

  return query
  with found as materialized (
    select
      m.id,
      m."timestamp" as moment,
      ts_rank_cd(m.search, words) as rank
    from public.messages as m
    where m.search @@ (words && quote_literal('owner:' || caller_id::text)::tsquery)
      and (wanted_session_id is null or m.session_id = wanted_session_id)
      and (
        cardinality(written) = 0
        or not exists (
          select from unnest(written) as w (term)
          where strpos(lower(m.content), w.term) = 0
        )
      )
  )

  select
    f.id,
    f.rank,
    row_number() over (order by f.rank desc, f.moment desc, f.id desc),
    array_to_string(patterns, '|')
  from found as f
  where before_id is null or (f.rank, f.moment, f.id) < (before_rank, before_timestamp, before_id)
  order by f.rank desc, f.moment desc, f.id desc
  limit page_size + 1;
end
$$;

comment on function private.find_messages(text, uuid, integer, real, timestamptz, uuid) is
'Finds messages of the caller, and of nobody else, that hold every term of a query: one page and one more, best first, '
'and a regular expression of the terms. Row level security would keep the index from being used, so it is passed here '
'and judges the rows in api.search_messages.';

revoke all on function private.find_messages(text, uuid, integer, real, timestamptz, uuid)
from public, anon, authenticated;
grant execute on function private.find_messages(text, uuid, integer, real, timestamptz, uuid) to authenticated;

create function private.text_ranges(content text, pattern text)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(
    jsonb_agg(
      jsonb_build_object(
        'start', regexp_instr(content, pattern, 1, n.n, 0, 'i') - 1,
        'end', regexp_instr(content, pattern, 1, n.n, 1, 'i') - 1
      )
      order by n.n
    ),
    '[]'
  )
  from generate_series(1, regexp_count(content, pattern, 1, 'i')) as n (n)
$$;

comment on function private.text_ranges(text, text) is
'Returns where a regular expression matches in a short text, as the contract''s TextRange: in code points from 0.';

revoke all on function private.text_ranges(text, text) from public, anon, authenticated;
grant execute on function private.text_ranges(text, text) to authenticated;

create function api.search_messages(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  p record;
  page_size integer;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    query text,
    page_size integer,
    session_id uuid,
    before_rank real,
    before_timestamp timestamptz,
    before_id uuid
  );
  page_size := least(greatest(coalesce(p.page_size, 20), 1), 50);

  if p.session_id is not null then
    perform from public.sessions as s where s.id = p.session_id;
    if not found then
      perform private.refuse_session(p.session_id);
    end if;
  end if;

  select jsonb_build_object(
    'hits',
    coalesce(
      jsonb_agg(
        jsonb_build_object(
          'message_id', hit.id,
          'session_id', hit.session_id,
          'session_name', hit.session_name,
          'role', hit.role,
          'order', hit."order",
          'timestamp', hit."timestamp",
          'excerpt', hit.excerpt,
          'matches', private.text_ranges(hit.excerpt, hit.pattern),
          'rank', hit.rank::text
        )
        order by hit.place
      ) filter (where hit.place <= page_size),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select
      m.id,
      m.session_id,
      s.name as session_name,
      m.role,
      m."order",
      m."timestamp",
      -- A match begins a little behind the start, so that one sees what it is about.
      substr(
        m.content, greatest(regexp_instr(left(m.content, 200000), f.pattern, 1, 1, 0, 'i') - 60, 1), 200
      ) as excerpt,
      f.pattern,
      f.rank,
      f.place
    from private.find_messages(
      p.query, p.session_id, page_size, p.before_rank, p.before_timestamp, p.before_id
    ) as f
    inner join public.messages as m on f.message_id = m.id
    inner join public.sessions as s on m.session_id = s.id
  ) as hit;

  return answer;
end
$$;

comment on function api.search_messages(jsonb) is
'Finds the caller''s messages that hold every word of a query, best match first, then newest: {query, page_size?, '
'session_id?, before_rank?, before_timestamp?, before_id?} -> {hits, has_more}. The last three continue behind a hit '
'of the page before, whose rank is part of it. Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.search_messages(jsonb) from public, anon;
grant execute on function api.search_messages(jsonb) to authenticated;

-- The words by which messages of users and assistants are found, also in scripts without spaces.

create function private.unspaced()
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select
    '[\u0E00-\u0EFF\u1000-\u109F\u1100-\u11FF\u1780-\u17FF\u3005-\u3007\u3040-\u30FF\u3130-\u318F\u31F0-\u31FF'
    '\u3400-\u4DBF\u4E00-\u9FFF\uA960-\uA97F\uAC00-\uD7FF\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF]'
$$;

comment on function private.unspaced() is
'Returns a regular expression for one character of the scripts that set no spaces between words: Thai, Lao, Khmer, '
'Burmese, kana, Chinese; and Hangul, whose particles hang on words.';

revoke all on function private.unspaced() from public, anon, authenticated;

-- Every append pays for it: no regular expressions over plain ASCII.
create function private.search_text(content text)
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

comment on function private.search_text(text) is
'Returns a text''s words set apart by spaces, characters of scripts without spaces as words of their own. Only the '
'first 200000 characters: what comes later is not searched, as a tsvector holds 1 MiB and a character up to 4 bytes.';

revoke all on function private.search_text(text) from public, anon, authenticated;

create function private.search_vector(owner_id uuid, content text)
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

comment on function private.search_vector(uuid, text) is
'Returns the words of a message and its owner, so that one index finds the words of one user.';

revoke all on function private.search_vector(uuid, text) from public, anon, authenticated;

-- The bucket of people's pictures: a row, and policies on the platform's table. Anyone who knows a picture's address
-- sees it, as the address of a public bucket asks no policy; nobody but the owner finds, adds, replaces or deletes what
-- lies in the folder named by their id.

insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
values ('avatars', 'avatars', true, 1048576, array['image/webp', 'image/png', 'image/jpeg'])
on conflict (id) do update set
  public = excluded.public,
  file_size_limit = excluded.file_size_limit,
  allowed_mime_types = excluded.allowed_mime_types;

-- The platform owns the table and has switched its row level security on. Replacing and deleting a file looks it up
-- first, so owners read their own rows; a wider policy would list everybody's files.
create policy "people find their own avatars" on storage.objects
for select to authenticated
using (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text);

create policy "people add avatars to their own folder" on storage.objects
for insert to authenticated
with check (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text);

create policy "people replace their own avatars" on storage.objects
for update to authenticated
using (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text)
with check (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text);

create policy "people delete their own avatars" on storage.objects
for delete to authenticated
using (bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text);

-- The usage ledger: what each run has used. Rows are only ever added, and outlive their sessions.

create table public.api_usage (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.users (id) on delete cascade,
  session_id uuid,
  run_id uuid,
  model text not null,
  source text not null,
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  cached_tokens bigint not null default 0,
  cost_micro_usd bigint not null default 0,
  is_estimated boolean not null default false,
  created_at timestamptz not null default now(),
  constraint api_usage_run_id_key unique (run_id),
  constraint api_usage_amounts_range check (
    prompt_tokens >= 0 and completion_tokens >= 0 and cached_tokens >= 0 and cost_micro_usd >= 0
  )
);

comment on table public.api_usage is 'What runs have used: one row per run that was answered, never changed.';
comment on column public.api_usage.id is 'Identifies the row.';
comment on column public.api_usage.user_id is 'Whose run it was.';
comment on column public.api_usage.session_id is
'The session of the run. No foreign key: deleting a session changes no total.';
comment on column public.api_usage.run_id is 'The run; no foreign key, for the same reason.';
comment on column public.api_usage.model is 'The model that answered.';
comment on column public.api_usage.source is 'Who asked: turn or chat_completions.';
comment on column public.api_usage.prompt_tokens is 'Tokens of prompts.';
comment on column public.api_usage.completion_tokens is 'Tokens of answers.';
comment on column public.api_usage.cached_tokens is
'Tokens of prompts that the provider had cached; a part of prompt_tokens.';
comment on column public.api_usage.cost_micro_usd is
'Cost in millionths of a US dollar, by the prices that were configured when the run began.';
comment on column public.api_usage.is_estimated is 'True when the provider did not report the counts.';
comment on column public.api_usage.created_at is 'When the run ended.';

create index api_usage_user_id_idx on public.api_usage (user_id, created_at);

revoke all on table public.api_usage from public, anon, authenticated, service_role;
grant select on table public.api_usage to authenticated;
alter table public.api_usage enable row level security;

create policy "users read their own usage"
on public.api_usage for select to authenticated
using (user_id = (select auth.uid()));

-- What the caller has used, summed up.

create function api.list_usage(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  p record;
  page_size integer;
  until timestamptz;
  since timestamptz;
  grouping text;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    "from" timestamptz, "to" timestamptz, group_by text, page_size integer, after_key text
  );
  page_size := least(greatest(coalesce(p.page_size, 100), 1), 366);
  until := coalesce(p."to", now());
  since := coalesce(p."from", until - interval '30 days');
  grouping := coalesce(p.group_by, 'day');
  if grouping not in ('day', 'model', 'session') then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "group_by", "problem": "must be one of day, model, session"}',
      hint = 'Sum up by day, model or session.';
  end if;
  if since > until then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "from", "problem": "must not be after to"}',
      hint = 'Ask for a time that ends after it begins.';
  end if;

  with entry as (
    select
      case grouping
        when 'day' then to_char(u.created_at at time zone 'UTC', 'YYYY-MM-DD')
        when 'model' then u.model
        else coalesce(u.session_id::text, '')
      end collate "C" as key,
      count(*) as runs,
      sum(u.prompt_tokens) as prompt_tokens,
      sum(u.completion_tokens) as completion_tokens,
      sum(u.cached_tokens) as cached_tokens,
      sum(u.cost_micro_usd) as cost_micro_usd
    from public.api_usage as u
    where u.user_id = (select auth.uid()) and u.created_at >= since and u.created_at < until
    group by 1
  ),

  page as (
    select e.*, row_number() over (order by e.key) as place
    from entry as e
    where p.after_key is null or e.key > p.after_key
    order by e.key
    limit page_size + 1
  )

  select jsonb_build_object(
    'entries',
    coalesce(
      (
        select jsonb_agg(to_jsonb(f) - 'place' order by f.key)
        from page as f
        where f.place <= page_size
      ),
      '[]'
    ),
    'has_more',
    (select count(*) > page_size from page),
    'total',
    (
      select jsonb_build_object(
        'key', '',
        'runs', coalesce(sum(e.runs), 0),
        'prompt_tokens', coalesce(sum(e.prompt_tokens), 0),
        'completion_tokens', coalesce(sum(e.completion_tokens), 0),
        'cached_tokens', coalesce(sum(e.cached_tokens), 0),
        'cost_micro_usd', coalesce(sum(e.cost_micro_usd), 0)
      )
      from entry as e
    ),
    'from', since,
    'to', until
  )
  into answer;

  return answer;
end
$$;

comment on function api.list_usage(jsonb) is
'Sums up the caller''s usage by day (UTC), model or session: {from?, to?, group_by?, page_size?, after_key?} -> '
'{entries, has_more, total, from, to}. Without bounds the last 30 days, which the answer tells; entries are sorted by '
'key and continue behind after_key, total covers the whole time. Raises PT400 INVALID_FIELD.';

revoke all on function api.list_usage(jsonb) from public, anon;
grant execute on function api.list_usage(jsonb) to authenticated;

-- Users who signed up before Concerto came to this project.
insert into public.users (id, email, display_name, last_login_at)
select
  a.id,
  a.email,
  private.display_name_from(
    case
      when jsonb_typeof(a.raw_user_meta_data -> 'display_name') = 'string'
        then a.raw_user_meta_data ->> 'display_name'
    end,
    a.email
  ) as display_name,
  a.last_sign_in_at
from auth.users as a;

insert into public.profiles (id) select u.id from public.users as u;

insert into public.user_settings (user_id) select u.id from public.users as u;

reset lock_timeout;
