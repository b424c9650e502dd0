set lock_timeout = '5s';

drop trigger runs_note on public.runs;

drop trigger sessions_note_run on public.sessions;

drop function private.estimated_use(uuid, text, bigint);

drop function private.note_dropped_run(uuid);

drop function private.note_run();

drop function private.note_run_of_session();

drop function private.refuse_rich_metadata(jsonb);

create or replace function private.drop_runs()
returns trigger
language plpgsql
security definer
set search_path to ''
as $function$
begin
  -- A run that goes with its session while it is being answered has used tokens nevertheless; one that goes with its
  -- user leaves nothing.
  insert into public.api_usage (user_id, session_id, run_id, model, source, completion_tokens, is_estimated)
  select
    d.user_id,
    d.session_id,
    d.id,
    d.model,
    d.source,
    ceil(coalesce(
      (
        select sum(octet_length(e.payload ->> 'text')) from public.run_events as e
        where e.run_id = d.id and e.type = 'message_delta'
      ),
      0
    ) / 4.0)::bigint,
    true
  from deleted_runs as d
  where d.state = 'RUNNING' and exists (select from public.users as u where u.id = d.user_id)
  on conflict (run_id) do nothing;

  delete from public.run_events as e
  using deleted_runs as d
  where e.run_id = d.id;
  return null;
end
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

    -- Nobody knows what the provider counted: about four bytes are a token, and a window holds so many messages.
    select jsonb_build_object(
      'model', run.model,
      'prompt_tokens', ceil(coalesce(sum(octet_length(asked.content)), 0) / 4.0)::bigint,
      'completion_tokens', ceil(octet_length(said_text) / 4.0)::bigint,
      'cached_tokens', 0,
      'is_estimated', true
    )
    into used
    from (
      select m.content
      from public.messages as m
      where m.session_id = run.session_id and m.is_active
      order by m."order" desc
      limit 100
    ) as asked;
  end if;

  perform private.end_run(run, 'INTERRUPTED', said, used, error, false);
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

comment on column public.messages.metadata is
'What the writer noted about it: a JSON object, at most 64 KiB as compact JSON.';

comment on function private.drop_runs() is
'Trigger: deletes the events of runs that were deleted, and notes what those had used that were under way.';

comment on function private.place_message() is
'Trigger: locks the session and gives the message the next order, the present time, its place behind the active branch'
' and, for what users and assistants say, the words by which it is found.';

reset lock_timeout;
