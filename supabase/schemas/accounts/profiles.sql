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
