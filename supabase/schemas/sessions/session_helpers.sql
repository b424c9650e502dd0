-- What the operations on sessions share.

-- With a search_path of its own a function is never inlined, and then this language is called at half the cost of sql.
create function private.session_json(session public.sessions)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'id', session.id,
    'user_id', session.user_id,
    'name', session.name,
    'is_archived', session.is_archived,
    'message_count', session.message_count,
    'created_at', session.created_at,
    'updated_at', session.updated_at
  );
end
$$;

comment on function private.session_json(public.sessions) is 'Returns a session as the contract''s Session.';

revoke all on function private.session_json(public.sessions) from public, anon, authenticated;
grant execute on function private.session_json(public.sessions) to authenticated;

create function private.refuse_session(session_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  raise sqlstate 'PT404' using
    message = 'SESSION_NOT_FOUND',
    detail = jsonb_build_object('session_id', coalesce(session_id::text, ''))::text,
    hint = 'List the sessions to see which ones there are.';
end
$$;

comment on function private.refuse_session(uuid) is
'Raises PT404 SESSION_NOT_FOUND: the one answer for a missing session and for somebody else''s.';

revoke all on function private.refuse_session(uuid) from public, anon, authenticated;
grant execute on function private.refuse_session(uuid) to authenticated;
