import asyncio
import contextlib
import contextvars
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
import structlog
from concerto.sessions.v1 import runs_pb2, runs_pb2_grpc, sessions_pb2, sessions_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from servicekit.errors import AppError
from servicekit.rpc import channel
from servicekit.rpc.server import Registration
from servicekit.settings import ProcessSettings
from servicekit.telemetry import measures, observing, process, traces, watches
from servicekit.telemetry.metrics import Metrics
from servicekit.testing import acting_as, make_caller, served
from tests.support.telemetry import Watched, samples_of, watched
from tests.support.waiting import forever, until

SESSIONS = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
RUNS = runs_pb2.DESCRIPTOR.services_by_name["RunsService"]
GET, WATCH = "concerto.sessions.v1.SessionsService/GetSession", "concerto.sessions.v1.RunsService/WatchRunEvents"
SECRET = "swordfish-42"
MISSING, CRASH, SLOW = (str(uuid4()) for _ in range(3))


class Sessions(sessions_pb2_grpc.SessionsServiceServicer):
    """Answers, or fails as its request says."""

    async def GetSession(self, request: Any, context: Any) -> sessions_pb2.GetSessionResponse:
        with observing.querying("get_session"):
            await asyncio.sleep(0)
            if request.session_id == MISSING:
                raise AppError("THING_NOT_FOUND", metadata={"thing_id": SECRET}, cause=SECRET)
        if request.session_id == CRASH:
            raise ValueError(SECRET)
        if request.session_id == SLOW:
            await forever()
        return sessions_pb2.GetSessionResponse()


class Runs(runs_pb2_grpc.RunsServiceServicer):
    async def WatchRunEvents(self, request: Any, context: Any) -> AsyncIterator[runs_pb2.WatchRunEventsResponse]:
        for _ in range(3):
            yield runs_pb2.WatchRunEventsResponse()
        if request.run_id == SLOW:
            await forever()


@pytest.fixture
def seen() -> Iterator[Watched]:
    with watched() as made:
        yield made


@pytest.fixture
async def connection(seen: Watched, kind: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to both services while all is watched."""
    registrations = [
        Registration(SESSIONS, sessions_pb2_grpc.add_SessionsServiceServicer_to_server, Sessions()),
        Registration(RUNS, runs_pb2_grpc.add_RunsServiceServicer_to_server, Runs()),
    ]
    async with served(registrations, within_process=kind == "within") as made:
        yield made


async def get(connection: grpc.aio.Channel, session_id: str | None = None, **options: Any) -> Any:
    stub: Any = sessions_pb2_grpc.SessionsServiceStub(connection)
    request = sessions_pb2.GetSessionRequest(session_id=session_id or str(uuid4()))
    return await channel.call(stub.GetSession, request, **options)


def in_a_request(seen: Watched) -> ReadableSpan:
    """Begin a request, as the gateway does, for the rest of this test."""
    span: Any = seen.traces.receive("GET", "")
    return span


async def until_ended(seen: Watched, count: int) -> None:
    await until(lambda: len(seen.spans) >= count, f"{count} spans")


async def test_caller_handler_and_database_are_one_trace(seen: Watched, connection: grpc.aio.Channel) -> None:
    with acting_as(make_caller()):
        root = in_a_request(seen)
        await get(connection)
    outer, inner, query = seen.span(GET, "CLIENT"), seen.span(GET, "SERVER"), seen.span("get_session")
    assert {span.context.trace_id for span in seen.spans} == {root.context.trace_id}
    assert [span.parent and span.parent.span_id for span in (outer, inner, query)] == [
        span.context.span_id for span in (root, outer, inner)
    ]
    assert dict(inner.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": GET,
        "rpc.response.status_code": "OK",
    }
    assert dict(query.attributes or {}) == {"db.system.name": "postgresql", "db.operation.name": "get_session"}
    assert {span.status.status_code.name for span in seen.spans} == {"UNSET"}


async def test_a_stream_is_one_span_on_each_side_and_ends_when_it_is_left(
    seen: Watched, connection: grpc.aio.Channel
) -> None:
    stub: Any = runs_pb2_grpc.RunsServiceStub(connection)
    with acting_as(make_caller()):
        in_a_request(seen)
        whole = [
            each async for each in channel.stream(stub.WatchRunEvents, runs_pb2.WatchRunEventsRequest(run_id=MISSING))
        ]
        assert len(whole) == 3
        assert [(span.attributes or {})["rpc.response.status_code"] for span in seen.spans] == ["OK", "OK"]
        responses = channel.stream(stub.WatchRunEvents, runs_pb2.WatchRunEventsRequest(run_id=SLOW))
        async with contextlib.aclosing(responses):
            await anext(responses)
    await until_ended(seen, 4)
    assert [(span.attributes or {})["rpc.response.status_code"] for span in seen.spans[2:]] == ["CANCELLED"] * 2
    assert {span.status.status_code.name for span in seen.spans} == {"UNSET"}
    assert seen.samples("concerto_rpc_duration_seconds_count") == {
        ("CANCELLED", "WatchRunEvents", "RunsService"): 1,
        ("OK", "WatchRunEvents", "RunsService"): 1,
    }
    assert seen.value("concerto_rpc_active") == 0


async def test_failures_are_codes_and_reasons_and_none_of_their_text(
    seen: Watched, connection: grpc.aio.Channel
) -> None:
    in_a_request(seen)
    with acting_as(make_caller()):
        for session_id, reason in ((MISSING, "THING_NOT_FOUND"), (CRASH, "INTERNAL"), (SECRET, "INVALID_FIELD")):
            with pytest.raises(AppError) as caught:
                await get(connection, session_id)
            assert caught.value.reason == reason
        with pytest.raises(AppError):
            await get(connection, SLOW, timeout_seconds=0.2)
    await until_ended(seen, 8 + 3)
    with pytest.raises(AppError):
        await get(connection)  # nobody is signed in
    types = [(span.attributes or {}).get("error.type") for span in seen.spans if span.kind.name == "SERVER"]
    assert types == ["THING_NOT_FOUND", "ValueError", "INVALID_FIELD", "CANCELLED", "TOKEN_MISSING"]
    statuses = [span.status for span in seen.spans if span.kind.name == "SERVER"]
    assert [status.status_code.name for status in statuses] == ["UNSET", "ERROR", "UNSET", "UNSET", "UNSET"]
    assert {span.status.description for span in seen.spans} == {None}
    assert [event for span in seen.spans for event in span.events] == []
    assert SECRET not in seen.exported
    counts = {labels[0]: count for labels, count in seen.samples("concerto_rpc_duration_seconds_count").items()}
    assert counts == {"NOT_FOUND": 1, "INTERNAL": 1, "INVALID_ARGUMENT": 1, "CANCELLED": 1, "UNAUTHENTICATED": 1}
    # Servers of other tests in this process look after their databases meanwhile.
    queries = seen.samples("concerto_db_call_duration_seconds_count")
    assert {labels: count for labels, count in queries.items() if labels[0] != "ping"} == {
        ("get_session", "ok"): 2,
        ("get_session", "refused"): 1,
    }


async def test_outside_of_any_trace_callers_begin_none(seen: Watched, connection: grpc.aio.Channel) -> None:
    async def alone() -> None:
        with acting_as(make_caller()):
            await get(connection)

    await asyncio.get_running_loop().create_task(alone(), context=contextvars.Context())
    assert [(span.name, span.kind.name, span.parent is None) for span in seen.spans] == [
        ("get_session", "CLIENT", False),
        (GET, "SERVER", True),
    ]


@pytest.mark.parametrize(
    "header", ["", "nonsense", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "ff-" + "1" * 32 + "-" + "1" * 16 + "-01"]
)
def test_a_header_that_names_no_trace_is_passed_over(seen: Watched, header: str) -> None:
    span: Any = contextvars.Context().run(seen.traces.receive, "GET", header)
    assert span.parent is None


@pytest.mark.parametrize("flags", ["00", "01"])
@pytest.mark.parametrize(("sampler", "is_kept"), [("parentbased_always_on", True), ("parentbased_always_off", False)])
def test_a_client_chooses_the_traces_id_and_not_whether_it_is_kept(
    monkeypatch: pytest.MonkeyPatch, sampler: str, is_kept: bool, flags: str
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    with watched() as seen:
        header = f"00-{'ab' * 16}-{'cd' * 8}-{flags}"
        span: Any = contextvars.Context().run(seen.traces.receive, "GET", header)
        assert (f"{span.get_span_context().trace_id:032x}", span.is_recording()) == ("ab" * 16, is_kept)
        assert seen.traces.traceparent(span)[:36] == f"00-{'ab' * 16}-"
        assert seen.traces.traceparent(span)[-2:] == ("01" if is_kept else "00")


@pytest.mark.parametrize("count", [1, 3])
def test_work_for_one_belongs_to_its_trace_and_for_several_is_linked_to_theirs(seen: Watched, count: int) -> None:
    def begin(number: int) -> object:
        watches.name_service(f"part-{number}")
        with observing.working("run", {}):
            return observing.trace_context()

    def work() -> None:
        with observing.on_behalf("for many", [None, *contexts]), observing.querying("append"):
            pass
        assert observing.trace_context() is None

    contexts: Any = [contextvars.Context().run(begin, number) for number in range(count)]
    contextvars.Context().run(work)
    runs = [span for span in seen.spans if span.name == "run"]
    query = seen.span("append")
    if count == 1:
        assert query.parent == runs[0].context
    else:
        own = seen.span("for many")
        assert (query.parent, own.parent) == (own.context, None)
        assert [link.context for link in own.links] == [run.context for run in runs]
    assert query.resource.attributes["service.name"] == "concerto-part-0"


async def test_what_is_repeated_is_counted_and_leaves_no_span_on_either_side(
    seen: Watched, connection: grpc.aio.Channel
) -> None:
    in_a_request(seen)
    with acting_as(make_caller()):
        with observing.untraced():
            await get(connection)
        assert seen.spans == ()
        assert seen.samples("concerto_rpc_duration_seconds_count") == {("OK", "GetSession", "SessionsService"): 1}
        await get(connection)
    assert len(seen.spans) == 3


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (AppError("THING_NOT_FOUND", metadata={"thing_id": "x"}), "refused"),
        (AppError("DATABASE_BUSY"), "busy"),
        (AppError("DATABASE_UNAVAILABLE"), "unavailable"),
        (AppError("INTERNAL"), "failed"),
        (ValueError(SECRET), "failed"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
def test_operations_are_counted_by_how_they_end(seen: Watched, error: BaseException | None, outcome: str) -> None:
    with contextlib.suppress(AppError, ValueError, asyncio.CancelledError), observing.querying("get_me"):
        if error is not None:
            raise error
    assert seen.samples("concerto_db_call_duration_seconds_count") == {("get_me", outcome): 1}


def test_the_listener_serves_metrics_and_nothing_else() -> None:
    metrics = Metrics()
    observing.use(metrics=metrics)
    observing.RPC_ACTIVE.set(3)
    listener = metrics.listen("127.0.0.1", 0)
    try:
        address = f"http://127.0.0.1:{listener.port}"
        answer = httpx.get(f"{address}/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        assert samples_of(answer.text, "concerto_rpc_active") == {(): 3}
        assert samples_of(answer.text, "process_resident_memory_bytes")[()] > 0
        assert "_created" not in answer.text
        assert [httpx.get(f"{address}{path}").status_code for path in ("/", "/metrics/", "/healthz")] == [404] * 3
        with pytest.raises(SystemExit, match=r"cannot be listened on for metrics .* Set CONCERTO_METRICS_PORT to a"):
            Metrics().listen("127.0.0.1", listener.port)
    finally:
        observing.use()
        metrics.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{address}/metrics")


def test_a_measure_of_a_parts_own_is_exported_by_its_names_once_it_is_used() -> None:
    boiled = measures.Counter("concerto_test_boiled", "What has boiled.", ("what",))
    lasting = measures.Histogram("concerto_test_boiling_seconds", "How long.", buckets=(1, 2))
    boiled.add(1, "milk")  # nobody records
    with watched() as seen:
        assert "concerto_test" not in seen.exported
        boiled.add(2, "milk")
        lasting.observe(1.5)
        assert seen.samples("concerto_test_boiled_total") == {("milk",): 2}
        assert seen.samples("concerto_test_boiling_seconds_bucket") == {("+Inf",): 1, ("1.0",): 0, ("2.0",): 1}
    with pytest.raises(ValueError, match="concerto_test_boiled is declared twice"):
        measures.Gauge("concerto_test_boiled", "Again.")


def test_pools_are_counted_together_and_for_as_long_as_they_live() -> None:
    class Pool:
        def counts(self) -> measures.Counts:
            return measures.Counts(idle=1, busy=2, opening=3, waiting=4)

    with watched() as seen:
        pools = [Pool(), Pool()]
        for pool in pools:
            measures.watch_pool(pool)
        assert seen.samples("concerto_db_connections") == {("busy",): 4, ("idle",): 2, ("opening",): 6}
        assert seen.value("concerto_db_waiting") == 8
        del pool
        pools.clear()
        assert seen.value("concerto_db_connections", state="busy") == 0


OFF = """
import sys
from servicekit.database import client
from servicekit.rpc import channel, server
from servicekit.telemetry import process
from servicekit.settings import ProcessSettings
process.configure(ProcessSettings.load(), service="tests")
process.close()
OURS = ("opentelemetry", "prometheus_client", "servicekit.telemetry.metrics", "servicekit.telemetry.traces")
print([name for name in sys.modules if name.startswith(OURS)])
"""


def run(program: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {"CONCERTO_ENV_FILE": "/dev/null", "PYTHONPATH": os.pathsep.join(sys.path), **variables}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)


def test_nothing_is_imported_while_telemetry_is_off() -> None:
    assert run(OFF).stdout.strip() == "[]"


CORRELATED = """
import logging
import structlog
from servicekit.telemetry import observing, process
from servicekit.settings import ProcessSettings
from tests.support.waiting import forever, until
process.configure(ProcessSettings.load(), service="tests")
log = structlog.stdlib.get_logger("a.module")
log.info("before")
with observing.working("run", {}):
    log.info("within")
    logging.getLogger("library").warning("within too")
    print(*observing.trace_ids())
"""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999"),
    ],
)
def test_variables_that_opentelemetry_cannot_use_leave_traces_off_and_stop_nothing(name: str, value: str) -> None:
    program = OFF.partition("process.close()")[0] + "print(observing.trace_ids())"
    program = f"from servicekit.telemetry import observing\n{program}"
    done = run(program, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", CONCERTO_LOG_FORMAT="json", **{name: value})
    (warning,) = [line for line in done.stderr.splitlines() if "traces.off" in line]
    assert "OpenTelemetry cannot use one of its variables" in warning


def test_log_entries_carry_the_current_span_and_none_before_there_is_one() -> None:
    done = run(CORRELATED, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_SDK_DISABLED="false")
    trace_id, span_id = done.stdout.split()
    before, *within = done.stderr.splitlines()[:3]
    assert "trace_id" not in before
    assert len(within) == 2
    for line in within:
        assert f"span_id={span_id}" in line
        assert f"trace_id={trace_id}" in line
    assert re.fullmatch(r"[0-9a-f]{32}", trace_id)


def test_a_taken_port_ends_the_process_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"127.0.0.1:{port} cannot be listened on for metrics"):
            process.start(ProcessSettings.load(CONCERTO_METRICS_PORT=port), service="tests")
    process.close()


class Failing(SpanExporter):
    def __init__(self) -> None:
        self.result = SpanExportResult.FAILURE

    def export(self, spans: Any) -> SpanExportResult:
        return self.result


def test_a_collector_that_is_away_is_a_line_once_in_a_while() -> None:
    inner = Failing()
    exporter = traces.FailureLoggingExporter(inner, endpoint="http://user:pass@collector:4317", service="tests")
    spans: Any = [object()] * 5
    with structlog.testing.capture_logs() as entries:
        for _ in range(20):
            exporter.export(spans)
        inner.result = SpanExportResult.SUCCESS
        exporter.export(spans)
        exporter.export(spans)
    warnings = [(entry["event"], entry["collector"], entry["lost"]) for entry in entries]
    assert warnings == [("traces.not_taken", "collector:4317", 5), ("traces.collector_is_back", "collector:4317", 100)]


def test_the_end_of_a_process_waits_only_so_long_for_a_collector_that_never_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces, "FLUSH_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        made = traces.Traces.to_collector(
            f"http://127.0.0.1:{silent.getsockname()[1]}", service="tests", environment="development"
        )
        made.end(made.work("run", {}))
        made.close()
