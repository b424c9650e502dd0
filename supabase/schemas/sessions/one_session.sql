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
