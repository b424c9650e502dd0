"""Sign-in and accounts, on Supabase Auth."""
