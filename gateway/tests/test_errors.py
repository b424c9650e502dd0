import json
import re
from typing import Any

import grpc
import httpx
import pytest

from gateway import app as gateway_app
from gateway.app import build
from gateway.tests.fakes import SESSION_ID, Neighbours, client_of, error_of, gateway, gateway_over_http
from gateway.tests.fakes import gateway_settings as settings
from local.settings import ROOT
from servicekit.errors import AppError
from tests.support.contract import MAX_CONTENT_BYTES

Header = dict[str, str]
LOGIN = {"email": "ada@example.com", "password": "pw"}
SESSIONS = "/sessions"
MESSAGES = f"/sessions/{SESSION_ID}/messages"
PATCHED = f"/sessions/{SESSION_ID}"
TURNS = f"/sessions/{SESSION_ID}/turns"

BAD: list[tuple[str, str, Any, str, str]] = [
    ("POST", "/auth/login", {"password": "x"}, "MISSING_FIELD", "email"),
    ("POST", "/auth/login", {"email": None, "password": "x"}, "MISSING_FIELD", "email"),
    ("POST", "/auth/login", {**LOGIN, "email": 7}, "INVALID_FIELD", "email"),
    ("POST", "/auth/login", {**LOGIN, "email": "no-address"}, "INVALID_FIELD", "email"),
    ("POST", "/auth/login", {**LOGIN, "more": 1}, "UNKNOWN_FIELD", "more"),
    ("POST", "/auth/login", {**LOGIN, "password": "x" * 1025}, "FIELD_TOO_LARGE", "password"),
    ("POST", "/auth/login", {**LOGIN, "password": "a\0b"}, "INVALID_FIELD", "password"),
    ("POST", "/auth/login", ["a"], "INVALID_FIELD", "The body"),
    ("POST", "/auth/login", "text", "INVALID_FIELD", "The body"),
    ("POST", "/auth/login?next=1", LOGIN, "UNKNOWN_FIELD", "next"),
    ("POST", SESSIONS, {"request_id": "42"}, "INVALID_FIELD", "request_id"),
    ("POST", SESSIONS, {"name": "x" * 201}, "FIELD_TOO_LARGE", "name"),
    ("POST", MESSAGES, {"messages": []}, "MISSING_FIELD", "messages"),
    ("POST", MESSAGES, {"messages": {}}, "INVALID_FIELD", "messages"),
    ("POST", MESSAGES, {"messages": [{"content": "x"}]}, "MISSING_FIELD", "messages[0].role"),
    ("POST", MESSAGES, {"messages": [{"role": "boss"}]}, "INVALID_FIELD", "messages[0].role"),
    ("POST", MESSAGES, {"messages": [{"role": "user"}] * 101}, "FIELD_TOO_LARGE", "messages"),
    ("POST", MESSAGES, {"messages": [{"role": "user", "metadata": [1]}]}, "INVALID_FIELD", "messages[0].metadata"),
    ("POST", MESSAGES, {"session_id": SESSION_ID, "messages": [{"role": "user"}]}, "UNKNOWN_FIELD", "session_id"),
    ("POST", "/sessions/42/messages", {"messages": [{"role": "user"}]}, "INVALID_FIELD", "session_id"),
    ("POST", f"/sessions/{SESSION_ID}/branch", {"message_id": "  "}, "MISSING_FIELD", "message_id"),
    ("POST", TURNS, {"content": 7}, "INVALID_FIELD", "content"),
    ("POST", TURNS, {"content": "x" * (MAX_CONTENT_BYTES + 1)}, "FIELD_TOO_LARGE", "content"),
    ("POST", TURNS, {"content": "x", "if_running": "later"}, "INVALID_FIELD", "if_running"),
    ("POST", TURNS, {"content": "x", "session_id": SESSION_ID}, "UNKNOWN_FIELD", "session_id"),
    ("POST", TURNS, {"turn": {"content": "x"}}, "UNKNOWN_FIELD", "turn"),
    ("POST", f"{TURNS}?turn.content=x", {}, "UNKNOWN_FIELD", "turn.content"),
    ("POST", "/sessions/42/turns", {"content": "x"}, "INVALID_FIELD", "session_id"),
    ("PATCH", PATCHED, {"is_archived": "yes"}, "INVALID_FIELD", "is_archived"),
    ("GET", f"{SESSIONS}?page_size=-1", None, "INVALID_FIELD", "page_size"),
    ("GET", f"{SESSIONS}?page_size=many", None, "INVALID_FIELD", "page_size"),
    ("GET", f"{SESSIONS}?page_size=99999999999", None, "INVALID_FIELD", "page_size"),
    ("GET", f"{SESSIONS}?page_size=1&page_size=2", None, "INVALID_FIELD", "page_size"),
    ("GET", f"{SESSIONS}?is_archived=1", None, "INVALID_FIELD", "is_archived"),
    ("GET", f"{SESSIONS}?limit=1", None, "UNKNOWN_FIELD", "limit"),
    ("GET", f"{SESSIONS}?query=%ff", None, "INVALID_FIELD", "The query string"),
    ("GET", f"{SESSIONS}?query=%00", None, "INVALID_FIELD", "query"),
    ("GET", f"{SESSIONS}?{'&'.join(['query=a'] * 101)}", None, "INVALID_FIELD", "The query string"),
    ("GET", "/sessions/%00", None, "INVALID_FIELD", "session_id"),
    ("GET", "/sessions/%ff%fe", None, "INVALID_FIELD", "session_id"),
    ("GET", "/sessions/..%5c..%5cetc", None, "INVALID_FIELD", "session_id"),
    ("DELETE", "/sessions/00000000-0000-0000-0000-00000000000g", None, "INVALID_FIELD", "session_id"),
]


@pytest.mark.parametrize(("method", "path", "body", "reason", "field"), BAD)
async def test_bad_input_is_400_and_names_the_field(
    client: httpx.AsyncClient,
    neighbours: Neighbours,
    bearer: Header,
    method: str,
    path: str,
    body: Any,
    reason: str,
    field: str,
) -> None:
    headers = bearer if body is None else {**bearer, "content-type": "application/json"}
    content = None if body is None else json.dumps(body)
    response = await client.request(method, path, content=content, headers=headers)
    status, found, metadata = error_of(response)
    assert (status, found, metadata["field"]) == (400, reason, field)
    assert neighbours.calls == []


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"email": "\xff"}',
        b'{"email": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        b"[" * 10_000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'{"a": 1} {"b": 2}',
        b"\x00",
    ],
)
async def test_what_is_no_json_is_400(client: httpx.AsyncClient, content: bytes) -> None:
    response = await client.post("/auth/login", content=content, headers={"content-type": "application/json"})
    assert error_of(response) == (400, "INVALID_JSON", {})


@pytest.mark.parametrize("levels", [40, 200, 900])
async def test_json_nested_too_deeply_is_400(client: httpx.AsyncClient, bearer: Header, levels: int) -> None:
    nested = '{"a":' * levels + "1" + "}" * levels
    content = f'{{"messages": [{{"role": "user", "metadata": {nested}}}]}}'
    response = await client.post(MESSAGES, content=content, headers={**bearer, "content-type": "application/json"})
    status, reason, metadata = error_of(response)
    assert (status, reason, metadata["field"]) == (400, "INVALID_FIELD", "messages[0].metadata")


async def test_json_nested_as_deeply_as_allowed_arrives(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    nested: Any = 1
    for _ in range(25):
        nested = {"a": nested}
    body = {"messages": [{"role": "user", "metadata": nested}]}
    assert (await client.post(MESSAGES, json=body, headers=bearer)).status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "",
        "application/json; charset=latin-1",
        "application/jsonp",
        "application/json;" + " a=b;" * 10_000,
    ],
)
async def test_another_media_type_is_415(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post("/auth/login", content=b"{}", headers={"content-type": content_type})
    assert error_of(response) == (415, "UNSUPPORTED_MEDIA_TYPE", {})


async def test_a_body_without_a_media_type_is_415(client: httpx.AsyncClient) -> None:
    response = await client.post("/auth/login", content=b"{}")
    assert error_of(response)[:2] == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8"])
async def test_json_may_name_its_charset(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post(
        "/auth/login", content=json.dumps(LOGIN).encode(), headers={"content-type": content_type}
    )
    assert response.status_code == 200


async def test_an_announced_body_over_the_limit_is_413_unread() -> None:
    async with gateway(Neighbours(), max_body_bytes=1024) as client:
        response = await client.post("/auth/login", json={"email": "a" * 2000})
    assert error_of(response) == (413, "BODY_TOO_LARGE", {"limit": "1024"})
    assert response.headers["connection"] == "close"


async def test_a_body_in_pieces_is_read_no_further_than_the_limit() -> None:
    sent = 0

    async def pieces() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b" " * 1024

    async with gateway(Neighbours(), max_body_bytes=4096) as client:
        response = await client.post("/auth/login", content=pieces(), headers={"content-type": "application/json"})
    assert error_of(response)[:2] == (413, "BODY_TOO_LARGE")
    assert sent <= 10


async def test_the_limit_also_holds_over_a_socket() -> None:
    async def pieces() -> Any:
        for _ in range(8):
            yield b" " * 1024

    async with gateway_over_http(Neighbours(), max_body_bytes=4096) as client:
        response = await client.post("/auth/login", content=pieces(), headers={"content-type": "application/json"})
        assert error_of(response)[:2] == (413, "BODY_TOO_LARGE")
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/nothing", "/nothing/", "/sessions//", "/auth/", "//auth/me", "/sessions/a/b/c", "/docs/x.js"]
)
async def test_an_unknown_path_is_404(client: httpx.AsyncClient, bearer: Header, path: str) -> None:
    response = await client.get(f"http://gateway.test{path}", headers=bearer)
    assert error_of(response) == (404, "ROUTE_NOT_FOUND", {"path": path})


async def test_an_unknown_method_is_405_and_names_all_others(client: httpx.AsyncClient) -> None:
    response = await client.put(f"/sessions/{SESSION_ID}", json={})
    assert error_of(response)[:2] == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "DELETE, GET, HEAD, PATCH"
    assert (await client.request("BREW", "/auth/me")).headers["allow"] == "GET, HEAD, PATCH"


async def test_who_calls_is_decided_before_what_is_asked(client: httpx.AsyncClient, neighbours: Neighbours) -> None:
    response = await client.post("/sessions", content=b"{", headers={"content-type": "text/plain"})
    assert error_of(response) == (401, "TOKEN_MISSING", {})
    assert response.headers["www-authenticate"] == "Bearer"
    assert neighbours.calls == []


async def test_an_unforeseen_failure_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(*_: object, **__: object) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr("gateway.rest.incoming.read", crash)
    origin = "https://app.example.org"
    async with build(settings(cors_origins=origin)) as app, client_of(app) as client:
        response = await client.post("/auth/login", json=LOGIN, headers={"origin": origin})
    assert error_of(response) == (500, "INTERNAL", {})
    assert "swordfish" not in response.text
    assert response.headers["x-request-id"]
    assert response.headers["access-control-allow-origin"] == origin


async def test_what_http_has_a_status_for_is_answered_with_it_and_so_says_the_page_of_errors(
    client: httpx.AsyncClient,
) -> None:
    answers = [
        await client.post("/auth/login", content=b"{}", headers={"content-type": "text/plain"}),
        await client.post("/auth/login", content=b" " * 9_000_000, headers={"content-type": "application/json"}),
        await client.put(f"/sessions/{SESSION_ID}", json={}),
    ]
    page = (ROOT / "docs" / "errors.md").read_text()
    for answer, expected in zip(answers, (415, 413, 405), strict=True):
        status, reason, _ = error_of(answer)
        assert status == answer.json()["error"]["code"] == expected
        assert re.search(rf"^\| `{reason}` \| [A-Z_]+ \| {expected} \|", page, re.MULTILINE)


async def test_an_error_whose_reason_the_gateway_does_not_know_is_passed_on_as_its_service_has_worded_it(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    neighbours.answers["GetSession"] = AppError.received(
        "OF_A_NEWER_SERVICE",
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        message="The quota of ada is used up.",
        metadata={"owner": "ada"},
        http_status=402,
        retry_after_seconds=5,
    )
    response = await client.get(PATCHED, headers=bearer)
    assert error_of(response) == (402, "OF_A_NEWER_SERVICE", {"owner": "ada"})
    assert response.json()["error"] == {
        "code": 402,
        "status": "RESOURCE_EXHAUSTED",
        "message": "The quota of ada is used up.",
        "details": [{"reason": "OF_A_NEWER_SERVICE", "domain": "concerto", "metadata": {"owner": "ada"}}],
    }
    assert response.headers["retry-after"] == "5"


def test_the_module_names_every_public_rpc() -> None:
    assert len(set(gateway_app.public_rpcs())) == len(gateway_app.public_rpcs()) == 30
