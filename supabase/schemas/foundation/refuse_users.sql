-- What a user's own token is not enough for.

create function private.refuse_users(operation text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  -- Who has logged in, which neither a role that was taken nor a function's owner changes: behind Supabase's REST
  -- interface it is never ours.
  if session_user <> 'concerto_login' then
    raise sqlstate 'PT403' using
      message = 'PERMISSION_DENIED',
      detail = jsonb_build_object('operation', operation)::text,
      hint = 'Ask the orchestrator: this operation takes prices and limits, which only our services may say.';
  end if;
end
$$;

comment on function private.refuse_users(text) is
'Raises PT403 PERMISSION_DENIED unless a service of ours is connected, as concerto_login. For operations whose '
'arguments hold what no user may choose, such as prices.';

revoke all on function private.refuse_users(text) from public, anon, authenticated;
grant execute on function private.refuse_users(text) to authenticated;
