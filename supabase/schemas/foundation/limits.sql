-- What one user may do and keep, as the operator has set it.

create table private.limits (
  is_only boolean primary key default true,
  messages_per_minute integer not null default 600,
  files_per_user integer not null default 20,
  file_bytes_per_user bigint not null default 20971520,
  constraint limits_is_only check (is_only),
  constraint limits_messages_per_minute_range check (messages_per_minute > 0),
  constraint limits_files_per_user_range check (files_per_user >= 0),
  constraint limits_file_bytes_per_user_range check (file_bytes_per_user >= 0)
);

comment on table private.limits is
'What one user may do and keep: one row. `concerto up` and `concerto migrate` write what the environment says; '
'anything else stays, so it may also be changed here.';
comment on column private.limits.is_only is 'True: there is one row.';
comment on column private.limits.messages_per_minute is
'Messages that one user may have stored in a minute; a large one counts as several, a new session as ten.';
comment on column private.limits.files_per_user is 'Files that one user may keep in a bucket.';
comment on column private.limits.file_bytes_per_user is
'Bytes that the files of one user in a bucket may hold together.';

revoke all on table private.limits from public, anon, authenticated, service_role;
alter table private.limits enable row level security;

insert into private.limits default values
on conflict do nothing;
