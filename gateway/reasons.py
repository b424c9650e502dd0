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
    "BODY_TOO_SLOW": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The body did not arrive in time.",
        "Send the request again, over a faster connection or in parts.",
        status=408,
    ),
    "UNSUPPORTED_ENCODING": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The body is compressed or otherwise encoded.",
        "Send it as it is, without the header Content-Encoding.",
        status=415,
    ),
    "TOO_MANY_LARGE_BODIES": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "You are sending too many large requests at once.",
        "Wait for the answers to the others, or send less at once.",
    ),
    "GATEWAY_FULL": Reason(
        StatusCode.UNAVAILABLE,
        "The gateway is serving as much as it can at the moment.",
        "Try again a little later. Operators: see GATEWAY_MAX_CONNECTIONS and GATEWAY_MAX_BUFFERED_BYTES.",
    ),
    "MALFORMED_REQUEST": Reason(
        StatusCode.INVALID_ARGUMENT, "This is no HTTP/1.1 request.", "Send one as RFC 9112 describes it."
    ),
    "UPGRADE_NOT_SUPPORTED": Reason(
        StatusCode.INVALID_ARGUMENT,
        "A request with a body cannot ask for another protocol.",
        "Leave the header Upgrade out; some clients must be told to speak HTTP/1.1.",
    ),
    "HEAD_TOO_LARGE": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The request line and the headers are larger than 64 KiB, or more than 500.",
        "Send fewer and shorter ones.",
        status=431,
    ),
    "HEAD_TOO_SLOW": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The request line and the headers did not arrive in time.",
        "Send the request again.",
        status=408,
    ),
    "TOO_MANY_CONNECTIONS": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "There are too many connections from your address.",
        "Close some. Operators: see GATEWAY_MAX_CONNECTIONS_PER_ADDRESS.",
    ),
    "ROUTE_NOT_FOUND": Reason(StatusCode.NOT_FOUND, "There is nothing at {path}.", "See /docs for the routes."),
    "METHOD_NOT_ALLOWED": Reason(
        StatusCode.UNIMPLEMENTED,
        "{path} does not answer {method}.",
        "See /docs for the routes.",
        status=405,
    ),
    "TICKET_INVALID": Reason(
        StatusCode.UNAUTHENTICATED,
        "The ticket has expired, is for another stream, or is none.",
        "Ask for a new one with POST /runs/<run_id>/ticket.",
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
        StatusCode.INVALID_ARGUMENT,
        "There is no model named {model} here.",
        "Choose one of GET /models. Operators: CONCERTO_MODELS names what is offered, and the provider must have it.",
    ),
}


def register() -> None:
    """Let this process raise them."""
    reasons.register(REASONS)
