-- By its key, whoever asks: a look-up of one session or run must not become a walk through all of its owner's.
-- Written as an equality, the owner is a condition that an index can take, and the indexes of the lists hold the key as
-- well: the planner, which reckons with an average owner, then reads them from end to end. Lists name the owner
-- themselves.
alter policy "owners read their sessions" on public.sessions
using (user_id is not distinct from (select auth.uid()));

alter policy "users read their own runs" on public.runs
using (user_id is not distinct from (select auth.uid()));

-- A scalar subquery, because an exists may be planned as a hash of all sessions.
alter policy "owners append to their sessions" on public.messages
with check (
  (
    select s.user_id from public.sessions as s
    where s.id = messages.session_id
  ) = (select auth.uid())
);

-- These two ask for a session by key and owner, which needs no policy and has the same choice.
alter function private.open_run(jsonb, bytea, boolean, boolean) set enable_indexonlyscan = off;
alter function private.show_newest(uuid, uuid) set enable_indexonlyscan = off;

-- Its plan is made with whatever statement comes first: after one of a hundred messages, every single message would be
-- joined with a hash of all sessions.
alter function private.count_messages() set enable_hashjoin = off;
alter function private.count_messages() set enable_mergejoin = off;
