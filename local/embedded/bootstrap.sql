-- What a hosted Supabase project brings along and @supabase/lite does not: roles, helpers, grants, the extension schema.
-- Runs as the superuser after Lite's own schema, and again whenever Lite or this file changes. Safe to run any number of times.

do $$
begin
    if not exists (select from pg_roles where rolname = 'anon') then
        create role anon nologin noinherit;
    end if;
    if not exists (select from pg_roles where rolname = 'authenticated') then
        create role authenticated nologin noinherit;
    end if;
    if not exists (select from pg_roles where rolname = 'service_role') then
        create role service_role nologin noinherit bypassrls;
    end if;
    if not exists (select from pg_roles where rolname = 'supabase_auth_admin') then
        create role supabase_auth_admin nologin noinherit;
    end if;
    if not exists (select from pg_roles where rolname = 'supabase_storage_admin') then
        create role supabase_storage_admin nologin noinherit;
    end if;
    -- A hosted project's REST interface logs in as this role and takes its settings from it. Here nobody does; the host
    -- reads one of the settings.
    if not exists (select from pg_roles where rolname = 'authenticator') then
        create role authenticator nologin noinherit;
    end if;
    -- Runs the migrations. No superuser, so that what works here works on a hosted project.
    if not exists (select from pg_roles where rolname = 'postgres') then
        create role postgres login;
    end if;
end
$$;

alter role postgres nosuperuser createrole createdb replication bypassrls;
alter role service_role bypassrls;
grant anon, authenticated, service_role to postgres with admin option;
grant anon, authenticated, service_role to authenticator;
grant authenticator to postgres with admin option, inherit false;
grant set on parameter pgrst.db_pre_request to postgres;
grant supabase_storage_admin to postgres;
grant pg_monitor, pg_signal_backend to postgres;

alter database postgres owner to postgres;
alter database postgres set search_path = "$user", public, extensions;
alter database postgres set pgrst.db_schemas = 'public, api';
grant usage on schema public to anon, authenticated, service_role;

create schema if not exists extensions;
grant usage on schema extensions to postgres, anon, authenticated, service_role;
create extension if not exists vector with schema extensions;

-- auth ----------------------------------------------------------------------------------------------------------

-- As on a hosted project, both kinds of settings are read: the older one per claim, then the one with all claims.
create or replace function auth.uid() returns uuid
language sql stable
set search_path = ''
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.sub', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'
    )::uuid
$$;

create or replace function auth.role() returns text
language sql stable
set search_path = ''
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.role', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role'
    )
$$;

create or replace function auth.email() returns text
language sql stable
set search_path = ''
as $$
    select coalesce(
        nullif(current_setting('request.jwt.claim.email', true), ''),
        nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email'
    )
$$;

create or replace function auth.jwt() returns jsonb
language sql stable
set search_path = ''
as $$
    select coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb
$$;

-- How people have signed in, for the claims of their tokens.
create table if not exists auth.mfa_amr_claims (
    id uuid primary key,
    session_id uuid not null references auth.sessions (id) on delete cascade,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    authentication_method text not null,
    constraint mfa_amr_claims_session_id_authentication_method_pkey unique (session_id, authentication_method)
);

grant usage on schema auth to postgres, anon, authenticated, service_role, supabase_auth_admin;
grant all on all tables in schema auth to postgres, supabase_auth_admin;
grant execute on function auth.uid(), auth.role(), auth.email(), auth.jwt()
to public;

-- storage -------------------------------------------------------------------------------------------------------

-- The owner's role is granted to postgres: only an owner can create policies, and migrations do.
alter schema storage owner to supabase_storage_admin;
alter table storage.buckets owner to supabase_storage_admin;
alter table storage.objects owner to supabase_storage_admin;
grant usage on schema storage to postgres, anon, authenticated, service_role;
grant all on storage.buckets, storage.objects to postgres, anon, authenticated, service_role;

-- migrations ----------------------------------------------------------------------------------------------------

-- Lite may have made the history's schema as the superuser; the Supabase CLI writes it as postgres.
create schema if not exists supabase_migrations;
alter schema supabase_migrations owner to postgres;
do $$
declare
    history regclass;
begin
    for history in
        select c.oid from pg_class as c
        where c.relnamespace = 'supabase_migrations'::regnamespace and c.relkind = 'r'
    loop
        execute format('alter table %s owner to postgres', history);
    end loop;
end
$$;

-- our own notes -------------------------------------------------------------------------------------------------

create schema if not exists concerto_local;
create table if not exists concerto_local.applied (
    fingerprint text not null,
    applied_at timestamptz not null default now()
);
comment on table concerto_local.applied is 'The version of Lite''s schema and of this file that this database has.';
