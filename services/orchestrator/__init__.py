"""Answers from language models."""
