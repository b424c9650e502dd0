set lock_timeout = '5s';

-- With its trigger, which stands on a table of the platform's.
drop function private.admit_user() cascade;

drop table private.invitations;

drop table private.sign_up_rule;

reset lock_timeout;
