-- Search: messages of users and assistants are found by their words, also in scripts without spaces.

create function private.unspaced()
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  select
    '[\u0E00-\u0EFF\u1000-\u109F\u1100-\u11FF\u1780-\u17FF\u3005-\u3007\u3040-\u30FF\u3130-\u318F\u31F0-\u31FF'
    '\u3400-\u4DBF\u4E00-\u9FFF\uA960-\uA97F\uAC00-\uD7FF\uF900-\uFAFF\uFF66-\uFFDC\U00020000-\U0003FFFF]'
$$;

comment on function private.unspaced() is
'Returns a regular expression for one character of the scripts that set no spaces between words: Thai, Lao, Khmer, '
'Burmese, kana, Chinese; and Hangul, whose particles hang on words.';

revoke all on function private.unspaced() from public, anon, authenticated;

create function private.search_text(content text)
returns text
language sql
immutable
parallel safe
set search_path = ''
as $$
  -- Punctuation ends words, so that no address, path or number with dots becomes a word of its own. What else is
  -- none (quotation marks, dashes, arrows, symbols, emoji) is named here, as not every locale knows it.
  select regexp_replace(
    regexp_replace(
      translate(left(content, 200000), '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32)),
      '[\u00A0-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u00D7\u00F7\u2000-\u206F\u20A0-\u20CF\u2190-\u2BFF'
      '\u3000-\u3004\u3008-\u3030\uFE0E\uFE0F\uFF01-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65\U0001F000-\U0001FAFF]',
      ' ',
      'g'
    ),
    '(' || private.unspaced() || ')',
    ' \1 ',
    'g'
  )
$$;

comment on function private.search_text(text) is
'Returns a text''s words set apart by spaces, characters of scripts without spaces as words of their own. Only the '
'first 200000 characters: what comes later is not searched, as a tsvector holds 1 MiB and a character up to 4 bytes.';

revoke all on function private.search_text(text) from public, anon, authenticated;

create function private.search_vector(owner_id uuid, content text)
returns tsvector
language sql
immutable
parallel safe
set search_path = ''
as $$
  -- No word of a text holds a colon, so none passes for an owner.
  select
    array_to_tsvector(array['owner:' || coalesce(owner_id::text, '')])
    || to_tsvector('pg_catalog.simple', private.search_text(content))
$$;

comment on function private.search_vector(uuid, text) is
'Returns the words of a message and its owner, so that one index finds the words of one user.';

revoke all on function private.search_vector(uuid, text) from public, anon, authenticated;

alter table public.messages add column search tsvector;

comment on column public.messages.search is
'Words and owner, for private.find_messages; null for messages of tools and instructions. Given by a trigger.';

update public.messages as m
set search = private.search_vector(s.user_id, m.content)
from public.sessions as s
where m.session_id = s.id and m.role in ('user', 'assistant');

create index messages_search_idx on public.messages using gin (search);

create function private.index_message()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  new.search := private.search_vector(
    (select s.user_id from public.sessions as s where s.id = new.session_id), new.content
  );
  return new;
end
$$;

comment on function private.index_message() is 'Trigger: makes a message findable by its words.';

revoke all on function private.index_message() from public, anon, authenticated;

create trigger messages_index
before insert on public.messages
for each row
when (new.role in ('user', 'assistant'))
execute function private.index_message();

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
