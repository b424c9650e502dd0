"""Asks a server of ours how it is: `python -m servicekit.probe`, the health check of containers."""
