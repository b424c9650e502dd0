-- What a user asks for, in the one form that the database reads it in.

create type private.turn as (
  content text,
  metadata jsonb,
  model text,
  request_id uuid,
  agent text,
  if_running text,
  regenerate_message_id uuid,
  edit_message_id uuid
);

comment on type private.turn is 'The contract''s Turn; a field that is not given is null.';
comment on column private.turn.content is 'What the user says; empty when a message is answered again.';
comment on column private.turn.metadata is 'Notes about the user''s message.';
comment on column private.turn.model is 'The model that answers.';
comment on column private.turn.request_id is 'Chosen by the client so that a repetition starts one run.';
comment on column private.turn.agent is 'The agent that answers.';
comment on column private.turn.if_running is
'What happens while the session has a run that has not ended: reject, queue or cancel; null means reject.';
comment on column private.turn.regenerate_message_id is 'A user''s message that is answered again.';
comment on column private.turn.edit_message_id is 'A user''s message that the content takes the place of.';

create function private.check_turn(turn private.turn)
returns void
language plpgsql
immutable
set search_path = ''
as $$
declare
  -- What Unicode calls white space, and the four separators of old that readers show as such.
  blanks constant text :=
    e'\t\n\x0b\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a'
    '\u2028\u2029\u202f\u205f\u3000';
  content text := coalesce(turn.content, '');
  excluded text := case
    when turn.regenerate_message_id is null then null
    when content <> '' then 'content'
    when turn.edit_message_id is not null then 'edit_message_id'
  end;
begin
  -- Trimming takes apart the whole text, so its first character is looked at before.
  if turn.regenerate_message_id is null and strpos(blanks, left(content, 1)) > 0 and btrim(content, blanks) = '' then
    raise sqlstate 'PT400' using
      message = 'MISSING_FIELD',
      detail = '{"field": "content"}',
      hint = 'Say something, or name the message that is to be answered again.';
  elsif excluded is not null then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = jsonb_build_object(
        'field', excluded, 'problem', 'it must be empty when regenerate_message_id is set'
      )::text,
      hint = 'Answering a message again takes no new content.';
  elsif octet_length(turn.metadata::text) > 98304 then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = '{"field": "metadata", "limit": "65536 bytes"}',
      hint = 'Keep the metadata small.';
  end if;
end
$$;

comment on function private.check_turn(private.turn) is
'Raises PT400 MISSING_FIELD for a turn that says nothing, INVALID_FIELD for one that says something and has a message '
'answered again, FIELD_TOO_LARGE.';

revoke all on function private.check_turn(private.turn) from public, anon, authenticated;
grant execute on function private.check_turn(private.turn) to authenticated;

create function private.store_question(wanted_session_id uuid, turn private.turn)
returns uuid
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  message_id uuid;
begin
  if turn.regenerate_message_id is not null then
    perform private.show_branch(wanted_session_id, turn.regenerate_message_id);
    return turn.regenerate_message_id;
  end if;

  if turn.edit_message_id is not null then
    perform private.show_branch(
      wanted_session_id, (select m.parent_id from public.messages as m where m.id = turn.edit_message_id)
    );
  end if;

  insert into public.messages (session_id, role, content, metadata)
  values (wanted_session_id, 'user', coalesce(turn.content, ''), coalesce(turn.metadata, '{}'))
  returning id into message_id;
  return message_id;
end
$$;

comment on function private.store_question(uuid, private.turn) is
'Makes the user''s message the end of the active branch and returns its id: a new one, one beside an edited one, or '
'the one that is answered again. The caller has locked the session and checked what the turn names.';

revoke all on function private.store_question(uuid, private.turn) from public, anon, authenticated;
