-- Keeps updated_at of every table that has one.

create function private.touch_updated_at()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  new.updated_at := greatest(old.updated_at, clock_timestamp());
  return new;
end
$$;

comment on function private.touch_updated_at() is
'Trigger: sets updated_at to the present, never back, when a row changes.';

revoke all on function private.touch_updated_at() from public, anon, authenticated;
