-- A session begins.

create function api.create_session(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
set lock_timeout = '250ms'
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
'session that it made. Raises PT404 ACCOUNT_NOT_FOUND, PT429 TOO_MANY_MESSAGES.';

revoke all on function api.create_session(jsonb) from public, anon;
grant execute on function api.create_session(jsonb) to authenticated;
