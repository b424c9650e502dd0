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
