-- Bounds of metadata.

set lock_timeout = '5s';

set check_function_bodies = off;

create or replace function private.drop_runs()
returns trigger
language plpgsql
security definer
set search_path to ''
as $function$
begin
  delete from public.run_events as e
  using deleted_runs as d
  where e.run_id = d.id;
  return null;
end
$function$;

create or replace function private.estimated_use(
  wanted_session_id uuid,
  model text,
  said_bytes bigint
)
returns jsonb
language sql
stable
security definer
set search_path to ''
as $function$
  -- Nobody knows what the provider counted: about four bytes are a token, and a window holds so many messages.
  select jsonb_build_object(
    'model', model,
    'prompt_tokens', ceil(coalesce(sum(octet_length(asked.content)), 0) / 4.0)::bigint,
    'completion_tokens', ceil(said_bytes / 4.0)::bigint,
    'cached_tokens', 0,
    'is_estimated', true
  )
  from (
    select m.content
    from public.messages as m
    where m.session_id = wanted_session_id and m.is_active
    order by m."order" desc
    limit 100
  ) as asked
$function$;

create or replace function private.interrupt_run(
  run public.runs,
  error jsonb
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
declare
  said_text text;
  said jsonb := '[]';
  used jsonb;
begin
  if run.state = 'RUNNING' then
    said_text := private.said_text(run.id);
    if said_text <> '' then
      said := jsonb_build_array(
        jsonb_build_object(
          'role', 'assistant',
          'content', said_text,
          'metadata', jsonb_build_object(
            'partial', true, 'error_reason', 'RUN_INTERRUPTED', 'model', run.model, 'run_id', run.id
          )
        )
      );
    end if;

    used := private.estimated_use(run.session_id, run.model, octet_length(said_text));
  end if;

  perform private.end_run(run, 'INTERRUPTED', said, used, error, false);
end
$function$;

create or replace function private.note_dropped_run(
  wanted_id uuid
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
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
  cross join lateral private.read_used(
    private.estimated_use(r.session_id, r.model, octet_length(private.said_text(r.id))), r.prices
  ) as u
  where r.id = wanted_id and exists (select from public.users as p where p.id = r.user_id)
  on conflict (run_id) do nothing;
end
$function$;

create or replace function private.note_run()
returns trigger
language plpgsql
security definer
set search_path to ''
as $function$
begin
  perform private.note_dropped_run(old.id);
  return old;
end
$function$;

create or replace function private.note_run_of_session()
returns trigger
language plpgsql
security definer
set search_path to ''
as $function$
begin
  perform private.note_dropped_run(r.id)
  from public.runs as r
  where r.session_id = old.id and r.state = 'RUNNING';
  return old;
end
$function$;

create or replace function private.place_message()
returns trigger
language plpgsql
security definer
set search_path to ''
as $function$
declare
  last_activity timestamptz;
  owner_id uuid;
begin
  perform private.refuse_rich_metadata(new.metadata);
  -- Writers of one session queue here; the next statement then sees what the one before has committed.
  select s.updated_at, s.user_id into last_activity, owner_id
  from public.sessions as s
  where s.id = new.session_id
  for no key update;

  select
    coalesce(
      (
        select m."order" from public.messages as m
        where m.session_id = new.session_id
        order by m."order" desc
        limit 1
      ),
      0
    ) + 1,
    (
      select m.id from public.messages as m
      where m.session_id = new.session_id and m.is_active
      order by m."order" desc
      limit 1
    )
  into new."order", new.parent_id;

  new."timestamp" := greatest(last_activity, clock_timestamp());
  if new.role in ('user', 'assistant') then
    new.search := private.search_vector(owner_id, new.content);
  end if;
  return new;
end
$function$;

create or replace function private.refuse_rich_metadata(
  metadata jsonb
)
returns void
language plpgsql
immutable
set search_path to ''
as $function$
declare
  -- What the contract says of NewMessage.metadata.
  most constant integer := 1000;
begin
  -- A value has two characters at least, so a short text holds few. The whole is not one of them.
  if octet_length(metadata::text) > 2 * most
    and (select count(*) - 1 > most from jsonb_path_query(metadata, 'strict $.**')) then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = jsonb_build_object('field', 'metadata', 'limit', most || ' values')::text,
      hint = 'Keep the metadata small.';
  end if;
end
$function$;

create trigger runs_note
before delete on public.runs
for each row
when ((old.state = 'RUNNING'::text))
execute function private.note_run();

create trigger sessions_note_run
before delete on public.sessions
for each row
execute function private.note_run_of_session();

comment on column public.messages.metadata is
'What the writer noted about it: a JSON object, at most 64 KiB as compact JSON and 1,000 values.';

comment on function private.drop_runs() is 'Trigger: deletes the events of runs that were deleted.';

comment on function private.estimated_use(uuid, text, bigint) is
'Returns the contract''s Usage of an answer that nobody has counted, by what the session holds and what was said. Asks'
' nobody who they are: for functions that have done so.';

comment on function private.note_dropped_run(uuid) is
'Enters in the ledger what a running run has used so far, as estimated: it is about to be deleted, and its process '
'will say nothing more. One that goes with its user leaves nothing.';

comment on function private.note_run() is 'Trigger: private.note_dropped_run, before a running run is deleted.';

comment on function private.note_run_of_session() is
'Trigger: private.note_dropped_run, before a session is deleted: its messages go before its runs do.';

comment on function private.place_message() is
'Trigger: locks the session and gives the message the next order, the present time, its place behind the active branch'
' and, for what users and assistants say, the words by which it is found. Raises PT400 FIELD_TOO_LARGE.';

comment on function private.refuse_rich_metadata(jsonb) is
'Raises PT400 FIELD_TOO_LARGE for metadata of more than 1,000 values, those inside each other counted: each costs '
'whoever reads it far more than it has bytes.';

revoke all on function private.estimated_use(uuid, text, bigint) from public;

revoke all on function private.note_dropped_run(uuid) from public;

revoke all on function private.note_run() from public;

revoke all on function private.note_run_of_session() from public;

revoke all on function private.refuse_rich_metadata(jsonb) from public;

reset check_function_bodies;
reset lock_timeout;
