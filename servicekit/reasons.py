"""The one table of everything that can go wrong: reason, canonical code, sentence, remedy.

`docs/errors.md` is this table printed (`python -m servicekit.reasons`).
"""

import string
import sys
from collections.abc import Mapping
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

    @property
    def fields(self) -> frozenset[str]:
        """Names of the metadata values that the message mentions."""
        return frozenset(name for _, name, _, _ in string.Formatter().parse(self.message) if name)


_RETRY = "Try again; the call may be repeated with the same request_id."

REASONS: Mapping[str, Reason] = {
    # Requests
    "MISSING_FIELD": Reason(StatusCode.INVALID_ARGUMENT, "{field} is required.", "Send the field."),
    "INVALID_FIELD": Reason(
        StatusCode.INVALID_ARGUMENT, "{field} is invalid: {problem}.", "Send a value as described."
    ),
    "UNKNOWN_FIELD": Reason(
        StatusCode.INVALID_ARGUMENT,
        "{field} is not a field of this request.",
        "Remove the field or mend its name.",
    ),
    "FIELD_TOO_LARGE": Reason(
        StatusCode.INVALID_ARGUMENT, "{field} is larger than {limit}.", "Send less, or send it in parts."
    ),
    "INVALID_JSON": Reason(
        StatusCode.INVALID_ARGUMENT, "The body is not valid JSON.", "Send one JSON object, encoded as UTF-8."
    ),
    "UNSUPPORTED_MEDIA_TYPE": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The body must be application/json.",
        "Send the header Content-Type: application/json.",
    ),
    "BODY_TOO_LARGE": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The body is larger than {limit} bytes.",
        "Send less, or send it in parts.",
    ),
    "INVALID_PAGE_TOKEN": Reason(
        StatusCode.INVALID_ARGUMENT,
        "page_token does not belong to this list.",
        "Send the last answer's next_page_token with the other fields unchanged, or begin without one.",
    ),
    "ROUTE_NOT_FOUND": Reason(StatusCode.NOT_FOUND, "There is nothing at {path}.", "See /docs for the routes."),
    "METHOD_NOT_ALLOWED": Reason(
        StatusCode.UNIMPLEMENTED, "{path} does not answer {method}.", "See /docs for the routes."
    ),
    "INVALID_REQUEST": Reason(
        StatusCode.INVALID_ARGUMENT, "The request is invalid.", "See the contract of the operation."
    ),
    # Identity
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
    "KEYS_UNAVAILABLE": Reason(
        StatusCode.UNAVAILABLE,
        "Access tokens cannot be checked at the moment.",
        "Try again. Operators: the project's key set cannot be fetched.",
    ),
    "PERMISSION_DENIED": Reason(StatusCode.PERMISSION_DENIED, "You may not do this.", "Ask for the permission."),
    # Sign-in
    "INVALID_CREDENTIALS": Reason(
        StatusCode.UNAUTHENTICATED, "E-mail or password is wrong.", "Check both, or reset the password."
    ),
    "EMAIL_NOT_CONFIRMED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The e-mail address is not confirmed yet.",
        "Follow the link in the confirmation mail.",
    ),
    "EMAIL_TAKEN": Reason(
        StatusCode.ALREADY_EXISTS,
        "An account with this e-mail address exists.",
        "Log in, or reset the password.",
    ),
    "EMAIL_REJECTED": Reason(
        StatusCode.INVALID_ARGUMENT, "This e-mail address cannot be used.", "Use another address."
    ),
    "WEAK_PASSWORD": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The password is too weak: {problem}.",
        "Choose a longer or less common one.",
    ),
    "SAME_PASSWORD": Reason(
        StatusCode.INVALID_ARGUMENT, "The new password is the old one.", "Choose another password."
    ),
    "REAUTHENTICATION_NEEDED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The sign-in is too old for this change.",
        "Log in again, then repeat it.",
    ),
    "REFRESH_TOKEN_INVALID": Reason(
        StatusCode.UNAUTHENTICATED, "The refresh token is not valid or has expired.", "Log in again."
    ),
    "REFRESH_TOKEN_REUSED": Reason(
        StatusCode.UNAUTHENTICATED,
        "The refresh token has been used before; the sign-in was ended for safety.",
        "Log in again, and refresh in one place only.",
    ),
    "SIGN_IN_ENDED": Reason(StatusCode.UNAUTHENTICATED, "This sign-in has been ended.", "Log in again."),
    "SIGNUP_DISABLED": Reason(
        StatusCode.FAILED_PRECONDITION, "New accounts are not accepted.", "Ask the operator for an account."
    ),
    "USER_BANNED": Reason(StatusCode.PERMISSION_DENIED, "This account is blocked.", "Ask the operator."),
    "PROVIDER_DISABLED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "Sign-in with {provider} is not switched on.",
        "Use another way to sign in. Operators: enable the provider.",
    ),
    "SOCIAL_LOGIN_FAILED": Reason(
        StatusCode.UNAUTHENTICATED,
        "The sign-in with the provider was not completed.",
        "Begin again at /auth/social, in the same browser and within 10 minutes.",
    ),
    "REDIRECT_NOT_ALLOWED": Reason(
        StatusCode.INVALID_ARGUMENT, "{field} leads outside this application.", "Use an allowed address."
    ),
    "TOO_MANY_ATTEMPTS": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "Too many attempts. Try again in {retry_after_seconds} s.",
        "Wait as long as the header Retry-After says.",
    ),
    "AUTH_RATE_LIMITED": Reason(
        StatusCode.RESOURCE_EXHAUSTED, "The auth server asks to slow down.", "Wait a minute, then try again."
    ),
    "AUTH_SERVER_UNAVAILABLE": Reason(
        StatusCode.UNAVAILABLE, "The auth server cannot be reached.", "Try again in a moment."
    ),
    "AUTH_SERVER_REFUSED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The auth server refused the request ({auth_code}).",
        "Operators: look the code up in the documentation of Supabase Auth.",
    ),
    # Accounts
    "ACCOUNT_NOT_FOUND": Reason(
        StatusCode.NOT_FOUND, "The account does not exist any more.", "Log in with another account."
    ),
    "USERNAME_TAKEN": Reason(
        StatusCode.ALREADY_EXISTS, "The username {username} is taken.", "Choose another username."
    ),
    "INVALID_USERNAME": Reason(
        StatusCode.INVALID_ARGUMENT,
        "profile.username is invalid: 3 to 32 of a-z, 0-9, dot, dash and underscore.",
        "Choose another username.",
    ),
    # Chat sessions
    "SESSION_NOT_FOUND": Reason(
        StatusCode.NOT_FOUND, "Session {session_id} was not found.", "Check the id; it may have been deleted."
    ),
    "SESSION_NAME_CHANGED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "Session {session_id} has another name by now.",
        "Read the session, then decide anew.",
    ),
    "REQUEST_ID_REUSED": Reason(
        StatusCode.ALREADY_EXISTS,
        "request_id {request_id} was used for other content.",
        "Use a new request_id for each new request.",
    ),
    "MESSAGE_NOT_FOUND": Reason(
        StatusCode.NOT_FOUND,
        "Message {message_id} was not found in session {session_id}.",
        "Check the id; list the session's messages with include_inactive.",
    ),
    "NOT_A_USER_MESSAGE": Reason(
        StatusCode.FAILED_PRECONDITION,
        "Message {message_id} was not said by the user.",
        "Name the user's message: the one that is to be answered again or to be replaced.",
    ),
    # Runs
    "RUN_NOT_FOUND": Reason(StatusCode.NOT_FOUND, "Run {run_id} was not found.", "Check the id."),
    "RUN_IN_PROGRESS": Reason(
        StatusCode.ABORTED,
        "Session {session_id} has a run that has not ended: {run_id}.",
        "Follow or cancel that run, or send if_running: queue or cancel.",
    ),
    "RUN_NOT_NEXT": Reason(
        StatusCode.FAILED_PRECONDITION, "Run {run_id} waits for another run of its session.", "Try again in a moment."
    ),
    "TOO_MANY_RUNS": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "Too many runs are under way ({scope}).",
        "Wait as long as Retry-After says, or let a run end first.",
    ),
    "LEASE_LOST": Reason(
        StatusCode.ABORTED, "Run {run_id} is no longer this process's.", "Stop working on it; it has been ended."
    ),
    "RUN_INTERRUPTED": Reason(
        StatusCode.UNAVAILABLE,
        "The answer was interrupted; what was said by then is kept.",
        "Send the message again, or let it be answered anew.",
    ),
    "RUN_LIMIT_REACHED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The run was ended at its limit: {limit}.",
        "Ask for less at once. Operators: see the limits of runs in .env.example.",
    ),
    "AGENT_NOT_FOUND": Reason(
        StatusCode.INVALID_ARGUMENT, "There is no agent named {agent}.", "Choose one of GET /agents."
    ),
    "DIRECT_DATABASE_NEEDED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "Answers need a direct database connection, which is not configured.",
        "Operators: set SUPABASE_DB_URL for the sessions service.",
    ),
    # Models
    "MODEL_CREDENTIALS_REJECTED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The model provider rejected the server's credentials.",
        "Operators: check OPENAI_API_KEY and OPENAI_BASE_URL.",
    ),
    "MODEL_NOT_FOUND": Reason(
        StatusCode.INVALID_ARGUMENT, "The provider has no model named {model}.", "Choose another model."
    ),
    "MODEL_RATE_LIMITED": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "The model provider asks to slow down.",
        "Wait as long as Retry-After says.",
    ),
    "MODEL_QUOTA_EXHAUSTED": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "The account at the model provider has no quota left.",
        "Operators: top up the account.",
    ),
    "MODEL_TIMEOUT": Reason(
        StatusCode.DEADLINE_EXCEEDED, "The model did not answer in time.", "Send the message again."
    ),
    "MODEL_UNREACHABLE": Reason(
        StatusCode.UNAVAILABLE,
        "The model provider cannot be reached.",
        "Send the message again later. Operators: check OPENAI_BASE_URL and the way to it.",
    ),
    "MODEL_CONNECTION_LOST": Reason(
        StatusCode.UNAVAILABLE, "The connection to the model broke.", "Send the message again."
    ),
    "MODEL_UNAVAILABLE": Reason(
        StatusCode.UNAVAILABLE, "The model provider has an error of its own.", "Send the message again later."
    ),
    "MODEL_ANSWER_MALFORMED": Reason(
        StatusCode.UNAVAILABLE, "The model provider sent something unreadable.", "Send the message again."
    ),
    "MODEL_REQUEST_REFUSED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The model provider refused the request.",
        "Shorten or change the message. Operators: see the orchestrator's log.",
    ),
    "PROMPT_TOO_LONG": Reason(
        StatusCode.INVALID_ARGUMENT, "The message does not fit the model's window.", "Shorten the message."
    ),
    "CONTENT_FILTERED": Reason(
        StatusCode.FAILED_PRECONDITION, "The model provider's content filter stopped the answer.", "Rephrase."
    ),
    # Infrastructure
    "DATABASE_UNAVAILABLE": Reason(StatusCode.UNAVAILABLE, "The database cannot be reached.", _RETRY),
    "DATABASE_BUSY": Reason(StatusCode.UNAVAILABLE, "The database took too long.", _RETRY),
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


def document() -> str:
    """Return `docs/errors.md`: the table for readers, one row per reason."""
    rows = [
        f"| `{name}` | {reason.code.name} | {HTTP_STATUS[reason.code]} "
        f"| {_escape(reason.message)} | {_escape(reason.remedy)} |"
        for name, reason in REASONS.items()
    ]
    return "\n".join(
        [
            "# Errors",
            "",
            "<!-- Printed by `python -m servicekit.reasons`; change servicekit/reasons.py instead. -->",
            "",
            "Every error has one reason. gRPC clients find it in `google.rpc.ErrorInfo`, REST clients in the body:",
            "",
            "```json",
            '{"error": {"code": 404, "status": "NOT_FOUND", "message": "Session … was not found.",',
            '           "details": [{"reason": "SESSION_NOT_FOUND", "domain": "concerto",',
            '                        "metadata": {"session_id": "…"}}]}}',
            "```",
            "",
            "Values in braces are also in the error's metadata, so no program needs to read a sentence.",
            "",
            "| Reason | Code | HTTP | Message | What to do |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(document())
