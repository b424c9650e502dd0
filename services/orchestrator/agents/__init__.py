"""Agents: who answers, with which instructions and tools."""
