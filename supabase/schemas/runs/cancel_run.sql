-- The caller asks that a run be cancelled.

create function private.mark_cancellation(wanted_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  update public.runs as r
  set is_cancellation_requested = true
  where r.id = wanted_id
    and r.user_id = (select auth.uid())
    and r.finished_at is null
    and not r.is_cancellation_requested;
  if found then
    perform private.tell_watchers(wanted_id);
  end if;
end
$$;

comment on function private.mark_cancellation(uuid) is
'Asks that a run of the caller be cancelled; anything else stays as it is.';

revoke all on function private.mark_cancellation(uuid) from public, anon, authenticated;
grant execute on function private.mark_cancellation(uuid) to authenticated;

create function api.request_run_cancellation(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
set lock_timeout = '250ms'
as $$
declare
  wanted_id uuid := (args ->> 'run_id')::uuid;
begin
  perform private.mark_cancellation(wanted_id);
  return api.get_run(args);
end
$$;

comment on function api.request_run_cancellation(jsonb) is
'Asks that a run be cancelled, which its process hears of: {run_id} -> {run}. A run that has ended stays as it is. '
'Raises PT404 RUN_NOT_FOUND.';

revoke all on function api.request_run_cancellation(jsonb) from public, anon;
grant execute on function api.request_run_cancellation(jsonb) to authenticated;
