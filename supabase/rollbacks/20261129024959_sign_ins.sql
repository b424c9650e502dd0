set lock_timeout = '5s';

-- First, as the REST interface would call what is gone.
do $$
begin
  if exists (select from pg_catalog.pg_roles as r where r.rolname = 'authenticator') then
    alter role authenticator reset pgrst.db_pre_request;
  end if;
end
$$;

notify pgrst, 'reload config';

revoke all on schema private from anon;

revoke all on schema private from service_role;

drop policy "people add avatars to their own folder" on storage.objects;

drop policy "people delete their own avatars" on storage.objects;

drop policy "people find their own avatars" on storage.objects;

drop policy "people replace their own avatars" on storage.objects;

drop function api.check_sign_in(jsonb);

drop function private.refuse_ended_sign_in();

drop function private.sign_in_stands();

create policy "people add avatars to their own folder" on storage.objects
for insert
to authenticated
with check (
  (
    (bucket_id = 'avatars'::text)
    and ((storage.foldername(name))[1] = ((select auth.uid()))::text)
    and private.has_room(bucket_id, name, id)
  )
);

create policy "people delete their own avatars" on storage.objects
for delete
to authenticated
using (((bucket_id = 'avatars'::text) and ((storage.foldername(name))[1] = ((select auth.uid()))::text)));

create policy "people find their own avatars" on storage.objects
for select
to authenticated
using (((bucket_id = 'avatars'::text) and ((storage.foldername(name))[1] = ((select auth.uid()))::text)));

create policy "people replace their own avatars" on storage.objects
for update
to authenticated
using (((bucket_id = 'avatars'::text) and ((storage.foldername(name))[1] = ((select auth.uid()))::text)))
with check (
  (
    (bucket_id = 'avatars'::text)
    and ((storage.foldername(name))[1] = ((select auth.uid()))::text)
    and private.has_room(bucket_id, name, id)
  )
);

reset lock_timeout;
