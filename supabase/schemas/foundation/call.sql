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
