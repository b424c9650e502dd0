-- How many messages a user has stored in the present minute. What is counted is written once for ten messages of a
-- session, as one row of everybody's that each message locks until its commit would be a queue.

create table private.message_rates (
  user_id uuid primary key references public.users (id) on delete cascade,
  began_at timestamptz not null,
  used integer not null
)
-- The row changes where it stands.
with (fillfactor = 50);

comment on table private.message_rates is 'Messages that users have stored in a minute: one row per user, of its last.';
comment on column private.message_rates.user_id is 'The user.';
comment on column private.message_rates.began_at is 'When the minute began.';
comment on column private.message_rates.used is 'What was counted in it.';

revoke all on table private.message_rates from public, anon, authenticated, service_role;
alter table private.message_rates enable row level security;

create function private.spend_messages(amount integer)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  caller_id uuid := auth.uid();
  most integer;
  total integer;
begin
  -- What the services store for a run, such as its answer, is nobody's doing at that moment.
  if caller_id is null or amount <= 0 then
    return;
  end if;

  insert into private.message_rates as r (user_id, began_at, used)
  values (caller_id, date_trunc('minute', clock_timestamp()), amount)
  on conflict (user_id) do update set
    used = case when r.began_at < excluded.began_at then excluded.used else r.used + excluded.used end,
    began_at = greatest(r.began_at, excluded.began_at)
  returning r.used into total;

  select l.messages_per_minute into most from private.limits as l;
  if total > most then
    raise sqlstate 'PT429' using
      message = 'TOO_MANY_MESSAGES',
      detail = jsonb_build_object(
        'limit', most::text,
        'retry_after_seconds', (60 - floor(extract(second from clock_timestamp())))::text
      )::text,
      hint = 'Wait for the next minute.';
  end if;
end
$$;

comment on function private.spend_messages(integer) is
'Counts messages of the caller in the present minute. Raises PT429 TOO_MANY_MESSAGES past private.limits.';

revoke all on function private.spend_messages(integer) from public, anon, authenticated;

create function private.count_sessions()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  -- The first ten messages of each, which are not counted when they come.
  perform private.spend_messages(
    (
      select least(count(*), 100000)::integer * 10 from new_sessions
    )
  );
  return null;
end
$$;

comment on function private.count_sessions() is 'Trigger: counts the sessions of one statement as ten messages each.';

revoke all on function private.count_sessions() from public, anon, authenticated;

create trigger sessions_count
after insert on public.sessions
referencing new table as new_sessions
for each statement
execute function private.count_sessions();
