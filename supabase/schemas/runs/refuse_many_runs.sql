-- How many answers one user may have under way.

create function private.refuse_many_runs(most integer)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  -- Starts of one user in several sessions count one after the other.
  perform pg_advisory_xact_lock(hashtextextended('runs of ' || (select auth.uid())::text, 0));
  if (
    select count(*) from public.runs as r
    where r.user_id = (select auth.uid()) and r.finished_at is null
  ) + (
    select count(*) from private.model_calls as c
    where c.user_id = (select auth.uid()) and c.source <> 'title'
  ) >= most then
    raise sqlstate 'PT429' using
      message = 'TOO_MANY_RUNS',
      detail = '{"scope": "per user", "retry_after_seconds": "2"}',
      hint = 'Wait until a run has ended.';
  end if;
end
$$;

comment on function private.refuse_many_runs(integer) is
'Raises PT429 TOO_MANY_RUNS while the caller has so many runs under way, with calls of models that belong to none. '
'Holds off the caller''s other starts until the end of the transaction.';

revoke all on function private.refuse_many_runs(integer) from public, anon, authenticated;
grant execute on function private.refuse_many_runs(integer) to authenticated;
