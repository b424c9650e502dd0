-- The bucket of people's pictures: a row, and policies on the platform's table. Anyone who knows a picture's address
-- sees it, as the address of a public bucket asks no policy; nobody but the owner finds, adds, replaces or deletes what
-- lies in the folder named by their id, and only while their sign-in stands.

insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
values ('avatars', 'avatars', true, 1048576, array['image/webp', 'image/png', 'image/jpeg'])
on conflict (id) do update set
  public = excluded.public,
  file_size_limit = excluded.file_size_limit,
  allowed_mime_types = excluded.allowed_mime_types;

-- The platform owns the table and has switched its row level security on. Replacing and deleting a file looks it up
-- first, so owners read their own rows; a wider policy would list everybody's files.
create policy "people find their own avatars" on storage.objects
for select to authenticated
using (
  bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text
  and (select private.sign_in_stands())
);

create policy "people add avatars to their own folder" on storage.objects
for insert to authenticated
with check (
  bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text
  and (select private.sign_in_stands()) and private.has_room(bucket_id, name, id)
);

create policy "people replace their own avatars" on storage.objects
for update to authenticated
using (
  bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text
  and (select private.sign_in_stands())
)
with check (
  bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text
  and (select private.sign_in_stands()) and private.has_room(bucket_id, name, id)
);

create policy "people delete their own avatars" on storage.objects
for delete to authenticated
using (
  bucket_id = 'avatars' and (storage.foldername(name))[1] = (select auth.uid())::text
  and (select private.sign_in_stands())
);
