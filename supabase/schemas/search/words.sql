-- The words by which messages of users and assistants are found, also in scripts without spaces.

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

create function private.searched_text(content text)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
begin
  return left(content, 50000);
end
$$;

comment on function private.searched_text(text) is
'Returns the part of a text whose words are found: its first 50000 characters. What an append costs, and what a search '
'reads of a message, is bounded by it.';

revoke all on function private.searched_text(text) from public, anon, authenticated;
grant execute on function private.searched_text(text) to authenticated;

-- Every append pays for it: no regular expressions over plain ASCII.
create function private.search_text(content text)
returns text
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
declare
  -- Punctuation ends words, so that no address, path or number with dots becomes a word of its own.
  words text := translate(private.searched_text(content), '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32));
begin
  -- Nothing below concerns ASCII, whose characters are one byte each.
  if octet_length(words) = char_length(words) then
    return words;
  end if;

  -- What else is none (quotation marks, dashes, arrows, symbols, emoji) is named here, as not every locale knows it.
  return regexp_replace(
    regexp_replace(
      words,
      '[\u00A0-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u00D7\u00F7\u2000-\u206F\u20A0-\u20CF\u2190-\u2BFF'
      '\u3000-\u3004\u3008-\u3030\uFE0E\uFE0F\uFF01-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65\U0001F000-\U0001FAFF]',
      ' ',
      'g'
    ),
    '(' || private.unspaced() || ')',
    ' \1 ',
    'g'
  );
end
$$;

comment on function private.search_text(text) is
'Returns the words of private.searched_text set apart by spaces, characters of scripts without spaces as words of '
'their own.';

revoke all on function private.search_text(text) from public, anon, authenticated;

create function private.search_vector(owner_id uuid, content text)
returns tsvector
language plpgsql
immutable
parallel safe
set search_path = ''
as $$
begin
  -- No word of a text holds a colon, so none passes for an owner.
  return array_to_tsvector(array['owner:' || coalesce(owner_id::text, '')])
  || to_tsvector('pg_catalog.simple', private.search_text(content));
end
$$;

comment on function private.search_vector(uuid, text) is
'Returns the words of a message and its owner, so that one index finds the words of one user.';

revoke all on function private.search_vector(uuid, text) from public, anon, authenticated;
