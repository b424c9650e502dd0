set lock_timeout = '5s';

create or replace function private.open_model_call(
  args jsonb
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
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
$function$;

comment on function api.start_model_call(jsonb) is
'Notes that a model is asked for the caller outside of any run, with the contract''s StartModelCallRequest -> {lease}.'
' Safe to repeat with the same request_id and lease_token. For our services alone: a user''s token gets PT403 '
'PERMISSION_DENIED. Raises PT429 TOO_MANY_RUNS.';

reset lock_timeout;
