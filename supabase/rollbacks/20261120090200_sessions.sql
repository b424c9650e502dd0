drop function api.list_messages(jsonb);
drop function api.append_messages(jsonb);
drop function api.delete_session(jsonb);
drop function api.update_session(jsonb);
drop function api.get_session(jsonb);
drop function api.list_sessions(jsonb);
drop function api.create_session(jsonb);

drop function private.message_json(uuid, uuid, text, text, timestamptz, integer, jsonb);
drop function private.session_json(public.sessions);
drop function private.refuse_session(uuid);

drop table public.messages;
drop table public.sessions;

drop function private.count_messages();
drop function private.place_message();
