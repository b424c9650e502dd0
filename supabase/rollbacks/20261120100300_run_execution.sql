drop trigger runs_drop on public.runs;
drop function private.drop_runs();

drop function private.prune_run_events(jsonb);
drop function private.interrupt_expired_runs(jsonb);
drop function private.interrupt_run(public.runs, jsonb);
drop function private.finish_run(jsonb);
drop function private.end_run(public.runs, text, jsonb, jsonb, jsonb, boolean);
drop function private.renew_leases(jsonb);
drop function private.append_run_events(jsonb);
drop function private.promote_run(jsonb);
