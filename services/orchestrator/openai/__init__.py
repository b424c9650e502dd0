"""Completions in OpenAI's own form."""
