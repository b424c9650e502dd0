"""Backups of the embedded Supabase: written, read and put back."""
