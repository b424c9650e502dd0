"""The gateway's neighbours, faked: real gRPC servers whose answers a test chooses."""

import asyncio
import contextlib
import importlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import uvicorn
from concerto.auth.v1 import auth_pb2
from concerto.errors.v1 import errors_pb2
from concerto.orchestrator.v1 import orchestrator_pb2
from concerto.sessions.v1 import runs_pb2, sessions_pb2
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from jwt.algorithms import ECAlgorithm
from pydantic import SecretStr
from starlette.applications import Starlette

from gateway.__main__ import listen
from gateway.app import build
from gateway.connections.limits import Limits
from gateway.connections.server import Server
from gateway.settings import Settings
from servicekit import parts
from servicekit.errors import AppError
from servicekit.rpc import contracts, server
from servicekit.settings import ServiceSettings
from servicekit.testing import JWT_SECRET

SESSION_ID = "6f4d8a52-1f5e-4a3c-9b57-0d1f4c1f2a33"
RUN_ID = "0c6f9f1e-0d53-4a55-8a55-5f0a3f5f7d11"


def _base(part: parts.Part, service: ServiceDescriptor) -> tuple[ServiceDescriptor, Any, Any]:
    module = importlib.import_module(f"{part.proto_module(service.name)}_grpc")
    adds = getattr(module, f"add_{service.name}Servicer_to_server")
    return service, getattr(module, f"{service.name}Servicer"), adds


_BASES = tuple(_base(part, service) for part in parts.SERVICES for service in contracts.public_services(part))

Answer = Message | AppError | Callable[[Any], Awaitable[Message]]
Turn = Callable[[Any], AsyncIterator[runs_pb2.RunEvent]]
Completion = Callable[[Any], AsyncIterator[str]]


class Neighbours:
    """What the fakes answer, and what they were asked."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what a test before chose and asked."""
        self.answers: dict[str, Answer] = {}
        self.turn: Turn = default_turn
        self.batch_size = 1
        self.completion: Completion = default_completion
        self.calls: list[tuple[str, Any, dict[str, str]]] = []
        self.cancelled = asyncio.Event()
        self.ready = True

    @property
    def last(self) -> tuple[str, Any, dict[str, str]]:
        return self.calls[-1]

    def registrations(self) -> list[server.Registration]:
        return [
            server.Registration(service, add, self._servicer(service, base), self._check_ready)
            for service, base, add in _BASES
        ]

    async def _check_ready(self) -> None:
        if not self.ready:
            raise AppError("DATABASE_UNAVAILABLE")

    def _servicer(self, service: ServiceDescriptor, base: type) -> Any:
        handlers = {m.name: self._stream(m) if m.server_streaming else self._unary(m) for m in service.methods}
        return type(f"Fake{service.name}", (base,), handlers)()

    def _note(self, name: str, message: Message, context: Any) -> None:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata()}
        self.calls.append((name, message, metadata))

    def _unary(self, method: MethodDescriptor) -> Any:
        async def handle(_: object, message: Message, context: Any) -> Message:
            self._note(method.name, message, context)
            answer = self.answers.get(method.name)
            if isinstance(answer, AppError):
                raise answer
            if callable(answer):
                return await answer(message)
            return answer if answer is not None else empty_answer(method)

        return handle

    def _stream(self, method: MethodDescriptor) -> Any:
        async def answers(message: Message) -> AsyncIterator[Message]:
            if method.name == "StreamChatCompletion":
                async for completion in self.completion(message):
                    yield orchestrator_pb2.StreamChatCompletionResponse(completion_json=completion)
                return
            response = message_factory.GetMessageClass(method.output_type)
            held = []
            async for event in self.turn(message):
                held.append(event)
                if len(held) == self.batch_size:
                    yield response(event=held[0], more=held[1:])
                    held = []
            if held:
                yield response(event=held[0], more=held[1:])

        async def handle(_: object, message: Message, context: Any) -> AsyncIterator[Message]:
            self._note(method.name, message, context)
            try:
                async for answer in answers(message):
                    yield answer
            except (asyncio.CancelledError, GeneratorExit):
                self.cancelled.set()
                raise

        return handle


def empty_answer(method: MethodDescriptor) -> Message:
    """Return an answer whose resource is there, with default values."""
    answer = message_factory.GetMessageClass(method.output_type)()
    for field in method.output_type.fields:
        if field.message_type is not None and not field.is_repeated:
            getattr(answer, field.name).SetInParent()
    return answer


def event(seq: int, **payload: Message) -> runs_pb2.RunEvent:
    return runs_pb2.RunEvent(seq=seq, **payload)  # type: ignore[arg-type]


def started(seq: int = 1) -> runs_pb2.RunEvent:
    message = sessions_pb2.Message(id=RUN_ID, session_id=SESSION_ID, role=sessions_pb2.ROLE_USER, content="Hi", order=1)
    run = runs_pb2.RunStarted(
        run_id=RUN_ID, session_id=SESSION_ID, user_message=message, model="offline", agent="assistant"
    )
    return event(seq, run_started=run)


def delta(seq: int, text: str) -> runs_pb2.RunEvent:
    return event(seq, message_delta=runs_pb2.MessageDelta(text=text))


def finished(seq: int, state: "runs_pb2.RunState.ValueType" = runs_pb2.RUN_STATE_SUCCEEDED) -> runs_pb2.RunEvent:
    return event(seq, run_finished=runs_pb2.RunFinished(state=state))


def failed(seq: int, reason: str, *, code: int, status: str, **metadata: str) -> runs_pb2.RunEvent:
    detail = errors_pb2.ErrorDetail(reason=reason, domain="concerto", metadata=metadata)
    error = errors_pb2.Error(code=code, status=status, message="It failed.", details=[detail])
    return event(seq, error=runs_pb2.RunError(error=error))


def completed(seq: int, text: str) -> runs_pb2.RunEvent:
    message = sessions_pb2.Message(session_id=SESSION_ID, role=sessions_pb2.ROLE_ASSISTANT, content=text, order=2)
    return event(seq, message_completed=runs_pb2.MessageCompleted(message=message))


async def default_turn(_: object) -> AsyncIterator[runs_pb2.RunEvent]:
    yield started()
    yield delta(2, "Good ")
    yield delta(3, "day\n\nto you")
    yield completed(4, "Good day\n\nto you")
    yield event(5, usage=runs_pb2.Usage(model="offline", prompt_tokens=3, completion_tokens=4))
    yield finished(6)


def tool_started(seq: int, call_id: str, name: str) -> runs_pb2.RunEvent:
    return event(seq, tool_started=runs_pb2.ToolStarted(call_id=call_id, name=name))


def tool_finished(seq: int, call_id: str, name: str, output: str) -> runs_pb2.RunEvent:
    return event(seq, tool_finished=runs_pb2.ToolFinished(call_id=call_id, name=name, output=output))


async def default_completion(_: object) -> AsyncIterator[str]:
    yield '{"id": "chatcmpl-1", "object": "chat.completion", "choices": []}'


def signed_in(email: str = "ada@example.com") -> dict[str, Any]:
    """Return the fields of every answer that signs somebody in."""
    session = auth_pb2.AuthSession(
        access_token="at", refresh_token="rt", token_type="bearer", expires_in=3600, expires_at=1_900_000_000
    )
    return {"user": auth_pb2.User(id=RUN_ID, email=email, role=auth_pb2.USER_ROLE_USER), "session": session}


def gateway_settings(target: str = "127.0.0.1:9", **values: Any) -> Settings:
    return Settings(
        _env_file=None,
        **{
            "supabase_url": "http://127.0.0.1:9",
            "supabase_jwt_secret": JWT_SECRET,
            "web_folder": "/nonexistent",
            **{f"{part.name}_target": target for part in parts.SERVICES},
            **values,
        },
    )


@contextlib.asynccontextmanager
async def serving(neighbours: Neighbours) -> AsyncIterator[str]:
    """Serve the fakes and yield where."""
    settings = ServiceSettings(
        _env_file=None,
        port=0,
        drain_seconds=0.1,
        supabase_jwt_secret=SecretStr(JWT_SECRET),
        supabase_url="http://127.0.0.1:9",
    )
    async with server.serving(settings, neighbours.registrations()) as port:
        yield f"127.0.0.1:{port}"


@contextlib.asynccontextmanager
async def client_of(app: Starlette, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client that calls the application within the process."""
    transport = httpx.ASGITransport(app, **options)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.test") as client:
        yield client


@contextlib.asynccontextmanager
async def gateway(
    neighbours: Neighbours, *, keep_alive_seconds: float = 15.0, **values: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway in front of the fakes, within the process."""
    async with (
        serving(neighbours) as target,
        build(gateway_settings(target, **values), keep_alive_seconds=keep_alive_seconds) as app,
        client_of(app) as client,
    ):
        yield client


@contextlib.asynccontextmanager
async def listening(app: Any, limits: Limits | None = None) -> AsyncIterator[int]:
    """Serve an application over a real socket and yield the port."""
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(
        app, access_log=False, lifespan="off", log_config=None, timeout_graceful_shutdown=1, ws="none"
    )
    running = Server(config, limits)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        running.should_exit = True
        await task


@contextlib.asynccontextmanager
async def gateway_over_http(
    neighbours: Neighbours, *, keep_alive_seconds: float = 15.0, **values: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway in front of the fakes, over a real socket."""
    async with (
        serving(neighbours) as target,
        build(gateway_settings(target, **values), keep_alive_seconds=keep_alive_seconds) as app,
        listening(app, Limits.of(gateway_settings(target, **values))) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


class KeySet:
    """A project's key set over a real socket, of one key, while it is not down."""

    def __init__(self) -> None:
        self.url = ""
        self.is_down = False
        public = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
        self._body = json.dumps({"keys": [{**public, "kid": "one", "alg": "ES256", "use": "sig"}]}).encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with the keys, or with 503."""
        await send({"type": "http.response.start", "status": 503 if self.is_down else 200, "headers": []})
        await send({"type": "http.response.body", "body": b"" if self.is_down else self._body})


@contextlib.asynccontextmanager
async def key_set() -> AsyncIterator[KeySet]:
    """Yield a project's key set that is served."""
    served = KeySet()
    async with listening(served) as port:
        served.url = f"http://127.0.0.1:{port}"
        yield served


def error_of(response: httpx.Response) -> tuple[int, str, dict[str, str]]:
    """Return status, reason and metadata of an error, after checking that its body has the agreed shape."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    error = body["error"]
    assert error.keys() == {"code", "status", "message", "details"}
    assert error["code"] == response.status_code
    (detail,) = error["details"]
    assert detail.keys() == {"reason", "domain", "metadata"}
    assert detail["domain"] == "concerto"
    return response.status_code, detail["reason"], detail["metadata"]
