create or replace function api.start_run(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
as $$
declare
  p record;
  run public.runs;
  asked_hash bytea;
  target_id uuid;
  is_busy boolean;
  if_running text;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    session_id uuid,
    request_id uuid,
    content text,
    metadata jsonb,
    regenerate_message_id uuid,
    edit_message_id uuid,
    if_running text,
    max_user_runs integer
  );

  perform from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  if coalesce(p.content, '') = '' and p.regenerate_message_id is null then
    raise sqlstate 'PT400' using
      message = 'MISSING_FIELD',
      detail = '{"field": "content"}',
      hint = 'Say something, or name the message that is to be answered again.';
  elsif coalesce(p.content, '') <> '' and p.regenerate_message_id is not null then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "content", "problem": "must be empty when regenerate_message_id is set"}',
      hint = 'Answering a message again takes no new content.';
  elsif p.edit_message_id is not null and p.regenerate_message_id is not null then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "edit_message_id", "problem": "must be absent when regenerate_message_id is set"}',
      hint = 'Edit a message, or have it answered again.';
  elsif octet_length(p.metadata::text) > 98304 then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = '{"field": "metadata", "limit": "65536 bytes"}',
      hint = 'Keep the metadata small.';
  end if;

  asked_hash := sha256(
    convert_to(
      jsonb_build_array(
        coalesce(p.content, ''),
        coalesce(nullif(p.metadata, 'null'), '{}'),
        p.regenerate_message_id,
        p.edit_message_id
      )::text,
      'UTF8'
    )
  );

  if p.request_id is not null then
    select r.* into run
    from public.runs as r
    where r.session_id = p.session_id and r.request_id = p.request_id;
    if found and run.request_hash = asked_hash then
      return jsonb_build_object(
        'run', private.run_json(run),
        'user_message', private.stored_message(run.user_message_id)
      ) || case
        -- The process that executes the run asks again, because its first answer was lost.
        when run.finished_at is null and run.lease_hash = sha256(convert_to(args ->> 'lease_token', 'UTF8'))
          then jsonb_build_object('lease', jsonb_build_object('run_id', run.id, 'token', args ->> 'lease_token'))
        else '{}'
      end;
    elsif found then
      raise sqlstate 'PT409' using
        message = 'REQUEST_ID_REUSED',
        detail = jsonb_build_object('session_id', p.session_id, 'request_id', p.request_id)::text,
        hint = 'Use a new request_id for another message.';
    end if;
  end if;

  target_id := coalesce(p.regenerate_message_id, p.edit_message_id);
  if target_id is not null and private.find_message(p.session_id, target_id) <> 'user' then
    raise sqlstate 'PT400' using
      message = 'NOT_A_USER_MESSAGE',
      detail = jsonb_build_object('session_id', p.session_id, 'message_id', target_id)::text,
      hint = 'Name a message that the user has said.';
  end if;

  if_running := coalesce(p.if_running, 'reject');
  if if_running = 'reject' then
    perform private.refuse_while_running(p.session_id);
  end if;
  is_busy := exists (
    select from public.runs as r
    where r.session_id = p.session_id and r.finished_at is null
  );

  if p.max_user_runs > 0 then
    -- Starts of one user in several sessions count one after the other.
    perform pg_advisory_xact_lock(hashtextextended('runs of ' || (select auth.uid())::text, 0));
    if (
      select count(*) from public.runs as r
      where r.user_id = (select auth.uid()) and r.finished_at is null
    ) >= p.max_user_runs then
      raise sqlstate 'PT429' using
        message = 'TOO_MANY_RUNS',
        detail = '{"scope": "per user", "retry_after_seconds": "2"}',
        hint = 'Wait until a run has ended.';
    end if;
  end if;

  return private.open_run(args, asked_hash, is_busy, is_busy and if_running = 'cancel');
end
$$;

comment on function api.start_run(jsonb) is
'Stores the user''s message and opens its run, with the contract''s StartRunRequest -> {run, lease?, user_message?}. A '
'repeated request_id answers the run that there is, with the lease only if it names the same lease_token. Raises '
'PT404 SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT400 MISSING_FIELD, INVALID_FIELD, FIELD_TOO_LARGE and '
'NOT_A_USER_MESSAGE, PT409 '
'REQUEST_ID_REUSED and RUN_IN_PROGRESS, PT429 TOO_MANY_RUNS.';
