"""Errors as OpenAI's clients know them: every failure of /v1 in OpenAI's shape, with the status OpenAI would give."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response

from gateway import failures
from servicekit.errors import AppError

_PREFIX = "/v1"
_INVALID = "invalid_request_error"
RETRY_HEADER = "X-Should-Retry"
"""`false` tells OpenAI's clients that another try is of no use."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """What OpenAI's API says where ours has a reason of its own."""

    code: str
    kind: str = _INVALID
    param: str | None = None
    status: int | None = None
    """Only where OpenAI's differs; None keeps the reason's own status."""
    message: str | None = None
    """None keeps the reason's own sentence."""
    is_final: bool = False
    """True when another try is of no use, though the status would make a client try again."""


_SHAPES: Mapping[str, _Shape] = {
    "MODEL_NOT_FOUND": _Shape("model_not_found", param="model", status=404),
    "PROMPT_TOO_LONG": _Shape(
        "context_length_exceeded",
        param="messages",
        # LangChain's ChatOpenAI knows this error by its words only.
        message="The prompt is too long for the model's window.",
    ),
    "CONTENT_FILTERED": _Shape("content_filter"),
    "MODEL_RATE_LIMITED": _Shape("rate_limit_exceeded", kind="requests"),
    "SIGN_IN_ENDED": _Shape("sign_in_ended"),
    "TOO_MANY_RUNS": _Shape("rate_limit_exceeded", kind="requests"),
    "MODEL_QUOTA_EXHAUSTED": _Shape("insufficient_quota", kind="insufficient_quota", is_final=True),
    # It is the operator's key that is bad, not the client's: neither 400 nor 401 would say so.
    "MODEL_CREDENTIALS_REJECTED": _Shape("model_credentials_rejected", kind="server_error", status=502, is_final=True),
    "SESSION_NOT_FOUND": _Shape("session_not_found", param="X-Session-Id"),
    "RUN_IN_PROGRESS": _Shape("run_in_progress", param="X-Session-Id"),
    "REQUEST_ID_REUSED": _Shape(
        "request_id_reused",
        param="Idempotency-Key",
        message="This Idempotency-Key was used for other content.",
        is_final=True,
    ),
}


def speaks_at(path: str) -> bool:
    """Say whether requests to this path get OpenAI's error shape."""
    return path == _PREFIX or path.startswith(f"{_PREFIX}/")


def body(error: AppError) -> dict[str, Any]:
    """Return `{"error": {message, type, param, code}}`; without a code of OpenAI's, it is our reason in lower case."""
    shape = _shape_of(error)
    param = shape.param or error.metadata.get("param") or _field_of(error)
    return {
        "error": {"message": shape.message or error.message, "type": shape.kind, "param": param, "code": shape.code}
    }


def response(error: AppError, *, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer of a failed request."""
    shape = _shape_of(error)
    status = shape.status or error.http_status
    # Asked for the headers only: they are those of every other error.
    plain = failures.response_of(
        {"error": {"code": status}}, retry_after_seconds=error.retry_after_seconds, headers=headers
    )
    answer = Response(orjson.dumps(body(error)), status_code=status, media_type="application/json")
    for name, value in plain.headers.items():
        if name not in ("content-length", "content-type"):
            answer.headers[name] = value
    if shape.is_final:
        answer.headers[RETRY_HEADER] = "false"
    return answer


def _shape_of(error: AppError) -> _Shape:
    known = _SHAPES.get(error.reason)
    if known is not None:
        return known
    status = error.http_status
    if status == 401:
        return _Shape("invalid_api_key")
    return _Shape(error.reason.lower(), kind=_INVALID if status < 500 else "server_error")


def _field_of(error: AppError) -> str | None:
    field = error.metadata.get("field")
    return field if field and " " not in field else None
