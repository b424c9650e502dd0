"""What a failed call of Supabase Auth means: the one table from its error codes to our reasons."""

import re
from collections.abc import Mapping
from enum import StrEnum

import httpx
from supabase_auth.errors import AuthError, AuthRetryableError, AuthWeakPasswordError

from servicekit.errors import AppError
from servicekit.rpc import request

RETRY_AFTER_SECONDS = 60.0
"""How long a client waits when the auth server asks to slow down and names no time."""


class Call(StrEnum):
    """The calls whose failures can mean different things."""

    SIGN_UP = "sign_up"
    LOG_IN = "log_in"
    REFRESH = "refresh"
    LOG_OUT = "log_out"
    PASSWORD_RESET = "password_reset"  # noqa: S105 (the name of a call)
    PASSWORD_UPDATE = "password_update"  # noqa: S105 (the name of a call)
    CODE_EXCHANGE = "code_exchange"
    VERIFICATION = "verification"
    INSPECTION = "inspection"


REASONS_BY_CODE: Mapping[str, str] = {
    # Credentials
    "invalid_credentials": "INVALID_CREDENTIALS",
    "email_not_confirmed": "EMAIL_NOT_CONFIRMED",
    "provider_email_needs_verification": "EMAIL_NOT_CONFIRMED",
    "user_banned": "USER_BANNED",
    "email_provider_disabled": "PROVIDER_DISABLED",
    # New accounts and passwords
    "user_already_exists": "EMAIL_TAKEN",
    "email_exists": "EMAIL_TAKEN",
    "email_address_invalid": "EMAIL_REJECTED",
    "email_address_not_authorized": "EMAIL_REJECTED",
    "email_address_not_provided": "EMAIL_REJECTED",
    "signup_disabled": "SIGNUP_DISABLED",
    "weak_password": "WEAK_PASSWORD",
    "same_password": "SAME_PASSWORD",
    "reauthentication_needed": "REAUTHENTICATION_NEEDED",
    "reauthentication_not_valid": "REAUTHENTICATION_NEEDED",
    # Links and codes of mails
    "otp_expired": "OTP_INVALID",
    # Tokens
    "refresh_token_not_found": "REFRESH_TOKEN_INVALID",
    "session_expired": "REFRESH_TOKEN_INVALID",
    "refresh_token_already_used": "REFRESH_TOKEN_REUSED",
    "session_not_found": "SIGN_IN_ENDED",
    "user_not_found": "ACCOUNT_NOT_FOUND",
    "bad_jwt": "TOKEN_INVALID",
    "invalid_jwt": "TOKEN_INVALID",
    "no_authorization": "TOKEN_INVALID",
    # Sign-in with a provider
    "flow_state_not_found": "SOCIAL_LOGIN_FAILED",
    "flow_state_expired": "SOCIAL_LOGIN_FAILED",
    "flow_state_already_used": "SOCIAL_LOGIN_FAILED",
    "bad_code_verifier": "SOCIAL_LOGIN_FAILED",
    "bad_oauth_state": "SOCIAL_LOGIN_FAILED",
    "bad_oauth_callback": "SOCIAL_LOGIN_FAILED",
    # The server itself
    "over_request_rate_limit": "AUTH_RATE_LIMITED",
    "over_email_send_rate_limit": "AUTH_RATE_LIMITED",
    "unexpected_failure": "AUTH_SERVER_UNAVAILABLE",
    "request_timeout": "AUTH_SERVER_UNAVAILABLE",
    "hook_timeout": "AUTH_SERVER_UNAVAILABLE",
    "hook_timeout_after_retry": "AUTH_SERVER_UNAVAILABLE",
}
"""Codes that mean the same in every call; any other code is AUTH_SERVER_REFUSED, which names it."""

REASONS_BY_CALL: Mapping[tuple[Call, str], str] = {
    (Call.SIGN_UP, "email_provider_disabled"): "SIGNUP_DISABLED",
    (Call.REFRESH, "validation_failed"): "REFRESH_TOKEN_INVALID",
    (Call.REFRESH, "user_not_found"): "REFRESH_TOKEN_INVALID",
    (Call.VERIFICATION, "validation_failed"): "OTP_INVALID",
    (Call.VERIFICATION, "user_not_found"): "OTP_INVALID",
    (Call.CODE_EXCHANGE, "validation_failed"): "SOCIAL_LOGIN_FAILED",
    (Call.CODE_EXCHANGE, "user_not_found"): "SOCIAL_LOGIN_FAILED",
    (Call.CODE_EXCHANGE, "invalid_credentials"): "SOCIAL_LOGIN_FAILED",
}
"""Codes that mean something else in one call."""

REASONS_OF_DATABASE = frozenset({"SIGN_UP_CLOSED", "SIGN_UP_DOMAIN_REFUSED", "SIGN_UP_NOT_INVITED"})
"""What the database's rule of sign-up raises; the auth server tells it on as the message of its answer."""

_MAIL_CODES = ("over_email_send_rate_limit", "email_address_not_authorized")
# No code tells a mail that failed from other failures (500, unexpected_failure); the sentence has been so for years.
_MAIL_FAILED = re.compile(r"error sending .*mail", re.IGNORECASE)
_CODE = re.compile(r"[a-z0-9_]{1,64}")
_WEAKNESSES: Mapping[str, str] = {
    "length": "it is too short",
    "characters": "it lacks required kinds of characters",
    "pwned": "it is known from leaked passwords",
}


class MailNotSentError(AppError):
    """The auth server sent no mail. It only ever says so for an address that is registered, or just has been."""

    recently: bool = False
    """True when the reason is that the same address got one less than a minute ago."""
    has_failed: bool = False
    """True when the mail server took none: it is away, or refuses."""


class AuthServerError(AppError):
    """The auth server answered with an error of its own (5xx): it can be reached, so another try may go better."""


def translate(error: Exception, call: Call) -> AppError:
    """Return the AppError for whatever a call of the auth server raised.

    It takes codes, statuses and numbers over and no text: texts of exceptions may quote what was sent or answered.
    """
    status = _status(error)
    code = getattr(error, "code", None)
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else None
    text = str(getattr(error, "message", ""))
    cause = f"{type(error).__name__}, status {status}, code {code}, call {call}"
    reason = _reason(error, call, code=code, status=status, text=text)
    if code in _MAIL_CODES:
        refusal = MailNotSentError(reason, cause=cause, retry_after_seconds=_retry_after(reason, text))
        refusal.recently = text.lower().startswith("for security purposes")
        return refusal
    has_failed = status is not None and status >= httpx.codes.INTERNAL_SERVER_ERROR
    if has_failed and _MAIL_FAILED.match(text):
        refusal = MailNotSentError(reason, cause=cause)
        refusal.has_failed = True
        return refusal
    broken = has_failed and reason == "AUTH_SERVER_UNAVAILABLE"
    kind = AuthServerError if broken else AppError
    return kind(
        reason,
        metadata=_metadata(reason, error, code=code, status=status, text=text),
        cause=cause,
        retry_after_seconds=_retry_after(reason, text),
    )


def _reason(error: Exception, call: Call, *, code: str | None, status: int | None, text: str) -> str:
    if status is None:
        # No whole answer: refused, cut or too slow. When the client's own time is over, that is what it learns.
        return "AUTH_SERVER_UNAVAILABLE" if request.remaining_seconds(1.0) > 0 else "DEADLINE_EXCEEDED"
    if isinstance(error, AuthWeakPasswordError):
        return "WEAK_PASSWORD"
    if text in REASONS_OF_DATABASE and status == httpx.codes.FORBIDDEN:
        return text
    if code is not None:
        known = REASONS_BY_CALL.get((call, code)) or REASONS_BY_CODE.get(code)
        if code in ("bad_jwt", "invalid_jwt") and "expired" in text:
            return "TOKEN_EXPIRED"
        if code == "validation_failed" and known is None and "email" in text.lower():
            return "EMAIL_REJECTED"
        if known is not None:
            return known
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return "AUTH_RATE_LIMITED"
    if status >= httpx.codes.INTERNAL_SERVER_ERROR or status < httpx.codes.MULTIPLE_CHOICES:
        return "AUTH_SERVER_UNAVAILABLE"
    return "AUTH_SERVER_REFUSED"


def _metadata(
    reason: str, error: Exception, *, code: str | None, status: int | None, text: str
) -> dict[str, str] | None:
    match reason:
        case "WEAK_PASSWORD":
            return {"problem": _weakness(error, text)}
        case "PROVIDER_DISABLED":
            return {"provider": "email"}
        case "AUTH_SERVER_REFUSED":
            return {"auth_code": code or f"HTTP {status}"}
        case _:
            return None


def _weakness(error: Exception, text: str) -> str:
    reasons = error.reasons if isinstance(error, AuthWeakPasswordError) else []
    problems = [_WEAKNESSES[reason] for reason in reasons if reason in _WEAKNESSES]
    least = re.search(r"at least (\d{1,3}) characters", text)
    if least and "length" in reasons:
        problems[problems.index(_WEAKNESSES["length"])] = f"it has fewer than {least[1]} characters"
    return " and ".join(problems) or "it does not meet the rules"


def _retry_after(reason: str, text: str) -> float | None:
    if reason != "AUTH_RATE_LIMITED":
        return None
    seconds = re.search(r"after (\d{1,4}) second", text)
    return float(seconds[1]) if seconds else RETRY_AFTER_SECONDS


def _status(error: Exception) -> int | None:
    """Return the HTTP status of the answer; None when no whole answer came."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code
    if isinstance(error, AuthRetryableError):
        return error.status or None
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status
    if isinstance(error, AuthError):  # the answer was no JSON, or none that the library knows
        cause = error.__cause__
        return cause.response.status_code if isinstance(cause, httpx.HTTPStatusError) else None
    return int(httpx.codes.OK) if isinstance(error, ValueError) else None
