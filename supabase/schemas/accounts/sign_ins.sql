-- Whether the sign-in behind a token still stands. Tokens only tell of it; Supabase Auth keeps accounts and sign-ins.

create function private.sign_in_stands()
returns boolean
language sql
stable
security definer
set search_path = ''
as $$
  with told as (
    select nullif(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'session_id', '') as id
  )

  select exists (
    select from auth.users as u
    where u.id = (select auth.uid())
      and u.deleted_at is null
      and (u.banned_until is null or u.banned_until <= now())
  )
  -- Tokens that tell of no sign-in are of tools; there the account alone counts.
  and coalesce(
    (
      select exists (
        select from auth.sessions as s
        where s.user_id = (select auth.uid())
          and s.id = case when t.id ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then t.id::uuid end
          and (s.not_after is null or s.not_after > now())
      )
      from told as t
      where t.id is not null
    ),
    true
  )
$$;

comment on function private.sign_in_stands() is
'Whether the caller''s account exists and is neither deleted nor banned, and the sign-in that the token''s session_id '
'names has not been ended by a log-out, a changed password or its time. False for nobody.';

revoke all on function private.sign_in_stands() from public, anon, authenticated;
grant execute on function private.sign_in_stands() to authenticated;

create function private.refuse_ended_sign_in()
returns void
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  -- A role without users in it, such as anon, has no sign-in that could have ended.
  if current_setting('role') = 'authenticated' and not private.sign_in_stands() then
    raise sqlstate 'PT401' using
      message = 'SIGN_IN_ENDED',
      detail = '{}',
      hint = 'Sign in again.';
  end if;
end
$$;

comment on function private.refuse_ended_sign_in() is
'Raises PT401 SIGN_IN_ENDED for a user whose sign-in has ended. The REST interface runs it before each request.';

revoke all on function private.refuse_ended_sign_in() from public, anon, authenticated;
grant usage on schema private to anon, service_role;
grant execute on function private.refuse_ended_sign_in() to anon, authenticated, service_role;

create function api.check_sign_in(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
begin
  perform private.refuse_ended_sign_in();
  return '{}';
end
$$;

comment on function api.check_sign_in(jsonb) is
'Answers while the caller''s sign-in stands: {} -> {}. Raises PT401 SIGN_IN_ENDED once it has ended.';

revoke all on function api.check_sign_in(jsonb) from public, anon;
grant execute on function api.check_sign_in(jsonb) to authenticated;

-- The role belongs to the platform, so a database without REST has none.
do $$
begin
  if exists (select from pg_catalog.pg_roles as r where r.rolname = 'authenticator') then
    alter role authenticator set pgrst.db_pre_request = 'private.refuse_ended_sign_in';
  end if;
end
$$;
notify pgrst, 'reload config';
