"""What belongs to the request that is being served: its id and its deadline."""

import re
import time
from contextvars import ContextVar
from uuid import uuid4

from structlog.contextvars import STRUCTLOG_KEY_PREFIX

REQUEST_ID_HEADER = "x-request-id"

# By its name structlog adds it to each log entry of the request, like `bind_contextvars`, which costs more per request.
_request_id: ContextVar[str] = ContextVar(f"{STRUCTLOG_KEY_PREFIX}request_id", default="")
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)

# A client's id goes into logs and metadata, so only harmless characters are taken over.
_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def begin(request_id: str | None, timeout_seconds: float | None) -> str:
    """Note the id and the time that the current request has, and return the id.

    request_id: what the client sent; a new UUID takes its place when it is absent or unfit.
    timeout_seconds: time left; None when there is no limit.
    """
    chosen = request_id if request_id and _ACCEPTABLE_ID.fullmatch(request_id) else str(uuid4())
    _request_id.set(chosen)
    _deadline.set(None if timeout_seconds is None else time.monotonic() + timeout_seconds)
    return chosen


def current_id() -> str:
    """Return the current request's id; empty outside of requests."""
    return _request_id.get()


def remaining_seconds(at_most: float) -> float:
    """Return how long a call made for the current request may take: `at_most`, or less when its deadline is near."""
    deadline = _deadline.get()
    return at_most if deadline is None else max(0.0, min(at_most, deadline - time.monotonic()))
