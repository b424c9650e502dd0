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
