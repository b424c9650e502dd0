-- The limit of a message stands in the table's check and in the function of interrupted runs.

set lock_timeout = '5s';

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
    -- A message holds 1 MiB, whatever the bytes of its characters.
    if octet_length(said_text) > 1048576 then
      said_text := left(said_text, 262144);
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

alter table public.messages
drop constraint messages_content_size,
add constraint messages_content_size check ((octet_length(content) <= 1048576));

comment on column public.messages.content is 'The text, at most 1 MiB of UTF-8.';

drop function private.max_content_bytes();

reset lock_timeout;
