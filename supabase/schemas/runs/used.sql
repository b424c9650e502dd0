-- What a model has used, as it is told by whoever asked it, within bounds that every sum and cost can hold.

create function private.read_used(
  used jsonb,
  prices jsonb,
  out model text,
  out prompt_tokens bigint,
  out completion_tokens bigint,
  out cached_tokens bigint,
  out is_estimated boolean,
  out cost_micro_usd bigint
)
language plpgsql
immutable
set search_path = ''
as $$
declare
  -- Tokens of one answer, and millionths of a dollar per million of them. A larger number is a mistake of the
  -- provider's or of somebody's; what it belongs to must end all the same.
  most constant numeric := 1000000000000;
begin
  model := left(used ->> 'model', 200);
  prompt_tokens := least(greatest(coalesce((used ->> 'prompt_tokens')::numeric, 0), 0), most);
  completion_tokens := least(greatest(coalesce((used ->> 'completion_tokens')::numeric, 0), 0), most);
  cached_tokens := least(greatest(coalesce((used ->> 'cached_tokens')::numeric, 0), 0), prompt_tokens);
  is_estimated := coalesce((used ->> 'is_estimated')::boolean, false);
  cost_micro_usd := round(
    (
      (prompt_tokens - cached_tokens) * least(greatest(coalesce((prices ->> 'prompt')::numeric, 0), 0), most)
      + cached_tokens * least(greatest(coalesce((prices ->> 'cached')::numeric, 0), 0), most)
      + completion_tokens * least(greatest(coalesce((prices ->> 'completion')::numeric, 0), 0), most)
    ) / 1000000.0
  );
end
$$;

comment on function private.read_used(jsonb, jsonb) is
'Reads the contract''s Usage and works out its cost by prices (prompt, completion, cached; in millionths of a US '
'dollar per million tokens). Counts and prices are taken as 0 where they are absent or less, and as 10^12 where they '
'are more; cached tokens are a part of the prompt''s.';

revoke all on function private.read_used(jsonb, jsonb) from public, anon, authenticated;
