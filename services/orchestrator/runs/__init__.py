"""Runs: turns that go on whoever listens, their events, leases and titles."""
