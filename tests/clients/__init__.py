"""Real client libraries against a running suite, each in an environment of its own: `make test-clients`.

A folder here with a program `client.*` is a client (README.md says what such a folder holds); nothing lists them.
"""
