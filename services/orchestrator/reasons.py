"""What can go wrong while a model answers."""

from collections.abc import Mapping

from grpc import StatusCode

from servicekit import reasons
from servicekit.reasons import Reason

REASONS: Mapping[str, Reason] = {
    "AGENT_NOT_FOUND": Reason(
        StatusCode.INVALID_ARGUMENT, "There is no agent named {agent}.", "Choose one of GET /agents."
    ),
    "TOO_MANY_RUNS": Reason(
        StatusCode.RESOURCE_EXHAUSTED,
        "Too many runs are under way ({scope}).",
        "Wait as long as Retry-After says, or let a run end first.",
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
    "MODEL_CREDENTIALS_REJECTED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The model provider rejected the server's credentials.",
        "Operators: check OPENAI_API_KEY and OPENAI_BASE_URL.",
    ),
    "MODEL_NOT_FOUND": Reason(
        StatusCode.INVALID_ARGUMENT,
        "There is no model named {model} here.",
        "Choose one of GET /models. Operators: CONCERTO_MODELS names what is offered, and the provider must have it.",
    ),
    "PARAMETER_NOT_ALLOWED": Reason(
        StatusCode.INVALID_ARGUMENT,
        "The parameter {param} is not allowed here.",
        "Leave it out. Operators: CONCERTO_OPENAI_PARAMETERS lets further ones through.",
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
    "MODEL_ANSWER_TOO_LARGE": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The model's answer is larger than {limit}, which is the most that comes in one piece.",
        "Ask for a stream, or for less, as without logprobs.",
    ),
    "MODEL_ANSWER_CUT": Reason(
        StatusCode.UNAVAILABLE,
        "The model ended its answer before it was whole ({finish_reason}).",
        "Send the message again; what was said by then is kept.",
    ),
    "MODEL_ANSWER_EMPTY": Reason(
        StatusCode.UNAVAILABLE,
        "The model ended its answer without saying anything.",
        "Send the message again. A model that thinks for long may need a higher limit of tokens.",
    ),
    "MODEL_REQUEST_REFUSED": Reason(
        StatusCode.FAILED_PRECONDITION,
        "The model provider refused the request.",
        "Shorten or change the message. Operators: see the orchestrator's log; some providers need "
        "CONCERTO_MODEL_LIMIT_PARAMETER=max_tokens.",
    ),
    "PROMPT_TOO_LONG": Reason(
        StatusCode.INVALID_ARGUMENT, "The message does not fit the model's window.", "Shorten the message."
    ),
    "CONTENT_FILTERED": Reason(
        StatusCode.FAILED_PRECONDITION, "The model provider's content filter stopped the answer.", "Rephrase."
    ),
}


def register() -> None:
    """Let this process raise them."""
    reasons.register(REASONS)
