-- What happened in runs, in order.

create table public.run_events (
  run_id uuid not null,
  seq bigint not null,
  type text not null,
  payload jsonb not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint run_events_pkey primary key (run_id, seq),
  constraint run_events_seq_range check (seq > 0),
  constraint run_events_type_known check (
    type in (
      'run_started', 'message_delta', 'reasoning_delta', 'tool_started', 'tool_finished', 'message_completed', 'usage',
      'error', 'run_finished'
    )
  )
);

comment on table public.run_events is
'What happened in runs, in order. Goes with its run by a trigger: a foreign key would be checked for every delta.';
comment on column public.run_events.run_id is 'The run.';
comment on column public.run_events.seq is
'Place in the run, counted from 1 without gaps until old deltas are deleted.';
comment on column public.run_events.type is 'What happened: the name of the contract''s payload.';
comment on column public.run_events.payload is 'The contract''s payload as JSON.';
comment on column public.run_events.created_at is 'When it happened.';

revoke all on table public.run_events from public, anon, authenticated, service_role;
grant select on table public.run_events to authenticated;
alter table public.run_events enable row level security;

create policy "readers of a run read its events"
on public.run_events for select to authenticated
using (
  (
    select true from public.runs as r
    where r.id = run_events.run_id
  )
);
