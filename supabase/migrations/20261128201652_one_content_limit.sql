-- The limit of a message stands in one function, which the table's check and interrupted runs read.

set lock_timeout = '5s';

set check_function_bodies = off;

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
    select string_agg(e.payload ->> 'text', '' order by e.seq) into said_text
    from public.run_events as e
    where e.run_id = run.id and e.type = 'message_delta';
    -- A character has at most four bytes, so a quarter as many always fit.
    if octet_length(said_text) > private.max_content_bytes() then
      said_text := left(said_text, private.max_content_bytes() / 4);
    end if;

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
      'completion_tokens', ceil(coalesce(octet_length(said_text), 0) / 4.0)::bigint,
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

create or replace function private.max_content_bytes()
returns integer
language sql
immutable
parallel safe
set search_path to ''
as $function$
  select 1048576
$function$;

comment on column public.messages.content is 'The text, at most private.max_content_bytes() of UTF-8.';

comment on function private.max_content_bytes() is
'Returns the most bytes of UTF-8 that a message holds: what the contract says of NewMessage.content.';

revoke all on function private.max_content_bytes() from public;

grant execute on function private.max_content_bytes() to authenticated;

-- Compares every row once, by the size that is stored with each text.
alter table public.messages
drop constraint messages_content_size,
add constraint messages_content_size check ((octet_length(content) <= private.max_content_bytes()));

reset check_function_bodies;
reset lock_timeout;
