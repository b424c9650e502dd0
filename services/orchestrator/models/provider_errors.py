"""What goes wrong at a model provider, as reasons of ours."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import openai
from langchain_core.exceptions import ContextOverflowError

from servicekit.errors import AppError
from services.orchestrator.models.server_failures import Report

# What the reader and LangChain raise when a chunk is not what the API promises; JSON errors are ValueErrors.
MALFORMED = (
    *(ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError),
    openai.APIResponseValidationError,
)

_QUOTA_CODES = frozenset(
    {
        *("insufficient_quota", "insufficient_balance", "insufficient_user_quota", "insufficient_credits"),
        *("exceeded_current_quota_error", "billing_hard_limit_reached", "billing_not_active", "arrearage"),
        *("payment_required", "credits_exhausted", "budget_exceeded", "1113", "1008"),
    }
)
_UNREADABLE_CODES = frozenset({"tool_use_failed", "json_validate_failed"})
"""The server itself cannot read what the model has written."""

_NO_BALANCE = re.compile(
    r"insufficient (?:\w+ )?(?:balance|credits?|quota|funds)|(?:credit|account|your) balance (?:is|was) (?:too low|"
    r"insufficient|not enough)|"
    r"(?:out of|not enough|no|used all|all available|requires more|run out of|exhausted|add more)"
    r"(?: \w+){0,3} credits|spending limit|account (?:\S+ ){0,6}(?:arrears|overdue|suspended|not active)|"
    r"payment required|余额不足|欠费"
)
_QUOTA_WORDS = re.compile(r"exceeded your current quota")

_TOO_LONG_CODES = frozenset(
    {
        *("context_length_exceeded", "exceed_context_size_error", "tokens_limit_reached", "request_too_large"),
        *("string_above_max_length", "context_window_exceeded", "contextwindowexceedederror", "prompt_too_long"),
        *("input_too_long", "1261"),
    }
)
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size|limit)|context the overflows|"
    r"(?:maximum|max) (?:allowed )?(?:context|prompt|input|model|sequence)(?: \w+)? ?length|max_model_len|"
    r"\b(?:prompt|inputs?|messages?|conversation|tokens|request)`?(?: \S+){0,8}? (?:is|are|was|were)?(?: ?\w+)? ?"
    r"(?:too (?:long|large)|longer than|larger than)|"
    r"(?:prompt|inputs?|messages?|tokens?|request(?:ed)?)\b.{0,80}?\bexceed\w*\b.{0,60}?"
    r"\b(?:token|context|length|limit|maximum)|"
    r"exceed\w*\b.{0,40}\b(?:max\w* .{0,20}tokens|token limit|(?:input|prompt|token) (?:length|count|limit))|"
    r"inputs`? (?:tokens|must have less than)|too many (?:input |prompt )?tokens|input is too long|prompt too long|"
    r"range of input length|input length should be|reduce the length of|prompt 超长|"
    r"input tokens exceed the configured limit"
)
_NOT_TOO_LONG = re.compile(
    r"\b(?:image|picture|file|pdf|audio|video)s?\b.{0,40}(?:exceed|too large)|rate limit|per min"
)
_TOO_LARGE_FOR_ONCE = re.compile(r"request too large")

_MODEL_CODES = frozenset(
    {
        *("model_not_found", "deploymentnotfound", "model_not_exist", "modelnotfound", "modelnotfounderror"),
        *("invalid_model", "unknown_model", "model_not_available", "model_not_supported", "unsupported_model"),
        *("no_such_model", "model_does_not_exist", "modelnotopen", "1211"),
        *("key_model_access_denied", "team_model_access_denied"),
    }
)
_NO_MODEL = re.compile(
    r"\bmodels?\b.{0,200}?(?:\bnot found|not exist|doesn't exist|could not be found|is not available|not loaded|"
    r"not a valid model|identifier is invalid)|(?:no such|unknown|invalid|unsupported|not found the|find|access)"
    r" (?:the )?model\b|no models? (?:loaded|found|is loaded)|not a valid model|try pulling it|"
    r"deployment .{0,80}does not exist"
)

_FILTER_CODES = frozenset(
    {
        *("content_filter", "content_policy_violation", "responsibleaipolicyviolation", "content_filtered"),
        *("data_inspection_failed", "datainspectionfailed", "moderation_blocked", "safety", "1301"),
        *("content_management_policy", "prompt_blocked", "sensitive_content"),
    }
)
_FILTERED = re.compile(
    r"content management policy|content policy|inappropriate content|considered high risk|content exists risk|"
    r"(?:input|prompt|request|content|messages?) (?:was|were|is|has been|requires?)(?: \w+)? "
    r"(?:flagged|moderation|blocked by)"
)

_RATE_CODES = frozenset(
    {
        *("rate_limit_exceeded", "rate_limit_error", "rate_limit_reached_error", "tokens", "requests"),
        *("resource_exhausted", "throttling", "throttlingexception", "throttling.ratequota", "too_many_requests"),
        *("toomanyrequestsexception", "toomanyrequests", "ratelimitreached", "429", "1302", "1303", "1002"),
    }
)
_SLOW_DOWN = re.compile(r"rate[ -]?limit|too many requests|requests per (?:minute|second|day)")

_KEY_CODES = frozenset(
    {
        *("invalid_api_key", "authentication_error", "unauthenticated", "permission_error", "permission_denied"),
        *("unauthorized", "forbidden", "invalid_authentication_error", "incorrect_api_key_error", "accessdenied"),
        *("accessdeniedexception", "invalidapikey", "api_key_invalid", "unrecognizedclientexception", "1004"),
    }
)
_KEY = re.compile(
    r"api[ _-]?key(?: is)?(?: not valid| invalid| incorrect| expired| missing)|"
    r"(?:invalid|incorrect|missing|expired|no|valid) api[ _-]?key|authentication (?:failed|fails|error)|not authorized"
)
_TIME_CODES = frozenset({"timeout", "deadline_exceeded", "gateway_timeout", "request_timeout", "timeout_error"})
_BUSY_CODES = frozenset({"overloaded_error", "server_error", "api_error", "internal_error", "service_unavailable"})
_REFUSED_CODES = frozenset({"invalid_request_error", "invalid_argument", "badrequesterror", "validationexception"})
_MISSING_CODES = frozenset({"not_found_error", "not_found", "notfounderror", "resource_not_found_error"})

_BEGUN = 0  # the failure stands in an answer, without a status
_FAULTY = frozenset({_BEGUN, 400, 413, 422})


def from_provider(error: Exception, *, model: str) -> AppError | None:
    """Return the reason for an error of the model's client, or None when the error is none of the provider's.

    The provider's own text may quote the prompt, so it is never part of the reason.
    """
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return AppError("MODEL_TIMEOUT", cause=error)
    if isinstance(error, ContextOverflowError):
        return AppError("PROMPT_TOO_LONG", cause=error)
    if isinstance(error, openai.APIConnectionError):
        return AppError("MODEL_UNREACHABLE" if _never_connected(error) else "MODEL_CONNECTION_LOST", cause=error)
    if isinstance(error, MALFORMED):
        return AppError("MODEL_ANSWER_MALFORMED", cause=error)
    if isinstance(error, openai.APIError):
        # Without a status it stood in an answer that began well.
        return reason_of(report_of(error), model=model, cause=error)
    return None


def report_of(error: openai.APIError) -> Report:
    """Return what the server says of the failure."""
    if isinstance(error, openai.APIStatusError):
        # The client keeps only a part of the body.
        return Report.read(error.response.text or error.body, status=error.status_code, headers=error.response.headers)
    return Report.read(error.body)


def reason_of(report: Report, *, model: str, cause: Exception) -> AppError:
    """Return the reason for what a server says of a failure; what its words name goes before its status."""
    for reason, applies in _RULES:
        if applies(report):
            return _made(reason, report, model=model, cause=cause)
    return AppError("MODEL_UNAVAILABLE", cause=cause)


def _made(reason: str, report: Report, *, model: str, cause: Exception) -> AppError:
    if reason == "MODEL_NOT_FOUND":
        return AppError(reason, metadata={"model": model}, cause=cause)
    seconds = report.wait_seconds
    if reason == "MODEL_RATE_LIMITED" and seconds is not None:
        # Events have no headers, so the wait stands in the metadata too.
        metadata = {"retry_after_seconds": str(math.ceil(seconds))}
        return AppError(reason, metadata=metadata, cause=cause, retry_after_seconds=seconds)
    return AppError(reason, cause=cause)


def _no_quota(report: Report) -> bool:
    if report.status == 402 or report.codes & _QUOTA_CODES:
        return True
    if report.status in (401, 404) or report.status >= 500:
        return False
    # A quota that is there again after a while is a limit of the rate.
    return bool(_NO_BALANCE.search(report.text)) or (
        report.wait_seconds is None and bool(_QUOTA_WORDS.search(report.text))
    )


def _too_long(report: Report) -> bool:
    if report.codes & _TOO_LONG_CODES or report.status == 413:
        return True
    if report.status == 429:
        return bool(_TOO_LARGE_FOR_ONCE.search(report.text))  # it would be so after any wait
    has_status = report.status in _FAULTY or report.status == 500
    return has_status and bool(_TOO_LONG.search(report.text)) and not _NOT_TOO_LONG.search(report.text)


def _no_model(report: Report) -> bool:
    if report.codes & _MODEL_CODES:
        return True
    if report.status == 404:
        # Without an error about a model it is the address that is wrong.
        return "model" in report.text
    is_missing = bool(report.codes & _MISSING_CODES) and "model" in report.text
    return report.status in (*_FAULTY, 403, 500) and (is_missing or bool(_NO_MODEL.search(report.text)))


def _filtered(report: Report) -> bool:
    if report.codes & _FILTER_CODES:
        return True
    return report.status in (*_FAULTY, 403, 451) and bool(_FILTERED.search(report.text))


def _rate_limited(report: Report) -> bool:
    if report.status == 429:
        return True
    if report.codes & _RATE_CODES and (report.status == _BEGUN or report.status > 429):
        return True
    return report.status in (_BEGUN, 503) and bool(_SLOW_DOWN.search(report.text))


def _rejected(report: Report) -> bool:
    if report.status in (401, 403):
        return True
    return report.status in _FAULTY and bool(report.codes & _KEY_CODES or _KEY.search(report.text))


@dataclass(frozen=True, slots=True)
class _Status:
    """Applies to failures of these statuses, or without any status to those of these codes."""

    statuses: Callable[[int], bool]
    codes: frozenset[str] = frozenset()

    def __call__(self, report: Report) -> bool:
        return self.statuses(report.status) if report.status else bool(report.codes & self.codes)


_RULES: tuple[tuple[str, Callable[[Report], bool]], ...] = (
    ("MODEL_ANSWER_MALFORMED", lambda report: bool(report.codes & _UNREADABLE_CODES)),
    ("MODEL_QUOTA_EXHAUSTED", _no_quota),
    ("PROMPT_TOO_LONG", _too_long),
    ("MODEL_NOT_FOUND", _no_model),
    ("CONTENT_FILTERED", _filtered),
    ("MODEL_RATE_LIMITED", _rate_limited),
    ("MODEL_CREDENTIALS_REJECTED", _rejected),
    ("MODEL_UNREACHABLE", _Status(lambda status: status in (404, 405))),
    ("MODEL_TIMEOUT", _Status(lambda status: status in (408, 504, 524), _TIME_CODES)),
    # 498 is one server's own: it has no room at present.
    ("MODEL_UNAVAILABLE", _Status(lambda status: status >= 500 or status == 498, _BUSY_CODES)),
    ("MODEL_REQUEST_REFUSED", _Status(lambda status: 400 <= status < 500, _REFUSED_CODES)),
)
"""Each reason with what it applies to; the first that does is the one."""


def _never_connected(error: openai.APIConnectionError) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in ("ConnectError", "UnsupportedProtocol", "InvalidURL", "ProxyError"):
            return True
        cause = cause.__cause__
    return False
