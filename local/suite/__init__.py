"""Runs the suite: its processes, their order, ports and state."""
