-- The caller's messages, found by their words. However much somebody has stored, one search looks at so much and no
-- more: at the newest that hold every word, until they are many or large, and says when there were others.

create function private.search_terms(query text)
returns table (words tsquery, ranked tsquery, phrases tsquery, written text[], pattern text, is_short boolean)
language plpgsql
immutable
set search_path = ''
as $$
declare
  -- Neither inside a longer word.
  word_start constant text := '(?<![[:alnum:]])';
  word_end constant text := '(?![[:alnum:]])';
  term text;
  term_words text[];
  term_query tsquery;
  lexemes text[] := '{}';
  patterns text[] := '{}';
begin
  written := '{}';
  -- A word that is repeated asks for nothing more.
  for term in select distinct t.term from regexp_split_to_table(lower(btrim(query)), '\s+') as t (term)
  loop
    term_words := array_remove(regexp_split_to_array(private.search_text(term), '\s+'), '');
    continue when cardinality(term_words) = 0;

    term_query := phraseto_tsquery('pg_catalog.simple', array_to_string(term_words, ' '));
    lexemes := lexemes || tsvector_to_array(to_tsvector('pg_catalog.simple', array_to_string(term_words, ' ')));
    if term ~ private.unspaced() or numnode(term_query) = 0 then
      -- The index forgets positions in long texts and knows no symbols: it only tells that the characters occur.
      -- Whether they stand there as written is looked up in the text.
      written := written || term;
      patterns := patterns || regexp_replace(term, '([^[:alnum:]])', '\\\1', 'g');
    else
      patterns := patterns || (word_start || array_to_string(term_words, '[^[:alnum:]]+') || word_end);
      if numnode(term_query) > 1 then
        phrases := coalesce(phrases && term_query, term_query);
      end if;
    end if;
  end loop;

  select array_agg(distinct l.lexeme) into lexemes from unnest(lexemes) as l (lexeme);
  if lexemes is null then
    return;
  end if;
  words := plainto_tsquery('pg_catalog.simple', array_to_string(lexemes, ' '));
  ranked := replace(words::text, ' & ', ' | ')::tsquery;
  pattern := array_to_string(patterns, '|');
  is_short := cardinality(lexemes) <= 3;
  return next;
end
$$;

comment on function private.search_terms(text) is
'Takes a query apart: the words that a message must hold, the same as alternatives, what must stand together, what '
'must be looked up as written, a regular expression of all terms, and whether the words are few. Nothing for a query '
'without words.';

revoke all on function private.search_terms(text) from public, anon, authenticated;

create function private.find_messages(
  query text, wanted_session_id uuid, page_size integer, before_rank real, before_timestamp timestamptz, before_id uuid
)
returns table (message_id uuid, rank real, place bigint, pattern text, is_partial boolean)
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  most_messages constant integer := 1000;
  -- Of their searched texts together: a long one costs as much as hundreds of short ones.
  most_bytes constant integer := 4194304;
  most_bytes_each constant integer := 200000;
  caller_id uuid := auth.uid();
  terms record;
begin
  select t.* into terms from private.search_terms(query) as t;
  if terms.words is null or caller_id is null then
    return;
  end if;

  return query
  with newest as materialized (
    -- By the index alone: no text and no words of it are read here.
    select m.id, m."timestamp" as moment, m.search, m.content
    from public.messages as m
    where m.search @@ (terms.words && quote_literal('owner:' || caller_id::text)::tsquery)
      and (wanted_session_id is null or m.session_id = wanted_session_id)
    order by m."timestamp" desc, m.id desc
    limit most_messages + 1
  ),

  candidate as materialized (
    select
      n.*,
      row_number() over newest_first = 1 or (
        row_number() over newest_first <= most_messages
        -- Lengths come from the values' headers.
        and sum(least(octet_length(n.content), most_bytes_each)) over newest_first <= most_bytes
      ) as is_read
    from newest as n
    window newest_first as (order by n.moment desc, n.id desc rows unbounded preceding)
  ),

  found as (
    select
      c.id,
      c.moment,
      -- How near the words are to each other is worth knowing of few: its cost rises with their number to the third.
      case
        when terms.is_short then ts_rank_cd(c.search, terms.words) else ts_rank(c.search, terms.ranked)
      end as rank
    from candidate as c
    where c.is_read
      and (terms.phrases is null or c.search @@ terms.phrases)
      and (
        cardinality(terms.written) = 0
        or not exists (
          select from unnest(terms.written) as w (term)
          where strpos(lower(private.searched_text(c.content)), w.term) = 0
        )
      )
  ),

  page as (
    select
      f.id,
      f.rank,
      row_number() over (order by f.rank desc, f.moment desc, f.id desc) as place
    from found as f
    where before_id is null or (f.rank, f.moment, f.id) < (before_rank, before_timestamp, before_id)
    order by f.rank desc, f.moment desc, f.id desc
    limit page_size + 1
  )

  select p.id, p.rank, p.place, terms.pattern, s.is_partial
  from (select coalesce(bool_or(not c.is_read), false) as is_partial from candidate as c) as s
  left join page as p on true;
end
$$;

comment on function private.find_messages(text, uuid, integer, real, timestamptz, uuid) is
'Finds messages of the caller, and of nobody else, that hold every term of a query: one page and one more, best first, '
'and a regular expression of the terms; one row without a message when none is found. is_partial: more messages hold '
'the words than were looked at, which are the newest 1000 or 4 MB. Row level security would keep the index from being '
'used, so it is passed here and judges the rows in api.search_messages.';

revoke all on function private.find_messages(text, uuid, integer, real, timestamptz, uuid)
from public, anon, authenticated;
grant execute on function private.find_messages(text, uuid, integer, real, timestamptz, uuid) to authenticated;

create function private.text_ranges(content text, pattern text)
returns jsonb
language sql
stable
set search_path = ''
as $$
  -- One pass over the text, which puts two characters that nobody writes around each match.
  select coalesce(jsonb_agg(jsonb_build_object('start', r.start, 'end', r.start + r.length) order by r.n), '[]')
  from (
    select
      p.n,
      strpos(p.part, e'\x03') - 1 as length,
      sum(char_length(p.part) - case when p.n > 1 then 1 else 0 end) over (order by p.n) - char_length(p.part) + 1 as start
    from string_to_table(
      regexp_replace(translate(content, e'\x02\x03', '  '), pattern, e'\x02\\&\x03', 'gi'), e'\x02'
    ) with ordinality as p (part, n)
  ) as r
  where r.n > 1
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
-- For Supabase's REST interface, which sets it before the statement begins, as the services do when they call directly.
set statement_timeout = '3s'
as $$
declare
  p record;
  page_size integer;
  -- What no text holds. Put before the first match it tells where that is, without a look for all the others.
  marker constant text := gen_random_uuid()::text;
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
  perform private.refuse_long_text('query', p.query, 200);

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
    count(hit.id) > page_size,
    'is_partial',
    coalesce(bool_or(hit.is_partial), false)
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
        m.content,
        greatest(
          strpos(regexp_replace(private.searched_text(m.content), f.pattern, marker || '\&', 'i'), marker) - 60, 1
        ),
        200
      ) as excerpt,
      f.pattern,
      f.rank,
      f.place,
      f.is_partial
    from private.find_messages(
      p.query, p.session_id, page_size, p.before_rank, p.before_timestamp, p.before_id
    ) as f
    left join (
      public.messages as m
      inner join public.sessions as s on m.session_id = s.id
    ) on f.message_id = m.id
  ) as hit;

  return answer;
exception
  when query_canceled then
    raise sqlstate 'PT400' using
      message = 'SEARCH_TOO_BROAD',
      detail = '{}',
      hint = 'Use rarer words, or search one session.';
end
$$;

comment on function api.search_messages(jsonb) is
'Finds the caller''s messages that hold every word of a query, best match first, then newest: {query, page_size?, '
'session_id?, before_rank?, before_timestamp?, before_id?} -> {hits, has_more, is_partial}. The last three continue '
'behind a hit of the page before, whose rank is part of it. is_partial: not every message that holds the words was '
'looked at, only the newest. Raises PT404 SESSION_NOT_FOUND, PT400 FIELD_TOO_LARGE, and SEARCH_TOO_BROAD after 3 s.';

revoke all on function api.search_messages(jsonb) from public, anon;
grant execute on function api.search_messages(jsonb) to authenticated;
