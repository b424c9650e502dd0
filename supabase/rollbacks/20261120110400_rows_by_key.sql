alter function private.count_messages() reset enable_mergejoin;
alter function private.count_messages() reset enable_hashjoin;

alter function private.show_newest(uuid, uuid) reset enable_indexonlyscan;
alter function private.open_run(jsonb, bytea, boolean, boolean) reset enable_indexonlyscan;

alter policy "owners append to their sessions" on public.messages
with check (
  exists (
    select from public.sessions as s
    where s.id = messages.session_id and s.user_id = (select auth.uid())
  )
);

alter policy "users read their own runs" on public.runs
using (user_id = (select auth.uid()));

alter policy "owners read their sessions" on public.sessions
using (user_id = (select auth.uid()));
