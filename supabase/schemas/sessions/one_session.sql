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
set lock_timeout = '250ms'
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

create function private.shorten_session(wanted_id uuid, most_messages integer, most_runs integer)
returns boolean
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  dropped integer;
  runs_dropped integer;
begin
  perform from public.sessions as s where s.id = wanted_id and s.user_id = (select auth.uid()) for no key update;
  if not found then
    return false;
  end if;

  delete from public.runs as r
  where r.id in (
    select n.id from public.runs as n
    where n.session_id = wanted_id
    order by n.created_at desc, n.id desc
    limit most_runs
  );
  get diagnostics runs_dropped = row_count;

  -- From the end, so that what is left is a conversation that ends earlier.
  delete from public.messages as m
  where m.session_id = wanted_id
    and m."order" > (
      select s.message_count - most_messages from public.sessions as s
      where s.id = wanted_id
    );
  get diagnostics dropped = row_count;
  update public.sessions as s
  set message_count = s.message_count - dropped
  where s.id = wanted_id and dropped > 0;

  return dropped = most_messages or runs_dropped = most_runs;
end
$$;

comment on function private.shorten_session(uuid, integer, integer) is
'Deletes the newest messages and runs of the caller''s session, so many of each, and says whether there may be more.';

revoke all on function private.shorten_session(uuid, integer, integer) from public, anon, authenticated;
grant execute on function private.shorten_session(uuid, integer, integer) to authenticated;

create function api.delete_session(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
set lock_timeout = '250ms'
as $$
declare
  wanted_id uuid := (args ->> 'session_id')::uuid;
  -- A tenth of a second's work or two, for which the session and its runs are locked.
  most_messages constant integer := 5000;
  most_runs constant integer := 200;
begin
  if (args ->> 'in_steps')::boolean and private.shorten_session(wanted_id, most_messages, most_runs) then
    return '{"is_deleted": false}';
  end if;

  delete from public.sessions as s where s.id = wanted_id;
  if not found then
    perform private.refuse_session(wanted_id);
  end if;

  return '{"is_deleted": true}';
end
$$;

comment on function api.delete_session(jsonb) is
'Deletes a session with all its messages: {session_id, in_steps?} -> {is_deleted}. With in_steps, of a long one only '
'the newest 5000 messages and 200 runs: call it until is_deleted. Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.delete_session(jsonb) from public, anon;
grant execute on function api.delete_session(jsonb) to authenticated;
