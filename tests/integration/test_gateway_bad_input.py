"""Bad input to every route of the running suite, generated from the contract: a new field is tested by existing."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
from concerto.options.v1 import options_pb2
from google.protobuf.descriptor import FieldDescriptor

from gateway.rest import contract
from gateway.rest.contract import Binding
from servicekit.messages import paging, validation
from servicekit.messages.json_fields import enum_spellings
from tests.support.api import Person
from tests.support.expectations import BAD_REQUESTS

LEAVES = {"google.protobuf.Struct": [1], "google.protobuf.Timestamp": "yesterday"}
OVERSIZE_BYTES = 9 * 1024 * 1024


@dataclass(frozen=True)
class Case:
    """A bad request and what must be said of it."""

    name: str
    binding: Binding
    status: int
    reason: str
    about: str | None = None
    path: str | None = None
    query: str = ""
    content: bytes | None = None
    media_type: str = "application/json"
    more_headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": self.media_type, **self.more_headers}

    @property
    def address(self) -> str:
        path = self.path or self.binding.path.format_map({name: uuid4() for name in self.binding.path_fields})
        return path + (f"?{self.query}" if self.query else "")

    def __str__(self) -> str:
        return f"{self.binding.operation_id}: {self.name}"


def sample(one: FieldDescriptor) -> Any:
    """Return a valid JSON value of a field."""
    if one.is_repeated:
        return [valid(one.message_type.fields)] if one.message_type else []
    if one.message_type is not None:
        return {} if one.message_type.full_name in LEAVES else valid(one.message_type.fields)
    if one.enum_type is not None:
        return next(iter(enum_spellings(one.enum_type)))
    if one.type == FieldDescriptor.TYPE_STRING:
        if validation.is_uuid(one):
            return str(uuid4())
        is_email = validation.limits_of(one).format == options_pb2.STRING_FORMAT_EMAIL
        return f"nobody-{uuid4()}@example.com" if is_email else "something"
    return True if one.type == FieldDescriptor.TYPE_BOOL else 1


def valid(fields: Any) -> dict[str, Any]:
    """Return the smallest valid object."""
    return {one.name: sample(one) for one in fields if validation.is_required(one)}


def wrong_type(one: FieldDescriptor) -> Any:
    if one.is_repeated:
        return {}
    if one.message_type is not None:
        return LEAVES.get(one.message_type.full_name, 7)
    if one.type == FieldDescriptor.TYPE_STRING:
        return 7
    return "nonsense"


Bad = tuple[str, Any, str, str]
"""What is bad, the value, the reason and the field's path."""


def bad_values(one: FieldDescriptor) -> Iterator[Bad]:
    limits, name = validation.limits_of(one), one.name
    yield f"{name} of a wrong type", wrong_type(one), "INVALID_FIELD", name
    if one.is_repeated:
        if limits.max_items:
            yield f"{name} too many", sample(one) * (limits.max_items + 1), "FIELD_TOO_LARGE", name
    elif one.type == FieldDescriptor.TYPE_STRING:
        most = limits.max_chars or limits.max_bytes
        if most:
            yield f"{name} too long", "x" * (most + 1), "FIELD_TOO_LARGE", name
        if validation.is_uuid(one) or limits.format:
            yield f"{name} malformed", "42 !", "INVALID_FIELD", name
        yield f"{name} with NUL", "a\0b", "INVALID_FIELD", name
        yield f"{name} with half a character", "\ud800", "INVALID_JSON", ""
    elif one.message_type is not None and limits.max_bytes:
        yield f"{name} too large", {"x": "x" * limits.max_bytes}, "FIELD_TOO_LARGE", name


def bad_objects(fields: Any) -> Iterator[Bad]:
    good = valid(fields)
    yield "unknown field", {**good, "surprise": 1}, "UNKNOWN_FIELD", "surprise"
    for one in fields:
        for label, value, reason, path in bad_values(one):
            yield label, {**good, one.name: value}, reason, path
        if validation.is_required(one):
            without = {name: value for name, value in good.items() if name != one.name}
            yield f"{one.name} missing", without, "MISSING_FIELD", one.name
        if one.message_type is not None and one.message_type.full_name not in LEAVES:
            prefix = f"{one.name}[0]" if one.is_repeated else one.name
            for label, value, reason, path in bad_objects(one.message_type.fields):
                inner = f"{prefix}.{path}" if path else ""
                nested = [value] if one.is_repeated else value
                yield f"{prefix}.{label}", {**good, one.name: nested}, reason, inner


def body_cases(binding: Binding) -> Iterator[Case]:
    fields = binding.body_fields
    good = json.dumps(valid(fields)).encode()
    for label, value, reason, path in bad_objects(fields):
        yield Case(label, binding, 400, reason, path or None, content=json.dumps(value).encode())
    yield Case("no object", binding, 400, "INVALID_FIELD", "The body", content=b"[]")
    for label, content in (("cut JSON", good[:-1]), ("NaN", b'{"a": NaN}'), ("no UTF-8", b'{"\xff": 1}')):
        yield Case(label, binding, 400, "INVALID_JSON", content=content)
    yield Case("deep JSON", binding, 400, "INVALID_JSON", content=b"[" * 10_000)
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml"):
        yield Case(kind, binding, 415, "UNSUPPORTED_MEDIA_TYPE", content=good, media_type=kind)
    yield Case("oversize", binding, 413, "BODY_TOO_LARGE", content=b'"' + b"x" * OVERSIZE_BYTES + b'"')


def bad_texts(one: FieldDescriptor) -> dict[str, str]:
    """Return bad texts of a query parameter and the reasons that they get."""
    most = validation.limits_of(one).max_chars or validation.limits_of(one).max_bytes
    if one.type == FieldDescriptor.TYPE_STRING:
        malformed = {"42": "INVALID_FIELD"} if validation.is_uuid(one) else {}
        return {"%00": "INVALID_FIELD", **malformed} | ({"x" * (most + 1): "FIELD_TOO_LARGE"} if most else {})
    if one.type == FieldDescriptor.TYPE_BOOL:
        return dict.fromkeys(("", "yes", "1", "TRUE"), "INVALID_FIELD")
    if one.type == FieldDescriptor.TYPE_MESSAGE:
        texts = ("", "yesterday", "1", "2026-11-20", "2026-11-20T10:00:00", "2026-13-20T10:00:00Z")
        return dict.fromkeys(texts, "INVALID_FIELD")
    too_large = "99999999999" if one.type == FieldDescriptor.TYPE_INT32 else "9" * 19
    return dict.fromkeys(("", "-1", "many", "1.5", "1e3", too_large, "%D9%A3"), "INVALID_FIELD")


def good_text(one: FieldDescriptor) -> str:
    if one.type == FieldDescriptor.TYPE_MESSAGE:
        return "2026-11-20T10:00:00Z"
    if one.type == FieldDescriptor.TYPE_BOOL:
        return "true"
    return next(iter(enum_spellings(one.enum_type))) if one.enum_type is not None else "1"


def query_cases(binding: Binding) -> Iterator[Case]:
    needed = {name: good_text(one) for name, one in binding.query_fields.items() if validation.is_required(one)}

    def query(name: str, text: str) -> str:
        return "&".join(f"{key}={value}" for key, value in {**needed, name: text}.items())

    yield Case("unknown parameter", binding, 400, "UNKNOWN_FIELD", "surprise", query=query("surprise", "1"))
    yield Case("query of no UTF-8", binding, 400, "INVALID_FIELD", "The query string", query=query("a", "%ff"))
    for name, one in binding.query_fields.items():
        for text, reason in bad_texts(one).items():
            yield Case(f"{name}={text[:12]}", binding, 400, reason, name, query=query(name, text))
        doubled = query(name, f"{good_text(one)}&{name}={good_text(one)}")
        yield Case(f"{name} twice", binding, 400, "INVALID_FIELD", name, query=doubled)
    for name in needed:
        yield Case(f"{name} missing", binding, 400, "MISSING_FIELD", name)
        yield Case(f"{name} blank", binding, 400, "MISSING_FIELD", name, query=f"{name}=%20")
    if "page_token" in binding.query_fields:
        forged = [
            "garbage",
            "e30",
            "W10",
            paging.encode("a"),
            paging.encode("1' or '1'='1", "x"),
            paging.encode(-1, 0, 9),
        ]
        for token in forged:
            yield Case(f"forged {token[:8]}", binding, 400, "INVALID_PAGE_TOKEN", query=query("page_token", token))


def header_cases(binding: Binding) -> Iterator[Case]:
    for text in ("", "last", "-1", "1.5", "1e3", "9" * 19, "9" * 400):
        headers = {"last-event-id": text}
        yield Case(f"Last-Event-ID {text[:12]}", binding, 400, "INVALID_FIELD", "Last-Event-ID", more_headers=headers)


def path_cases(binding: Binding) -> Iterator[Case]:
    fields = binding.method.input_type.fields_by_name
    for name in binding.path_fields:
        if not validation.is_uuid(fields[name]):
            continue
        for text in ("42", "%00", "%ff", "..%5c..", f"{uuid4()}0", "%E2%80%AE", "'%20or%201=1", f"{{{uuid4()}}}"):
            path = binding.path.replace(f"{{{name}}}", text)
            content = json.dumps(valid(binding.body_fields)).encode() if binding.body else None
            yield Case(f"{name}={text[:10]}", binding, 400, "INVALID_FIELD", name, path=path, content=content)


def cases_of(binding: Binding) -> list[Case]:
    found = [*path_cases(binding), *query_cases(binding)]
    if binding.is_resumable:
        found += header_cases(binding)
    return [*found, *body_cases(binding)] if binding.body else found


BRIDGED = [one for one in contract.bindings(contract.SERVICES) if not one.policy.handwritten_reason]
BY_HAND = [one for one in contract.bindings(contract.SERVICES) if one.policy.handwritten_reason]


@pytest.mark.parametrize("binding", BRIDGED, ids=lambda one: one.operation_id)
async def test_bad_input_is_refused_with_its_field_and_reason(
    api: httpx.AsyncClient, owner: Person, binding: Binding
) -> None:
    cases = cases_of(binding)
    assert len(cases) >= 2
    wrong = []
    for case in cases:
        response = await api.request(
            binding.verb, case.address, content=case.content, headers={**owner.headers, **case.headers}
        )
        found = response.json().get("error", {"details": [{}]})
        detail = found["details"][0]
        answer = (response.status_code, detail.get("reason"), detail.get("metadata", {}).get("field"))
        if answer != (case.status, case.reason, case.about) or found["code"] != case.status:
            wrong.append(f"{case}: {answer} instead of {(case.status, case.reason, case.about)}")
    assert wrong == []


@pytest.mark.parametrize("binding", [b for b in BRIDGED if not b.policy.anonymous], ids=lambda one: one.operation_id)
async def test_without_a_token_nothing_is_looked_at(api: httpx.AsyncClient, binding: Binding) -> None:
    for case in cases_of(binding)[:6]:
        response = await api.request(binding.verb, case.address, content=case.content, headers=case.headers)
        assert (response.status_code, response.json()["error"]["status"]) == (401, "UNAUTHENTICATED")


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [*(one for requests in BAD_REQUESTS.values() for one in requests), ("/nothing", 404, "ROUTE_NOT_FOUND")],
)
async def test_bad_input_to_routes_written_by_hand_is_refused(
    api: httpx.AsyncClient, path: str, status: int, reason: str
) -> None:
    response = await api.get(path)
    assert (response.status_code, response.json()["error"]["details"][0]["reason"]) == (status, reason)


def test_every_route_written_by_hand_has_an_expectation() -> None:
    assert {one.path for one in BY_HAND} == BAD_REQUESTS.keys()
