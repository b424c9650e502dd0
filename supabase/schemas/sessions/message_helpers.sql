-- What the operations on messages and runs share.

create function private.message_json(
  id uuid,
  session_id uuid,
  role text,
  content text,
  "timestamp" timestamptz,
  "order" integer,
  metadata jsonb,
  parent_id uuid,
  is_active boolean,
  reasoning text,
  reasoning_milliseconds integer
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', id,
    'session_id', session_id,
    'role', role,
    'content', content,
    'timestamp', "timestamp",
    'order', "order",
    'metadata', metadata,
    'parent_id', parent_id,
    'is_active', is_active,
    'reasoning', reasoning,
    'reasoning_milliseconds', reasoning_milliseconds
  );
end
$$;

comment on function private.message_json(
  uuid, uuid, text, text, timestamptz, integer, jsonb, uuid, boolean, text, integer
) is
'Returns a message as the contract''s Message. Takes columns, because a whole row as a value would load its content.';

revoke all on function private.message_json(
  uuid, uuid, text, text, timestamptz, integer, jsonb, uuid, boolean, text, integer
) from public, anon, authenticated;
grant execute on function private.message_json(
  uuid, uuid, text, text, timestamptz, integer, jsonb, uuid, boolean, text, integer
) to authenticated;

create function private.stored_message(wanted_id uuid)
returns jsonb
language sql
stable
security invoker
set search_path = ''
as $$
  select private.message_json(
    m.id, m.session_id, m.role, m.content, m."timestamp", m."order", m.metadata, m.parent_id, m.is_active,
    m.reasoning, m.reasoning_milliseconds
  )
  from public.messages as m
  where m.id = wanted_id
$$;

comment on function private.stored_message(uuid) is
'Returns a message that the caller may read as the contract''s Message; null when there is none.';

revoke all on function private.stored_message(uuid) from public, anon, authenticated;
grant execute on function private.stored_message(uuid) to authenticated;

create function private.find_message(wanted_session_id uuid, wanted_id uuid)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  found_role text;
begin
  select m.role into found_role
  from public.messages as m
  where m.id = wanted_id and m.session_id = wanted_session_id;
  if not found then
    raise sqlstate 'PT404' using
      message = 'MESSAGE_NOT_FOUND',
      detail = jsonb_build_object(
        'session_id', wanted_session_id, 'message_id', coalesce(wanted_id::text, '')
      )::text,
      hint = 'List the session''s messages, those of all branches.';
  end if;
  return found_role;
end
$$;

comment on function private.find_message(uuid, uuid) is
'Returns the role of a session''s message that the caller may read. Raises PT404 MESSAGE_NOT_FOUND.';

revoke all on function private.find_message(uuid, uuid) from public, anon, authenticated;
grant execute on function private.find_message(uuid, uuid) to authenticated;
