-- Whoever follows a run is told that something happened in it.

create function private.tell_watchers(run_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Every role may listen to every channel. A hash tells something only to who knows the run's id.
  perform pg_notify('concerto_runs', encode(sha256(convert_to(run_id::text, 'UTF8')), 'hex'));
end
$$;

comment on function private.tell_watchers(uuid) is
'Notifies the channel concerto_runs of a run, by the SHA-256 of its id as hexadecimal digits.';

revoke all on function private.tell_watchers(uuid) from public, anon, authenticated;
