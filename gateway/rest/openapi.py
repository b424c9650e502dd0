"""The OpenAPI document: every route of the contract with its parameters, bodies, answers and errors."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from concerto.errors.v1 import errors_pb2
from google.protobuf.descriptor import Descriptor

from gateway.rest import contract, incoming, sse, tickets
from gateway.rest.contract import SERVICES, Binding
from gateway.rest.folding import PAYLOAD, EntryList, folding_of
from gateway.rest.schemas import Schema, Schemas
from servicekit.messages import validation

_ERRORS: Mapping[int, tuple[str, str]] = {
    400: ("InvalidRequest", "The request is invalid, or what it asks is not possible now."),
    401: ("Unauthenticated", "Nobody is signed in, or a credential is not valid."),
    403: ("PermissionDenied", "The caller may not do this."),
    404: ("NotFound", "It does not exist, or belongs to somebody else."),
    409: ("Conflict", "It exists already, was changed meanwhile, or is busy with something else."),
    413: ("BodyTooLarge", "The body is larger than the gateway takes in."),
    415: ("UnsupportedMediaType", "The body is not application/json."),
    429: ("TooManyRequests", "Too many at once or too often; wait as long as Retry-After says."),
    500: ("Internal", "Something went wrong on our side."),
    503: ("Unavailable", "A part of the suite cannot be reached at the moment; try again."),
    504: ("DeadlineExceeded", "The call took too long."),
}
_BEARER: list[dict[str, list[str]]] = [{"bearer": []}]
_TICKET: list[dict[str, list[str]]] = [{"ticket": []}]


def document(
    bindings: Iterable[Binding],
    comments: Mapping[str, str],
    *,
    version: str,
    about: str,
    by_hand: "Mapping[str, ByHand]",
    further: "Iterable[Further]" = (),
) -> dict[str, Any]:
    """Return the document.

    comments: descriptions by full name. version, about: the application's.
    by_hand: what the document says of routes that are served by hand, by operation.
    further: add routes that no rpc has.
    """
    writer = Writer(comments)
    every = list(bindings)
    for binding in every:
        if not binding.policy.handwritten_reason:
            writer.success(binding)  # answers first: they keep the plain names
    for binding in every:
        writer.add(binding, by_hand)
    writer.add_health()
    for add in further:
        add(writer)
    tags = [{"name": contract.short_name(s), "description": comments.get(s.full_name, "")} for s in SERVICES]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Concerto",
            "version": version,
            "description": f"{about} Every error has the shape of `ErrorBody`; its "
            "reasons are listed in docs/errors.md. Every answer carries X-Request-Id.",
        },
        "servers": [{"url": "/", "description": "Where this document is."}],
        "tags": [*tags, {"name": "gateway", "description": "The gateway itself."}],
        "paths": writer.paths,
        "components": {
            "schemas": dict(sorted(writer.schemas.components.items())),
            "responses": {name: writer.error(text) for name, text in _ERRORS.values()},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "ticket": {
                    "type": "apiKey",
                    "in": "query",
                    "name": tickets.PARAMETER,
                    "description": "A ticket for this stream, for browsers' EventSource, which sends no header.",
                },
            },
        },
    }


class Writer:
    """Writes routes into `paths` and the schemas that they refer to into `schemas`."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self.schemas = Schemas(comments)
        self.paths: dict[str, dict[str, Any]] = {}
        error = self.schemas.output(errors_pb2.Error.DESCRIPTOR)
        self._error_body = self.schemas.add(
            "ErrorBody",
            {
                "type": "object",
                "properties": {"error": error},
                "required": ["error"],
                "description": "Body of every answer with a status of 400 or more.",
            },
        )

    def error(self, description: str) -> Schema:
        """Return the answer of a failed request."""
        headers = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
        return {"description": description, "headers": headers, "content": as_json(self._error_body)}

    def add(self, binding: Binding, by_hand: "Mapping[str, ByHand]") -> None:
        """Add a route. by_hand: as `document` takes it."""
        operation = self._operation(binding)
        if binding.policy.handwritten_reason:
            operation |= by_hand[binding.operation_id](self, binding)
        else:
            operation |= {"parameters": self._parameters(binding)}
            if binding.body:
                operation["requestBody"] = self._body(binding)
            answers = {str(binding.success_status): self.success(binding)}
            if binding.is_resumable:
                answers["204"] = {
                    "description": "The stream has ended, and nothing follows the place that was asked for."
                }
            operation["responses"] = {**answers, **self.failures(binding)}
        if not operation["parameters"]:
            del operation["parameters"]
        self.paths.setdefault(binding.path, {})[binding.verb.lower()] = operation

    def add_health(self) -> None:
        """Add the gateway's own health."""
        text = {"type": "string"}
        state = {"type": "object", "properties": {"status": text}, "required": ["status"]}
        services = {"type": "object", "additionalProperties": {"enum": ["serving", "not_serving", "unreachable"]}}
        ready = {
            "type": "object",
            "properties": {
                "status": {"enum": ["serving", "not_serving"]},
                "keys": {"enum": ["serving", "unreachable"]},
                "services": services,
            },
            "required": ["status", "keys", "services"],
        }
        self.add_plain("/healthz", "GetHealth", "Says that the gateway runs.", {"200": ("It runs.", state)})
        self.add_plain(
            "/readyz",
            "GetReadiness",
            "Says whether tokens can be verified, and every service can do its work.",
            {"200": ("All can.", ready), "503": ("At least one cannot.", ready)},
        )

    def add_plain(self, path: str, name: str, summary: str, answers: Mapping[str, tuple[str, Schema]]) -> None:
        """Add a GET that needs no sign-in. answers: description and schema by status."""
        responses = {
            code: {"description": text, "content": as_json(schema)} for code, (text, schema) in answers.items()
        }
        operation = {"operationId": name, "summary": summary, "tags": ["gateway"], "security": []}
        self.paths[path] = {"get": {**operation, "responses": responses}}

    def add_signed_in(self, path: str, operation: Mapping[str, Any], *, verb: str = "get") -> None:
        """Add a GET, or another verb, that needs an access token."""
        self.paths[path] = {verb: {**operation, "security": _BEARER}}

    def _operation(self, binding: Binding) -> dict[str, Any]:
        description = self.schemas.description(binding.method.full_name)
        return {
            "operationId": binding.operation_id,
            "summary": _first_sentence(description) or binding.operation_id,
            "description": description,
            "tags": [binding.service],
            "security": [] if binding.policy.anonymous else [*_BEARER, *(_TICKET if binding.is_resumable else ())],
        }

    def _parameters(self, binding: Binding) -> list[Schema]:
        fields = binding.method.input_type.fields_by_name
        parameters = [(name, "path", fields[name]) for name in binding.path_fields]
        parameters += [(name, "query", field) for name, field in binding.query_fields.items()]
        described = [
            {
                "name": name,
                "in": location,
                "required": location == "path" or ("." not in name and validation.is_required(field)),
                "description": self.schemas.description(field.full_name),
                "schema": self.schemas.parameter(field),
            }
            for name, location, field in parameters
        ]
        return [*described, self._last_event_id(fields[contract.AFTER_SEQ])] if binding.is_resumable else described

    def _last_event_id(self, field: Any) -> Schema:
        return {
            "name": incoming.LAST_EVENT_ID,
            "in": "header",
            "required": False,
            "description": "The id of the last event that was received, as browsers send it when they reconnect: only "
            f"what follows it is sent. Wins over `{field.name}`.",
            "schema": self.schemas.parameter(field),
        }

    def _resolve(self, reference: Schema) -> Schema:
        return self.schemas.components[reference["$ref"].rsplit("/", 1)[1]]

    def _body(self, binding: Binding) -> Schema:
        schema = self.schemas.input(binding.body_message, binding.body_fields)
        return {"required": bool(self._resolve(schema).get("required")), "content": as_json(schema)}

    def success(self, binding: Binding) -> Schema:
        """Return the answer of a request that succeeds."""
        if binding.is_stream:
            return self._stream(binding)
        if binding.success_status == 204:
            return {"description": "Done."}
        schema = self.schemas.output(binding.answer)
        description = self._resolve(schema).get("description", "The answer.")
        return {"description": description, "content": as_json(schema)}

    def _stream(self, binding: Binding) -> Schema:
        payloads = binding.answer.oneofs_by_name[PAYLOAD].fields
        listing = "\n".join(
            f"- `{sse.event_name(field.name)}`: {self.schemas.description(field.full_name)}" for field in payloads
        )
        folded: dict[str, Any] = {
            "type": "object",
            "description": "The whole stream in one answer; null for what did not happen.",
            "properties": self._folded(binding.answer),
        }
        folded["required"] = list(folded["properties"])
        events = as_events(self._events(binding.answer))
        return {
            "description": f"Server-Sent Events, or one JSON answer with `Accept: application/json`.\n\n{listing}",
            "content": {
                sse.MEDIA_TYPE: events,
                **as_json(self.schemas.add(f"{binding.operation_id}Answer", folded)),
            },
        }

    def _events(self, event: Descriptor) -> Schema:
        """Return a reference to the schema of any of a stream's events, each of which has a name of its own."""
        if event.name not in self.schemas.components:
            kinds = [
                self.schemas.add(f"{contract.message_of(field).name}Event", self._event(field))
                for field in event.oneofs_by_name[PAYLOAD].fields
            ]
            self.schemas.add(
                event.name, {"oneOf": kinds, "description": "A Server-Sent Event; `event` says of which kind it is."}
            )
        return {"$ref": f"#/components/schemas/{event.name}"}

    def _event(self, payload: Any) -> Schema:
        data = self.schemas.output(contract.message_of(payload))
        text = {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
        return {
            "type": "object",
            "properties": {
                "id": {"type": "string", "description": "The event's place in its stream, counted from 1."},
                "event": {"const": sse.event_name(payload.name), "description": "The event's kind."},
                "data": {**text, "description": "What happened, as JSON."},
            },
            "required": ["event", "data"],
            "description": self.schemas.description(payload.full_name),
        }

    def _folded(self, event: Descriptor) -> dict[str, Schema]:
        folding = folding_of(event)
        properties: dict[str, Schema] = {}
        for field in event.oneofs_by_name[PAYLOAD].fields:
            if field.name in folding.spread:
                properties |= self._resolve(self.schemas.output(folding.spread[field.name]))["properties"]
            elif field.name in folding.nested:
                properties[field.name] = self.schemas.output(folding.nested[field.name])
        lists = {name: self._entries(entries) for name, entries in folding.lists.items()}
        return {**{name: _or_null(schema) for name, schema in properties.items()}, **lists}

    def _entries(self, entries: EntryList) -> Schema:
        properties: dict[str, Schema] = {}
        for payload in entries.payloads:
            properties |= self._resolve(self.schemas.output(contract.message_of(payload)))["properties"]
        nullable = {name: _or_null(schema) for name, schema in properties.items() if name in entries.nullable}
        entry = {"type": "object", "properties": properties | nullable, "required": list(properties)}
        return {"type": "array", "items": entry, "description": entries.description}

    def failures(self, binding: Binding) -> dict[str, Schema]:
        """Return the answers of failed requests by their status."""
        skipped = {413, 415} if not binding.body else set()
        answers = {
            str(code): {"$ref": f"#/components/responses/{name}"}
            for code, (name, _) in _ERRORS.items()
            if code not in skipped
        }
        return {**answers, "default": {"$ref": "#/components/responses/Internal"}}


def as_json(schema: Schema) -> Schema:
    """Return the content of a JSON body."""
    return {"application/json": {"schema": schema}}


def as_events(event: Schema) -> Schema:
    """Return the content of a body of Server-Sent Events.

    event: an event's schema, in which `data` holds JSON. OpenAPI 3.1 has no word for a stream's items (3.2 has
    `itemSchema`), so the body is described as JSON Schema describes any text: by what it holds once it is decoded.
    """
    events = {"type": "array", "items": event}
    return {"schema": {"type": "string", "contentMediaType": sse.MEDIA_TYPE, "contentSchema": events}}


def _or_null(schema: Schema) -> Schema:
    if "anyOf" in schema:
        return schema
    bare = {key: value for key, value in schema.items() if key != "description"}
    wrapped = {"anyOf": [bare, {"type": "null"}]}
    return {**wrapped, "description": schema["description"]} if "description" in schema else wrapped


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", text, maxsplit=1)[0].removesuffix(".")


ByHand = Callable[[Writer, Binding], dict[str, Any]]
"""Returns parameters, body and answers of a route that is served by hand."""
Further = Callable[[Writer], None]
"""Adds routes that no rpc has."""
