-- The caller's own account.

create function api.get_me(args jsonb)
returns jsonb
language plpgsql
stable
security invoker
set search_path = ''
as $$
declare
  account jsonb;
begin
  select jsonb_build_object(
    'id', u.id,
    'email', coalesce(u.email, ''),
    'display_name', u.display_name,
    'role', u.role,
    'created_at', u.created_at,
    'updated_at', greatest(u.updated_at, p.updated_at, s.updated_at),
    'last_login_at', u.last_login_at,
    'profile', jsonb_build_object(
      'username', coalesce(p.username, ''),
      'full_name', coalesce(p.full_name, ''),
      'avatar_url', coalesce(p.avatar_url, ''),
      'status_text', coalesce(p.status_text, ''),
      'status_emoji', coalesce(p.status_emoji, ''),
      'status_expires_at', p.status_expires_at
    ),
    'settings', jsonb_build_object(
      'theme', s.theme,
      'notification_preferences', s.notification_preferences
    )
  )
  into account
  from public.users as u
  inner join public.profiles as p on p.id = u.id
  inner join public.user_settings as s on s.user_id = u.id
  where u.id = (select auth.uid());

  if account is null then
    raise sqlstate 'PT404' using
      message = 'ACCOUNT_NOT_FOUND',
      detail = jsonb_build_object('user_id', coalesce(auth.uid()::text, ''))::text,
      hint = 'Sign in again; the account may have been deleted.';
  end if;

  return jsonb_build_object('user', account);
end
$$;

comment on function api.get_me(jsonb) is
'Returns the caller''s account: {} -> {user}. Raises PT404 ACCOUNT_NOT_FOUND when it has been deleted.';

revoke all on function api.get_me(jsonb) from public, anon;
grant execute on function api.get_me(jsonb) to authenticated;

create function api.update_me(args jsonb)
returns jsonb
language plpgsql
volatile
security invoker
set search_path = ''
set lock_timeout = '250ms'
as $$
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
$$;

comment on function api.update_me(jsonb) is
'Changes the caller''s account: {display_name?, profile?, settings?} -> {user}. Absent values stay, empty texts '
'remove. Raises PT404 ACCOUNT_NOT_FOUND, PT400 INVALID_USERNAME and FIELD_TOO_LARGE, PT409 USERNAME_TAKEN.';

revoke all on function api.update_me(jsonb) from public, anon;
grant execute on function api.update_me(jsonb) to authenticated;
