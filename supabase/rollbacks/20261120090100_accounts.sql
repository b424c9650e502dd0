drop function api.update_me(jsonb);
drop function api.get_me(jsonb);

-- Cascades to the triggers: auth.users belongs to the platform, so they cannot be dropped by name everywhere.
drop function private.sync_account() cascade;
drop function private.create_account() cascade;

drop table public.user_settings;
drop table public.profiles;
drop table public.users;

drop function private.display_name_from(text, text);
