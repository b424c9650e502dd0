"""What metrics and traces see of a process's work, one watch per kind of work; next to nothing while both are off.

Spans and labels hold names of our own code and contract, codes, numbers and ids. Nothing that a user wrote is
ever given to them (no path, query, message, address or text of an exception), so nothing has to be taken out later.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
from google.protobuf.descriptor import MethodDescriptor

from servicekit.errors import AppError
from servicekit.telemetry import measures
from servicekit.telemetry.watches import NOTHING, TRACEPARENT, TraceContext, Value, Watch

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from servicekit.telemetry.traces import Traces

HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_UNWATCHED_PATHS = frozenset({"/healthz", "/readyz"})
# Of these the server is to blame, so its own span failed; to the caller every code but OK is a failure.
_FAILURES = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_OUTCOMES = {
    "DATABASE_BUSY": "busy",
    "TOO_MANY_REQUESTS": "throttled",
    "DATABASE_UNAVAILABLE": "unavailable",
    "INTERNAL": "failed",
    "CANCELLED": "cancelled",
}

_NO_ATTRIBUTES: Mapping[str, str | bool] = MappingProxyType({})
_BROKEN = frozenset({"busy", "unavailable", "failed"})

RPC_SECONDS = measures.Histogram(
    "concerto_rpc_duration_seconds",
    "Time to answer an rpc, of a stream to its end, by its gRPC code.",
    ("service", "method", "code"),
    buckets=measures.SECONDS,
)
RPC_ACTIVE = measures.Gauge("concerto_rpc_active", "Rpcs that are being answered.")
HTTP_SECONDS = measures.Histogram(
    "concerto_http_request_duration_seconds",
    "Time to answer a request, of a stream to its end, by its route's template.",
    ("method", "route", "status"),
    buckets=measures.SECONDS,
)
HTTP_ACTIVE = measures.Gauge("concerto_http_active", "Requests that are being answered.")
QUERY_SECONDS = measures.Histogram(
    "concerto_db_call_duration_seconds",
    "Time of an operation of the database, waiting for a connection included, by how it ended.",
    ("operation", "outcome"),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

_traces: "Traces | None" = None


def use(*, metrics: measures.Recorder | None = None, traces: "Traces | None" = None) -> None:
    """Watch with these from now on; None switches off."""
    global _traces
    _traces = traces
    measures.record_with(metrics)


def is_on() -> bool:
    """Say whether anything is watched: metrics, traces, or both."""
    return _traces is not None or measures.is_recorded()


def trace_ids() -> tuple[str, str] | None:
    """Return the current span's trace id and span id as hexadecimal text; None without a span."""
    return None if _traces is None else _traces.ids()


class _Timed(Watch):
    __slots__ = ("_span", "_started_at")

    def __init__(self) -> None:
        self._span: Span | None = None
        self._started_at = time.perf_counter()

    def _seconds(self) -> float:
        return time.perf_counter() - self._started_at

    @property
    def traceparent(self) -> str:
        span = self._span
        return "" if span is None or _traces is None else _traces.traceparent(span)

    def note(self, attributes: Mapping[str, Value]) -> None:
        if self._span is not None:
            self._span.set_attributes(attributes)


class _Serving(_Timed):
    """An rpc as its server sees it."""

    __slots__ = ("_context", "_method", "_path", "_service")

    def __init__(self, service: str, method: str, path: str, context: Any) -> None:
        super().__init__()
        self._service, self._method, self._path, self._context = service, method, path, context

    def __enter__(self) -> Self:
        RPC_ACTIVE.add(1)
        if _traces is not None:
            self._span = _traces.serve(self._path, _traceparent_of(self._context.invocation_metadata() or ()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        code = code_of(error)
        RPC_ACTIVE.add(-1)
        RPC_SECONDS.observe(self._seconds(), self._service, self._method, code)
        if self._span is not None and _traces is not None:
            self._span.set_attribute("rpc.response.status_code", code)
            _traces.end(self._span, error_type=type_of(error), is_failure=code in _FAILURES)


def serving(method: MethodDescriptor) -> Callable[[Any], Watch]:
    """Return what makes the watch of one call of an rpc that is served here, given the call's ServicerContext.

    Its span stays the current one in the call's task. An AppError that is raised within is the call's code.
    """
    if not is_on():
        return _unwatched
    service = method.containing_service
    return functools.partial(_Serving, service.name, method.name, f"{service.full_name}/{method.name}")


def _unwatched(_: Any) -> Watch:
    return NOTHING


def _traceparent_of(metadata: Iterable[Any]) -> str:
    for key, value in metadata:
        if key == TRACEPARENT:
            return str(value)
    return ""


class _Calling(_Timed):
    """An rpc as its caller sees it."""

    __slots__ = ()

    def __init__(self, path: str) -> None:
        super().__init__()
        if _traces is not None:
            self._span = _traces.call(path)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is not None and _traces is not None:
            code = code_of(error)
            self._span.set_attribute("rpc.response.status_code", code)
            _traces.end(self._span, error_type=type_of(error), is_failure=code not in ("OK", "CANCELLED"))


def calling(method: Any) -> Watch:
    """Return the watch of a call of a neighbour's rpc (its multi-callable); its `traceparent` goes along."""
    if _traces is None:
        return NOTHING
    path = getattr(method, "_method", b"")
    return _Calling((path.decode() if isinstance(path, bytes) else str(path)).lstrip("/"))


class _Querying(_Timed):
    """An operation of the database."""

    __slots__ = ("_operation",)

    def __init__(self, operation: str) -> None:
        super().__init__()
        self._operation = operation
        if _traces is not None:
            self._span = _traces.query(operation)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        outcome = outcome_of(error)
        QUERY_SECONDS.observe(self._seconds(), self._operation, outcome)
        if self._span is not None and _traces is not None:
            _traces.end(self._span, error_type=type_of(error), is_failure=outcome in _BROKEN)


def querying(operation: str) -> Watch:
    """Return the watch of an operation of the database, waiting for a connection included.

    operation: its name in our code; never anything else, as it is a label and the span's name.
    """
    return _Querying(operation) if is_on() else NOTHING


class _Asking(_Timed):
    """A call of a service that is not ours."""

    __slots__ = ()

    def __init__(self, name: str, attributes: Mapping[str, str | bool]) -> None:
        super().__init__()
        if _traces is not None:
            self._span = _traces.ask(name, attributes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is not None and _traces is not None:
            what = type_of(error)
            _traces.end(self._span, error_type=what, is_failure=isinstance(error, Exception) and what != "CANCELLED")


def asking(name: str, attributes: Mapping[str, str | bool] = _NO_ATTRIBUTES) -> Watch:
    """Return the watch of a call of a service that is not ours.

    name, attributes: of the call in our code, never of its content.
    """
    return NOTHING if _traces is None else _Asking(name, attributes)


class _Working(_Timed):
    """Work that nobody waits for."""

    __slots__ = ()

    def __init__(self, name: str, attributes: Mapping[str, str]) -> None:
        super().__init__()
        if _traces is not None:
            self._span = _traces.work(name, attributes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is not None and _traces is not None:
            _traces.end(self._span, error_type=type_of(error), is_failure=isinstance(error, Exception))


def working(name: str, attributes: Mapping[str, str]) -> Watch:
    """Return the watch of work in a task of its own, which belongs to the trace of what has started it.

    Its span stays the current one in that task.
    """
    return NOTHING if _traces is None else _Working(name, attributes)


class Receiving:
    """A request at the gateway, from its first byte to the last one of its answer."""

    __slots__ = ("_method", "_span", "_started_at")

    def __init__(self, method: str, traceparent: str, *, has_span: bool) -> None:
        self._method = method if method in HTTP_METHODS else "other"
        self._started_at = time.perf_counter()
        self._span = None if _traces is None or not has_span else _traces.receive(self._method, traceparent)
        HTTP_ACTIVE.add(1)

    def end(self, route: str, status: int, error_type: str) -> None:
        """Note how it ended. route: the template, never the path. error_type: the error's reason; empty for none."""
        HTTP_ACTIVE.add(-1)
        HTTP_SECONDS.observe(time.perf_counter() - self._started_at, self._method, route, str(status))
        if self._span is not None and _traces is not None:
            self._span.update_name(f"{self._method} {route}" if route != "-" else self._method)
            self._span.set_attribute("http.response.status_code", status)
            if route != "-":
                self._span.set_attribute("http.route", route)
            _traces.end(self._span, error_type=error_type, is_failure=status >= 500)


def receiving(method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Receiving | None:
    """Return the watch of a request; None while telemetry is off. Probes of health have no span.

    A client's traceparent gives the trace its id; whether the trace is kept is decided here, not by the client.
    """
    if not is_on():
        return None
    traceparent = ""
    if _traces is not None:
        name = TRACEPARENT.encode()
        traceparent = next((value.decode("latin-1") for key, value in headers if key == name), "")
    return Receiving(method, traceparent, has_span=path not in _UNWATCHED_PATHS)


def trace_context() -> TraceContext | None:
    """Return the current context in a trace, to go on from it elsewhere; None without one."""
    return None if _traces is None else _traces.trace_context()


def on_behalf(name: str, contexts: Iterable[TraceContext | None]) -> Watch:
    """Return the watch of work that one task does for others, who have noted their contexts.

    For one of them it belongs to that one's trace; for several it is a trace of its own that is linked to theirs.
    """
    if _traces is None:
        return NOTHING
    known = [trace_context for trace_context in contexts if trace_context is not None]
    return _traces.on_behalf(name, known) if known else NOTHING


def untraced() -> Watch:
    """Return the watch of work that is counted and has no spans: what is repeated again and again, as heartbeats are.

    What it calls keeps no spans of it either.
    """
    return NOTHING if _traces is None else _traces.untraced()


def code_of(error: BaseException | None) -> str:
    """Return the name of the gRPC code that a call ends with when it raises this."""
    if error is None:
        return "OK"
    if isinstance(error, AppError):
        return error.code.name
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "CANCELLED"
    return "UNKNOWN" if isinstance(error, grpc.aio.AbortError) else "INTERNAL"


def outcome_of(error: BaseException | None) -> str:
    """Return how an operation of the database ended: ok, refused (by its own rules), throttled, busy, …"""
    if error is None:
        return "ok"
    if isinstance(error, AppError):
        return _OUTCOMES.get(error.reason, "refused")
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "failed"


def type_of(error: BaseException | None) -> str:
    """Return a word for what went wrong: our reason, or the exception's class; never its text."""
    if error is None:
        return ""
    if isinstance(error, AppError):
        return error.reason
    return "CANCELLED" if isinstance(error, asyncio.CancelledError | GeneratorExit) else type(error).__name__
