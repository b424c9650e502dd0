-- The usage ledger: what each run has used. Rows are only ever added, and outlive their sessions.

create table public.api_usage (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references public.users (id) on delete cascade,
  session_id uuid,
  run_id uuid,
  model text not null,
  source text not null,
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  cached_tokens bigint not null default 0,
  cost_micro_usd bigint not null default 0,
  is_estimated boolean not null default false,
  created_at timestamptz not null default now(),
  -- A sum past the largest number must not keep a run from ending.
  tokens_used bigint not null generated always as (
    least(prompt_tokens::numeric + completion_tokens, 9223372036854775807)::bigint
  ) stored,
  constraint api_usage_run_id_key unique (run_id),
  constraint api_usage_amounts_range check (
    prompt_tokens >= 0 and completion_tokens >= 0 and cached_tokens >= 0 and cost_micro_usd >= 0
  )
);

comment on table public.api_usage is
'What was used: one row for each run that was answered and for each call of a model that belongs to none, never '
'changed.';
comment on column public.api_usage.id is 'Identifies the row.';
comment on column public.api_usage.user_id is 'Who asked.';
comment on column public.api_usage.session_id is
'The session of the run, or the one that a title is for; null for what belongs to none. No foreign key: deleting a '
'session changes no total.';
comment on column public.api_usage.run_id is
'The run, or the call of a model that belongs to none; no foreign key, for the same reason.';
comment on column public.api_usage.model is 'The model that answered.';
comment on column public.api_usage.source is 'What for: turn, chat_completions or title.';
comment on column public.api_usage.prompt_tokens is 'Tokens of prompts.';
comment on column public.api_usage.completion_tokens is 'Tokens of answers.';
comment on column public.api_usage.cached_tokens is
'Tokens of prompts that the provider had cached; a part of prompt_tokens.';
comment on column public.api_usage.cost_micro_usd is
'Cost in millionths of a US dollar, by the prices that were configured when the run began.';
comment on column public.api_usage.is_estimated is 'True when the provider did not report the counts.';
comment on column public.api_usage.created_at is 'When the run or the call ended.';
comment on column public.api_usage.tokens_used is
'prompt_tokens and completion_tokens together, by the name that requirement 001 gives them.';

create index api_usage_user_id_idx on public.api_usage (user_id, created_at);

revoke all on table public.api_usage from public, anon, authenticated, service_role;
grant select on table public.api_usage to authenticated;
alter table public.api_usage enable row level security;

create policy "users read their own usage"
on public.api_usage for select to authenticated
using (user_id = (select auth.uid()));
