"""Migrations: applied by the Supabase CLI, and never changed once they have landed."""
