"""What can go wrong with sessions, their messages and their runs."""

from collections.abc import Mapping

from grpc import StatusCode

from servicekit import reasons
from servicekit.reasons import Reason

REASONS: Mapping[str, Reason] = {
    "ACCOUNT_NOT_FOUND": Reason(
        StatusCode.NOT_FOUND, "The account does not exist any more.", "Log in with another account."
    ),
    "SESSION_NOT_FOUND": Reason(
        StatusCode.NOT_FOUND, "Session {session_id} was not found.", "Check the id; it may have been deleted."
    ),
    "SESSION_NAME_CHANGED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "Session {session_id} has another name by now.",
        "Read the session, then decide anew.",
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
    "TOO_MANY_MESSAGES": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "You have stored {limit} messages in this minute, which is as many as you may.",
        "Wait as long as Retry-After says. Operators: CONCERTO_MESSAGES_PER_MINUTE.",
    ),
    "SEARCH_TOO_BROAD": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The search took too long.",
        "Use rarer words, or search one session.",
    ),
    "LEASE_LOST": Reason(
        StatusCode.ABORTED, "Run {run_id} is no longer this process's.", "Stop working on it; it has been ended."
    ),
    "RUN_INTERRUPTED": Reason(
        StatusCode.UNAVAILABLE,
        "The answer was interrupted; what was said by then is kept.",
        "Send the message again, or let it be answered anew.",
    ),
}


def register() -> None:
    """Let this process raise them."""
    reasons.register(REASONS)
