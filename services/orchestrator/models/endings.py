"""Why answers end, by whatever name a server has for it: which ends are good, and what OpenAI calls them."""

import re

from servicekit.errors import AppError

STOP, LENGTH, TOOL_CALLS = "stop", "length", "tool_calls"

_KNOWN = {
    **dict.fromkeys(("stop", "end_turn", "eos", "end", "eos_token", "stop_sequence", "complete", "normal"), STOP),
    **dict.fromkeys(("length", "max_tokens", "model_length", "model_context_window_exceeded"), LENGTH),
    **dict.fromkeys(("tool_calls", "tool_use"), TOOL_CALLS),
    "function_call": "function_call",
}
_FILTERED = frozenset(
    {
        *("content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii"),
        *("image_safety", "refusal", "sensitive", "guardrail_intervened", "language"),
    }
)
_UNAVAILABLE = frozenset(
    {"error", "insufficient_system_resource", "network_error", "server_error", "internal_error", "overloaded"}
)
_MALFORMED = frozenset({"malformed_function_call", "unexpected_tool_call"})
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def known(finish_reason: str) -> str:
    """Return OpenAI's name for the end, where it is one that is good or cut at a limit; else the server's own."""
    return _KNOWN.get(finish_reason) or _KNOWN.get(finish_reason.lower(), finish_reason)


def is_known(finish_reason: str) -> bool:
    """Say whether the end is a good one, or the limit of tokens."""
    return finish_reason in _KNOWN or finish_reason.lower() in _KNOWN


def noted(finish_reason: str) -> str:
    """Return the end as it may be stored and shown: OpenAI's name, or the server's where that is a plain name."""
    return known(finish_reason) if _NAME.fullmatch(finish_reason) else ""


def failure_of(finish_reason: str, *, has_text: bool, has_calls: bool) -> AppError | None:
    """Return why an answer that ended so is no success, or None for one that is.

    finish_reason: the last that the server gave; empty when it gave none. has_text: whether anything but white space
    was said. has_calls: whether tools were asked for.
    """
    kind = finish_reason.lower()
    if not kind:
        return AppError("MODEL_CONNECTION_LOST", cause="the stream ended without a finish_reason")
    if not is_known(finish_reason):
        named = finish_reason if _NAME.fullmatch(finish_reason) else "other"
        if kind in _FILTERED:
            return AppError("CONTENT_FILTERED", cause=f"finish_reason {named}")
        if kind in _UNAVAILABLE:
            return AppError("MODEL_UNAVAILABLE", cause=f"finish_reason {named}")
        if kind in _MALFORMED:
            return AppError("MODEL_ANSWER_MALFORMED", cause=f"finish_reason {named}")
        return AppError("MODEL_ANSWER_CUT", metadata={"finish_reason": named})
    if known(finish_reason) == LENGTH and has_calls:
        return AppError("MODEL_ANSWER_CUT", metadata={"finish_reason": LENGTH}, cause="a tool call at the limit")
    if not has_text and not has_calls:
        return AppError("MODEL_ANSWER_EMPTY", cause=f"nothing said, finish_reason {known(finish_reason)}")
    return None
