"""The embedded Supabase: Postgres, keys, mails, and the Node program for auth, REST and storage."""
