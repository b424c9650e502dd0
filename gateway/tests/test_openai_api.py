import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import httpx2
import openai
import pytest
from concerto.orchestrator.v1 import orchestrator_pb2

from gateway.openai import errors as openai_errors
from gateway.tests import fakes
from gateway.tests.fakes import Neighbours
from servicekit.errors import AppError
from servicekit.testing import mint_token
from tests.support.waiting import forever

Header = dict[str, str]
CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "offline", "messages": [{"role": "user", "content": "Hi"}]}


def chunk(text: str) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "choices": [choice]})


async def two_chunks(_: object) -> AsyncIterator[str]:
    yield chunk("Good ")
    yield chunk("day")


def openai_error(response: httpx.Response) -> tuple[int, str, str | None, str | None]:
    """Return status, type, param and code after checking that the body has OpenAI's shape."""
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return response.status_code, error["type"], error["param"], error["code"]


async def test_a_whole_answer_comes_as_the_orchestrator_wrote_it(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    answer = '{"object":"chat.completion","zeta":1,"alpha":123456789012345678901234567890,"choices":[]}'

    async def completion(_: object) -> AsyncIterator[str]:
        yield answer

    neighbours.completion = completion
    response = await client.post(CHAT, json=BODY, headers=bearer)
    assert (response.status_code, response.text) == (200, answer)
    assert response.headers["cache-control"] == "no-store"


async def test_a_whole_answer_waits_until_the_orchestrator_is_done(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def completion(_: object) -> AsyncIterator[str]:
        yield "{}"
        raise AppError("DATABASE_UNAVAILABLE")

    neighbours.completion = completion
    response = await client.post(CHAT, json=BODY, headers=bearer)
    assert openai_error(response) == (503, "server_error", None, "database_unavailable")


async def test_a_stream_without_answers_is_an_error(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def completion(_: object) -> AsyncIterator[str]:
        return
        yield ""

    neighbours.completion = completion
    for wants_stream in (False, True):
        response = await client.post(CHAT, json={**BODY, "stream": wants_stream}, headers=bearer)
        assert openai_error(response) == (500, "server_error", None, "internal")


async def test_a_request_is_passed_on_letter_by_letter(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    text = '{"messages": [], "zeta": 1.0, "alpha": 12345678901234567, "stream":  false}'
    session_id, request_id = str(uuid4()), str(uuid4())
    headers = {"content-type": "application/json", "x-session-id": session_id, "idempotency-key": request_id}
    await client.post(CHAT, content=text, headers={**bearer, **headers})
    assert neighbours.last[:2] == (
        "StreamChatCompletion",
        orchestrator_pb2.StreamChatCompletionRequest(request_json=text, session_id=session_id, request_id=request_id),
    )


async def test_an_idempotency_key_may_be_any_text_and_stands_for_one_request_id(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def id_for(key: str) -> str:
        sent = {b"authorization": bearer["authorization"].encode(), b"idempotency-key": key.encode()}
        assert (await client.post(CHAT, json=BODY, headers=sent)).status_code == 200
        return str(neighbours.last[1].request_id)

    keys = ["42", "k" * 255, "ä" * 255, '"quoted"', "order 7/b", str(uuid4())]
    ids = [await id_for(key) for key in keys]
    assert ids == [await id_for(key) for key in keys]
    assert len({str(UUID(one)) for one in ids}) == len(keys)
    assert ids[-1] == keys[-1], "a UUID is the id itself"


async def test_a_stream_is_data_lines_and_done(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    neighbours.completion = two_chunks
    response = await client.post(CHAT, json={**BODY, "stream": True}, headers=bearer)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text == f"data: {chunk('Good ')}\n\ndata: {chunk('day')}\n\ndata: [DONE]\n\n"


async def test_a_stream_that_breaks_ends_with_the_error_and_no_done(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def completion(_: object) -> AsyncIterator[str]:
        yield chunk("half")
        raise AppError("MODEL_CONNECTION_LOST")

    neighbours.completion = completion
    response = await client.post(CHAT, json={**BODY, "stream": True}, headers=bearer)
    *_, last, end = response.text.split("\n\n")
    assert end == ""
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "model_connection_lost"


INVALID, FAULT = "invalid_request_error", "server_error"
RUN = {"session_id": "s", "run_id": "r"}
Raised = type[openai.APIStatusError]
ERRORS: list[tuple[AppError, int, str, str | None, str, Raised]] = [
    (
        AppError("MODEL_NOT_FOUND", metadata={"model": "x"}),
        404,
        INVALID,
        "model",
        "model_not_found",
        openai.NotFoundError,
    ),
    (AppError("PROMPT_TOO_LONG"), 400, INVALID, "messages", "context_length_exceeded", openai.BadRequestError),
    (AppError("CONTENT_FILTERED"), 400, INVALID, None, "content_filter", openai.BadRequestError),
    (
        AppError("MODEL_REQUEST_REFUSED", metadata={"param": "seed"}),
        400,
        INVALID,
        "seed",
        "model_request_refused",
        openai.BadRequestError,
    ),
    (
        AppError("MISSING_FIELD", metadata={"field": "messages"}),
        400,
        INVALID,
        "messages",
        "missing_field",
        openai.BadRequestError,
    ),
    (
        AppError("MODEL_RATE_LIMITED", retry_after_seconds=7),
        429,
        "requests",
        None,
        "rate_limit_exceeded",
        openai.RateLimitError,
    ),
    (AppError("MODEL_QUOTA_EXHAUSTED"), 429, "insufficient_quota", None, "insufficient_quota", openai.RateLimitError),
    (
        AppError("TOO_MANY_RUNS", metadata={"scope": "user"}),
        429,
        "requests",
        None,
        "rate_limit_exceeded",
        openai.RateLimitError,
    ),
    (AppError("RUN_IN_PROGRESS", metadata=RUN), 409, INVALID, "X-Session-Id", "run_in_progress", openai.ConflictError),
    (
        AppError("SESSION_NOT_FOUND", metadata=RUN),
        404,
        INVALID,
        "X-Session-Id",
        "session_not_found",
        openai.NotFoundError,
    ),
    (
        AppError("MODEL_CREDENTIALS_REJECTED"),
        502,
        FAULT,
        None,
        "model_credentials_rejected",
        openai.InternalServerError,
    ),
    (AppError("MODEL_UNAVAILABLE"), 503, FAULT, None, "model_unavailable", openai.InternalServerError),
    (AppError("MODEL_TIMEOUT"), 504, FAULT, None, "model_timeout", openai.InternalServerError),
    (AppError("TOKEN_EXPIRED"), 401, INVALID, None, "invalid_api_key", openai.AuthenticationError),
]


@pytest.mark.parametrize("wants_stream", [False, True])
@pytest.mark.parametrize(("error", "status", "kind", "param", "code", "raised"), ERRORS, ids=str)
async def test_each_failure_is_the_error_that_the_official_client_knows(
    client: httpx.AsyncClient,
    neighbours: Neighbours,
    bearer: Header,
    error: AppError,
    status: int,
    kind: str,
    param: str | None,
    code: str,
    raised: Raised,
    wants_stream: bool,
) -> None:
    async def completion(_: object) -> AsyncIterator[str]:
        raise error
        yield ""

    neighbours.completion = completion
    response = await client.post(CHAT, json={**BODY, "stream": wants_stream}, headers=bearer)
    assert openai_error(response) == (status, kind, param, code)
    if status == 429:
        assert response.headers["retry-after"] == ("7" if error.retry_after_seconds else "60")
    is_final = error.reason in ("MODEL_CREDENTIALS_REJECTED", "MODEL_QUOTA_EXHAUSTED")
    assert (response.headers.get("x-should-retry") == "false") == is_final
    repeated = httpx2.Response(status, content=response.content, headers={"content-type": "application/json"})
    transport = httpx2.MockTransport(lambda _: repeated)
    with httpx2.Client(transport=transport) as within, pytest.raises(raised) as caught:
        openai.OpenAI(api_key="x", base_url="http://127.0.0.1:9", http_client=within, max_retries=0).models.list()
    assert type(caught.value) is raised


async def test_a_key_that_is_no_token_is_refused_as_openai_would(client: httpx.AsyncClient) -> None:
    for headers in ({}, {"authorization": "Bearer sk-nothing"}, {"authorization": f"Basic {mint_token()}"}):
        for method, path in (("POST", CHAT), ("GET", "/v1/models"), ("GET", "/v1/models/offline")):
            response = await client.request(method, path, headers=headers, json=BODY if method == "POST" else None)
            assert openai_error(response)[:1] + openai_error(response)[3:] == (401, "invalid_api_key")
            assert response.headers["www-authenticate"] == "Bearer"


BAD: list[tuple[bytes, Header, int, str | None, str]] = [
    (b"{", {}, 400, None, "invalid_json"),
    (b'{"a": "\\ud800"}', {}, 400, None, "invalid_json"),
    (b"[" * 90_000, {}, 400, None, "invalid_json"),
    (b"[]", {}, 400, None, "invalid_field"),
    (b"{}", {"content-type": "text/plain"}, 415, None, "unsupported_media_type"),
    (b'"' + b"x" * (4 * 1024 * 1024) + b'"', {}, 413, None, "body_too_large"),
    (b"{}", {"x-session-id": "42"}, 400, "X-Session-Id", "invalid_field"),
    (b"{}", {"idempotency-key": "k" * 256}, 400, "Idempotency-Key", "invalid_field"),
]


@pytest.mark.parametrize(("content", "headers", "status", "param", "code"), BAD)
async def test_bad_input_is_refused_in_openais_shape(
    client: httpx.AsyncClient,
    neighbours: Neighbours,
    bearer: Header,
    content: bytes,
    headers: Header,
    status: int,
    param: str | None,
    code: str,
) -> None:
    sent = {"content-type": "application/json", **bearer, **headers}
    response = await client.post(CHAT, content=content, headers=sent)
    assert openai_error(response) == (status, "invalid_request_error", param, code)
    assert neighbours.calls == []


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", CHAT, 405, "method_not_allowed"), ("POST", "/v1/embeddings", 404, "route_not_found")],
)
async def test_what_is_not_there_is_said_in_openais_shape(
    client: httpx.AsyncClient, bearer: Header, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path, headers=bearer)
    assert openai_error(response) == (status, "invalid_request_error", None, code)


async def test_a_crash_is_said_in_openais_shape_and_tells_nothing(
    neighbours: Neighbours, bearer: Header, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fakes.gateway_over_http(neighbours) as client:
        monkeypatch.setattr("gateway.openai.api.incoming.parse_json", lambda _: 1 / 0)
        response = await client.post(CHAT, json=BODY, headers=bearer)
    assert openai_error(response) == (500, "server_error", None, "internal")
    assert "division" not in response.text


def test_only_openais_paths_speak_openai() -> None:
    assert [openai_errors.speaks_at(path) for path in ("/v1", "/v1/models", "/v1x", "/models", "/")] == [
        True,
        True,
        False,
        False,
        False,
    ]


async def test_models_come_from_the_orchestrators_pages(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header
) -> None:
    async def page(request: orchestrator_pb2.ListModelsRequest) -> orchestrator_pb2.ListModelsResponse:
        if request.page_token:
            return orchestrator_pb2.ListModelsResponse(models=[orchestrator_pb2.Model(name="org/second")])
        first = orchestrator_pb2.Model(name="first", is_default=True)
        return orchestrator_pb2.ListModelsResponse(models=[first], next_page_token="more")

    neighbours.answers["ListModels"] = page
    body = (await client.get("/v1/models", headers=bearer)).json()
    assert body == {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "concerto"} for name in ("first", "org/second")
        ],
    }
    for name in ("first", "org/second"):
        assert (await client.get(f"/v1/models/{name}", headers=bearer)).json()["id"] == name
    response = await client.get("/v1/models/third", headers=bearer)
    assert openai_error(response) == (404, "invalid_request_error", "model", "model_not_found")


@pytest.mark.parametrize("wants_stream", [False, True])
async def test_a_client_that_goes_away_ends_the_rpc(bearer: Header, wants_stream: bool) -> None:
    neighbours = Neighbours()
    going = asyncio.Event()

    async def completion(_: object) -> AsyncIterator[str]:
        if wants_stream:
            yield chunk("x")
        going.set()
        await forever()

    neighbours.completion = completion
    async with fakes.gateway_over_http(neighbours) as client:
        body = {**BODY, "stream": wants_stream}
        asking = asyncio.create_task(client.post(CHAT, json=body, headers=bearer))
        await asyncio.wait_for(going.wait(), 60)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.wait_for(neighbours.cancelled.wait(), 60)


# The older API


TEXT = "/v1/completions"


async def pieces(_: object) -> AsyncIterator[str]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "offline"}
    for delta, reason in (({"role": "assistant", "content": ""}, None), ({"content": "Good "}, None),
                          ({"content": "day"}, None), ({}, "stop")):  # fmt: skip
        yield json.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
    yield json.dumps({**head, "choices": [], "usage": {"total_tokens": 3}})


async def one_whole(_: object) -> AsyncIterator[str]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Good day"}, "finish_reason": "stop"}
    yield json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 7, "model": "offline",
                      "choices": [choice], "usage": {"total_tokens": 3}})  # fmt: skip


@pytest.mark.parametrize("prompt", ["Say hello", ["Say hello"]])
async def test_a_text_completion_is_a_chat_completion_of_one_message(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, prompt: Any
) -> None:
    neighbours.completion = one_whole
    asked = {"model": "offline", "prompt": prompt, "max_tokens": 9, "stop": ["x"], "best_of": 1, "suffix": None}
    headers = {**bearer, "x-session-id": str(uuid4())}
    response = await client.post(TEXT, json=asked, headers=headers)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    choice = {"text": "Good day", "index": 0, "logprobs": None, "finish_reason": "stop"}
    assert response.json() == {"id": "chatcmpl-1", "object": "text_completion", "created": 7, "model": "offline",
                               "choices": [choice], "usage": {"total_tokens": 3}}  # fmt: skip
    name, message, _ = neighbours.last
    assert (name, message.session_id) == ("StreamChatCompletion", headers["x-session-id"])
    assert json.loads(message.request_json) == {
        "model": "offline", "max_tokens": 9, "stop": ["x"], "messages": [{"role": "user", "content": "Say hello"}],
    }  # fmt: skip


@pytest.mark.parametrize(("echo", "text"), [(False, "Good day"), (True, "Say helloGood day")])
async def test_a_text_completion_streams_its_pieces(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, echo: bool, text: str
) -> None:
    neighbours.completion = pieces
    asked = {"model": "offline", "prompt": "Say hello", "stream": True, "echo": echo}
    response = await client.post(TEXT, json=asked, headers=bearer)
    *lines, last = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert last == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == text
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]] == [None, None, "stop"]
    assert chunks[-1]["usage"] == {"total_tokens": 3}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": "a", "messages": []}, "messages"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "best_of": True}, "best_of"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "logprobs": 5}, "logprobs"),
        ({"prompt": "a", "echo": "yes"}, "echo"),
    ],
)
async def test_what_a_text_completion_cannot_have_is_refused_by_its_name(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, asked: dict[str, Any], param: str
) -> None:
    response = await client.post(TEXT, json={"model": "offline", **asked}, headers=bearer)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert neighbours.calls == []


@pytest.mark.parametrize("depth", [300, 1_000])
async def test_a_text_completion_that_is_nested_too_deeply_is_refused(
    client: httpx.AsyncClient, bearer: Header, depth: int
) -> None:
    body = f'{{"model": "offline", "prompt": "Hi", "metadata": {"[" * depth}{"]" * depth}}}'
    response = await client.post(TEXT, content=body, headers={**bearer, "content-type": "application/json"})
    assert openai_error(response) == (400, INVALID, None, "invalid_json")


@pytest.mark.parametrize("beside", [r'"a\ud800"', "[" * 300 + "]" * 300])
@pytest.mark.parametrize("part", ["delta", "message"])
async def test_a_text_completion_holds_whatever_a_model_server_sends(
    client: httpx.AsyncClient, neighbours: Neighbours, bearer: Header, beside: str, part: str
) -> None:
    async def completion(_: object) -> AsyncIterator[str]:
        yield f'{{"x": {beside}, "choices": [{{"{part}": {{"content": "b\\ud800"}}, "finish_reason": null}}]}}'

    neighbours.completion = completion
    body = {"model": "offline", "prompt": "Hi", "stream": part == "delta"}
    response = await client.post(TEXT, json=body, headers=bearer)
    answer = json.loads(response.text.split("\n\n")[0].removeprefix("data: "))
    assert (answer["choices"][0]["text"], answer["x"]) == ("b\ud800", json.loads(beside))
