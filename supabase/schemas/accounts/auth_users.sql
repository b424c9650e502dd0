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
