"""Serves the contract's routes: HTTP request -> message -> rpc -> message -> HTTP answer."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
import orjson
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import Response

from gateway.attempts import ASKS_AUTH_SERVER, LIMITED, Attempts
from gateway.rest import bodies, incoming, negotiation, sse, tickets
from gateway.rest.bodies import Bodies
from gateway.rest.contract import Binding
from gateway.rest.folding import folding_of
from gateway.rest.tickets import Tickets
from gateway.settings import Settings
from servicekit.errors import AppError
from servicekit.messages.converter import to_json
from servicekit.rpc import channel, identity

Endpoint = Callable[[Request], Awaitable[Response]]


class Bridge:
    """Turns bindings into endpoints.

    channels: one per service, by the service's full name.
    tickets: what lets streams begin without a header.
    """

    def __init__(
        self,
        settings: Settings,
        channels: Mapping[str, grpc.aio.Channel],
        verifier: identity.Verifier,
        attempts: Attempts,
        *,
        keep_alive_seconds: float = sse.KEEP_ALIVE_SECONDS,
    ) -> None:
        self._settings = settings
        self._channels = channels
        self._verifier = verifier
        self._attempts = attempts
        self._keep_alive_seconds = keep_alive_seconds
        self.tickets = Tickets(settings)
        self._bodies = Bodies(piece_seconds=settings.body_timeout_seconds, most_bytes=settings.max_buffered_bytes)

    def endpoint(self, binding: Binding) -> Endpoint:
        """Return what serves the binding's route."""
        return self._stream(binding) if binding.is_stream else self._unary(binding)

    def stub(self, binding: Binding) -> Any:
        """Return the callable of the binding's rpc."""
        service = binding.method.containing_service
        connection = self._channels[service.full_name]
        make = connection.unary_stream if binding.is_stream else connection.unary_unary
        return make(
            f"/{service.full_name}/{binding.method.name}",
            request_serializer=binding.request_type.SerializeToString,
            response_deserializer=binding.response_type.FromString,
        )

    async def read(self, request: Request, binding: Binding, max_body_bytes: int) -> Message:
        """Return the request's message: who may call is decided first, then how often, and only then what is asked."""
        if not binding.policy.anonymous:
            await self.sign_in(request, takes_ticket=binding.is_resumable)
        if binding.operation_id in ASKS_AUTH_SERVER:
            await self._attempts.count_address(binding.operation_id, request)
        message = await incoming.read(request, binding, self._bodies, max_body_bytes=max_body_bytes)
        if binding.operation_id in LIMITED:
            await self._attempts.count_account(binding.operation_id, request, message)
        return message

    async def read_content(self, request: Request, *, max_bytes: int) -> bytes:
        """Return the body of a request whose route reads it by itself; see `incoming.read_content`."""
        return await incoming.read_content(
            request, self._bodies, max_bytes=min(max_bytes, self._settings.max_body_bytes)
        )

    async def sign_in(self, request: Request, *, takes_ticket: bool = False) -> None:
        """Make the token's user the caller of this request.

        takes_ticket: a ticket in the address of a stream serves in place of the header, which wins.
        Raises AppError TOKEN_MISSING, TOKEN_INVALID, TICKET_INVALID, …
        """
        ticket = tickets.take(request) if takes_ticket else None
        token = identity.bearer_token(incoming.header(request, b"authorization"))
        if token is None and ticket is not None:
            token = self.tickets.open(ticket, request.scope["path"])
        if token is None:
            raise AppError("TOKEN_MISSING")
        identity.set_current_caller(await self._verifier.verify(token))

    def _unary(self, binding: Binding) -> Endpoint:
        call, status, part = self.stub(binding), binding.success_status, binding.response_body
        is_attempt = binding.operation_id in LIMITED
        max_body_bytes = bodies.most_bytes(binding, at_most=self._settings.max_body_bytes)

        async def unary(request: Request) -> Response:
            message = await self.read(request, binding, max_body_bytes)
            response = await channel.call(call, message)
            if status == 204:
                return Response(status_code=204)
            answer = json_response(_part(response, part), status=status)
            if is_attempt:
                self._attempts.note_success(request, answer, response)
            return answer

        return unary

    def _stream(self, binding: Binding) -> Endpoint:
        call, part = self.stub(binding), binding.response_body
        max_body_bytes = bodies.most_bytes(binding, at_most=self._settings.max_body_bytes)
        folding = folding_of(binding.answer)

        has_batches = binding.has_batches

        async def events(message: Any) -> AsyncGenerator[Sequence[Message], None]:
            if has_batches:
                message.in_batches = True
            # Closed here and not by the collector, so that the rpc ends when the client goes away.
            async with contextlib.aclosing(channel.stream(call, message)) as responses:
                async for response in responses:
                    first = _part(response, part)
                    yield (first, *response.more) if has_batches else (first,)

        async def stream(request: Request) -> Response:
            message = await self.read(request, binding, max_body_bytes)
            source = events(message)
            # Asked from a place on, a stream that has ended may have nothing more to tell.
            may_be_empty = binding.is_resumable
            if negotiation.prefers(request.headers.get("accept"), "application/json", over=sse.MEDIA_TYPE):
                return await sse.while_connected(request.receive, sse.fold(source, folding, may_be_empty=may_be_empty))
            return await sse.begin(
                request.receive,
                source,
                wording=sse.EVENTS,
                keep_alive_seconds=self._keep_alive_seconds,
                may_be_empty=may_be_empty,
            )

        return stream


def json_response(message: Message, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a message as a JSON answer that no cache keeps."""
    return Response(
        orjson.dumps(to_json(message)),
        status_code=status,
        media_type="application/json",
        headers={"cache-control": "no-store", **(headers or {})},
    )


def _part(response: Message, name: str) -> Message:
    if not name:
        return response
    if not response.HasField(name):
        raise AppError("INTERNAL", cause=f"an answer came without {name}")
    part: Message = getattr(response, name)
    return part
