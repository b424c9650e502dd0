-- The two schemas beside public: operations, and what only they and the services use.

-- Whoever may execute a function is said beside it.
alter default privileges revoke execute on functions from public;

create schema api;
comment on schema api is
'The operations: one function per rpc that needs data, (args jsonb) returns jsonb, run with the caller''s own rights.';
grant usage on schema api to authenticated;

create schema private;
comment on schema private is
'Helpers of policies, triggers and operations, and the services'' way in. Never exposed over REST.';
grant usage on schema private to authenticated, concerto_login;
