alter index public.messages_search_idx reset (gin_pending_list_limit);
