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
