-- The two schemas beside public, the login role of the services, and the one way in.

alter default privileges revoke execute on functions from public;

create schema api;
comment on schema api is
'The operations: one function per rpc that needs data, (args jsonb) returns jsonb, run with the caller''s own rights.';

create schema private;
comment on schema private is
'Helpers of policies, triggers and operations, and the services'' way in. Never exposed over REST.';

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
comment on role concerto_login is
'Login of the services: becomes anon or authenticated inside private.call and may do nothing by itself. Give it a'
' password before use.';

grant usage on schema api to authenticated;
grant usage on schema private to authenticated, concerto_login;

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

create function private.call(claims jsonb, operation text, args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  caller_role text := coalesce(claims ->> 'role', 'anon');
  answer jsonb;
begin
  if caller_role not in ('anon', 'authenticated') then
    raise sqlstate 'PT403' using
      message = 'PERMISSION_DENIED',
      detail = jsonb_build_object('role', caller_role)::text,
      hint = 'Call with the claims of a user''s access token.';
  end if;

  if not exists (
    select from pg_catalog.pg_proc as p
    where p.proname = operation
      and p.pronamespace = 'api'::regnamespace
      and p.proargtypes = array['jsonb'::regtype::oid]::oidvector
  ) then
    raise sqlstate 'PT501' using
      message = 'UNIMPLEMENTED',
      detail = jsonb_build_object('operation', coalesce(operation, ''))::text,
      hint = 'Apply the migrations that this version of the service needs.';
  end if;

  -- Both kinds of claim settings: Supabase's helpers read the second, older ones the first.
  perform
    set_config('request.jwt.claim.sub', coalesce(claims ->> 'sub', ''), true),
    set_config('request.jwt.claim.role', caller_role, true),
    set_config('request.jwt.claim.email', coalesce(claims ->> 'email', ''), true),
    set_config('request.jwt.claims', coalesce(claims, '{}')::text, true),
    set_config('role', caller_role, true);

  execute format('select api.%I($1)', operation) into answer using coalesce(args, '{}');
  return answer;
end
$$;

comment on function private.call(jsonb, text, jsonb) is
'Runs one operation of schema api as the user whose verified claims are given: one statement, one transaction. '
'Raises PT403 PERMISSION_DENIED for any role but anon and authenticated, PT501 UNIMPLEMENTED for a name that api '
'lacks.';

revoke all on function private.call(jsonb, text, jsonb) from public, anon, authenticated;
grant execute on function private.call(jsonb, text, jsonb) to concerto_login;
