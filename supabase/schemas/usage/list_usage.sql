-- What the caller has used, summed up.

create function api.list_usage(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- As in api.search_messages.
set statement_timeout = '3s'
as $$
declare
  p record;
  page_size integer;
  until timestamptz;
  since timestamptz;
  grouping text;
  answer jsonb;
  -- Rows that one call sums up, in a few tenths of a second.
  most_rows constant integer := 200000;
  -- What the contract's int64 holds; a sum that is larger is told as this.
  largest constant numeric := 9223372036854775807;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    "from" timestamptz, "to" timestamptz, group_by text, page_size integer, after_key text
  );
  page_size := least(greatest(coalesce(p.page_size, 100), 1), 366);
  until := coalesce(p."to", now());
  since := coalesce(p."from", until - interval '30 days');
  grouping := coalesce(p.group_by, 'day');
  if grouping not in ('day', 'model', 'session') then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "group_by", "problem": "must be one of day, model, session"}',
      hint = 'Sum up by day, model or session.';
  end if;
  if since > until then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "from", "problem": "must not be after to"}',
      hint = 'Ask for a time that ends after it begins.';
  end if;

  if (
    select count(*) from (
      select from public.api_usage as u
      where u.user_id = (select auth.uid()) and u.created_at >= since and u.created_at < until
      limit most_rows + 1
    ) as counted
  ) > most_rows then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = jsonb_build_object(
        'field', 'from', 'problem', format('there are more than %s runs in this time', most_rows)
      )::text,
      hint = 'Ask for a shorter time.';
  end if;

  with entry as (
    select
      case grouping
        when 'day' then to_char(u.created_at at time zone 'UTC', 'YYYY-MM-DD')
        when 'model' then u.model
        else coalesce(u.session_id::text, '')
      end collate "C" as key,
      count(*) filter (where u.source <> 'title') as runs,
      least(sum(u.prompt_tokens), largest) as prompt_tokens,
      least(sum(u.completion_tokens), largest) as completion_tokens,
      least(sum(u.cached_tokens), largest) as cached_tokens,
      least(sum(u.cost_micro_usd), largest) as cost_micro_usd
    from public.api_usage as u
    where u.user_id = (select auth.uid()) and u.created_at >= since and u.created_at < until
    group by 1
  ),

  page as (
    select e.*, row_number() over (order by e.key) as place
    from entry as e
    where p.after_key is null or e.key > p.after_key
    order by e.key
    limit page_size + 1
  )

  select jsonb_build_object(
    'entries',
    coalesce(
      (
        select jsonb_agg(to_jsonb(f) - 'place' order by f.key)
        from page as f
        where f.place <= page_size
      ),
      '[]'
    ),
    'has_more',
    (select count(*) > page_size from page),
    'total',
    (
      select jsonb_build_object(
        'key', '',
        'runs', coalesce(sum(e.runs), 0),
        'prompt_tokens', least(coalesce(sum(e.prompt_tokens), 0), largest),
        'completion_tokens', least(coalesce(sum(e.completion_tokens), 0), largest),
        'cached_tokens', least(coalesce(sum(e.cached_tokens), 0), largest),
        'cost_micro_usd', least(coalesce(sum(e.cost_micro_usd), 0), largest)
      )
      from entry as e
    ),
    'from', since,
    'to', until
  )
  into answer;

  return answer;
end
$$;

comment on function api.list_usage(jsonb) is
'Sums up the caller''s usage by day (UTC), model or session: {from?, to?, group_by?, page_size?, after_key?} -> '
'{entries, has_more, total, from, to}. Without bounds the last 30 days, which the answer tells; entries are sorted by '
'key and continue behind after_key, total covers the whole time, which may hold 200000 runs. Raises PT400 '
'INVALID_FIELD.';

revoke all on function api.list_usage(jsonb) from public, anon;
grant execute on function api.list_usage(jsonb) to authenticated;
