-- How much one user may keep in a bucket.

create function private.has_room(wanted_bucket text, wanted_name text, own_id uuid)
returns boolean
language plpgsql
stable
security definer
set search_path = ''
as $$
declare
  -- Names begin with the owner's id.
  folder text := (select auth.uid())::text || '/';
  most_files integer;
  most_bytes bigint;
  files integer;
  bytes bigint;
begin
  select l.files_per_user, l.file_bytes_per_user into most_files, most_bytes from private.limits as l;

  -- A file that is replaced or renamed makes room for itself.
  select count(*), coalesce(sum((kept.metadata ->> 'size')::bigint), 0) into files, bytes
  from (
    select o.metadata
    from storage.objects as o
    where o.bucket_id = wanted_bucket and o.name ^@ folder and o.name <> wanted_name and o.id <> own_id
    limit most_files
  ) as kept;

  -- How large the new one is is not known here, so there must be room for the largest that the bucket takes.
  return files < most_files and bytes + coalesce(
    (
      select b.file_size_limit from storage.buckets as b
      where b.id = wanted_bucket
    ),
    0
  ) <= most_bytes;
end
$$;

comment on function private.has_room(text, text, uuid) is
'Says whether the caller may put a file of this name into a bucket: whether its other files there, in the folder '
'named by its id, leave room in private.limits for one more of the largest size that the bucket takes.';

revoke all on function private.has_room(text, text, uuid) from public, anon, authenticated;
grant execute on function private.has_room(text, text, uuid) to authenticated;
