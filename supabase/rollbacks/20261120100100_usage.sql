drop function api.list_usage(jsonb);

drop table public.api_usage;
