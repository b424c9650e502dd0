-- Who may sign up: a rule and invitations, judged where a user's row is made.

set lock_timeout = '5s';

create table private.invitations (
  email text not null,
  created_at timestamp with time zone not null default now(),
  expires_at timestamp with time zone,
  constraint invitations_email_size check (((octet_length(email) >= 3) and (octet_length(email) <= 512))),
  constraint invitations_pkey primary key (email)
);

alter table private.invitations
enable row level security;

create table private.sign_up_rule (
  is_only boolean not null default true,
  admits text not null default 'open'::text,
  domains text[] not null default '{}'::text[],
  constraint sign_up_rule_admits_known check (
    (admits = any(array['open'::text, 'domains'::text, 'invitations'::text, 'closed'::text]))
  ),
  constraint sign_up_rule_is_only check (is_only),
  constraint sign_up_rule_pkey primary key (is_only)
);

alter table private.sign_up_rule
enable row level security;

create or replace function private.admit_user()
returns trigger
language plpgsql
security definer
set search_path to ''
as $function$
declare
  rule private.sign_up_rule;
  -- Sign-ups without an address, such as anonymous ones, have no domain and no invitation.
  address text := lower(normalize(coalesce(new.email, ''), nfc));
begin
  select r.* into rule from private.sign_up_rule as r;
  if rule.admits = 'open' then
    delete from private.invitations as i where i.email = address;
    return new;
  end if;

  if rule.admits in ('domains', 'invitations') then
    -- Of two at once the second waits here, and then finds nothing.
    delete from private.invitations as i
    where i.email = address and (i.expires_at is null or i.expires_at > now());
    if found or (
      rule.admits = 'domains' and address like '%_@_%' and split_part(address, '@', -1) = any(rule.domains)
    ) then
      return new;
    end if;
  end if;

  -- Answered as it is by Supabase Auth too. A rule that is lost admits nobody.
  raise sqlstate 'PT403' using
    message = case rule.admits
      when 'domains' then 'SIGN_UP_DOMAIN_REFUSED'
      when 'invitations' then 'SIGN_UP_NOT_INVITED'
      else 'SIGN_UP_CLOSED'
    end,
    detail = '{}',
    hint = 'Log in with an account, or ask the operator for one.';
end
$function$;

create trigger concerto_admit_user
before insert on auth.users
for each row
execute function private.admit_user();

comment on column private.invitations.created_at is 'When it was invited.';

comment on column private.invitations.email is
'The address in its one spelling (NFC, lower case, domain as IDNA).';

comment on column private.invitations.expires_at is 'Until when it may sign up; null means that it stays.';

comment on column private.sign_up_rule.admits is
'open: everybody; domains: addresses of certain domains, and whoever is invited; invitations: whoever is invited; '
'closed: nobody.';

comment on column private.sign_up_rule.domains is
'Domains whose addresses are admitted, in their one spelling (lower case, IDNA); a subdomain is another domain.';

comment on column private.sign_up_rule.is_only is 'True: there is one row.';

comment on function private.admit_user() is
'Trigger: refuses a new user whom the rule of sign-up does not admit, and spends the invitation of one that it does. '
'Raises PT403 SIGN_UP_CLOSED, SIGN_UP_DOMAIN_REFUSED, SIGN_UP_NOT_INVITED.';

comment on table private.invitations is
'Addresses that may sign up where the rule asks for an invitation; a sign-up spends its row. Written by `concerto '
'sign-up invite`.';

comment on table private.sign_up_rule is
'Who may sign up: one row. `concerto up` and `concerto migrate` write what the environment says; without that it stays'
' as it is.';

revoke all on function private.admit_user() from public;

-- The one row: everybody, as before.
insert into private.sign_up_rule default values
on conflict do nothing;

reset lock_timeout;
