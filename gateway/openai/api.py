"""The OpenAI-compatible API: chat completions and models for programs that speak OpenAI's protocol."""

import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any
from uuid import UUID

import orjson
from concerto.orchestrator.v1 import orchestrator_pb2
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.openai import errors as openai_errors
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
"""Chosen by the client (UUID): a repetition is answered with what the first request was answered with."""

Answer = orchestrator_pb2.StreamChatCompletionResponse

CHUNKS: sse.Wording[Answer] = sse.Wording(
    encode=lambda answer: b"data: %s\n\n" % answer.completion_json.encode(),
    encode_error=lambda error: b"data: %s\n\n" % orjson.dumps(openai_errors.body(error)),
    tail=b"data: [DONE]\n\n",
)
"""How OpenAI writes a stream."""


class OpenAIApi:
    """POST /v1/chat/completions, GET /v1/models and GET /v1/models/{model}.

    Nothing of a request is understood here but `stream`: the orchestrator passes it on as it is. A failure is an
    AppError as everywhere; the application answers it in OpenAI's shape.
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
        session_id = _uuid_header(request, SESSION_HEADER)
        request_id = _uuid_header(request, REQUEST_ID_HEADER)
        message = orchestrator_pb2.StreamChatCompletionRequest(session_id=session_id, request_id=request_id)
        limit = validation.limits_of(message.DESCRIPTOR.fields_by_name["request_json"]).max_bytes
        content = await self._bridge.read_content(request, max_bytes=limit)
        data = incoming.parse_json(content)
        if not isinstance(data, Mapping):
            raise AppError("INVALID_FIELD", metadata={"field": "The body", "problem": "must be an object"})
        # The text itself is passed on: the order of its keys and the digits of its numbers stay as they are.
        message.request_json = content.decode() if content else "{}"
        return message, data.get("stream") is True


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
    try:
        if not text or str(UUID(text)) == text.lower():
            return text
    except ValueError:
        pass
    raise AppError("INVALID_FIELD", metadata={"field": name, "problem": "must be a UUID"})


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json", headers={"cache-control": "no-store"})


REQUEST_HEADERS = (SESSION_HEADER, REQUEST_ID_HEADER)
"""Request headers of this API alone; CORS allows them."""
