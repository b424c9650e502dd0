-- The login role of the services.

-- Roles belong to the whole cluster, so another database may have made this one before.
do $$
begin
  if not exists (select from pg_catalog.pg_roles as r where r.rolname = 'concerto_login') then
    create role concerto_login with login noinherit;
  end if;
  grant anon, authenticated to concerto_login;
end
$$;

alter role concerto_login set statement_timeout = '8s';
alter role concerto_login set idle_in_transaction_session_timeout = '10s';
-- Operations read a page each; what a generic plan is thought to cost must never start a compiler.
alter role concerto_login set jit = off;
comment on role concerto_login is
'Login of the services: becomes anon or authenticated inside private.call and may do nothing by itself. Give it a'
' password before use.';
