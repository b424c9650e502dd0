"""What can go wrong in every service, and the mechanism by which each part adds what can go wrong in its own domain.

A reason has a canonical code, an HTTP status, a sentence and a remedy. `docs/errors.md` is all parts' tables printed
(`python -m local.setup.error_page`).
"""

import string
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from grpc import StatusCode

DOMAIN = "concerto"

# google.rpc.Code to HTTP, as in googleapis' code.proto.
HTTP_STATUS: Mapping[StatusCode, int] = {
    StatusCode.OK: 200,
    StatusCode.CANCELLED: 499,
    StatusCode.UNKNOWN: 500,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DATA_LOSS: 500,
}


class Reason(NamedTuple):
    """What one reason means."""

    code: StatusCode
    message: str
    """Sentence for people; names in braces are filled from the error's metadata."""
    remedy: str
    """What the caller does about it."""
    status: int | None = None
    """The HTTP status where HTTP has one that says more than the code's; None for the code's."""

    @property
    def fields(self) -> frozenset[str]:
        """Names of the metadata values that the message mentions."""
        return frozenset(name for _, name, _, _ in string.Formatter().parse(self.message) if name)

    @property
    def http_status(self) -> int:
        """The HTTP status that the gateway answers with."""
        return HTTP_STATUS[self.code] if self.status is None else self.status


_RETRY = "Try again; the call may be repeated with the same request_id."

GENERAL: Mapping[str, Reason] = {
    "MISSING_FIELD": Reason(StatusCode.INVALID_ARGUMENT, "{field} is required.", "Send the field."),
    "INVALID_FIELD": Reason(
        StatusCode.INVALID_ARGUMENT, "{field} is invalid: {problem}.", "Send a value as described."
    ),
    "UNKNOWN_FIELD": Reason(
        StatusCode.INVALID_ARGUMENT,
        "{field} is not a field of this request.",
        "Remove the field or fix its name.",
    ),
    "FIELD_TOO_LARGE": Reason(
        StatusCode.INVALID_ARGUMENT, "{field} is larger than {limit}.", "Send less, or send it in parts."
    ),
    "INVALID_JSON": Reason(
        StatusCode.INVALID_ARGUMENT, "The body is not valid JSON.", "Send one JSON object, encoded as UTF-8."
    ),
    "INVALID_PAGE_TOKEN": Reason(
        StatusCode.INVALID_ARGUMENT,
        "page_token does not belong to this list.",
        "Send the last answer's next_page_token with the other fields unchanged, or begin without one.",
    ),
    "REQUEST_ID_REUSED": Reason(
        StatusCode.ALREADY_EXISTS,
        "request_id {request_id} was used for other content.",
        "Use a new request_id for each new request.",
    ),
    "INVALID_REQUEST": Reason(
        StatusCode.INVALID_ARGUMENT, "The request is invalid.", "See the contract of the operation."
    ),
    "TOKEN_MISSING": Reason(
        StatusCode.UNAUTHENTICATED,
        "Nobody is signed in.",
        "Send the header Authorization: Bearer <access token>.",
    ),
    "TOKEN_INVALID": Reason(
        StatusCode.UNAUTHENTICATED, "The access token is not valid.", "Log in again and use the new token."
    ),
    "TOKEN_EXPIRED": Reason(
        StatusCode.UNAUTHENTICATED,
        "The access token has expired.",
        "Refresh the session and use the new token.",
    ),
    "SIGN_IN_ENDED": Reason(StatusCode.UNAUTHENTICATED, "Your sign-in has ended.", "Sign in again."),
    "KEYS_UNAVAILABLE": Reason(
        StatusCode.UNAVAILABLE,
        "Access tokens cannot be checked at the moment.",
        "Try again. Operators: the project's key set cannot be fetched.",
    ),
    "JWT_SECRET_NEEDED": Reason(
        StatusCode.UNAVAILABLE,
        "Nobody can sign in here yet: access tokens are signed with a secret that the server does not have.",
        "Operators: set SUPABASE_JWT_SECRET to the project's JWT secret, or let the project sign with keys.",
    ),
    "PERMISSION_DENIED": Reason(StatusCode.PERMISSION_DENIED, "You may not do this.", "Ask for the permission."),
    "SERVICE_KEY_NEEDED": Reason(
        StatusCode.PERMISSION_DENIED,
        "Only Concerto's own services may call this.",
        "Call the rpc that is meant for clients. Operators: CONCERTO_SERVICE_KEY must be the same for all services.",
    ),
    "DATABASE_UNAVAILABLE": Reason(StatusCode.UNAVAILABLE, "The database cannot be reached.", _RETRY),
    "DATABASE_BUSY": Reason(StatusCode.UNAVAILABLE, "The database took too long.", _RETRY),
    "TOO_MANY_REQUESTS": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "You have too many requests under way.",
        "Wait as long as Retry-After says, then send fewer at once.",
    ),
    "DIRECT_DATABASE_NEEDED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "This needs a direct database connection, which is not configured.",
        "Operators: set SUPABASE_DB_URL for the service.",
    ),
    "SERVICE_UNAVAILABLE": Reason(StatusCode.UNAVAILABLE, "The {service} service cannot be reached.", _RETRY),
    "DEADLINE_EXCEEDED": Reason(StatusCode.DEADLINE_EXCEEDED, "The call took too long.", _RETRY),
    "CANCELLED": Reason(StatusCode.CANCELLED, "The call was cancelled.", "Nothing, if that was meant."),
    "SHUTTING_DOWN": Reason(StatusCode.UNAVAILABLE, "The service is shutting down.", _RETRY),
    "UNIMPLEMENTED": Reason(
        StatusCode.UNIMPLEMENTED,
        "The service does not know this operation.",
        "Update the service or the caller.",
    ),
    "INTERNAL": Reason(
        StatusCode.INTERNAL,
        "Something went wrong on our side.",
        "Report the request id (header X-Request-Id); the cause is in the log.",
    ),
}
"""Reasons of every service."""

_known: dict[str, Reason] = dict(GENERAL)
REASONS: Mapping[str, Reason] = MappingProxyType(_known)
"""The reasons that this process may raise: the general ones, and those of the parts that run in it."""


def register(table: Mapping[str, Reason]) -> None:
    """Let this process raise a part's reasons; called when the part is built, and harmless when repeated.

    A reason that two parts raise stands in the tables of both, word for word. Raises ValueError where two differ.
    """
    for name, reason in table.items():
        if _known.setdefault(name, reason) != reason:
            raise ValueError(f"{name} has another meaning already")
