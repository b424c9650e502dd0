"""Reads requests off the wire: what is no message of the contract is refused as such, with nothing in the log."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from servicekit.errors import AppError


class ReadingInterceptor(grpc.aio.ServerInterceptor):
    """The outermost layer of a gRPC server: a corrupt message, or none where one is due, is INVALID_ARGUMENT.

    grpc.aio itself logs a traceback for the first and tells its text to the client, and never answers the second. It
    looks at a request's message before anybody of ours does, unless the rpc takes a stream of them; on the wire both
    are the same. So every rpc is served as one that takes a stream, of which it has the first message.
    """

    def __init__(self) -> None:
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of any rpc."""
        path: str = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            handler: Any = await continuation(handler_call_details)
            if handler is None:
                return None
            # A server's handlers never change, so each is wrapped once.
            wrapped = self._wrapped[path] = _wrap(handler)
        return wrapped


class _Unreadable:
    """Stands for a message that could not be parsed."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


Context = grpc.aio.ServicerContext[Any, Any]


def _wrap(handler: Any) -> Any:
    read = _reader(handler.request_deserializer)
    if handler.unary_unary:
        return grpc.stream_unary_rpc_method_handler(_unary(handler.unary_unary), read, handler.response_serializer)
    if handler.unary_stream:
        return grpc.stream_stream_rpc_method_handler(_stream(handler.unary_stream), read, handler.response_serializer)
    if handler.stream_stream:
        serve = _both_streams(handler.stream_stream)
        return grpc.stream_stream_rpc_method_handler(serve, read, handler.response_serializer)
    return handler


def _reader(deserialize: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        try:
            return deserialize(content)
        except Exception as error:  # noqa: BLE001 (whatever a parser raises, it is the message that is at fault)
            return _Unreadable(error)

    return read


def _unary(handle: Any) -> Any:
    async def unary(messages: AsyncIterator[Any], context: Context) -> Any:
        return await handle(await _first(messages, context), context)

    return unary


def _stream(handle: Any) -> Any:
    async def stream(messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async for response in _responses(handle(await _first(messages, context), context)):
            yield response

    return stream


def _both_streams(handle: Any) -> Any:
    async def stream(messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async def readable() -> AsyncIterator[Any]:
            async for message in messages:
                if isinstance(message, _Unreadable):
                    await _refuse(context, message.cause)
                yield message

        async for response in _responses(handle(readable(), context)):
            yield response

    return stream


async def _responses(source: Any) -> AsyncIterator[Any]:
    """Yield what a handler yields; one that is a coroutine writes by itself."""
    if hasattr(source, "__aiter__"):
        async for response in source:
            yield response
    else:
        await source


async def _first(messages: AsyncIterator[Any], context: Context) -> Any:
    async for message in messages:
        if isinstance(message, _Unreadable):
            await _refuse(context, message.cause)
        return message
    return await _refuse(context, None)


async def _refuse(context: Context, cause: Exception | None) -> None:
    error = AppError("INVALID_REQUEST", cause=cause)
    await context.abort_with_status(error.to_status())
