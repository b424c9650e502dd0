"""The OpenAI-compatible API: chat completions and models for programs that speak OpenAI's protocol."""

import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid5

import orjson
from concerto.orchestrator.v1 import orchestrator_pb2
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.openai import errors as openai_errors
from gateway.openai.text_completions import TextCompletion
from gateway.rest import incoming, sse
from gateway.rest.bridge import Bridge, Endpoint
from gateway.rest.contract import Binding
from gateway.rest.routes import route
from servicekit.errors import AppError
from servicekit.messages import validation
from servicekit.rpc import channel

SESSION_HEADER = "X-Session-Id"
"""Names the session (UUID) in which an exchange is kept."""
REQUEST_ID_HEADER = "Idempotency-Key"
"""Chosen by the client, any text: a repetition is answered with what the first request was answered with."""
MAX_REQUEST_ID_CHARACTERS = 255
_REQUEST_IDS = UUID("8a6a3d0e-5c0b-4c1e-9a53-6c2f1d4b7e90")
"""The namespace of the ids that are made of other texts; the same on every replica and for good."""

Answer = orchestrator_pb2.StreamChatCompletionResponse

CHUNKS: sse.Wording[Answer] = sse.Wording(
    encode=lambda answer: b"data: %s\n\n" % answer.completion_json.encode(),
    encode_error=lambda error: b"data: %s\n\n" % orjson.dumps(openai_errors.body(error)),
    tail=b"data: [DONE]\n\n",
)
"""How OpenAI writes a stream."""


class OpenAIApi:
    """POST /v1/chat/completions and /v1/completions, GET /v1/models and /v1/models/{model}.

    Nothing of a chat completion is understood here but `stream`: the orchestrator passes it on as it is. A failure is
    an AppError as everywhere; the application answers it in OpenAI's shape.
    """

    def __init__(self, bridge: Bridge, *, keep_alive_seconds: float = sse.KEEP_ALIVE_SECONDS) -> None:
        self._bridge = bridge
        self._keep_alive_seconds = keep_alive_seconds

    @property
    def operations(self) -> frozenset[str]:
        """Operations of the contract that are served here."""
        return frozenset({"StreamChatCompletion"})

    def endpoint(self, binding: Binding) -> Endpoint:
        """Return what serves the binding's route."""
        call = self._bridge.stub(binding)

        async def complete(request: Request) -> Response:
            await self._bridge.sign_in(request)
            message, wants_stream = await self._read(request)
            source = _answers(call, message)
            if not wants_stream:
                # Read to its end: only then is an exchange that is kept stored.
                answer, *_ = await sse.while_connected(request.receive, _all_of(source))
                return _json(answer.completion_json.encode())
            return await sse.begin(request.receive, source, wording=CHUNKS, keep_alive_seconds=self._keep_alive_seconds)

        return complete

    def text_completion_route(self, bindings: Iterable[Binding]) -> Route:
        """Return the route of /v1/completions, made from the contract's StreamChatCompletion."""
        call = self._bridge.stub(next(one for one in bindings if one.operation_id == "StreamChatCompletion"))

        async def complete(request: Request) -> Response:
            await self._bridge.sign_in(request)
            message, data = await self._read_json(request)
            completion = TextCompletion(data)
            message.request_json = completion.request_json
            source = _answers(call, message)
            if data.get("stream") is not True:
                answer, *_ = await sse.while_connected(request.receive, _all_of(source))
                return _json(completion.whole(answer.completion_json))
            wording = replace(CHUNKS, encode=lambda answer: completion.piece(answer.completion_json))
            return await sse.begin(
                request.receive, source, wording=wording, keep_alive_seconds=self._keep_alive_seconds
            )

        return route("/v1/completions", complete, "POST")

    def model_routes(self, bindings: Iterable[Binding]) -> list[Route]:
        """Return the routes of the list of models, made from the contract's ListModels."""
        call = self._bridge.stub(next(one for one in bindings if one.operation_id == "ListModels"))

        async def models(request: Request) -> Response:
            await self._bridge.sign_in(request)
            listed = [_model(name) for name in await _model_names(call)]
            return _json(orjson.dumps({"object": "list", "data": listed}))

        async def model(request: Request) -> Response:
            name = request.path_params["model"].removesuffix("/")
            if not name:
                return await models(request)  # a slash behind the list's path
            await self._bridge.sign_in(request)
            if name not in await _model_names(call):
                raise AppError("MODEL_NOT_FOUND", metadata={"model": name[:200]})
            return _json(orjson.dumps(_model(name)))

        return [
            route("/v1/models", models, "GET", "HEAD"),
            route("/v1/models/{model:path}", model, "GET", "HEAD"),
        ]

    async def _read(self, request: Request) -> tuple[orchestrator_pb2.StreamChatCompletionRequest, bool]:
        message, data = await self._read_json(request)
        return message, data.get("stream") is True

    async def _read_json(
        self, request: Request
    ) -> tuple[orchestrator_pb2.StreamChatCompletionRequest, Mapping[str, Any]]:
        session_id = _uuid_header(request, SESSION_HEADER)
        request_id = _request_id(request)
        message = orchestrator_pb2.StreamChatCompletionRequest(session_id=session_id, request_id=request_id)
        limit = validation.limits_of(message.DESCRIPTOR.fields_by_name["request_json"]).max_bytes
        content = await self._bridge.read_content(request, max_bytes=limit)
        data = incoming.parse_json(content)
        if not isinstance(data, Mapping):
            raise AppError("INVALID_FIELD", metadata={"field": "The body", "problem": "must be an object"})
        # The text itself is passed on: the order of its keys and the digits of its numbers stay as they are.
        message.request_json = content.decode() if content else "{}"
        return message, data


async def _answers(call: Any, message: orchestrator_pb2.StreamChatCompletionRequest) -> AsyncGenerator[Answer, None]:
    async with contextlib.aclosing(channel.stream(call, message)) as answers:
        async for answer in answers:
            yield answer


async def _all_of(answers: AsyncGenerator[Answer, None]) -> list[Answer]:
    async with contextlib.aclosing(answers):
        found = [answer async for answer in answers]
    if not found:
        raise AppError("INTERNAL", cause="a completion without any answer")
    return found


async def _model_names(call: Any) -> list[str]:
    names: list[str] = []
    page = orchestrator_pb2.ListModelsRequest()
    while True:
        answer: orchestrator_pb2.ListModelsResponse = await channel.call(call, page)
        names += [model.name for model in answer.models]
        if not answer.next_page_token:
            return names
        page = orchestrator_pb2.ListModelsRequest(page_token=answer.next_page_token)


def _model(name: str) -> dict[str, Any]:
    # When a model was made is not known here; clients only want the field to be there.
    return {"id": name, "object": "model", "created": 0, "owned_by": "concerto"}


def _uuid_header(request: Request, name: str) -> str:
    text = request.headers.get(name, "")
    if text and not _is_uuid(text):
        raise AppError("INVALID_FIELD", metadata={"field": name, "problem": "must be a UUID"})
    return text


def _request_id(request: Request) -> str:
    """Return the request's id as a UUID: the client's own where it is one, elsewhere one that is made of its text."""
    # Headers are read as Latin-1, and clients write UTF-8.
    text = request.headers.get(REQUEST_ID_HEADER, "").encode("latin-1").decode(errors="replace")
    if len(text) > MAX_REQUEST_ID_CHARACTERS:
        problem = f"must have {MAX_REQUEST_ID_CHARACTERS} characters at most"
        raise AppError("INVALID_FIELD", metadata={"field": REQUEST_ID_HEADER, "problem": problem})
    return text if not text or _is_uuid(text) else str(uuid5(_REQUEST_IDS, text))


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json", headers={"cache-control": "no-store"})
