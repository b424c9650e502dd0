drop function api.search_messages(jsonb);
drop function private.text_ranges(text, text);
drop function private.find_messages(text, uuid, integer, real, timestamptz, uuid);

drop trigger messages_index on public.messages;
drop function private.index_message();

drop index public.messages_search_idx;
alter table public.messages drop column search;

drop function private.search_vector(uuid, text);
drop function private.search_text(text);
drop function private.unspaced();
