"""Tokens as servers count them, wherever they say it and whatever they call it."""

from collections.abc import Mapping
from typing import Any

from services.orchestrator.steps import TokenUsage


def usage_beside(chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> Any:
    """Return what a chunk counts, where that does not stand in its own `usage`; None where it counts nothing."""
    usage = choice.get("usage")
    if not usage and isinstance(beside := chunk.get("x_groq"), dict):
        usage = beside.get("usage")
    return usage or None


def counted(usage: Any) -> TokenUsage | None:
    """Return what a server counts; None where it is no count. What is no number counts as none."""
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    cached = _count(cached or usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens"))
    prompt = _count(usage.get("prompt_tokens"))
    if not prompt:
        # Where they are named so, what was cached is counted apart.
        read, written = _count(usage.get("cache_read_input_tokens")), _count(usage.get("cache_creation_input_tokens"))
        prompt, cached = _count(usage.get("input_tokens")) + read + written, cached or read
    completion = _count(usage.get("completion_tokens") or usage.get("output_tokens"))
    if not prompt and not completion:
        return None
    # Some servers count what was thought in the total alone, but charge for it.
    completion = max(completion, _count(usage.get("total_tokens")) - prompt)
    return TokenUsage(prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached)


def _count(value: Any) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0
