-- The ledger's tokens under the name of the requirements. Rewrites the table, which nobody has a long one of yet.

set lock_timeout = '5s';

alter table public.api_usage
add column tokens_used bigint generated always as (
  (least(((prompt_tokens)::numeric + (completion_tokens)::numeric), ('9223372036854775807'::bigint)::numeric))::bigint
) stored not null;

comment on column public.api_usage.tokens_used is
'prompt_tokens and completion_tokens together, by the name that requirement 001 gives them.';

reset lock_timeout;
