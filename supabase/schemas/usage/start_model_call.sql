-- A model is to be asked outside of any run.

create function private.open_model_call(args jsonb)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  asked record;
begin
  select r.* into asked
  from jsonb_to_record(args) as r (
    request_id uuid,
    session_id uuid,
    model text,
    source text,
    prompt_tokens numeric,
    prices jsonb,
    lease_token text,
    lease_seconds integer,
    max_user_runs integer
  );
  -- An access token outlives its deleted account by half a minute.
  if not exists (select from public.users as u where u.id = (select auth.uid())) then
    raise sqlstate 'PT404' using
      message = 'ACCOUNT_NOT_FOUND',
      detail = jsonb_build_object('user_id', coalesce(auth.uid()::text, ''))::text,
      hint = 'Sign in again; the account may have been deleted.';
  end if;

  if asked.max_user_runs > 0
    and not exists (
      select from private.model_calls as c where c.id = asked.request_id and c.user_id = (select auth.uid())
    )
  then
    perform private.refuse_many_runs(asked.max_user_runs);
  end if;

  insert into private.model_calls (
    id, user_id, session_id, model, source, prompt_tokens, prices, lease_hash, lease_expires_at
  )
  values (
    asked.request_id,
    (select auth.uid()),
    asked.session_id,
    coalesce(asked.model, ''),
    asked.source,
    least(greatest(coalesce(asked.prompt_tokens, 0), 0), 1000000000000),
    coalesce(asked.prices, '{}'),
    sha256(convert_to(asked.lease_token, 'UTF8')),
    clock_timestamp()
    + make_interval(secs => least(greatest(coalesce(nullif(asked.lease_seconds, 0), 10), 1), 3600))
  )
  -- A call that is repeated because its answer was lost.
  on conflict (id) do nothing;
end
$$;

comment on function private.open_model_call(jsonb) is
'Makes the row of a call of a model for api.start_model_call, whose arguments it takes.';

revoke all on function private.open_model_call(jsonb) from public, anon, authenticated;
grant execute on function private.open_model_call(jsonb) to authenticated;

create function api.start_model_call(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
set lock_timeout = '250ms'
as $$
begin
  perform private.refuse_users('start_model_call');
  perform private.open_model_call(args);
  return jsonb_build_object(
    'lease', jsonb_build_object('run_id', args -> 'request_id', 'token', args -> 'lease_token')
  );
end
$$;

comment on function api.start_model_call(jsonb) is
'Notes that a model is asked for the caller outside of any run, with the contract''s StartModelCallRequest -> {lease}. '
'Safe to repeat with the same request_id and lease_token. For our services alone: a user''s token gets PT403 '
'PERMISSION_DENIED. Raises PT404 ACCOUNT_NOT_FOUND, PT429 TOO_MANY_RUNS.';

revoke all on function api.start_model_call(jsonb) from public, anon;
grant execute on function api.start_model_call(jsonb) to authenticated;
