"""What can go wrong at the gateway itself."""

from collections.abc import Mapping

from grpc import StatusCode

from servicekit import reasons
from servicekit.reasons import Reason

REASONS: Mapping[str, Reason] = {
    "UNSUPPORTED_MEDIA_TYPE": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The body must be application/json.",
        "Send the header Content-Type: application/json.",
        status=415,
    ),
    "BODY_TOO_LARGE": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The body is larger than {limit} bytes.",
        "Send less, or send it in parts.",
        status=413,
    ),
    "ROUTE_NOT_FOUND": Reason(StatusCode.NOT_FOUND, "There is nothing at {path}.", "See /docs for the routes."),
    "METHOD_NOT_ALLOWED": Reason(
        StatusCode.UNIMPLEMENTED,
        "{path} does not answer {method}.",
        "See /docs for the routes.",
        status=405,
    ),
    "TOO_MANY_ATTEMPTS": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "Too many attempts. Try again in {retry_after_seconds} s.",
        "Wait as long as the header Retry-After says.",
    ),
    "REDIRECT_NOT_ALLOWED": Reason(
        StatusCode.INVALID_ARGUMENT, "{field} leads outside this application.", "Use an allowed address."
    ),
    "SOCIAL_LOGIN_FAILED": Reason(
        StatusCode.UNAUTHENTICATED,
        "The sign-in with the provider was not completed.",
        "Begin again at /auth/social, in the same browser and within 10 minutes.",
    ),
    "MODEL_NOT_FOUND": Reason(
        StatusCode.INVALID_ARGUMENT, "The provider has no model named {model}.", "Choose another model."
    ),
}


def register() -> None:
    """Let this process raise them."""
    reasons.register(REASONS)
