drop function private.call(jsonb, text, jsonb);
drop function private.touch_updated_at();

drop schema private;
drop schema api;

-- Another database of the same cluster may still use the role; then it stays.
do $$
begin
  drop role concerto_login;
exception
  when dependent_objects_still_exist then
    raise notice 'Role concerto_login is kept: another database uses it.';
end
$$;

alter default privileges grant execute on functions to public;
