-- Calls of models that belong to no run, such as completions without a session and titles, while they are under way.
-- What they have used is entered in the ledger when they end, or when the process that makes them dies.

create table private.model_calls (
  id uuid primary key,
  user_id uuid not null references public.users (id) on delete cascade,
  session_id uuid,
  model text not null,
  source text not null,
  prompt_tokens bigint not null,
  prices jsonb not null,
  lease_hash bytea not null,
  lease_expires_at timestamptz not null,
  constraint model_calls_model_length check (char_length(model) <= 200),
  constraint model_calls_source_length check (char_length(source) between 1 and 50)
);

comment on table private.model_calls is
'Calls of models that belong to no run and are under way: a row each, from before the model is asked until what it has '
'used is in the ledger.';
comment on column private.model_calls.id is 'Identifies the call, here and in the ledger.';
comment on column private.model_calls.user_id is 'Who asks.';
comment on column private.model_calls.session_id is
'The session that it is for, such as the one that gets a title; null for none.';
comment on column private.model_calls.model is 'The model that is asked.';
comment on column private.model_calls.source is
'What for: chat_completions, or title, which does not count among the runs that a user has under way.';
comment on column private.model_calls.prompt_tokens is
'About how many tokens the prompt has; goes into the ledger if nobody says what was used.';
comment on column private.model_calls.prices is
'What the model costs: prompt, completion and cached, in millionths of a US dollar per million tokens.';
comment on column private.model_calls.lease_hash is
'SHA-256 of the lease token, a random secret of the process that makes the call.';
comment on column private.model_calls.lease_expires_at is 'When that process counts as dead.';

create index model_calls_user_id_idx on private.model_calls (user_id);

revoke all on table private.model_calls from public, anon, authenticated, service_role;
alter table private.model_calls enable row level security;

create function private.note_model_call(call private.model_calls, used jsonb)
returns void
language sql
volatile
security definer
set search_path = ''
as $$
  insert into public.api_usage (
    user_id, session_id, run_id, model, source, prompt_tokens, completion_tokens, cached_tokens, cost_micro_usd,
    is_estimated
  )
  select
    call.user_id,
    call.session_id,
    call.id,
    coalesce(nullif(u.model, ''), call.model),
    call.source,
    u.prompt_tokens,
    u.completion_tokens,
    u.cached_tokens,
    u.cost_micro_usd,
    u.is_estimated
  from private.read_used(used, call.prices) as u
  on conflict (run_id) do nothing
$$;

comment on function private.note_model_call(private.model_calls, jsonb) is
'Enters in the ledger what a call of a model has used, the contract''s Usage, at its own prices.';

revoke all on function private.note_model_call(private.model_calls, jsonb) from public, anon, authenticated;

create function private.finish_model_call(args jsonb)
returns jsonb
language plpgsql
volatile
security definer
set search_path = ''
set lock_timeout = '250ms'
as $$
declare
  wanted_id uuid := (args -> 'lease' ->> 'run_id')::uuid;
  call private.model_calls;
begin
  delete from private.model_calls as c
  where c.id = wanted_id
    and c.lease_hash = sha256(convert_to(coalesce(args -> 'lease' ->> 'token', ''), 'UTF8'))
  returning c.* into call;
  if not found then
    perform private.refuse_lease(wanted_id);
  end if;

  if jsonb_typeof(args -> 'usage') = 'object' then
    perform private.note_model_call(call, args -> 'usage');
  end if;
  return '{}';
end
$$;

comment on function private.finish_model_call(jsonb) is
'Ends a call of a model and enters what it has used in the ledger: {lease, usage?} -> {}; without usage, the model was '
'never asked. Raises PT409 LEASE_LOST, also when it is repeated.';

revoke all on function private.finish_model_call(jsonb) from public, anon, authenticated;
grant execute on function private.finish_model_call(jsonb) to concerto_login;

create function private.note_lost_model_calls(most integer)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  lost private.model_calls;
begin
  for lost in
    delete from private.model_calls as c
    where c.id in (
      select o.id
      from private.model_calls as o
      where o.lease_expires_at < clock_timestamp()
      limit most
      for update skip locked
    )
    returning c.*
  loop
    -- Nobody knows what the model has said, nor what the provider counted.
    perform private.note_model_call(
      lost, jsonb_build_object('prompt_tokens', lost.prompt_tokens, 'is_estimated', true)
    );
  end loop;
end
$$;

comment on function private.note_lost_model_calls(integer) is
'Ends calls of models whose process is dead, at most so many, and enters their prompts in the ledger as estimated.';

revoke all on function private.note_lost_model_calls(integer) from public, anon, authenticated;
