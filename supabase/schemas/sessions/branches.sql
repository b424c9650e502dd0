-- Which branch of a session is the active one.

create function private.show_branch(wanted_session_id uuid, last_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
as $$
declare
  new_ids uuid[];
  fork_order integer;
begin
  -- Climbs only to the first active message: what is before an active message is active as well.
  with recursive climb as (
    select m.id, m.parent_id, m."order", m.is_active
    from public.messages as m
    where m.id = last_id and m.session_id = wanted_session_id
    union all
    select m.id, m.parent_id, m."order", m.is_active
    from climb as c
    inner join public.messages as m on c.parent_id = m.id
    where not c.is_active
  )

  select
    array_agg(c.id) filter (where not c.is_active),
    coalesce(max(c."order") filter (where c.is_active), 0)
  into new_ids, fork_order
  from climb as c;

  update public.messages as m
  set is_active = false
  where m.session_id = wanted_session_id and m.is_active and m."order" > fork_order;

  update public.messages as m
  set is_active = true
  where m.id = any(new_ids);
end
$$;

comment on function private.show_branch(uuid, uuid) is
'Makes the way from the first message to last_id the active branch; null leaves none active. The caller has locked '
'the session. Touches only messages that change.';

revoke all on function private.show_branch(uuid, uuid) from public, anon, authenticated;

create function private.show_newest(wanted_session_id uuid, message_id uuid)
returns void
language plpgsql
volatile
security definer
set search_path = ''
-- It asks for a session by key and owner, which needs no policy and must not become a walk through all of its owner's.
set enable_indexonlyscan = off
as $$
declare
  last_id uuid;
begin
  perform from public.sessions as s where s.id = wanted_session_id and s.user_id = (select auth.uid());
  if not found then
    perform private.refuse_session(wanted_session_id);
  end if;

  with recursive descend as (
    select m.id, m."order"
    from public.messages as m
    where m.id = message_id and m.session_id = wanted_session_id
    union all
    select child.id, child."order"
    from descend as d
    cross join lateral (
      select m.id, m."order"
      from public.messages as m
      where m.parent_id = d.id
      order by m."order" desc
      limit 1
    ) as child
  )

  select d.id into last_id from descend as d order by d."order" desc limit 1;
  perform private.show_branch(wanted_session_id, last_id);
end
$$;

comment on function private.show_newest(uuid, uuid) is
'Makes the branch through a message of the caller''s session the active one, the newest at each fork behind it, for '
'api.select_branch, which has locked the session.';

revoke all on function private.show_newest(uuid, uuid) from public, anon, authenticated;
grant execute on function private.show_newest(uuid, uuid) to authenticated;

create function api.select_branch(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
set lock_timeout = '250ms'
as $$
declare
  p record;
begin
  select r.* into p from jsonb_to_record(args) as r (session_id uuid, message_id uuid);

  perform from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;
  perform private.find_message(p.session_id, p.message_id);
  perform private.refuse_while_running(p.session_id);

  perform private.show_newest(p.session_id, p.message_id);
  return api.get_session(args);
end
$$;

comment on function api.select_branch(jsonb) is
'Makes the branch that holds a message the active one: {session_id, message_id} -> {session}. Raises PT404 '
'SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT409 RUN_IN_PROGRESS.';

revoke all on function api.select_branch(jsonb) from public, anon;
grant execute on function api.select_branch(jsonb) to authenticated;
