"""The embedded Supabase and the `concerto` command."""
