"""What goes wrong at a model provider, as reasons of ours."""

import email.utils
import math
import time
from collections.abc import Mapping

import openai
from langchain_core.exceptions import ContextOverflowError

from servicekit.errors import AppError

# What the client and LangChain raise when a chunk is not what the API promises; JSON errors are ValueErrors.
MALFORMED = (
    *(ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError),
    openai.APIResponseValidationError,
)
MAX_RETRY_AFTER_SECONDS = 24 * 3600.0

_TOO_LONG = (
    "context_length",
    "context length",
    "context window",
    "prompt is too long",
    "maximum context",
    "too many tokens",
    # As LangChain recognises them, too.
    "input tokens exceed the configured limit",
    "contextwindowexceedederror",
)


def from_provider(error: Exception, *, model: str) -> AppError | None:
    """Return the reason for an error of the model's client, or None when the error is none of the provider's.

    The provider's own text may quote the prompt, so it is never part of the reason.
    """
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return AppError("MODEL_TIMEOUT", cause=error)
    if isinstance(error, ContextOverflowError):
        return AppError("PROMPT_TOO_LONG", cause=error)
    if isinstance(error, openai.APIStatusError):
        return _from_status(error, model=model)
    if isinstance(error, openai.APIConnectionError):
        return AppError("MODEL_UNREACHABLE" if _never_connected(error) else "MODEL_CONNECTION_LOST", cause=error)
    if isinstance(error, MALFORMED):
        return AppError("MODEL_ANSWER_MALFORMED", cause=error)
    if isinstance(error, openai.APIError):
        # An error object inside the stream: it has a code or a type, but no status.
        return _from_code(error, model=model) or AppError("MODEL_UNAVAILABLE", cause=error)
    return None


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks to wait, from `retry-after-ms` or `Retry-After` (seconds or a date)."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / divisor
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return min(seconds, MAX_RETRY_AFTER_SECONDS)
    moment = email.utils.parsedate_tz(headers.get("retry-after", ""))
    if moment is None:
        return None
    return min(max(0.0, email.utils.mktime_tz(moment) - time.time()), MAX_RETRY_AFTER_SECONDS)


def _from_status(error: openai.APIStatusError, *, model: str) -> AppError:
    known = _from_code(error, model=model)
    if known is not None:
        return known
    match error.status_code:
        case 401 | 403:
            return AppError("MODEL_CREDENTIALS_REJECTED", cause=error)
        case 404:
            # Without an error about a model it is the address that is wrong.
            if isinstance(error.body, Mapping) and "model" in str(error.body.get("message", "")).lower():
                return AppError("MODEL_NOT_FOUND", metadata={"model": model}, cause=error)
            return AppError("MODEL_UNREACHABLE", cause=error)
        case 408 | 504:
            return AppError("MODEL_TIMEOUT", cause=error)
        case 413:
            return AppError("PROMPT_TOO_LONG", cause=error)
        case 429:
            return _rate_limited(error)
        case status if status >= 500:
            return AppError("MODEL_UNAVAILABLE", cause=error)
        case _:
            return AppError("MODEL_REQUEST_REFUSED", cause=error)


def _from_code(error: openai.APIError, *, model: str) -> AppError | None:
    """Return the reason that the error object's own code or type gives, whatever the status."""
    body = error.body if isinstance(error.body, Mapping) else {}
    codes = {str(body.get(key) or "").lower() for key in ("code", "type")}
    message = str(body.get("message") or "").lower()
    if "insufficient_quota" in codes:
        return AppError("MODEL_QUOTA_EXHAUSTED", cause=error)
    if "context_length_exceeded" in codes:
        return AppError("PROMPT_TOO_LONG", cause=error)
    if "model_not_found" in codes:
        return AppError("MODEL_NOT_FOUND", metadata={"model": model}, cause=error)
    if codes & {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}:
        return AppError("CONTENT_FILTERED", cause=error)
    if codes & {"rate_limit_exceeded", "rate_limit_error", "tokens", "requests"} and not _has_status(error, below=429):
        return _rate_limited(error)
    if getattr(error, "status_code", 400) == 400 and any(words in message for words in _TOO_LONG):
        return AppError("PROMPT_TOO_LONG", cause=error)
    return None


def _rate_limited(error: openai.APIError) -> AppError:
    response = getattr(error, "response", None)
    seconds = retry_after_seconds(response.headers) if response is not None else None
    # Events have no headers, so the wait stands in the metadata too.
    metadata = {} if seconds is None else {"retry_after_seconds": str(math.ceil(seconds))}
    return AppError("MODEL_RATE_LIMITED", metadata=metadata, cause=error, retry_after_seconds=seconds)


def _has_status(error: openai.APIError, *, below: int) -> bool:
    return getattr(error, "status_code", below) < below


def _never_connected(error: openai.APIConnectionError) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in ("ConnectError", "UnsupportedProtocol", "InvalidURL", "ProxyError"):
            return True
        cause = cause.__cause__
    return False
