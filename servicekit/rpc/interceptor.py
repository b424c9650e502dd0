"""What happens around every rpc: request id, identity, validation, errors, one log entry, its metrics and span."""

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
import structlog
from concerto.options.v1 import options_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.messages import validation
from servicekit.rpc import channel, identity, request, sign_ins
from servicekit.telemetry import logs, observing

_LOG = structlog.stdlib.get_logger(__name__)

OUR_PACKAGE = "concerto."


def policy_of(method: MethodDescriptor) -> options_pb2.MethodPolicy:
    """Return what the contract says about the rpc."""
    policy: options_pb2.MethodPolicy = method.GetOptions().Extensions[options_pb2.policy]
    return policy


class RpcInterceptor(grpc.aio.ServerInterceptor):
    """The outermost layer of every service of ours.

    It verifies the bearer token (unless the contract calls the rpc anonymous), asks for the services' key where the
    contract leaves the rpc to services, checks the request against the contract, and turns every failure into a status
    with ErrorInfo: an exception's own text never leaves the process, which grpc.aio would otherwise send.
    """

    def __init__(self, verifier: identity.Verifier, *, service_key: SecretStr | None = None) -> None:
        self._verifier = verifier
        self._service_key = service_key.get_secret_value().encode() if service_key is not None else b""
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Wrap the handler of an rpc of ours; health and reflection stay as they are."""
        path: str = handler_call_details.method
        wrapped = self._wrapped.get(path)
        if wrapped is not None:
            return wrapped
        handler: Any = await continuation(handler_call_details)
        if handler is None or not path.startswith(f"/{OUR_PACKAGE}"):
            return handler
        # A server's handlers never change, so each is wrapped once.
        wrapped = self._wrapped[path] = self._wrap(handler, path)
        return wrapped

    def _wrap(self, handler: Any, path: str) -> Any:
        method = _method(path)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(handler.unary_unary, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(handler.unary_stream, method),
                handler.request_deserializer,
                handler.response_serializer,
            )
        raise TypeError(f"{path}: client streams have no wrapper yet")

    def _unary(self, handle: Any, method: MethodDescriptor) -> Any:
        policy = policy_of(method)
        watch = observing.serving(method)

        async def unary(message: Message, context: grpc.aio.ServicerContext[Any, Any]) -> Message | None:
            started_at = time.perf_counter()
            try:
                with watch(context):
                    await self._enter(message, context, policy)
                    response: Message = await handle(message, context)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 (the one place where every failure becomes a status)
                await _abort(context, _as_app_error(error), method, started_at)
                return None
            _log(method, started_at)
            return response

        return unary

    def _stream(self, handle: Any, method: MethodDescriptor) -> Any:
        policy = policy_of(method)
        watch = observing.serving(method)

        async def stream(message: Message, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Message]:
            started_at = time.perf_counter()
            served = sign_ins.Watch(None)
            try:
                with watch(context):
                    await self._enter(message, context, policy)
                    with self._watching() as served:
                        async for response in handle(message, context):
                            served.pause()
                            yield response
                            served.resume()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if served.failure is None or task is None:
                    raise
                task.uncancel()
                await _abort(context, served.failure, method, started_at)
                return
            except (grpc.aio.AbortError, GeneratorExit):
                raise
            except Exception as error:  # noqa: BLE001 (as above, for streams)
                await _abort(context, _as_app_error(error), method, started_at)
                return
            _log(method, started_at)

        return stream

    async def _enter(
        self, message: Message, context: grpc.aio.ServicerContext[Any, Any], policy: options_pb2.MethodPolicy
    ) -> None:
        request_id = authorization = None
        shown_key = ""
        for key, value in context.invocation_metadata() or ():
            if key == request.REQUEST_ID_HEADER:
                request_id = str(value)
            elif key == "authorization":
                authorization = str(value)
            elif key == channel.SERVICE_KEY_HEADER:
                shown_key = str(value)
        request.begin(request_id or None, context.time_remaining())
        # Who may call is decided before what is asked, so that a stranger learns nothing from a validation error.
        identity.set_current_caller(None)
        if not policy.anonymous:
            token = identity.bearer_token(authorization)
            if token is None:
                raise AppError("TOKEN_MISSING")
            identity.set_current_caller(await self._verifier.verify(token))
        if policy.services_only and not (
            self._service_key and hmac.compare_digest(shown_key.encode(), self._service_key)
        ):
            raise AppError("SERVICE_KEY_NEEDED", cause="" if self._service_key else "CONCERTO_SERVICE_KEY is not set")
        validation.check(message)

    def _watching(self) -> AbstractContextManager[sign_ins.Watch]:
        caller = identity.current_caller_or_none()
        return contextlib.nullcontext(sign_ins.Watch(None)) if caller is None else self._verifier.watching(caller)


def _method(path: str) -> MethodDescriptor:
    service, _, name = path.removeprefix("/").partition("/")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]


_NO_TIME_SECONDS = 0.01
"""What may be left of a deadline when its time is over: limits of the database are whole milliseconds, and early."""
_NOT_IN_TIME = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.ABORTED)


def _as_app_error(error: Exception) -> AppError:
    if not isinstance(error, AppError):
        return AppError("INTERNAL", cause=error)
    # Whatever was waited for does not know whose patience has ended; that it would be worth another try is not so.
    if error.code in _NOT_IN_TIME and request.remaining_seconds(1.0) <= _NO_TIME_SECONDS:
        return AppError("DEADLINE_EXCEEDED", cause=error)
    return error


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], error: AppError, method: MethodDescriptor, started_at: float
) -> None:
    _log(method, started_at, error)
    await context.abort_with_status(error.to_status())


def _log(method: MethodDescriptor, started_at: float, error: AppError | None = None) -> None:
    values: dict[str, Any] = {
        "rpc": method.full_name,
        "code": error.code.name if error else "OK",
        "milliseconds": round((time.perf_counter() - started_at) * 1000, 1),
    }
    if error is None:
        _LOG.debug("rpc.finished", **values)
        return
    values["reason"] = error.reason
    if error.cause is not None:
        values["cause"] = logs.describe(error.cause)
    if error.reason == "INTERNAL":
        _LOG.error("rpc.failed", **values)
    else:
        _LOG.info("rpc.refused", **values)
