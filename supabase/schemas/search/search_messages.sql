-- The caller's messages, found by their words.

create function private.find_messages(
  query text, wanted_session_id uuid, page_size integer, before_rank real, before_timestamp timestamptz, before_id uuid
)
returns table (message_id uuid, rank real, place bigint, pattern text)
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  -- Neither inside a longer word.
  word_start constant text := '(?<![[:alnum:]])';
  word_end constant text := '(?![[:alnum:]])';
  caller_id uuid := auth.uid();
  term text;
  term_words text[];
  term_query tsquery;
  words tsquery;
  written text[] := '{}';
  patterns text[] := '{}';
begin
  foreach term in array regexp_split_to_array(lower(btrim(query)), '\s+')
  loop
    term_words := array_remove(regexp_split_to_array(private.search_text(term), '\s+'), '');
    continue when cardinality(term_words) = 0;

    term_query := phraseto_tsquery('pg_catalog.simple', array_to_string(term_words, ' '));
    if term ~ private.unspaced() or numnode(term_query) = 0 then
      -- The index forgets positions in long texts and knows no symbols: it only tells that the characters occur.
      -- Whether they stand there as written is looked up in the text.
      term_query := plainto_tsquery('pg_catalog.simple', array_to_string(term_words, ' '));
      written := written || term;
      patterns := patterns || regexp_replace(term, '([^[:alnum:]])', '\\\1', 'g');
    else
      patterns := patterns || (word_start || array_to_string(term_words, '[^[:alnum:]]+') || word_end);
    end if;
    continue when numnode(term_query) = 0;

    words := coalesce(words && term_query, term_query);
  end loop;

  if words is null or caller_id is null then
    return;
  end if;

  return query
  with found as materialized (
    select
      m.id,
      m."timestamp" as moment,
      ts_rank_cd(m.search, words) as rank
    from public.messages as m
    where m.search @@ (words && quote_literal('owner:' || caller_id::text)::tsquery)
      and (wanted_session_id is null or m.session_id = wanted_session_id)
      and (
        cardinality(written) = 0
        or not exists (
          select from unnest(written) as w (term)
          where strpos(lower(m.content), w.term) = 0
        )
      )
  )

  select
    f.id,
    f.rank,
    row_number() over (order by f.rank desc, f.moment desc, f.id desc),
    array_to_string(patterns, '|')
  from found as f
  where before_id is null or (f.rank, f.moment, f.id) < (before_rank, before_timestamp, before_id)
  order by f.rank desc, f.moment desc, f.id desc
  limit page_size + 1;
end
$$;

comment on function private.find_messages(text, uuid, integer, real, timestamptz, uuid) is
'Finds messages of the caller, and of nobody else, that hold every term of a query: one page and one more, best first, '
'and a regular expression of the terms. Row level security would keep the index from being used, so it is passed here '
'and judges the rows in api.search_messages.';

revoke all on function private.find_messages(text, uuid, integer, real, timestamptz, uuid)
from public, anon, authenticated;
grant execute on function private.find_messages(text, uuid, integer, real, timestamptz, uuid) to authenticated;

create function private.text_ranges(content text, pattern text)
returns jsonb
language sql
stable
set search_path = ''
as $$
  select coalesce(
    jsonb_agg(
      jsonb_build_object(
        'start', regexp_instr(content, pattern, 1, n.n, 0, 'i') - 1,
        'end', regexp_instr(content, pattern, 1, n.n, 1, 'i') - 1
      )
      order by n.n
    ),
    '[]'
  )
  from generate_series(1, regexp_count(content, pattern, 1, 'i')) as n (n)
$$;

comment on function private.text_ranges(text, text) is
'Returns where a regular expression matches in a short text, as the contract''s TextRange: in code points from 0.';

revoke all on function private.text_ranges(text, text) from public, anon, authenticated;
grant execute on function private.text_ranges(text, text) to authenticated;

create function api.search_messages(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  p record;
  page_size integer;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    query text,
    page_size integer,
    session_id uuid,
    before_rank real,
    before_timestamp timestamptz,
    before_id uuid
  );
  page_size := least(greatest(coalesce(p.page_size, 20), 1), 50);

  if p.session_id is not null then
    perform from public.sessions as s where s.id = p.session_id;
    if not found then
      perform private.refuse_session(p.session_id);
    end if;
  end if;

  select jsonb_build_object(
    'hits',
    coalesce(
      jsonb_agg(
        jsonb_build_object(
          'message_id', hit.id,
          'session_id', hit.session_id,
          'session_name', hit.session_name,
          'role', hit.role,
          'order', hit."order",
          'timestamp', hit."timestamp",
          'excerpt', hit.excerpt,
          'matches', private.text_ranges(hit.excerpt, hit.pattern),
          'rank', hit.rank::text
        )
        order by hit.place
      ) filter (where hit.place <= page_size),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select
      m.id,
      m.session_id,
      s.name as session_name,
      m.role,
      m."order",
      m."timestamp",
      -- A match begins a little behind the start, so that one sees what it is about.
      substr(
        m.content, greatest(regexp_instr(left(m.content, 200000), f.pattern, 1, 1, 0, 'i') - 60, 1), 200
      ) as excerpt,
      f.pattern,
      f.rank,
      f.place
    from private.find_messages(
      p.query, p.session_id, page_size, p.before_rank, p.before_timestamp, p.before_id
    ) as f
    inner join public.messages as m on f.message_id = m.id
    inner join public.sessions as s on m.session_id = s.id
  ) as hit;

  return answer;
end
$$;

comment on function api.search_messages(jsonb) is
'Finds the caller''s messages that hold every word of a query, best match first, then newest: {query, page_size?, '
'session_id?, before_rank?, before_timestamp?, before_id?} -> {hits, has_more}. The last three continue behind a hit '
'of the page before, whose rank is part of it. Raises PT404 SESSION_NOT_FOUND.';

revoke all on function api.search_messages(jsonb) from public, anon;
grant execute on function api.search_messages(jsonb) to authenticated;
