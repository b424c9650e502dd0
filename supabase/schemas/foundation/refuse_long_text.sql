-- The contract's limits of texts, where the database works on them before a table's check would see them.

create function private.refuse_long_text(field text, value text, most_characters integer)
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if char_length(value) > most_characters then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = jsonb_build_object('field', field, 'limit', most_characters || ' characters')::text,
      hint = 'Send less.';
  end if;
end
$$;

comment on function private.refuse_long_text(text, text, integer) is
'Raises PT400 FIELD_TOO_LARGE for a value of an argument that is longer than so many characters.';

revoke all on function private.refuse_long_text(text, text, integer) from public, anon, authenticated;
grant execute on function private.refuse_long_text(text, text, integer) to authenticated;
