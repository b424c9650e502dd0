import asyncio
import random
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from local.suite.ports import is_free
from local.suite.processes import PARTS, WHOLE, Mode, metrics_port
from tests.e2e.conftest import Start
from tests.support.api import PASSWORD, Person, ok, text_of
from tests.support.measured import Note
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import RunningStack, stop_stack
from tests.support.telemetry import Collector, Trace, samples_of
from tests.support.waiting import until

pytestmark = pytest.mark.own_mode

QUESTION, ANSWER = "Where do swordfish sleep at night?", "In the blue Atlantic, they never really do."
ORCHESTRATOR, RUNS = "concerto.orchestrator.v1.OrchestratorService", "concerto.sessions.v1.RunsService"
TURNS = "/sessions/{session_id}/turns"
# Whom a sign-in and a turn touch.
SERVICES = {f"concerto-{part}" for part in ("auth", "sessions", "orchestrator", "gateway")}


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector.running() as running:
        yield running


@pytest.fixture(params=[pytest.param("processes", marks=pytest.mark.long), "one-process"])
def each_mode(request: pytest.FixtureRequest) -> Mode:
    """Both modes, whatever the test run's: what is seen of them must be the same."""
    chosen: Mode = request.param
    return chosen


def free_metrics_port() -> int:
    """A port that is free, with as many after it as there are parts."""
    while True:
        base = random.randrange(14000, 19000)
        if all(is_free(base + offset) for offset in range(len(PARTS))):
            return base


def client_of(stack: RunningStack, trace_id: str = "") -> httpx.AsyncClient:
    """A client of the gateway; with a trace id, all of its requests belong to one trace, as a browser may decide."""
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"} if trace_id else {}
    return httpx.AsyncClient(base_url=stack.gateway_url, timeout=30, headers=headers)


def exporting(collector: Collector, **variables: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200", **variables}


async def until_whole(collector: Collector, trace_id: str, *names: str) -> Trace:
    """Return the trace once spans of these names have arrived, and of every other span the one that it is a part of."""

    async def has_arrived() -> bool:
        trace = collector.trace(trace_id)
        return all(trace.named(name) for name in names) and len(trace.parents_outside()) == 1

    await until(has_arrived, f"spans named {names}")
    await asyncio.sleep(0.5)  # what nothing else is a part of comes with the next batch
    return collector.trace(trace_id)


async def scrape(mode: Mode, base: int) -> Mapping[str, str]:
    """Return what each process answers at /metrics, by the part's name."""
    names = PARTS if mode == "processes" else (WHOLE,)
    async with httpx.AsyncClient(timeout=10) as client:
        return {
            name: (await client.get(f"http://127.0.0.1:{metrics_port(base, name)}/metrics")).raise_for_status().text
            for name in names
        }


async def test_a_streamed_turn_is_one_trace_through_all_parts_and_the_database_without_a_word(
    start: Start, model: ModelServer, collector: Collector, each_mode: Mode, note: Note
) -> None:
    model.script(Behaviour(text=ANSWER))
    stack = await start(mode=each_mode, **exporting(collector))
    async with client_of(stack) as client:
        person = await Person.sign_up(client, display_name="Clara Swordfish")
    trace_id = secrets.token_hex(16)
    async with client_of(stack, trace_id) as client:
        person = await Person.log_in(client, person.user["email"])  # the turn itself needs no auth service
        session = await person.create_session(name="About swordfish")
        events = [event async for event in person.turn(session["id"], QUESTION)]
        assert (text_of(events), events[-1].data) == (ANSWER, {"state": "SUCCEEDED"})
        for path in ("/sessions?query=swordfish", "/swordfish", f"/sessions/{session['id']}?swordfish=1"):
            await person.call("GET", path)
        await client.post("/auth/login", json={"email": person.user["email"], "password": "swordfish"})
        assert (await client.get("/healthz")).headers["x-request-id"]
    trace = await until_whole(collector, trace_id, "run", f"POST {TURNS}", "chat test-model", "finish_run")
    note(f"{each_mode}: {trace.summary()}")

    assert trace.services == SERVICES
    # Nothing but the client's own span is missing, and every span goes back to it.
    assert len(trace.parents_outside()) == 1
    (call,) = trace.named("chat test-model")
    route = f"POST {TURNS}"
    assert trace.path(call) == [
        "chat test-model",
        "run",
        f"{ORCHESTRATOR}/StreamTurn",
        f"{ORCHESTRATOR}/StreamTurn",
        route,
    ]
    (start_run,) = trace.named("start_run")
    assert trace.path(start_run) == ["start_run", *[f"{RUNS}/StartRun"] * 2, *[f"{ORCHESTRATOR}/StreamTurn"] * 2, route]
    for operation, rpc in (("append_run_events", "AppendRunEvents"), ("finish_run", "FinishRun")):
        for query in trace.named(operation):
            assert trace.path(query)[:4] == [operation, f"{RUNS}/{rpc}", f"{RUNS}/{rpc}", "run"]
            assert (query.service, query.kind) == ("concerto-sessions", "CLIENT")
            assert query.attributes == {"db.system.name": "postgresql", "db.operation.name": operation}
        assert trace.named(operation), operation
    assert {taken.service for taken in trace.named(f"{RUNS}/StartRun", "CLIENT")} == {"concerto-orchestrator"}
    assert {taken.service for taken in trace.named(f"{RUNS}/StartRun", "SERVER")} == {"concerto-sessions"}
    assert trace.named("supabase auth log_in", "CLIENT")[0].service == "concerto-auth"
    assert call.attributes["gen_ai.request.model"] == "test-model"
    assert call.attributes["gen_ai.response.finish_reasons"] == "stop"
    assert int(call.attributes["gen_ai.usage.output_tokens"]) == len(ANSWER.split())
    # Only what failed on a server's side has failed, and no status or event holds a text.
    assert [taken.span.name for taken in collector.taken if taken.span.status.message or taken.span.events] == []

    everything = b"\n".join(collector.content).lower()
    assert len(everything) > 1000
    secrets_of_the_turn = {
        "the question": QUESTION,
        "the answer": ANSWER,
        "a word of both": "swordfish",
        "a word of the answer": "Atlantic",
        "the e-mail address": person.user["email"],
        "the password": PASSWORD,
        "the access token": person.tokens["access_token"],
        "the refresh token": person.tokens["refresh_token"],
    }
    assert [what for what, secret in secrets_of_the_turn.items() if secret.lower().encode() in everything] == []


async def test_metrics_count_exactly_what_was_done_and_hold_no_text_and_no_id(
    start: Start, model: ModelServer, each_mode: Mode, note: Note
) -> None:
    base = free_metrics_port()
    prices = '{"test-model": {"prompt": 1000000, "completion": 2000000}}'
    stack = await start(mode=each_mode, CONCERTO_METRICS_PORT=str(base), CONCERTO_MODEL_PRICES=prices)
    usage: list[dict[str, Any]] = []
    async with client_of(stack) as client:
        person = await Person.sign_up(client)
        session = await person.create_session(name="About swordfish")
        for _ in range(2):
            model.script(Behaviour(text=ANSWER))
            events = [event async for event in person.turn(session["id"], QUESTION)]
            usage += [event.data for event in events if event.type == "usage"]
        assert (await person.call("GET", f"/sessions/{person.user['id']}")).status_code == 404
        assert (await client.get("/sessions?query=swordfish")).status_code == 401
        public = await client.get("/metrics")
        assert public.status_code == 404
        assert "concerto_http" not in public.text
    texts = await scrape(each_mode, base)

    def of(part: str, name: str) -> dict[tuple[str, ...], float]:
        return samples_of(texts[part if each_mode == "processes" else WHOLE], name)

    requests = of("gateway", "concerto_http_request_duration_seconds_count")
    assert {labels: count for labels, count in requests.items() if labels[1] not in ("/healthz", "/readyz")} == {
        ("POST", "/auth/signup", "201"): 1,
        ("POST", "/sessions", "201"): 1,
        ("POST", TURNS, "200"): 2,
        ("GET", "/sessions/{session_id}", "404"): 1,
        ("GET", "/sessions", "401"): 1,
        ("GET", "-", "404"): 1,
    }
    rpcs = of("sessions", "concerto_rpc_duration_seconds_count")
    assert rpcs["OK", "CreateSession", "SessionsService"] == 1
    assert rpcs["NOT_FOUND", "GetSession", "SessionsService"] == 1
    assert (rpcs["OK", "StartRun", "RunsService"], rpcs["OK", "FinishRun", "RunsService"]) == (2, 2)
    assert of("orchestrator", "concerto_rpc_duration_seconds_count")["OK", "StreamTurn", "OrchestratorService"] == 2
    assert of("auth", "concerto_rpc_duration_seconds_count")["OK", "SignUp", "AuthService"] == 1
    queries = of("sessions", "concerto_db_call_duration_seconds_count")
    assert (queries["start_run", "ok"], queries["finish_run", "ok"], queries["get_session", "refused"]) == (2, 2, 1)
    assert of("sessions", "concerto_db_connections").keys() == {("busy",), ("idle",), ("opening",)}
    assert sum(of("sessions", "concerto_db_connections").values()) >= 1
    assert of("sessions", "concerto_db_waiting") == {(): 0}
    assert of("orchestrator", "concerto_runs_active") == {(): 0}
    assert of("orchestrator", "concerto_runs_finished_total") == {("SUCCEEDED",): 2}
    assert of("orchestrator", "concerto_model_first_token_seconds_count") == {("test-model",): 2}
    prompt, completion = (sum(int(one[f"{kind}_tokens"]) for one in usage) for kind in ("prompt", "completion"))
    assert completion == 2 * len(ANSWER.split())
    assert of("orchestrator", "concerto_model_tokens_total") == {
        ("prompt", "test-model"): prompt,
        ("completion", "test-model"): completion,
        ("cached", "test-model"): 0,
    }
    cost = of("orchestrator", "concerto_model_cost_dollars_total")["test-model",]
    assert cost == pytest.approx(prompt * 1e-6 + completion * 2e-6)
    for part, text in texts.items():
        assert samples_of(text, "process_resident_memory_bytes")[()] > 0, part
        for secret in (
            *("swordfish", "Atlantic", "example.com", PASSWORD),
            *(person.tokens["access_token"], person.user["id"], session["id"]),
        ):
            assert secret not in text, part
    note(f"{each_mode}: {', '.join(f'{part} {len(text.splitlines())} lines' for part, text in texts.items())}")


async def test_a_taken_metrics_port_is_named_and_nothing_starts(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError) as caught:
            await start(mode="one-process", CONCERTO_METRICS_PORT=str(port))
    assert f"127.0.0.1:{port} cannot be listened on for metrics" in str(caught.value)
    assert "Set CONCERTO_METRICS_PORT to a free port" in str(caught.value)


async def test_a_collector_that_is_away_costs_a_line_in_the_log_and_no_answer(start: Start, model: ModelServer) -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    stack = await start(mode="one-process", OTEL_BSP_SCHEDULE_DELAY="100", **away)
    log = stack.home / "logs" / "concerto.log"
    async with client_of(stack) as client:
        person = await Person.sign_up(client)
        session = await person.create_session()

        async def complains() -> bool:
            return "traces.not_taken" in log.read_text()

        await until(complains, "the first complaint")
        for _ in range(5):
            model.script(Behaviour(text=ANSWER))
            events = [event async for event in person.turn(session["id"], QUESTION)]
            assert (text_of(events), events[-1].data) == (ANSWER, {"state": "SUCCEEDED"})
            await asyncio.sleep(0.5)  # longer than the pause between two exports, each of which fails
    assert stop_stack(stack) == 0
    lines = log.read_text().splitlines()
    assert len([line for line in lines if "traces.not_taken" in line]) == 1
    assert [line for line in lines if "Traceback" in line or "opentelemetry" in line] == []
    assert "process.stopped" in log.read_text()


async def test_the_last_spans_are_sent_when_the_suite_stops(
    start: Start, model: ModelServer, collector: Collector, each_mode: Mode
) -> None:
    stack = await start(mode=each_mode, **exporting(collector, OTEL_BSP_SCHEDULE_DELAY="600000"))
    trace_id = secrets.token_hex(16)
    async with client_of(stack) as client:
        person = await Person.sign_up(client)
    async with client_of(stack, trace_id) as client:
        person.client = client
        ok(await person.call("GET", "/sessions"))
    assert collector.trace(trace_id).spans == []
    assert await asyncio.to_thread(stop_stack, stack) == 0
    trace = collector.trace(trace_id)
    assert trace.services == {"concerto-gateway", "concerto-sessions"}
    assert trace.named("list_sessions")


async def test_log_entries_of_a_request_carry_its_trace_in_every_process(start: Start, collector: Collector) -> None:
    stack = await start(mode="processes", CONCERTO_LOG_LEVEL="DEBUG", **exporting(collector))
    trace_id = secrets.token_hex(16)
    async with client_of(stack, trace_id) as client:
        person = await Person.sign_up(client)
        await person.create_session()
    for part in ("gateway", "auth", "sessions"):
        lines = (stack.home / "logs" / f"{part}.log").read_text().splitlines()
        assert [line for line in lines if f"trace_id={trace_id}" in line and "span_id=" in line], part
        assert [line for line in lines if "server.started" in line and "trace_id" in line] == []
