"""Hosted Supabase projects: their migrations, and what is wrong with them."""
