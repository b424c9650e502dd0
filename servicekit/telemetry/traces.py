"""The spans of a process and their way to a collector, by OpenTelemetry's SDK. Imported only while tracing is on.

Spans are made here and nowhere else: the instrumentations that exist for gRPC and FastAPI put paths, queries and texts
of exceptions into them (docs/decisions/0019-telemetry.md).
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import structlog
from opentelemetry import context, trace
from opentelemetry.exporter.otlp.proto.grpc.exporter import InvalidCompressionValueException
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from servicekit.telemetry import watches
from servicekit.telemetry.watches import TraceContext, Watch

_LOG = structlog.stdlib.get_logger(__name__)

FLUSH_SECONDS = 3.0
"""How long the end of a process waits for a collector to take the last spans."""
WARN_INTERVAL_SECONDS = 60.0
"""How often it is logged that a collector is away."""

_PARENT = TraceContextTextMapPropagator()
_IDS = RandomIdGenerator()


class Traces:
    """Makes spans. Those of each part belong to a resource of its own, also where parts share a process.

    service: the part where none has named itself. processor: takes the spans that have ended.
    """

    def __init__(self, processor: SpanProcessor, *, service: str, environment: str = "development") -> None:
        self._processor = processor
        self._service = service
        self._environment = environment
        self._tracers: dict[str, tuple[TracerProvider, trace.Tracer]] = {}

    @classmethod
    def to_collector(cls, endpoint: str, *, service: str, environment: str) -> "Traces":
        """Return traces that go to a collector by OTLP over gRPC; it need not be there.

        endpoint: http:// or https:// address. The SDK's own variables (OTEL_TRACES_SAMPLER, OTEL_BSP_…,
        OTEL_EXPORTER_OTLP_HEADERS …) are read by the SDK. Raises ValueError or OSError, as importing
        this module does, where it cannot use one of them.
        """
        # Their warnings come with each batch; ours says the same once in a while.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        try:
            exporter = FailureLoggingExporter(OTLPSpanExporter(endpoint=endpoint), endpoint=endpoint, service=service)
            processor = BatchSpanProcessor(exporter)
        except InvalidCompressionValueException as error:
            raise ValueError(str(error)) from error
        return cls(_Closing(processor, exporter), service=service, environment=environment)

    def close(self) -> None:
        """Send what waits, for FLUSH_SECONDS at most, and take no more spans."""
        self._processor.shutdown()

    def receive(self, method: str, traceparent: str) -> Span:
        """Begin a request's span, and make it the current one of this task."""
        provider, tracer = self._of_part()
        parent = _PARENT.extract({watches.TRACEPARENT: traceparent})
        named = trace.get_current_span(parent).get_span_context()
        if named.is_valid:
            # The sampler decides as if the trace began here: no client makes us keep more, or less, than we want.
            judged = provider.sampler.should_sample(context.Context(), named.trace_id, method, SpanKind.SERVER)
            is_kept = judged.decision is Decision.RECORD_AND_SAMPLE
            flags = TraceFlags(TraceFlags.SAMPLED if is_kept else TraceFlags.DEFAULT)
            parent = _context_of(SpanContext(named.trace_id, named.span_id, is_remote=True, trace_flags=flags))
        attributes = {"http.request.method": method}
        return _current(tracer.start_span(method, parent, SpanKind.SERVER, attributes))

    def serve(self, path: str, traceparent: str) -> Span:
        """Begin the span of an rpc that is served (`package.Service/Method`), and make it the task's current one."""
        parent = _PARENT.extract({watches.TRACEPARENT: traceparent})
        return _current(self._of_part()[1].start_span(path, parent, SpanKind.SERVER, _rpc_attributes(path)))

    def call(self, path: str) -> Span | None:
        """Begin the span of an rpc that is called; None outside of any trace."""
        return self._child(path, SpanKind.CLIENT, _rpc_attributes(path))

    def query(self, operation: str) -> Span | None:
        """Begin the span of an operation of the database; None outside of any trace, as for upkeep."""
        attributes = {"db.system.name": "postgresql", "db.operation.name": operation}
        return self._child(operation, SpanKind.CLIENT, attributes)

    def ask(self, name: str, attributes: Mapping[str, str | bool]) -> Span | None:
        """Begin the span of a call of somebody else's service; None outside of any trace."""
        return self._child(name, SpanKind.CLIENT, attributes)

    def work(self, name: str, attributes: Mapping[str, str]) -> Span:
        """Begin the span of work in a task of its own, and make it that task's current one."""
        return _current(self._of_part()[1].start_span(name, None, SpanKind.INTERNAL, attributes))

    def end(self, span: Span, *, error_type: str = "", is_failure: bool = False) -> None:
        """End a span. A failure has a status without any description, as those quote."""
        if error_type:
            span.set_attribute("error.type", error_type)
        if is_failure:
            span.set_status(StatusCode.ERROR)
        span.end()

    def traceparent(self, span: Span) -> str:
        """Return the header that lets a callee go on from this span."""
        at = span.get_span_context()
        return f"00-{trace.format_trace_id(at.trace_id)}-{trace.format_span_id(at.span_id)}-{at.trace_flags:02x}"

    def ids(self) -> tuple[str, str] | None:
        """Return the current span's trace id and span id as hexadecimal text; None without one."""
        at = trace.get_current_span().get_span_context()
        return (trace.format_trace_id(at.trace_id), trace.format_span_id(at.span_id)) if at.is_valid else None

    def trace_context(self) -> TraceContext | None:
        """Return the current context; None outside of any trace."""
        at = trace.get_current_span().get_span_context()
        return TraceContext(watches.service_name(self._service), at) if at.is_valid else None

    def on_behalf(self, name: str, contexts: Sequence[TraceContext]) -> "OnBehalf":
        """Return the watch of work that is done for those whose contexts these are, at least one."""
        return OnBehalf(self, name, contexts)

    def untraced(self) -> "Untraced":
        """Return the watch of work whose spans nobody wants."""
        return Untraced()

    def begin_linked(self, name: str, contexts: Sequence[TraceContext]) -> Span:
        """Begin the span of a trace of its own that is linked to others."""
        links = [Link(trace_context.span) for trace_context in contexts]
        return self._of_part()[1].start_span(name, context.Context(), SpanKind.INTERNAL, links=links)

    def _child(self, name: str, kind: SpanKind, attributes: Mapping[str, str | bool]) -> Span | None:
        if not trace.get_current_span().get_span_context().is_valid:
            return None
        return self._of_part()[1].start_span(name, None, kind, attributes)

    def _of_part(self) -> tuple[TracerProvider, trace.Tracer]:
        service = watches.service_name(self._service)
        known = self._tracers.get(service)
        if known is None:
            resource = Resource.create(
                {
                    "service.name": f"concerto-{service}",
                    "service.namespace": "concerto",
                    "deployment.environment.name": self._environment,
                }
            )
            # The processor is shared, and closed by us alone.
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            provider.add_span_processor(self._processor)
            known = self._tracers[service] = provider, provider.get_tracer("concerto")
        return known


class Untraced(Watch):
    """Makes a context of a trace that is not kept the current one, so nothing below is kept either, here or there."""

    __slots__ = ("_token",)

    def __enter__(self) -> Self:
        unsampled = SpanContext(_IDS.generate_trace_id(), _IDS.generate_span_id(), is_remote=False)
        self._token = context.attach(_context_of(unsampled))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        context.detach(self._token)


class OnBehalf(Watch):
    """Makes the context of another caller the current one while its block runs, or a span that is linked to several."""

    __slots__ = ("_contexts", "_name", "_span", "_token", "_traces")

    def __init__(self, traces: Traces, name: str, contexts: Sequence[TraceContext]) -> None:
        self._traces, self._name, self._contexts = traces, name, contexts
        self._span: Span | None = None

    def __enter__(self) -> Self:
        watches.name_service(self._contexts[0].service)
        if len(self._contexts) == 1:
            at = self._contexts[0].span
            self._token = context.attach(_context_of(at))
        else:
            self._span = self._traces.begin_linked(self._name, self._contexts)
            self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        context.detach(self._token)
        if self._span is not None:
            self._traces.end(self._span, is_failure=error is not None)


class FailureLoggingExporter(SpanExporter):
    """Gives spans to another exporter; its failures cost spans, and now and then a line in our log, and nothing else.

    It is called in the processor's own thread.
    """

    def __init__(self, exporter: SpanExporter, *, endpoint: str, service: str) -> None:
        self._exporter = exporter
        self._address = urlsplit(endpoint).netloc.rpartition("@")[2]
        self._service = service
        self._lost = 0
        self._warned_at = -WARN_INTERVAL_SECONDS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send the spans."""
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._lost:
                _LOG.info("traces.collector_is_back", service=self._service, collector=self._address, lost=self._lost)
            self._lost, self._warned_at = 0, -WARN_INTERVAL_SECONDS
            return result
        self._lost += len(spans)
        now = time.monotonic()
        if now - self._warned_at >= WARN_INTERVAL_SECONDS:
            self._warned_at = now
            _LOG.warning("traces.not_taken", service=self._service, collector=self._address, lost=self._lost)
        return result

    def shutdown(self) -> None:
        """Stop at once: what is on its way or comes later is lost."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return True: nothing waits here."""
        return self._exporter.force_flush(timeout_millis)


class _Closing(SpanProcessor):
    """The batches' processor, whose end does not wait half a minute for a collector that is away."""

    def __init__(self, batches: BatchSpanProcessor, exporter: FailureLoggingExporter) -> None:
        self._batches = batches
        self._exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended; never waits."""
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what waits, or give it up after FLUSH_SECONDS."""
        timer = threading.Timer(FLUSH_SECONDS, self._exporter.shutdown)
        timer.daemon = True
        timer.start()
        self._batches.shutdown()  # type: ignore[no-untyped-call]
        timer.cancel()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits."""
        return self._batches.force_flush(timeout_millis)


def _rpc_attributes(path: str) -> Mapping[str, str]:
    return {"rpc.system.name": "grpc", "rpc.method": path}


def _context_of(at: SpanContext) -> context.Context:
    return trace.set_span_in_context(NonRecordingSpan(at), context.Context())


def _current(span: Span) -> Span:
    # Never taken back: each request, rpc and run has a task, and with it a context, of its own.
    context.attach(trace.set_span_in_context(span))
    return span
