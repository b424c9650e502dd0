set lock_timeout = '5s';

drop policy "people delete their own avatars" on storage.objects;
drop policy "people replace their own avatars" on storage.objects;
drop policy "people add avatars to their own folder" on storage.objects;
drop policy "people find their own avatars" on storage.objects;

-- Rows of files are deleted over the storage's own interface, or their bytes would stay for ever. A bucket that still
-- holds some is closed instead.
select set_config('storage.allow_delete_query', 'true', true);
delete from storage.buckets as b
where
  b.id = 'avatars'
  and not exists (
    select from storage.objects as o
    where o.bucket_id = b.id
  );
update storage.buckets
set public = false
where id = 'avatars';

drop schema api cascade;
-- Takes the triggers with it: auth.users belongs to the platform, so they cannot be dropped by name everywhere.
drop schema private cascade;

drop table public.run_events;
drop table public.runs;
drop table public.api_usage;
drop table public.messages;
drop table public.sessions;
drop table public.user_settings;
drop table public.profiles;
drop table public.users;

-- Another database of the same cluster may still use the role; then it stays.
do $$
begin
  drop role concerto_login;
exception
  when dependent_objects_still_exist then
    raise notice 'Role concerto_login is kept: another database uses it.';
end
$$;

alter default privileges grant execute on functions to public;

reset lock_timeout;
