drop function api.select_branch(jsonb);
drop function api.read_run_events(jsonb);
drop function api.request_run_cancellation(jsonb);
drop function api.list_runs(jsonb);
drop function api.get_run(jsonb);
drop function api.start_run(jsonb);

drop function private.show_newest(uuid, uuid);
drop function private.mark_cancellation(uuid);
drop function private.open_run(jsonb, bytea, boolean, boolean);
drop function private.begin_run(public.runs, jsonb);
drop function private.store_question(uuid, jsonb);
drop function private.find_message(uuid, uuid);
drop function private.refuse_while_running(uuid);
drop function private.refuse_lease(uuid);
drop function private.refuse_run(uuid);
drop function private.stored_message(uuid);
drop function private.run_json(public.runs);

drop table public.run_events;
drop table public.runs;
