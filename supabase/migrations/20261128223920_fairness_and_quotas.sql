-- Fairness and quotas.

set lock_timeout = '5s';

set check_function_bodies = off;

drop policy "people add avatars to their own folder" on storage.objects;

drop policy "people replace their own avatars" on storage.objects;

drop function private.find_messages(text, uuid, integer, real, timestamp with time zone, uuid);

create table private.limits (
  is_only boolean not null default true,
  messages_per_minute integer not null default 600,
  files_per_user integer not null default 20,
  file_bytes_per_user bigint not null default 20971520,
  constraint limits_file_bytes_per_user_range check ((file_bytes_per_user >= 0)),
  constraint limits_files_per_user_range check ((files_per_user >= 0)),
  constraint limits_is_only check (is_only),
  constraint limits_messages_per_minute_range check ((messages_per_minute > 0)),
  constraint limits_pkey primary key (is_only)
);

alter table private.limits
enable row level security;

create table private.message_rates (
  user_id uuid not null,
  began_at timestamp with time zone not null,
  used integer not null,
  constraint message_rates_pkey primary key (user_id)
);

alter table private.message_rates
enable row level security;

alter table private.message_rates
set (fillfactor = 50);

create or replace function api.append_messages(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  p record;
  size integer;
  first_order integer;
  first_size integer;
  too_large bigint;
  is_same boolean;
  answer jsonb;
begin
  select r.* into p from jsonb_to_record(args) as r (session_id uuid, request_id uuid, messages jsonb);

  perform from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;

  size := coalesce(jsonb_array_length(p.messages), 0);
  if size not between 1 and 100 then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "messages", "problem": "must have 1 to 100 entries"}',
      hint = 'Append 1 to 100 messages at once.';
  end if;

  if octet_length(p.messages::text) > 16777216 then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = '{"field": "messages", "limit": "16777216 bytes"}',
      hint = 'Append fewer messages at once.';
  end if;

  -- Numbers like 1e300 grow in jsonb, so what the contract lets through may still be too large for the table.
  if octet_length(p.messages::text) > 98304 then
    select n.place - 1 into too_large
    from jsonb_array_elements(p.messages) with ordinality as n (value, place)
    where octet_length((n.value -> 'metadata')::text) > 98304
    order by n.place
    limit 1;
    if found then
      raise sqlstate 'PT400' using
        message = 'FIELD_TOO_LARGE',
        detail = jsonb_build_object(
          'field', format('messages[%s].metadata', too_large), 'limit', '65536 bytes'
        )::text,
        hint = 'Keep the metadata small.';
    end if;
  end if;

  if p.request_id is not null then
    select m."order", m.request_size into first_order, first_size
    from public.messages as m
    where m.session_id = p.session_id and m.request_id = p.request_id;
  end if;

  if first_order is not null then
    -- A message has no state, so the rows themselves say whether this is the same request.
    select
      jsonb_agg(
        private.message_json(
          m.id, m.session_id, m.role, m.content, m."timestamp", m."order", m.metadata, m.parent_id, m.is_active
        )
        order by m."order"
      ),
      count(*) = size and bool_and(
        m.role is not distinct from n.value ->> 'role'
        and m.content = coalesce(n.value ->> 'content', '')
        and m.metadata = coalesce(nullif(n.value -> 'metadata', 'null'), '{}')
      )
    into answer, is_same
    from public.messages as m
    left join jsonb_array_elements(p.messages) with ordinality as n (value, place)
      on n.place = m."order" - first_order + 1
    where m.session_id = p.session_id
      and m."order" between first_order and first_order + first_size - 1;
    if is_same then
      return jsonb_build_object('messages', answer);
    end if;
    raise sqlstate 'PT409' using
      message = 'REQUEST_ID_REUSED',
      detail = jsonb_build_object('session_id', p.session_id, 'request_id', p.request_id)::text,
      hint = 'Use a new request_id for other messages.';
  end if;

  if size = 1 then
    -- By far the most frequent: needs neither sorting nor aggregating.
    insert into public.messages as a (session_id, role, content, metadata, request_id, request_size)
    values (
      p.session_id,
      p.messages -> 0 ->> 'role',
      coalesce(p.messages -> 0 ->> 'content', ''),
      coalesce(nullif(p.messages -> 0 -> 'metadata', 'null'), '{}'),
      p.request_id,
      case when p.request_id is not null then 1 end
    )
    returning jsonb_build_array(
      private.message_json(
        a.id, a.session_id, a.role, a.content, a."timestamp", a."order", a.metadata, a.parent_id, a.is_active
      )
    ) into answer;
    return jsonb_build_object('messages', answer);
  end if;

  with appended as (
    insert into public.messages (session_id, role, content, metadata, request_id, request_size)
    select
      p.session_id,
      n.value ->> 'role',
      coalesce(n.value ->> 'content', ''),
      coalesce(nullif(n.value -> 'metadata', 'null'), '{}'),
      case when n.place = 1 then p.request_id end,
      case when n.place = 1 and p.request_id is not null then size end
    from jsonb_array_elements(p.messages) with ordinality as n (value, place)
    order by n.place
    returning messages.*
  )

  select
    jsonb_agg(
      private.message_json(
        a.id, a.session_id, a.role, a.content, a."timestamp", a."order", a.metadata, a.parent_id, a.is_active
      )
      order by a."order"
    )
  into answer
  from appended as a;

  return jsonb_build_object('messages', answer);
end
$function$;

create or replace function api.create_session(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  p record;
  session public.sessions;
begin
  select r.* into p from jsonb_to_record(args) as r (name text, request_id uuid);

  -- An access token outlives its deleted account by up to an hour.
  if not exists (select from public.users as u where u.id = (select auth.uid())) then
    raise sqlstate 'PT404' using
      message = 'ACCOUNT_NOT_FOUND',
      detail = jsonb_build_object('user_id', coalesce(auth.uid()::text, ''))::text,
      hint = 'Sign in again; the account may have been deleted.';
  end if;

  insert into public.sessions (name, request_id)
  values (coalesce(p.name, ''), p.request_id)
  on conflict (user_id, request_id) where request_id is not null do nothing
  returning * into session;

  if session.id is null then
    select s.* into session
    from public.sessions as s
    where s.user_id = (select auth.uid()) and s.request_id = p.request_id;
  end if;

  return jsonb_build_object('session', private.session_json(session));
end
$function$;

create or replace function api.delete_session(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  wanted_id uuid := (args ->> 'session_id')::uuid;
  -- A tenth of a second's work or two, for which the session and its runs are locked.
  most_messages constant integer := 5000;
  most_runs constant integer := 200;
begin
  if (args ->> 'in_steps')::boolean and private.shorten_session(wanted_id, most_messages, most_runs) then
    return '{"is_deleted": false}';
  end if;

  delete from public.sessions as s where s.id = wanted_id;
  if not found then
    perform private.refuse_session(wanted_id);
  end if;

  return '{"is_deleted": true}';
end
$function$;

create or replace function api.list_sessions(
  args jsonb
)
returns jsonb
language plpgsql
stable
set search_path to ''
set plan_cache_mode to 'force_generic_plan'
set enable_seqscan to 'off'
set enable_bitmapscan to 'off'
as $function$
declare
  p record;
  page_size integer;
  wants_archived boolean;
  before_updated_at timestamptz;
  before_id uuid;
  pattern text;
  answer jsonb;
  -- Names that one call looks at: more than almost anybody has, and few enough for a moment.
  most_names constant integer := 5000;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    page_size integer, is_archived boolean, query text, before_updated_at timestamptz, before_id uuid
  );
  page_size := least(greatest(coalesce(p.page_size, 50), 1), 100);
  -- Plain values: row level security lets no coalesce() into an index condition. The bounds are always there, so that
  -- one plan reads the index from the right place on.
  wants_archived := coalesce(p.is_archived, false);
  before_updated_at := coalesce(p.before_updated_at, 'infinity');
  before_id := coalesce(p.before_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff');

  if p.query is not null then
    perform private.refuse_long_text('query', p.query, 200);
    pattern := '%' || regexp_replace(p.query, '([\\%_])', '\\\1', 'g') || '%';
    with looked_at as materialized (
      select
        s.id, s.user_id, s.name, s.is_archived, s.message_count, s.created_at, s.updated_at,
        row_number() over (order by s.updated_at desc, s.id desc) as place
      from public.sessions as s
      where s.user_id = (select auth.uid())
        and s.is_archived = wants_archived
        and (s.updated_at, s.id) < (before_updated_at, before_id)
      order by s.updated_at desc, s.id desc
      limit most_names
    ),

    found as materialized (
      select l.*
      from looked_at as l
      where l.name ilike pattern
      order by l.place
      limit page_size + 1
    ),

    page as (
      select f.*
      from found as f
      order by f.place
      limit page_size
    ),

    -- Where the next page goes on: behind the last session of a full page, else behind the last one looked at.
    last as (
      select
        case
          when (select count(*) from found) > page_size then (select max(g.place) from page as g)
          when (select count(*) from looked_at) = most_names then most_names
        end as place
    )

    select jsonb_build_object(
      'sessions',
      coalesce(
        (
          select jsonb_agg(to_jsonb(g) - 'place' order by g.place)
          from page as g
        ),
        '[]'
      ),
      'has_more',
      l.place is not null,
      'next_updated_at',
      e.updated_at,
      'next_id',
      e.id
    )
    into answer
    from last as l
    left join looked_at as e on l.place = e.place;
    return answer;
  end if;

  select jsonb_build_object(
    'sessions',
    coalesce(
      to_jsonb(array_agg(session order by found.place) filter (where found.place <= page_size)),
      '[]'
    ),
    'has_more',
    count(*) > page_size
  )
  into answer
  from (
    select page.*, row_number() over (order by page.updated_at desc, page.id desc) as place
    from (
      select s.id, s.user_id, s.name, s.is_archived, s.message_count, s.created_at, s.updated_at
      from public.sessions as s
      where s.user_id = (select auth.uid())
        and s.is_archived = wants_archived
        and (s.updated_at, s.id) < (before_updated_at, before_id)
      order by s.updated_at desc, s.id desc
      limit page_size + 1
    ) as page
  ) as found
  cross join lateral (
    select
      found.id, found.user_id, found.name, found.is_archived, found.message_count, found.created_at, found.updated_at
  ) as session;

  return answer;
end
$function$;

create or replace function api.list_usage(
  args jsonb
)
returns jsonb
language plpgsql
stable
set search_path to ''
set statement_timeout to '3s'
as $function$
declare
  p record;
  page_size integer;
  until timestamptz;
  since timestamptz;
  grouping text;
  answer jsonb;
  -- Rows that one call sums up, in a few tenths of a second.
  most_rows constant integer := 200000;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    "from" timestamptz, "to" timestamptz, group_by text, page_size integer, after_key text
  );
  page_size := least(greatest(coalesce(p.page_size, 100), 1), 366);
  until := coalesce(p."to", now());
  since := coalesce(p."from", until - interval '30 days');
  grouping := coalesce(p.group_by, 'day');
  if grouping not in ('day', 'model', 'session') then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "group_by", "problem": "must be one of day, model, session"}',
      hint = 'Sum up by day, model or session.';
  end if;
  if since > until then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = '{"field": "from", "problem": "must not be after to"}',
      hint = 'Ask for a time that ends after it begins.';
  end if;

  if (
    select count(*) from (
      select from public.api_usage as u
      where u.user_id = (select auth.uid()) and u.created_at >= since and u.created_at < until
      limit most_rows + 1
    ) as counted
  ) > most_rows then
    raise sqlstate 'PT400' using
      message = 'INVALID_FIELD',
      detail = jsonb_build_object(
        'field', 'from', 'problem', format('there are more than %s runs in this time', most_rows)
      )::text,
      hint = 'Ask for a shorter time.';
  end if;

  with entry as (
    select
      case grouping
        when 'day' then to_char(u.created_at at time zone 'UTC', 'YYYY-MM-DD')
        when 'model' then u.model
        else coalesce(u.session_id::text, '')
      end collate "C" as key,
      count(*) as runs,
      sum(u.prompt_tokens) as prompt_tokens,
      sum(u.completion_tokens) as completion_tokens,
      sum(u.cached_tokens) as cached_tokens,
      sum(u.cost_micro_usd) as cost_micro_usd
    from public.api_usage as u
    where u.user_id = (select auth.uid()) and u.created_at >= since and u.created_at < until
    group by 1
  ),

  page as (
    select e.*, row_number() over (order by e.key) as place
    from entry as e
    where p.after_key is null or e.key > p.after_key
    order by e.key
    limit page_size + 1
  )

  select jsonb_build_object(
    'entries',
    coalesce(
      (
        select jsonb_agg(to_jsonb(f) - 'place' order by f.key)
        from page as f
        where f.place <= page_size
      ),
      '[]'
    ),
    'has_more',
    (select count(*) > page_size from page),
    'total',
    (
      select jsonb_build_object(
        'key', '',
        'runs', coalesce(sum(e.runs), 0),
        'prompt_tokens', coalesce(sum(e.prompt_tokens), 0),
        'completion_tokens', coalesce(sum(e.completion_tokens), 0),
        'cached_tokens', coalesce(sum(e.cached_tokens), 0),
        'cost_micro_usd', coalesce(sum(e.cost_micro_usd), 0)
      )
      from entry as e
    ),
    'from', since,
    'to', until
  )
  into answer;

  return answer;
end
$function$;

create or replace function api.request_run_cancellation(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  wanted_id uuid := (args ->> 'run_id')::uuid;
begin
  perform private.mark_cancellation(wanted_id);
  return api.get_run(args);
end
$function$;

create or replace function api.search_messages(
  args jsonb
)
returns jsonb
language plpgsql
stable
set search_path to ''
set statement_timeout to '3s'
as $function$
declare
  p record;
  page_size integer;
  -- What no text holds. Put before the first match it tells where that is, without a look for all the others.
  marker constant text := gen_random_uuid()::text;
  answer jsonb;
begin
  select r.* into p
  from jsonb_to_record(args) as r (
    query text,
    page_size integer,
    session_id uuid,
    before_rank real,
    before_timestamp timestamptz,
    before_id uuid
  );
  page_size := least(greatest(coalesce(p.page_size, 20), 1), 50);
  perform private.refuse_long_text('query', p.query, 200);

  if p.session_id is not null then
    perform from public.sessions as s where s.id = p.session_id;
    if not found then
      perform private.refuse_session(p.session_id);
    end if;
  end if;

  select jsonb_build_object(
    'hits',
    coalesce(
      jsonb_agg(
        jsonb_build_object(
          'message_id', hit.id,
          'session_id', hit.session_id,
          'session_name', hit.session_name,
          'role', hit.role,
          'order', hit."order",
          'timestamp', hit."timestamp",
          'excerpt', hit.excerpt,
          'matches', private.text_ranges(hit.excerpt, hit.pattern),
          'rank', hit.rank::text
        )
        order by hit.place
      ) filter (where hit.place <= page_size),
      '[]'
    ),
    'has_more',
    count(hit.id) > page_size,
    'is_partial',
    coalesce(bool_or(hit.is_partial), false)
  )
  into answer
  from (
    select
      m.id,
      m.session_id,
      s.name as session_name,
      m.role,
      m."order",
      m."timestamp",
      -- A match begins a little behind the start, so that one sees what it is about.
      substr(
        m.content,
        greatest(
          strpos(regexp_replace(private.searched_text(m.content), f.pattern, marker || '\&', 'i'), marker) - 60, 1
        ),
        200
      ) as excerpt,
      f.pattern,
      f.rank,
      f.place,
      f.is_partial
    from private.find_messages(
      p.query, p.session_id, page_size, p.before_rank, p.before_timestamp, p.before_id
    ) as f
    left join (
      public.messages as m
      inner join public.sessions as s on m.session_id = s.id
    ) on f.message_id = m.id
  ) as hit;

  return answer;
exception
  when query_canceled then
    raise sqlstate 'PT400' using
      message = 'SEARCH_TOO_BROAD',
      detail = '{}',
      hint = 'Use rarer words, or search one session.';
end
$function$;

create or replace function api.select_branch(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
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
$function$;

create or replace function api.start_run(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  asked record;
  turn private.turn;
  run public.runs;
  asked_hash bytea;
  target_id uuid;
  is_busy boolean;
  answer jsonb;
  user_message jsonb;
  page jsonb;
begin
  select r.* into asked
  from jsonb_to_record(args) as r (
    session_id uuid,
    turn private.turn,
    lease_seconds integer,
    max_user_runs integer,
    prices jsonb,
    source text,
    lease_token text,
    history_messages integer
  );
  turn := asked.turn;
  perform private.check_turn(turn);

  perform from public.sessions as s where s.id = asked.session_id for no key update;
  if not found then
    perform private.refuse_session(asked.session_id);
  end if;

  asked_hash := sha256(
    convert_to(
      jsonb_build_array(
        coalesce(turn.content, ''),
        coalesce(turn.metadata, '{}'),
        turn.regenerate_message_id,
        turn.edit_message_id
      )::text,
      'UTF8'
    )
  );

  if turn.request_id is not null then
    select r.* into run
    from public.runs as r
    where r.session_id = asked.session_id and r.request_id = turn.request_id;
    if found and run.request_hash = asked_hash then
      return jsonb_build_object(
        'run', private.run_json(run), 'events', private.started_events(run.id)
      ) || case
        -- The process that executes the run asks again, because its first answer was lost.
        when run.finished_at is null and run.lease_hash = sha256(convert_to(asked.lease_token, 'UTF8'))
          then jsonb_build_object('lease', jsonb_build_object('run_id', run.id, 'token', asked.lease_token))
        else '{}'
      end;
    elsif found then
      raise sqlstate 'PT409' using
        message = 'REQUEST_ID_REUSED',
        detail = jsonb_build_object('session_id', asked.session_id, 'request_id', turn.request_id)::text,
        hint = 'Use a new request_id for another message.';
    end if;
  end if;

  target_id := coalesce(turn.regenerate_message_id, turn.edit_message_id);
  if target_id is not null and private.find_message(asked.session_id, target_id) <> 'user' then
    raise sqlstate 'PT400' using
      message = 'NOT_A_USER_MESSAGE',
      detail = jsonb_build_object('session_id', asked.session_id, 'message_id', target_id)::text,
      hint = 'Name a message that the user has said.';
  end if;

  if coalesce(turn.if_running, 'reject') = 'reject' then
    perform private.refuse_while_running(asked.session_id);
  end if;
  is_busy := exists (
    select from public.runs as r
    where r.session_id = asked.session_id and r.finished_at is null
  );

  if asked.max_user_runs > 0 then
    -- Starts of one user in several sessions count one after the other.
    perform pg_advisory_xact_lock(hashtextextended('runs of ' || (select auth.uid())::text, 0));
    if (
      select count(*) from public.runs as r
      where r.user_id = (select auth.uid()) and r.finished_at is null
    ) >= asked.max_user_runs then
      raise sqlstate 'PT429' using
        message = 'TOO_MANY_RUNS',
        detail = '{"scope": "per user", "retry_after_seconds": "2"}',
        hint = 'Wait until a run has ended.';
    end if;
  end if;

  run.session_id := asked.session_id;
  run.state := case when is_busy then 'QUEUED' else 'RUNNING' end;
  run.source := coalesce(nullif(asked.source, ''), 'turn');
  run.request_hash := asked_hash;
  run.lease_seconds := asked.lease_seconds;
  run.prices := coalesce(asked.prices, '{}');
  answer := private.open_run(run, turn, asked.lease_token, is_busy and turn.if_running = 'cancel');

  -- A queued run has no message yet, and before a first one there is nothing.
  user_message := answer #> '{events,0,run_started,user_message}';
  if asked.history_messages > 0 and (user_message ->> 'order')::integer > 1 then
    page := api.list_messages(
      jsonb_build_object(
        'session_id', asked.session_id,
        'page_size', asked.history_messages,
        'from_end', true,
        'before_order', user_message -> 'order'
      )
    );
    answer := answer || jsonb_build_object(
      'history', page -> 'messages', 'has_earlier_messages', page -> 'has_more'
    );
  end if;
  return answer;
end
$function$;

create or replace function api.update_me(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  caller_id uuid := auth.uid();
  p record;
  s record;
  wanted_username text;
begin
  perform from public.users as u where u.id = caller_id for no key update;
  if not found then
    raise sqlstate 'PT404' using
      message = 'ACCOUNT_NOT_FOUND',
      detail = jsonb_build_object('user_id', coalesce(caller_id::text, ''))::text,
      hint = 'Sign in again; the account may have been deleted.';
  end if;

  if args ->> 'display_name' is not null then
    update public.users as u
    set display_name = private.display_name_from(args ->> 'display_name', u.email)
    where u.id = caller_id;
  end if;

  if jsonb_typeof(args -> 'profile') = 'object' then
    select r.* into p
    from jsonb_to_record(args -> 'profile') as r (
      username text, full_name text, avatar_url text,
      status_text text, status_emoji text, status_expires_at timestamptz
    );

    wanted_username := lower(btrim(p.username));
    if wanted_username <> '' and wanted_username !~ '^[a-z0-9._-]{3,32}$' then
      raise sqlstate 'PT400' using
        message = 'INVALID_USERNAME',
        detail = jsonb_build_object('username', p.username)::text,
        hint = 'Choose 3 to 32 of a-z, 0-9, dot, dash and underscore.';
    end if;

    begin
      -- An absent value stays as it is, an empty text removes it.
      update public.profiles as t
      set
        username = case when p.username is null then t.username else nullif(wanted_username, '') end,
        full_name = case when p.full_name is null then t.full_name else nullif(p.full_name, '') end,
        avatar_url = case when p.avatar_url is null then t.avatar_url else nullif(p.avatar_url, '') end,
        status_text = case when p.status_text is null then t.status_text else nullif(p.status_text, '') end,
        status_emoji = case when p.status_emoji is null then t.status_emoji else nullif(p.status_emoji, '') end,
        -- A new status without an end stays, so the old status's end goes.
        status_expires_at = case
          when p.status_text is null then coalesce(p.status_expires_at, t.status_expires_at)
          else p.status_expires_at
        end
      where t.id = caller_id;
    exception
      when unique_violation then
        raise sqlstate 'PT409' using
          message = 'USERNAME_TAKEN',
          detail = jsonb_build_object('username', wanted_username)::text,
          hint = 'Choose another one.';
    end;
  end if;

  if jsonb_typeof(args -> 'settings') = 'object' then
    select r.* into s
    from jsonb_to_record(args -> 'settings') as r (theme text, notification_preferences jsonb);

    if octet_length(s.notification_preferences::text) > 24576 then
      raise sqlstate 'PT400' using
        message = 'FIELD_TOO_LARGE',
        detail = '{"field": "settings.notification_preferences", "limit": "16384 bytes"}',
        hint = 'Keep fewer preferences.';
    end if;

    update public.user_settings as t
    set
      theme = coalesce(s.theme, t.theme),
      notification_preferences = coalesce(s.notification_preferences, t.notification_preferences)
    where t.user_id = caller_id;
  end if;

  return api.get_me('{}');
end
$function$;

create or replace function api.update_session(
  args jsonb
)
returns jsonb
language plpgsql
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  p record;
  session public.sessions;
begin
  select r.* into p
  from jsonb_to_record(args) as r (session_id uuid, name text, is_archived boolean, expected_name text);

  select s.* into session from public.sessions as s where s.id = p.session_id for no key update;
  if not found then
    perform private.refuse_session(p.session_id);
  end if;
  -- A repetition of a call that was carried out finds nothing left to change, which is no conflict.
  if session.name <> p.expected_name and (
    p.name is distinct from session.name
    or coalesce(p.is_archived, session.is_archived) <> session.is_archived
  ) then
    raise sqlstate 'PT400' using
      message = 'SESSION_NAME_CHANGED',
      detail = jsonb_build_object('session_id', session.id)::text,
      hint = 'Read the session again and decide anew.';
  end if;

  update public.sessions as s
  set name = coalesce(p.name, s.name), is_archived = coalesce(p.is_archived, s.is_archived)
  where s.id = p.session_id
  returning s.* into session;

  return jsonb_build_object('session', private.session_json(session));
end
$function$;

create or replace function private.append_run_events(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
as $function$
declare
  given_ids uuid[];
  valid_ids uuid[];
  late_ids uuid[];
begin
  with given as materialized (
    select
      (n.value -> 'lease' ->> 'run_id')::uuid as run_id,
      sha256(convert_to(n.value -> 'lease' ->> 'token', 'UTF8')) as token_hash,
      n.value -> 'events' as events
    from jsonb_array_elements(args -> 'batches') as n
  ),

  -- Held until the events are in, so that nobody ends a run in between; renewals do not wait for it. Nor does this wait:
  -- who holds a run otherwise is ending it or deletes it, and the others' events must not stand still for that.
  held as materialized (
    select r.id, r.lease_hash, r.lease_expires_at, r.lease_seconds
    from public.runs as r
    where r.id = any(array(select g.run_id from given as g)) and r.state = 'RUNNING'
    for key share skip locked
  ),

  appended as (
    insert into public.run_events (run_id, seq, type, payload, created_at)
    select
      h.id,
      (e.value ->> 'seq')::bigint,
      payload.key,
      payload.value,
      coalesce((e.value ->> 'created_at')::timestamptz, clock_timestamp())
    from given as g
    inner join held as h on g.run_id = h.id and g.token_hash = h.lease_hash
    cross join lateral jsonb_array_elements(g.events) as e
    cross join lateral jsonb_each(e.value - '{seq,created_at}'::text[]) as payload
    on conflict (run_id, seq) do nothing
  )

  select
    array_agg(g.run_id),
    array_agg(h.id) filter (where h.id is not null),
    array_agg(h.id) filter (
      where h.lease_expires_at < clock_timestamp() + make_interval(secs => h.lease_seconds / 2.0)
    )
  into given_ids, valid_ids, late_ids
  from given as g
  left join held as h on g.run_id = h.id and g.token_hash = h.lease_hash;

  -- A writer is a sign of life. Renewals come first as a rule, so this changes nothing.
  if late_ids is not null then
    update public.runs as r
    set lease_expires_at = clock_timestamp() + make_interval(secs => r.lease_seconds)
    where r.id in (
      select l.id from public.runs as l
      where l.id = any(late_ids)
      order by l.id
      for no key update skip locked
    );
  end if;

  perform pg_notify('concerto_runs', v.id::text) from unnest(valid_ids) as v (id);

  return jsonb_build_object(
    'lost_run_ids',
    coalesce(
      (
        select jsonb_agg(distinct g.id)
        from unnest(given_ids) as g (id)
        where g.id <> all(coalesce(valid_ids, '{}'))
      ),
      '[]'
    )
  );
end
$function$;

create or replace function private.count_messages()
returns trigger
language plpgsql
security definer
set search_path to ''
set enable_hashjoin to 'off'
set enable_mergejoin to 'off'
as $function$
declare
  due integer;
begin
  with counted as (
    update public.sessions as s
    set message_count = s.message_count + a.appended
    from (
      select
        n.session_id,
        count(*)::integer as appended,
        -- What a message holds beyond the usual counts as further messages. Lengths come from the values' headers.
        sum(octet_length(n.content) / 65536)::integer as further
      from appended_messages as n
      group by n.session_id
    ) as a
    where s.id = a.session_id
    returning (s.message_count / 10 - (s.message_count - a.appended) / 10) * 10 + a.further as due
  )

  select sum(c.due) into due from counted as c;
  if due > 0 then
    perform private.spend_messages(due);
  end if;
  return null;
end
$function$;

create or replace function private.count_sessions()
returns trigger
language plpgsql
security definer
set search_path to ''
as $function$
begin
  -- The first ten messages of each, which are not counted when they come.
  perform private.spend_messages(
    (
      select least(count(*), 100000)::integer * 10 from new_sessions
    )
  );
  return null;
end
$function$;

create or replace function private.find_messages(
  query text,
  wanted_session_id uuid,
  page_size integer,
  before_rank real,
  before_timestamp timestamp with time zone,
  before_id uuid
)
returns table (
  message_id uuid,
  rank real,
  place bigint,
  pattern text,
  is_partial boolean
)
language plpgsql
stable
security definer
set search_path to ''
as $function$
declare
  most_messages constant integer := 1000;
  -- Of their searched texts together: a long one costs as much as hundreds of short ones.
  most_bytes constant integer := 4194304;
  most_bytes_each constant integer := 200000;
  caller_id uuid := auth.uid();
  terms record;
begin
  select t.* into terms from private.search_terms(query) as t;
  if terms.words is null or caller_id is null then
    return;
  end if;

  return query
  with newest as materialized (
    -- By the index alone: no text and no words of it are read here.
    select m.id, m."timestamp" as moment, m.search, m.content
    from public.messages as m
    where m.search @@ (terms.words && quote_literal('owner:' || caller_id::text)::tsquery)
      and (wanted_session_id is null or m.session_id = wanted_session_id)
    order by m."timestamp" desc, m.id desc
    limit most_messages + 1
  ),

  candidate as materialized (
    select
      n.*,
      row_number() over newest_first = 1 or (
        row_number() over newest_first <= most_messages
        -- Lengths come from the values' headers.
        and sum(least(octet_length(n.content), most_bytes_each)) over newest_first <= most_bytes
      ) as is_read
    from newest as n
    window newest_first as (order by n.moment desc, n.id desc rows unbounded preceding)
  ),

  found as (
    select
      c.id,
      c.moment,
      -- How near the words are to each other is worth knowing of few: its cost rises with their number to the third.
      case
        when terms.is_short then ts_rank_cd(c.search, terms.words) else ts_rank(c.search, terms.ranked)
      end as rank
    from candidate as c
    where c.is_read
      and (terms.phrases is null or c.search @@ terms.phrases)
      and (
        cardinality(terms.written) = 0
        or not exists (
          select from unnest(terms.written) as w (term)
          where strpos(lower(private.searched_text(c.content)), w.term) = 0
        )
      )
  ),

  page as (
    select
      f.id,
      f.rank,
      row_number() over (order by f.rank desc, f.moment desc, f.id desc) as place
    from found as f
    where before_id is null or (f.rank, f.moment, f.id) < (before_rank, before_timestamp, before_id)
    order by f.rank desc, f.moment desc, f.id desc
    limit page_size + 1
  )

  select p.id, p.rank, p.place, terms.pattern, s.is_partial
  from (select coalesce(bool_or(not c.is_read), false) as is_partial from candidate as c) as s
  left join page as p on true;
end
$function$;

create or replace function private.finish_run(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  wanted_id uuid := (args -> 'lease' ->> 'run_id')::uuid;
  token_hash bytea := sha256(convert_to(coalesce(args -> 'lease' ->> 'token', ''), 'UTF8'));
  new_messages jsonb := coalesce(nullif(args -> 'messages', 'null'), '[]');
  too_large bigint;
  run public.runs;
begin
  perform from public.sessions as s
  where s.id = (select r.session_id from public.runs as r where r.id = wanted_id)
  for no key update;
  -- Waits for events that are being appended; none comes after.
  select r.* into run
  from public.runs as r
  where r.id = wanted_id and r.lease_hash = token_hash
  for update;
  if not found then
    perform private.refuse_lease(wanted_id);
  end if;

  if run.finished_at is null then
    select n.place - 1 into too_large
    from jsonb_array_elements(new_messages) with ordinality as n (value, place)
    where octet_length((n.value -> 'metadata')::text) > 98304
    order by n.place
    limit 1;
    if found then
      raise sqlstate 'PT400' using
        message = 'FIELD_TOO_LARGE',
        detail = jsonb_build_object(
          'field', format('messages[%s].metadata', too_large), 'limit', '65536 bytes'
        )::text,
        hint = 'Keep the metadata small.';
    end if;

    run := private.end_run(
      run,
      args ->> 'state',
      new_messages,
      nullif(args -> 'usage', 'null'),
      case when args ->> 'state' not in ('SUCCEEDED', 'CANCELLED') then nullif(args -> 'error', 'null') end,
      true
    );
  end if;

  return jsonb_build_object(
    'run',
    private.run_json(run),
    'events',
    (
      select
        jsonb_agg(jsonb_build_object('seq', e.seq, 'created_at', e.created_at, e.type, e.payload) order by e.seq)
      from public.run_events as e
      where e.run_id = run.id and e.type in ('message_completed', 'usage', 'error', 'run_finished')
    )
  );
end
$function$;

create or replace function private.has_room(
  wanted_bucket text,
  wanted_name text,
  own_id uuid
)
returns boolean
language plpgsql
stable
security definer
set search_path to ''
as $function$
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
$function$;

create or replace function private.open_run(
  run public.runs,
  turn private.turn,
  lease_token text,
  cancels boolean
)
returns jsonb
language plpgsql
security definer
set search_path to ''
set enable_indexonlyscan to 'off'
as $function$
declare
  -- 244 random bits, unless the caller made its own. Only the hash is stored, so nobody who reads the table can act for
  -- the run.
  token text := coalesce(
    nullif(lease_token, ''), replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')
  );
  must_wait boolean := run.state = 'QUEUED';
  events jsonb := '[]';
begin
  perform from public.sessions as s where s.id = run.session_id and s.user_id = (select auth.uid());
  if not found then
    perform private.refuse_session(run.session_id);
  end if;

  if cancels then
    update public.runs as r
    set is_cancellation_requested = true
    where r.session_id = run.session_id and r.finished_at is null and not r.is_cancellation_requested;
    perform pg_notify('concerto_runs', r.id::text)
    from public.runs as r
    where r.session_id = run.session_id and r.finished_at is null;
  end if;

  -- Counted now, as it is stored by the services when its turn comes.
  if must_wait then
    perform private.spend_messages(1 + octet_length(coalesce(turn.content, '')) / 65536);
  end if;
  run.user_message_id := case when not must_wait then private.store_question(run.session_id, turn) end;
  run.lease_seconds := least(coalesce(nullif(run.lease_seconds, 0), 10), 3600);

  insert into public.runs (
    session_id, user_id, state, model, agent, source, request_id, request_hash, user_message_id, lease_hash,
    lease_seconds, lease_expires_at, prices, pending, started_at, created_at
  )
  values (
    run.session_id,
    (select auth.uid()),
    run.state,
    coalesce(turn.model, ''),
    coalesce(turn.agent, ''),
    run.source,
    turn.request_id,
    run.request_hash,
    run.user_message_id,
    sha256(convert_to(token, 'UTF8')),
    run.lease_seconds,
    clock_timestamp() + make_interval(secs => run.lease_seconds),
    run.prices,
    case when must_wait then to_jsonb(turn) end,
    case when not must_wait then clock_timestamp() end,
    -- Waiting runs begin in this order, so no two of a session are alike.
    greatest(
      clock_timestamp(),
      (
        select max(r.created_at) + interval '1 microsecond' from public.runs as r
        where r.session_id = run.session_id
      )
    )
  )
  returning * into run;

  if not must_wait then
    events := private.announce_run(run);
  end if;
  perform pg_notify('concerto_runs', run.id::text);

  return jsonb_build_object(
    'run', private.run_json(run),
    'lease', jsonb_build_object('run_id', run.id, 'token', token),
    'events', events
  );
end
$function$;

create or replace function private.promote_run(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
set lock_timeout to '250ms'
as $function$
declare
  wanted_id uuid := (args -> 'lease' ->> 'run_id')::uuid;
  token_hash bytea := sha256(convert_to(coalesce(args -> 'lease' ->> 'token', ''), 'UTF8'));
  run public.runs;
  events jsonb;
begin
  -- The session first, as every writer of runs and messages does.
  perform from public.sessions as s
  where s.id = (select r.session_id from public.runs as r where r.id = wanted_id)
  for no key update;
  select r.* into run
  from public.runs as r
  where r.id = wanted_id and r.lease_hash = token_hash and r.finished_at is null
  for no key update;
  if not found then
    perform private.refuse_lease(wanted_id);
  end if;

  if run.state = 'QUEUED' then
    if exists (
      select from public.runs as r
      where r.session_id = run.session_id and r.finished_at is null and r.created_at < run.created_at
    ) then
      raise sqlstate 'PT400' using
        message = 'RUN_NOT_NEXT',
        detail = jsonb_build_object('run_id', run.id)::text,
        hint = 'Wait for the end of the runs before it.';
    end if;
    run.user_message_id := private.store_question(
      run.session_id, jsonb_populate_record(null::private.turn, run.pending)
    );
    update public.runs as r
    set state = 'RUNNING', pending = null, started_at = clock_timestamp(), user_message_id = run.user_message_id
    where r.id = run.id
    returning r.* into run;
    events := private.announce_run(run);
    perform pg_notify('concerto_runs', run.id::text);
  end if;

  return jsonb_build_object('run', private.run_json(run), 'events', coalesce(events, private.started_events(run.id)));
end
$function$;

create or replace function private.refuse_long_text(
  field text,
  value text,
  most_characters integer
)
returns void
language plpgsql
immutable
set search_path to ''
as $function$
begin
  if char_length(value) > most_characters then
    raise sqlstate 'PT400' using
      message = 'FIELD_TOO_LARGE',
      detail = jsonb_build_object('field', field, 'limit', most_characters || ' characters')::text,
      hint = 'Send less.';
  end if;
end
$function$;

create or replace function private.renew_leases(
  args jsonb
)
returns jsonb
language plpgsql
security definer
set search_path to ''
as $function$
declare
  seconds integer := least(coalesce(nullif((args ->> 'lease_seconds')::integer, 0), 10), 3600);
  answer jsonb;
begin
  with given as (
    select
      (n.value ->> 'run_id')::uuid as run_id,
      sha256(convert_to(n.value ->> 'token', 'UTF8')) as token_hash
    from jsonb_array_elements(args -> 'leases') as n
  ),

  valid as (
    select r.id
    from public.runs as r
    inner join given as g on r.id = g.run_id and r.lease_hash = g.token_hash
    where r.finished_at is null
  ),

  -- One that another call holds is renewed the next time: everybody's leases must not wait for it.
  held as (
    select r.id
    from public.runs as r
    where r.id in (select v.id from valid as v)
    order by r.id
    for no key update of r skip locked
  ),

  renewed as (
    update public.runs as r
    set lease_expires_at = clock_timestamp() + make_interval(secs => seconds), lease_seconds = seconds
    from held as h
    where r.id = h.id
    returning r.id, r.is_cancellation_requested
  )

  select jsonb_build_object(
    'lost_run_ids',
    coalesce(jsonb_agg(distinct g.run_id) filter (where v.id is null), '[]'),
    'cancelled_run_ids',
    coalesce(jsonb_agg(distinct w.id) filter (where w.is_cancellation_requested), '[]')
  )
  into answer
  from given as g
  left join valid as v on g.run_id = v.id
  left join renewed as w on g.run_id = w.id;

  return answer;
end
$function$;

create or replace function private.search_terms(
  query text
)
returns table (
  words tsquery,
  ranked tsquery,
  phrases tsquery,
  written text[],
  pattern text,
  is_short boolean
)
language plpgsql
immutable
set search_path to ''
as $function$
declare
  -- Neither inside a longer word.
  word_start constant text := '(?<![[:alnum:]])';
  word_end constant text := '(?![[:alnum:]])';
  term text;
  term_words text[];
  term_query tsquery;
  lexemes text[] := '{}';
  patterns text[] := '{}';
begin
  written := '{}';
  -- A word that is repeated asks for nothing more.
  for term in select distinct t.term from regexp_split_to_table(lower(btrim(query)), '\s+') as t (term)
  loop
    term_words := array_remove(regexp_split_to_array(private.search_text(term), '\s+'), '');
    continue when cardinality(term_words) = 0;

    term_query := phraseto_tsquery('pg_catalog.simple', array_to_string(term_words, ' '));
    lexemes := lexemes || tsvector_to_array(to_tsvector('pg_catalog.simple', array_to_string(term_words, ' ')));
    if term ~ private.unspaced() or numnode(term_query) = 0 then
      -- The index forgets positions in long texts and knows no symbols: it only tells that the characters occur.
      -- Whether they stand there as written is looked up in the text.
      written := written || term;
      patterns := patterns || regexp_replace(term, '([^[:alnum:]])', '\\\1', 'g');
    else
      patterns := patterns || (word_start || array_to_string(term_words, '[^[:alnum:]]+') || word_end);
      if numnode(term_query) > 1 then
        phrases := coalesce(phrases && term_query, term_query);
      end if;
    end if;
  end loop;

  select array_agg(distinct l.lexeme) into lexemes from unnest(lexemes) as l (lexeme);
  if lexemes is null then
    return;
  end if;
  words := plainto_tsquery('pg_catalog.simple', array_to_string(lexemes, ' '));
  ranked := replace(words::text, ' & ', ' | ')::tsquery;
  pattern := array_to_string(patterns, '|');
  is_short := cardinality(lexemes) <= 3;
  return next;
end
$function$;

create or replace function private.search_text(
  content text
)
returns text
language plpgsql
immutable
parallel safe
set search_path to ''
as $function$
declare
  -- Punctuation ends words, so that no address, path or number with dots becomes a word of its own.
  words text := translate(private.searched_text(content), '!"#$%&''()*+,-./:;<=>?@[\]^_`{|}~', repeat(' ', 32));
begin
  -- Nothing below concerns ASCII, whose characters are one byte each.
  if octet_length(words) = char_length(words) then
    return words;
  end if;

  -- What else is none (quotation marks, dashes, arrows, symbols, emoji) is named here, as not every locale knows it.
  return regexp_replace(
    regexp_replace(
      words,
      '[\u00A0-\u00A9\u00AB-\u00B1\u00B4\u00B6-\u00B8\u00BB\u00BF\u00D7\u00F7\u2000-\u206F\u20A0-\u20CF\u2190-\u2BFF'
      '\u3000-\u3004\u3008-\u3030\uFE0E\uFE0F\uFF01-\uFF0F\uFF1A-\uFF20\uFF3B-\uFF40\uFF5B-\uFF65\U0001F000-\U0001FAFF]',
      ' ',
      'g'
    ),
    '(' || private.unspaced() || ')',
    ' \1 ',
    'g'
  );
end
$function$;

create or replace function private.searched_text(
  content text
)
returns text
language plpgsql
immutable
parallel safe
set search_path to ''
as $function$
begin
  return left(content, 50000);
end
$function$;

create or replace function private.shorten_session(
  wanted_id uuid,
  most_messages integer,
  most_runs integer
)
returns boolean
language plpgsql
security definer
set search_path to ''
as $function$
declare
  dropped integer;
  runs_dropped integer;
begin
  perform from public.sessions as s where s.id = wanted_id and s.user_id = (select auth.uid()) for no key update;
  if not found then
    return false;
  end if;

  delete from public.runs as r
  where r.id in (
    select n.id from public.runs as n
    where n.session_id = wanted_id
    order by n.created_at desc, n.id desc
    limit most_runs
  );
  get diagnostics runs_dropped = row_count;

  -- From the end, so that what is left is a conversation that ends earlier.
  delete from public.messages as m
  where m.session_id = wanted_id
    and m."order" > (
      select s.message_count - most_messages from public.sessions as s
      where s.id = wanted_id
    );
  get diagnostics dropped = row_count;
  update public.sessions as s
  set message_count = s.message_count - dropped
  where s.id = wanted_id and dropped > 0;

  return dropped = most_messages or runs_dropped = most_runs;
end
$function$;

create or replace function private.spend_messages(
  amount integer
)
returns void
language plpgsql
security definer
set search_path to ''
as $function$
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
$function$;

create or replace function private.text_ranges(
  content text,
  pattern text
)
returns jsonb
language sql
stable
set search_path to ''
as $function$
  -- One pass over the text, which puts two characters that nobody writes around each match.
  select coalesce(jsonb_agg(jsonb_build_object('start', r.start, 'end', r.start + r.length) order by r.n), '[]')
  from (
    select
      p.n,
      strpos(p.part, e'\x03') - 1 as length,
      sum(char_length(p.part) - case when p.n > 1 then 1 else 0 end) over (order by p.n) - char_length(p.part) + 1 as start
    from string_to_table(
      regexp_replace(translate(content, e'\x02\x03', '  '), pattern, e'\x02\\&\x03', 'gi'), e'\x02'
    ) with ordinality as p (part, n)
  ) as r
  where r.n > 1
$function$;

alter table private.message_rates
add constraint message_rates_user_id_fkey foreign key (user_id) references public.users (id) on delete cascade;

create trigger sessions_count
after insert on public.sessions referencing new table as new_sessions
for each statement
execute function private.count_sessions();

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

comment on column private.limits.file_bytes_per_user is
'Bytes that the files of one user in a bucket may hold together.';

comment on column private.limits.files_per_user is 'Files that one user may keep in a bucket.';

comment on column private.limits.is_only is 'True: there is one row.';

comment on column private.limits.messages_per_minute is
'Messages that one user may have stored in a minute; a large one counts as several, a new session as ten.';

comment on column private.message_rates.began_at is 'When the minute began.';

comment on column private.message_rates.used is 'What was counted in it.';

comment on column private.message_rates.user_id is 'The user.';

comment on function api.append_messages(jsonb) is
'Appends 1 to 100 messages to a session, all or none: {session_id, request_id?, messages: [{role, content, '
'metadata?}]} -> {messages}. A repeated request_id appends nothing and answers the same. Raises PT404 '
'SESSION_NOT_FOUND, PT400 INVALID_FIELD and FIELD_TOO_LARGE, PT409 REQUEST_ID_REUSED when it came with other messages,'
' PT429 TOO_MANY_MESSAGES.';

comment on function api.create_session(jsonb) is
'Creates an empty session of the caller: {name?, request_id?} -> {session}. A repeated request_id answers the session '
'that it made. Raises PT404 ACCOUNT_NOT_FOUND, PT429 TOO_MANY_MESSAGES.';

comment on function api.delete_session(jsonb) is
'Deletes a session with all its messages: {session_id, in_steps?} -> {is_deleted}. With in_steps, of a long one only '
'the newest 5000 messages and 200 runs: call it until is_deleted. Raises PT404 SESSION_NOT_FOUND.';

comment on function api.list_sessions(jsonb) is
'Lists the caller''s sessions, newest activity first: {page_size?, is_archived?, query?, before_updated_at?, '
'before_id?} -> {sessions, has_more, next_updated_at?, next_id?}. The last two continue behind a session of the page '
'before; query is a part of the name, ignoring case. With one, 5000 sessions are looked at: a page may hold fewer than'
' asked for, or none, and has_more; the answer then tells where it goes on. Raises PT400 FIELD_TOO_LARGE.';

comment on function api.list_usage(jsonb) is
'Sums up the caller''s usage by day (UTC), model or session: {from?, to?, group_by?, page_size?, after_key?} -> '
'{entries, has_more, total, from, to}. Without bounds the last 30 days, which the answer tells; entries are sorted by '
'key and continue behind after_key, total covers the whole time, which may hold 200000 runs. Raises PT400 '
'INVALID_FIELD.';

comment on function api.search_messages(jsonb) is
'Finds the caller''s messages that hold every word of a query, best match first, then newest: {query, page_size?, '
'session_id?, before_rank?, before_timestamp?, before_id?} -> {hits, has_more, is_partial}. The last three continue '
'behind a hit of the page before, whose rank is part of it. is_partial: not every message that holds the words was '
'looked at, only the newest. Raises PT404 SESSION_NOT_FOUND, PT400 FIELD_TOO_LARGE, and SEARCH_TOO_BROAD after 3 s.';

comment on function api.start_run(jsonb) is
'Stores the user''s message and opens its run, with the contract''s StartRunRequest -> {run, lease?, events, history?,'
' has_earlier_messages?}: with history_messages, the newest messages before the user''s come along, as one page of '
'api.list_messages. A repeated request_id answers the run that there is, without history, and with the lease only if '
'it names the same lease_token. Raises PT404 SESSION_NOT_FOUND and MESSAGE_NOT_FOUND, PT400 MISSING_FIELD, '
'INVALID_FIELD, FIELD_TOO_LARGE and NOT_A_USER_MESSAGE, PT409 REQUEST_ID_REUSED and RUN_IN_PROGRESS, PT429 '
'TOO_MANY_RUNS and TOO_MANY_MESSAGES.';

comment on function private.append_run_events(jsonb) is
'Appends events to running runs: {batches: [{lease, events}]} -> {lost_run_ids}. An event whose seq is there is passed'
' over; nothing is stored for runs whose lease is not valid or that are being ended or deleted at this moment, which '
'the answer names. A writer whose lease is about to end, or has ended unnoticed, gets more time.';

comment on function private.count_messages() is
'Trigger: adds the messages of one statement to their sessions'' message_count, which also moves updated_at, and '
'counts them for private.limits: ten with every tenth message of a session, and one for each 64 KiB of a large '
'message.';

comment on function private.count_sessions() is
'Trigger: counts the sessions of one statement as ten messages each.';

comment on function private.find_messages(text, uuid, integer, real, timestamp with time zone, uuid) is
'Finds messages of the caller, and of nobody else, that hold every term of a query: one page and one more, best first,'
' and a regular expression of the terms; one row without a message when none is found. is_partial: more messages hold '
'the words than were looked at, which are the newest 1000 or 4 MB. Row level security would keep the index from being '
'used, so it is passed here and judges the rows in api.search_messages.';

comment on function private.has_room(text, text, uuid) is
'Says whether the caller may put a file of this name into a bucket: whether its other files there, in the folder named'
' by its id, leave room in private.limits for one more of the largest size that the bucket takes.';

comment on function private.refuse_long_text(text, text, integer) is
'Raises PT400 FIELD_TOO_LARGE for a value of an argument that is longer than so many characters.';

comment on function private.renew_leases(jsonb) is
'Moves the end of leases to lease_seconds (10) from now: {leases, lease_seconds?} -> {lost_run_ids, '
'cancelled_run_ids}. Queued runs are renewed as well; one that is being changed at this moment keeps its end, and is '
'not lost.';

comment on function private.search_terms(text) is
'Takes a query apart: the words that a message must hold, the same as alternatives, what must stand together, what '
'must be looked up as written, a regular expression of all terms, and whether the words are few. Nothing for a query '
'without words.';

comment on function private.search_text(text) is
'Returns the words of private.searched_text set apart by spaces, characters of scripts without spaces as words of '
'their own.';

comment on function private.searched_text(text) is
'Returns the part of a text whose words are found: its first 50000 characters. What an append costs, and what a search'
' reads of a message, is bounded by it.';

comment on function private.shorten_session(uuid, integer, integer) is
'Deletes the newest messages and runs of the caller''s session, so many of each, and says whether there may be more.';

comment on function private.spend_messages(integer) is
'Counts messages of the caller in the present minute. Raises PT429 TOO_MANY_MESSAGES past private.limits.';

comment on table private.limits is
'What one user may do and keep: one row. `concerto up` and `concerto migrate` write what the environment says; '
'anything else stays, so it may also be changed here.';

comment on table private.message_rates is
'Messages that users have stored in a minute: one row per user, of its last.';

revoke all on function private.count_sessions() from public;

revoke all on function private.find_messages(text, uuid, integer, real, timestamp with time zone, uuid) from public;

grant execute on function private.find_messages(
  text, uuid, integer, real, timestamp with time zone, uuid
) to authenticated;

revoke all on function private.has_room(text, text, uuid) from public;

grant execute on function private.has_room(text, text, uuid) to authenticated;

revoke all on function private.refuse_long_text(text, text, integer) from public;

grant execute on function private.refuse_long_text(text, text, integer) to authenticated;

revoke all on function private.search_terms(text) from public;

revoke all on function private.searched_text(text) from public;

grant execute on function private.searched_text(text) to authenticated;

revoke all on function private.shorten_session(uuid, integer, integer) from public;

grant execute on function private.shorten_session(uuid, integer, integer) to authenticated;

revoke all on function private.spend_messages(integer) from public;

-- The one row of limits, as they are by default.
insert into private.limits default values
on conflict do nothing;

-- The words of messages that are longer than what is searched now: few, found by the lengths in rows' headers.
update public.messages as m
set search = private.search_vector(s.user_id, m.content)
from public.sessions as s
where s.id = m.session_id and m.search is not null and octet_length(m.content) > 50000;

reset check_function_bodies;
reset lock_timeout;
