-- Runs: the durable log of answers in the making. Users start and read them; the process that executes a run writes by
-- its lease token, so that a run outlives the access token it was started with.

create table public.runs (
  id uuid primary key default gen_random_uuid(),
  session_id uuid not null references public.sessions (id) on delete cascade,
  user_id uuid not null,
  state text not null,
  model text not null default '',
  agent text not null default '',
  source text not null default 'turn',
  request_id uuid,
  request_hash bytea not null,
  user_message_id uuid,
  answer_message_id uuid,
  error_reason text,
  is_cancellation_requested boolean not null default false,
  lease_hash bytea,
  lease_seconds integer not null,
  lease_expires_at timestamptz not null,
  process_id uuid,
  prices jsonb not null default '{}',
  pending jsonb,
  usage_model text,
  prompt_tokens bigint,
  completion_tokens bigint,
  cached_tokens bigint,
  cost_micro_usd bigint,
  is_usage_estimated boolean,
  created_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  deltas_pruned_at timestamptz,
  constraint runs_state_known check (
    state in ('QUEUED', 'RUNNING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'INTERRUPTED')
  ),
  constraint runs_end_complete check ((finished_at is null) = (state in ('QUEUED', 'RUNNING'))),
  constraint runs_model_length check (char_length(model) <= 200),
  constraint runs_agent_length check (char_length(agent) <= 100),
  constraint runs_source_length check (char_length(source) between 1 and 50)
)
-- Leases are renewed every few seconds: room on the page lets the row change without touching an index.
with (fillfactor = 70);

comment on table public.runs is
'Runs: one turn each, from the user''s message to the end of the answer. Written by functions of schema private only.';
comment on column public.runs.id is 'Identifies the run.';
comment on column public.runs.session_id is 'The session.';
comment on column public.runs.user_id is 'The session''s owner, with whose sessions it goes.';
comment on column public.runs.state is 'QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED or INTERRUPTED.';
comment on column public.runs.model is 'The model that answers.';
comment on column public.runs.agent is 'The agent that answers.';
comment on column public.runs.source is 'Who asked: turn or chat_completions.';
comment on column public.runs.request_id is
'Chosen by the client so that a repetition starts one run; unique per session.';
comment on column public.runs.request_hash is
'SHA-256 of what was asked, which tells a repetition from another request with the same request_id.';
comment on column public.runs.user_message_id is
'The user''s message that is answered; null while the run is queued. No foreign key, whose check would lock the row.';
comment on column public.runs.answer_message_id is 'The stored answer; null until there is one.';
comment on column public.runs.error_reason is 'Why it did not succeed, a name of docs/errors.md; null otherwise.';
comment on column public.runs.is_cancellation_requested is 'True when somebody has asked that it be cancelled.';
comment on column public.runs.lease_hash is
'SHA-256 of the lease token, a random secret of the process that executes the run; null once it was interrupted.';
comment on column public.runs.lease_seconds is 'How long the lease lasted when it was last renewed.';
comment on column public.runs.lease_expires_at is 'When the process that executes the run counts as dead.';
comment on column public.runs.process_id is
'The process that executes the run, by the name that its supervisor gave it; null where nobody would tell of its '
'death.';
comment on column public.runs.prices is
'What the model costs: prompt, completion and cached, in millionths of a US dollar per million tokens.';
comment on column public.runs.pending is
'The turn that a queued run will ask, as private.turn in JSON; null once it has begun.';
comment on column public.runs.usage_model is 'The model that answered, as the provider names it.';
comment on column public.runs.prompt_tokens is 'Tokens of prompts; null until the run has ended.';
comment on column public.runs.completion_tokens is 'Tokens of answers; null until the run has ended.';
comment on column public.runs.cached_tokens is 'Tokens of prompts that the provider had cached; null until the end.';
comment on column public.runs.cost_micro_usd is 'Cost in millionths of a US dollar; null until the run has ended.';
comment on column public.runs.is_usage_estimated is 'True when the provider did not report the counts.';
comment on column public.runs.created_at is 'When it was asked for; rises within a session.';
comment on column public.runs.started_at is 'When the model was asked; null while the run is queued.';
comment on column public.runs.finished_at is 'When it ended; null until then.';
comment on column public.runs.deltas_pruned_at is 'When its deltas were deleted; null while they are kept.';

create index runs_user_id_idx on public.runs (user_id, created_at desc, id desc);
create index runs_session_id_idx on public.runs (session_id, created_at desc, id desc);
create unique index runs_request_id_key on public.runs (session_id, request_id) where request_id is not null;
create unique index runs_running_key on public.runs (session_id) where state = 'RUNNING';
-- Few rows at any time. The end of the lease is left out, as it changes all the time.
create index runs_open_idx on public.runs (user_id) where finished_at is null;
create index runs_unpruned_idx on public.runs (finished_at) where finished_at is not null and deltas_pruned_at is null;

revoke all on table public.runs from public, anon, authenticated, service_role;
grant select on table public.runs to authenticated;
alter table public.runs enable row level security;

-- No equality, for the reason that stands beside the policy of public.sessions.
create policy "users read their own runs"
on public.runs for select to authenticated
using (user_id is not distinct from (select auth.uid()));

create function private.drop_runs()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  delete from public.run_events as e
  using deleted_runs as d
  where e.run_id = d.id;
  return null;
end
$$;

comment on function private.drop_runs() is 'Trigger: deletes the events of runs that were deleted.';

revoke all on function private.drop_runs() from public, anon, authenticated;

create trigger runs_drop
after delete on public.runs
referencing old table as deleted_runs
for each statement
execute function private.drop_runs();

create function private.note_dropped_run(wanted_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
begin
  insert into public.api_usage (
    user_id, session_id, run_id, model, source, prompt_tokens, completion_tokens, cached_tokens, cost_micro_usd,
    is_estimated
  )
  select
    r.user_id,
    r.session_id,
    r.id,
    r.model,
    r.source,
    u.prompt_tokens,
    u.completion_tokens,
    u.cached_tokens,
    u.cost_micro_usd,
    u.is_estimated
  from public.runs as r
  cross join lateral private.said_so_far(r.id, null) as f
  cross join lateral private.read_used(
    private.estimated_use(r.session_id, r.model, octet_length(f.said_text) + octet_length(f.reasoning)), r.prices
  ) as u
  where r.id = wanted_id and exists (select from public.users as p where p.id = r.user_id)
  on conflict (run_id) do nothing;
end
$$;

comment on function private.note_dropped_run(uuid) is
'Enters in the ledger what a running run has used so far, as estimated: it is about to be deleted, and its process '
'will say nothing more. One that goes with its user leaves nothing.';

revoke all on function private.note_dropped_run(uuid) from public, anon, authenticated;

create function private.note_run()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.note_dropped_run(old.id);
  return old;
end
$$;

comment on function private.note_run() is 'Trigger: private.note_dropped_run, before a running run is deleted.';

revoke all on function private.note_run() from public, anon, authenticated;

create trigger runs_note
before delete on public.runs
for each row
when (old.state = 'RUNNING')
execute function private.note_run();

create function private.note_run_of_session()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  perform private.note_dropped_run(r.id)
  from public.runs as r
  where r.session_id = old.id and r.state = 'RUNNING';
  return old;
end
$$;

comment on function private.note_run_of_session() is
'Trigger: private.note_dropped_run, before a session is deleted: its messages go before its runs do.';

revoke all on function private.note_run_of_session() from public, anon, authenticated;

create trigger sessions_note_run
before delete on public.sessions
for each row
execute function private.note_run_of_session();
