"""Requests to the world outside: by which proxy, with which authorities, and never past a proxy that is there."""
