set lock_timeout = '5s';

alter table public.api_usage
drop column tokens_used;

reset lock_timeout;
