"""Traces and metrics as tests see them: kept in this process, or taken by a small collector as OTLP over gRPC."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from servicekit.telemetry import observing
from servicekit.telemetry.metrics import Metrics
from servicekit.telemetry.traces import Traces


class Watched:
    """What the telemetry of this process has seen."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._exporter = InMemorySpanExporter()
        self.traces = Traces(SimpleSpanProcessor(self._exporter), service="tests")

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """The spans that have ended, in that order."""
        return self._exporter.get_finished_spans()

    @property
    def exported(self) -> str:
        """Everything that would leave the process: spans with all they hold, and the text of the metrics."""
        return "\n".join([*(span.to_json() for span in self.spans), generate_latest(self.metrics.registry).decode()])

    def span(self, name: str, kind: str | None = None) -> ReadableSpan:
        """Return the only span of this name."""
        found = [span for span in self.spans if span.name == name and kind in (None, span.kind.name)]
        assert len(found) == 1, [(span.name, span.kind.name) for span in self.spans]
        return found[0]

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample's value; None when there is none."""
        return self.metrics.registry.get_sample_value(name, labels)

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the samples of a name by their labels' values, in the order of the labels' names."""
        return samples_of(generate_latest(self.metrics.registry).decode(), name)


@contextlib.contextmanager
def watched() -> Iterator[Watched]:
    """Watch this process while the block runs."""
    seen = Watched()
    observing.use(metrics=seen.metrics, traces=seen.traces)
    try:
        yield seen
    finally:
        observing.use()
        seen.traces.close()


def samples_of(text: str, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a name in what /metrics has answered, by their labels' values, sorted by labels' names."""
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@dataclass(frozen=True)
class Taken:
    """A span that has arrived."""

    service: str
    span: trace_pb2.Span

    @property
    def kind(self) -> str:
        """SERVER, CLIENT or INTERNAL."""
        return trace_pb2.Span.SpanKind.Name(self.span.kind).removeprefix("SPAN_KIND_")

    @property
    def attributes(self) -> dict[str, str]:
        """Its attributes as texts."""
        found: dict[str, str] = {}
        for pair in self.span.attributes:
            kind = pair.value.WhichOneof("value")
            value: Any = getattr(pair.value, kind) if kind else ""
            found[pair.key] = (
                ",".join(each.string_value for each in value.values) if kind == "array_value" else str(value)
            )
        return found


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans as an OpenTelemetry collector does, and keeps every byte."""

    def __init__(self) -> None:
        self.content: list[bytes] = []
        self.taken: list[Taken] = []
        self.endpoint = ""

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.content.append(request.SerializeToString())
        for resource in request.resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.taken += [Taken(names["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls) -> AsyncIterator["Collector"]:
        """Serve on a free port of 127.0.0.1 while the block runs."""
        collector = cls()
        server = grpc.aio.server()
        add: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
        add(collector, server)
        collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield collector
        finally:
            await server.stop(0)

    def trace(self, trace_id: str) -> "Trace":
        """Return what has arrived of a trace, by its hexadecimal id."""
        return Trace([taken for taken in self.taken if taken.span.trace_id.hex() == trace_id])


class Trace:
    """The spans of one trace."""

    def __init__(self, spans: list[Taken]) -> None:
        self.spans = spans
        self._by_id = {taken.span.span_id: taken for taken in spans}

    @property
    def services(self) -> set[str]:
        return {taken.service for taken in self.spans}

    def named(self, name: str, kind: str | None = None) -> list[Taken]:
        return [taken for taken in self.spans if taken.span.name == name and kind in (None, taken.kind)]

    def path(self, taken: Taken) -> list[str]:
        """Return the names from a span up to the one that the client began, the latter left out."""
        names = [taken.span.name]
        while (parent := self._by_id.get(taken.span.parent_span_id)) is not None:
            taken = parent
            names.append(taken.span.name)
        return names

    def parents_outside(self) -> set[str]:
        """Return the ids of parents that are no span of the trace."""
        return {t.span.parent_span_id.hex() for t in self.spans if t.span.parent_span_id not in self._by_id}

    def summary(self) -> str:
        """Return lines for people: spans per service, the depth, the names."""
        per_service = Counter(taken.service for taken in self.spans)
        depth = max(len(self.path(taken)) for taken in self.spans)
        names = Counter((taken.service.removeprefix("concerto-"), taken.kind, taken.span.name) for taken in self.spans)
        lines = [
            f"{len(self.spans)} spans, {depth} deep: "
            + ", ".join(f"{service} {count}" for service, count in sorted(per_service.items()))
        ]
        lines += [
            f"  {count:3} × {service:<12} {kind:<8} {name}" for (service, kind, name), count in sorted(names.items())
        ]
        return "\n".join(lines)
