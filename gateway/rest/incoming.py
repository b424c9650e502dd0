"""Reads a request into the rpc's message: body, query and path, each checked as the contract says."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from google.protobuf.message import Message
from starlette.requests import Request

from gateway.rest.bodies import Bodies
from gateway.rest.contract import AFTER_SEQ, Binding
from servicekit.errors import AppError
from servicekit.messages import converter, json_size, validation

MAX_QUERY_PARAMETERS = 100
MAX_CONTENT_TYPE_CHARACTERS = 256
LAST_EVENT_ID = "Last-Event-ID"


async def read(request: Request, binding: Binding, bodies: Bodies, *, max_body_bytes: int) -> Message:
    """Return the message that the request describes.

    Raises AppError INVALID_JSON, UNKNOWN_FIELD, INVALID_FIELD, MISSING_FIELD or FIELD_TOO_LARGE, and what
    `read_content` raises.
    """
    query = query_parameters(request)
    data = parse_json(await read_content(request, bodies, max_bytes=max_body_bytes)) if binding.body else {}
    message = _read_body(binding, data)
    read_query(message, query, binding)
    for name, text in request.path_params.items():
        converter.set_field_from_text(message, name, text)
    if binding.is_resumable:
        _read_last_event_id(message, header(request, b"last-event-id"))
    validation.check(message)
    return message


def header(request: Request, name: bytes) -> str | None:
    """Return the first header of this name (in lower case), as Starlette would; without an object for all of them."""
    for key, value in request.scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None


def query_parameters(request: Request) -> list[tuple[str, str]]:
    """Return the query's names and values. Raises AppError INVALID_FIELD when it is no percent-encoded UTF-8."""
    query: bytes = request.scope["query_string"]
    if not query:
        return []
    try:
        text = query.decode("ascii")
        if "%" not in text and "+" not in text and text.count("&") < MAX_QUERY_PARAMETERS:
            # Nothing is encoded.
            return [(name, value) for name, _, value in (part.partition("=") for part in text.split("&") if part)]
        return parse_qsl(
            text,
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_QUERY_PARAMETERS,
        )
    except UnicodeDecodeError:
        problem = "must be percent-encoded UTF-8"
    except ValueError:
        problem = f"must have at most {MAX_QUERY_PARAMETERS} parameters"
    raise AppError("INVALID_FIELD", metadata={"field": "The query string", "problem": problem})


def read_query(message: Message, query: list[tuple[str, str]], binding: Binding) -> None:
    """Set the message's fields from query parameters. Raises AppError UNKNOWN_FIELD or INVALID_FIELD."""
    fields = binding.query_fields
    seen: set[str] = set()
    for name, text in query:
        field = fields.get(name)
        if field is None:
            raise AppError("UNKNOWN_FIELD", metadata={"field": name[:64]})
        if name in seen and not field.is_repeated:
            raise AppError("INVALID_FIELD", metadata={"field": name, "problem": "must be given once"})
        seen.add(name)
        converter.set_field_from_text(message, name, text)


def _read_last_event_id(message: Message, text: str | None) -> None:
    """Let the header that browsers send when they reconnect win over the query, which still holds the first place."""
    if text is None:
        return
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) >= 2**63:
        raise AppError("INVALID_FIELD", metadata={"field": LAST_EVENT_ID, "problem": "must be the id of an event"})
    setattr(message, AFTER_SEQ, int(text))


def _read_body(binding: Binding, data: Any) -> Message:
    if not isinstance(data, Mapping):
        raise AppError("INVALID_FIELD", metadata={"field": "The body", "problem": "must be an object"})
    for name in binding.path_fields:
        # A field has one place; in the path it would silently win over the body.
        if name in data:
            raise AppError("UNKNOWN_FIELD", metadata={"field": name})
    message = converter.from_json(binding.body_type, data)
    if binding.body in ("", "*"):
        return message
    # By itself, so that an error names the field as the body has it.
    validation.check(message)
    return binding.request_type(**{binding.body: message})


async def read_content(request: Request, bodies: Bodies, *, max_bytes: int) -> bytes:
    """Return the request's body, which says that it is JSON; empty when there is none.

    Raises AppError UNSUPPORTED_MEDIA_TYPE, UNSUPPORTED_ENCODING, and what `Bodies.read` raises.
    """
    content_type = header(request, b"content-type")
    if content_type is not None and content_type != "application/json" and not _is_json(content_type):
        raise AppError("UNSUPPORTED_MEDIA_TYPE")
    if (header(request, b"content-encoding") or "identity").strip().lower() != "identity":
        raise AppError("UNSUPPORTED_ENCODING")
    content = await bodies.read(request, max_bytes=max_bytes)
    if content and content_type is None:
        raise AppError("UNSUPPORTED_MEDIA_TYPE")
    return content


def parse_json(content: bytes) -> Any:
    """Return what a body says; nothing is an empty object. Raises AppError INVALID_JSON, FIELD_TOO_LARGE."""
    if not content:
        return {}
    json_size.refuse_many_values(content)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        raise AppError("INVALID_JSON") from None


def _is_json(content_type: str) -> bool:
    if len(content_type) > MAX_CONTENT_TYPE_CHARACTERS:
        return False
    kind, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [value.strip('"') for name, _, value in (p.partition("=") for p in parameters) if name == "charset"]
    return kind == "application/json" and all(charset in ("utf-8", "utf8") for charset in charsets)
