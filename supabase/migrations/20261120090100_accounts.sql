-- People: an account, a profile and settings for each user of Supabase Auth, kept in step with it by triggers.

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
