"""What the OpenAPI document says of the OpenAI-compatible API: as much as this suite promises, no more."""

from collections.abc import Mapping
from typing import Any

from gateway.rest import sse
from gateway.rest.openapi import as_events
from gateway.rest.schemas import Schema, Schemas

_ERRORS: Mapping[int, str] = {
    400: "The request is invalid, or too long for the model's window.",
    401: "The key is not a valid access token.",
    403: "The caller may not do this.",
    404: "There is no such model or session.",
    409: "The session has a run that has not ended.",
    413: "The body is larger than 4 MiB.",
    415: "The body is not application/json.",
    429: "Too many at once or too often; wait as long as Retry-After says.",
    502: "The model provider rejected the server's credentials.",
    503: "The model, or a part of the suite, cannot be reached at the moment.",
    504: "The model did not answer in time.",
}
_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer"}


def chat_completion(schemas: Schemas) -> dict[str, Any]:
    """Return parameters, body and answers of POST /v1/chat/completions; adds the schemas they refer to."""
    whole = schemas.add("ChatCompletion", _completion("chat.completion", "message", "A whole answer."))
    chunk = schemas.add(
        "ChatCompletionChunk", _completion("chat.completion.chunk", "delta", "A piece of an answer that is streamed.")
    )
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": chunk}
    event = schemas.add(
        "ChatCompletionEvent",
        _object({"data": _described(data, "The piece.")}, "A Server-Sent Event of a streamed answer."),
    )
    answer = {
        "description": "The answer; with `stream: true` its pieces as Server-Sent Events, `data: [DONE]` the last. "
        'A stream that breaks ends with `data: {"error": …}` instead.',
        "content": {sse.MEDIA_TYPE: as_events(event), **_json(whole)},
    }
    return {
        "parameters": _parameters(),
        "requestBody": {"required": True, "content": _json(schemas.add("ChatCompletionRequest", _request()))},
        "responses": {"200": answer, **_failures(schemas)},
    }


def text_completion(schemas: Schemas) -> dict[str, Any]:
    """Return the operation POST /v1/completions; adds the schemas it refers to."""
    choice = {
        "type": "object",
        "properties": {"index": _COUNT, "text": _TEXT, "finish_reason": {"type": ["string", "null"]}},
        "required": ["index", "text", "finish_reason"],
        "additionalProperties": True,
    }
    whole = schemas.add("TextCompletion", _whole("text_completion", choice, "An answer, whole or a piece of one."))
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": whole}
    event = schemas.add(
        "TextCompletionEvent",
        _object({"data": _described(data, "The piece.")}, "A Server-Sent Event of a streamed answer."),
    )
    prompt = {"type": ["string", "array"], "items": _TEXT, "minItems": 1, "maxItems": 1}
    passed_on = _request()["properties"]
    fields = {
        "model": passed_on["model"],
        "prompt": _described(prompt, "What the model is asked, as the message of a user."),
        "echo": _described({"type": ["boolean", "null"]}, "True puts the prompt in front of the answer."),
        **{name: passed_on[name] for name in ("stream", "stream_options", "temperature", "max_tokens", "stop", "n")},
    }
    request = _object(fields, "What OpenAI's older API takes; no log probabilities, suffixes and several prompts.")
    request |= {"required": ["model", "prompt"], "additionalProperties": True}
    answer = {
        "description": "The answer; with `stream: true` its pieces as Server-Sent Events, `data: [DONE]` the last.",
        "content": {sse.MEDIA_TYPE: as_events(event), **_json(whole)},
    }
    return {
        "operationId": "CreateTextCompletion",
        "summary": "Answers a text, for tools that know OpenAI's older API only",
        "description": "Carried as a chat completion of one message, with all its bounds.",
        "tags": ["gateway"],
        "parameters": _parameters(),
        "requestBody": {"required": True, "content": _json(schemas.add("TextCompletionRequest", request))},
        "responses": {"200": answer, **_failures(schemas)},
    }


def _parameters() -> list[Schema]:
    uuid = {"type": "string", "format": "uuid"}
    return [
        _header("X-Session-Id", uuid, "The session in which the exchange is kept, as a run with its usage."),
        _header(
            "Idempotency-Key",
            {**_TEXT, "maxLength": 255},
            "Makes a retry safe within a session: a repetition gets the first answer.",
        ),
    ]


def models(schemas: Schemas) -> dict[str, dict[str, Any]]:
    """Return the operations GET /v1/models and GET /v1/models/{model} by path; adds the schemas they refer to."""
    one = schemas.add(
        "OpenAIModel",
        _object(
            {
                "id": _described(_TEXT, "The model's name."),
                "object": _described({"const": "model"}, "What this is."),
                "created": _described(_COUNT, "Always 0: when it was made is not known."),
                "owned_by": _described(_TEXT, "Who serves it."),
            },
            "A model as OpenAI's API shows it.",
        ),
    )
    listed = schemas.add(
        "OpenAIModelList",
        _object(
            {
                "object": _described({"const": "list"}, "What this is."),
                "data": _described({"type": "array", "items": one}, "The models; the default one first."),
            },
            "The models as OpenAI's API lists them.",
        ),
    )
    name = {"name": "model", "in": "path", "required": True, "description": "The model's name.", "schema": _TEXT}
    return {
        "/v1/models": _operation("ListOpenAIModels", "Lists the models in OpenAI's shape.", listed, schemas),
        "/v1/models/{model}": {
            **_operation("GetOpenAIModel", "Returns one model in OpenAI's shape.", one, schemas),
            "parameters": [name],
        },
    }


def _operation(name: str, summary: str, schema: Schema, schemas: Schemas) -> dict[str, Any]:
    responses = {"200": {"description": "It.", "content": _json(schema)}, **_failures(schemas)}
    return {"operationId": name, "summary": summary, "tags": ["gateway"], "responses": responses}


def _request() -> Schema:
    message = {"type": "object", "properties": {"role": _TEXT}, "required": ["role"], "additionalProperties": True}
    options: Schema = _object(
        {"include_usage": _described({"type": "boolean"}, "True adds a last chunk that counts the tokens.")}, ""
    )
    fields = {
        "model": _described({**_TEXT, "minLength": 1}, "The model that answers."),
        "messages": _described(
            {"type": "array", "items": message, "minItems": 1}, "The conversation; the client keeps it."
        ),
        "stream": _described({"type": ["boolean", "null"]}, "True asks for pieces as the model says them."),
        "stream_options": {**options, "type": ["object", "null"], "description": "What a stream holds."},
        "temperature": _described({"type": ["number", "null"]}, "How freely the model chooses its words."),
        "max_tokens": _described(
            {"type": ["integer", "null"]}, "Most tokens of the answer, within the server's limit."
        ),
        "max_completion_tokens": _described(
            {"type": ["integer", "null"]}, "Most tokens of the answer, within the server's limit, which is the default."
        ),
        "stop": _described({"type": ["string", "array", "null"], "items": _TEXT}, "Where the answer ends."),
        "n": _described({"enum": [1, None]}, "One answer per request is all there is."),
        "tools": _described(
            {"type": ["array", "null"], "items": {"type": "object"}}, "Tools of the client's own; not the provider's."
        ),
    }
    schema = _object(
        fields,
        "What OpenAI's API takes, passed on to the model unchanged; what would cost more than tokens is refused.",
    )
    return {**schema, "required": ["model", "messages"], "additionalProperties": True}


def _completion(kind: str, part: str, description: str) -> Schema:
    choice = {
        "type": "object",
        "properties": {"index": _COUNT, part: {"type": "object"}, "finish_reason": {"type": ["string", "null"]}},
        "additionalProperties": True,
    }
    return _whole(kind, choice, description)


def _whole(kind: str, choice: Schema, description: str) -> Schema:
    fields = {
        "id": _described(_TEXT, "Identifies the answer."),
        "object": _described({"const": kind}, "What this is."),
        "created": _described(_COUNT, "When it was made, in seconds since 1970."),
        "model": _described(_TEXT, "The model that answers."),
        "choices": _described({"type": "array", "items": choice}, "The answer; one entry, or none beside the usage."),
        "usage": _described({"type": ["object", "null"]}, "How many tokens were used."),
    }
    schema = _object(fields, f"{description} What a provider adds is passed on.")
    return {**schema, "required": ["choices"], "additionalProperties": True}


def _failures(schemas: Schemas) -> dict[str, Schema]:
    error = _object(
        {
            "message": _described(_TEXT, "One sentence for people."),
            "type": _described(_TEXT, "What kind of error it is."),
            "param": _described({"type": ["string", "null"]}, "The part of the request that it is about."),
            "code": _described(_TEXT, "OpenAI's code, or a reason of docs/errors.md in lower case."),
        },
        "",
    )
    body = schemas.add(
        "OpenAIErrorBody", _object({"error": {**error, "description": "The error."}}, "An error in OpenAI's shape.")
    )
    headers = {"Retry-After": {"description": "Seconds to wait.", "schema": _COUNT}}
    answers = {
        str(status): {"description": text, "headers": headers, "content": _json(body)}
        for status, text in _ERRORS.items()
    }
    return {**answers, "default": {"description": "Something went wrong on our side.", "content": _json(body)}}


def _object(properties: Mapping[str, Schema], description: str) -> Schema:
    schema: Schema = {"type": "object", "properties": dict(properties), "required": list(properties)}
    return _described(schema, description) if description else schema


def _described(schema: Schema, description: str) -> Schema:
    return {**schema, "description": description}


def _header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}
