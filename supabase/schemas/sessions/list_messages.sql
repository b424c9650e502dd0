-- A session's messages, page by page.

create function api.list_messages(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
-- As in api.list_sessions.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  p record;
  page_size integer;
  page_bytes constant integer := 2097152;
  low integer;
  high integer;
  backward boolean;
  every_branch boolean;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    session_id uuid, page_size integer, from_end boolean, after_order integer, before_order integer,
    include_inactive boolean, include_answer_under_way boolean
  );

  perform from public.sessions as s where s.id = p.session_id;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  backward := coalesce(p.from_end, false);
  every_branch := coalesce(p.include_inactive, false);
  low := coalesce(p.after_order, 0);
  high := coalesce(nullif(p.before_order, 0), 2147483647);

  select jsonb_build_object(
    'messages',
    coalesce(
      to_jsonb(array_agg(message order by f."order") filter (where f.is_on_page)),
      '[]'
    ),
    'has_more',
    coalesce(bool_or(not f.is_on_page), false)
  )
  into answer
  from (
    select
      candidate.*,
      row_number() over directed = 1 or (
        row_number() over directed <= page_size
        -- Lengths come from the values' headers: what does not fit on the page is never read, but for notes that are
        -- compressed.
        and sum(
          octet_length(candidate.content) + octet_length(candidate.reasoning)
          + case
            when pg_column_compression(candidate.metadata) is null then pg_column_size(candidate.metadata)
            else pg_column_size(candidate.metadata || '{}')
          end
        ) over directed <= page_bytes
      ) as is_on_page
    from (
      -- Only one of the four is ever run; each reads an index and stops behind the page.
      (
        select m.*, m."order" as place
        from public.messages as m
        where not backward and not every_branch and m.session_id = p.session_id and m.is_active
          and m."order" > low and m."order" < high
        order by m."order"
        limit page_size + 1
      )
      union all
      (
        select m.*, -m."order" as place
        from public.messages as m
        where backward and not every_branch and m.session_id = p.session_id and m.is_active
          and m."order" > low and m."order" < high
        order by m."order" desc
        limit page_size + 1
      )
      union all
      (
        select m.*, m."order" as place
        from public.messages as m
        where not backward and every_branch and m.session_id = p.session_id
          and m."order" > low and m."order" < high
        order by m."order"
        limit page_size + 1
      )
      union all
      (
        select m.*, -m."order" as place
        from public.messages as m
        where backward and every_branch and m.session_id = p.session_id
          and m."order" > low and m."order" < high
        order by m."order" desc
        limit page_size + 1
      )
    ) as candidate
    window directed as (order by candidate.place rows unbounded preceding)
  ) as f
  -- Behind the filter, so that contents that do not fit are never read here either.
  cross join lateral (
    select
      f.id, f.session_id, f.role, f.content, f."timestamp", f."order", f.metadata, f.parent_id, f.is_active,
      f.reasoning, f.reasoning_milliseconds
  ) as message;

  -- The function is stable: it sees what the page's statement sees, so an answer that ends meanwhile is in one of them.
  if p.include_answer_under_way then
    answer := answer || jsonb_build_object('answer_under_way', private.answer_under_way(p.session_id));
  end if;
  return answer;
end
$$;

comment on function api.list_messages(jsonb) is
'Lists messages of a session''s active branch, orders rising: {session_id, page_size?, from_end?, after_order?, '
'before_order?, include_inactive?, include_answer_under_way?} -> {messages, has_more, answer_under_way?}. Pages from '
'the oldest, or with from_end from the newest; with include_inactive all branches. A page ends before its contents, '
'thoughts and metadata included, pass 2 MiB but holds at least one message. The answer under way is that of '
'private.answer_under_way at the same moment. Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.list_messages(jsonb) from public, anon;
grant execute on function api.list_messages(jsonb) to authenticated;
