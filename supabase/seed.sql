-- Sample conversations for development. They go to the first user at example.com, an address that no real person
-- has; without such a user nothing happens. Applying this again changes nothing.

insert into public.sessions (id, user_id, name, is_archived)
select
  sample.id,
  receiver.user_id,
  sample.name,
  sample.is_archived
from (
  select u.id as user_id
  from public.users as u
  where u.email like '%@example.com'
  order by u.created_at, u.id
  limit 1
) as receiver
cross join (
  values
  ('3f0c5a52-8d5e-4c0b-9a56-0d6f4c1b7a01'::uuid, 'A first conversation', false),
  ('3f0c5a52-8d5e-4c0b-9a56-0d6f4c1b7a02'::uuid, 'Something put away', true)
) as sample (id, name, is_archived)
on conflict (id) do nothing;

insert into public.messages (session_id, role, content)
select
  s.id,
  sample.role,
  sample.content
from public.sessions as s
cross join (
  values
  (1, 'user', 'Which planet has the most moons?'),
  (2, 'assistant', 'Saturn: more than two hundred are known.'),
  (3, 'user', 'And the fewest?'),
  (4, 'assistant', 'Mercury and Venus have none at all.')
) as sample (place, role, content)
where
  s.id = '3f0c5a52-8d5e-4c0b-9a56-0d6f4c1b7a01'
  and s.message_count = 0
order by sample.place;
