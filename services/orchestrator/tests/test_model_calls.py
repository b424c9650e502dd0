import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import runs_pb2, sessions_pb2

from servicekit.errors import AppError
from servicekit.rpc import channel
from servicekit.testing import acting_as
from services.orchestrator.models.model_calls import cost_dollars
from services.orchestrator.steps import TokenUsage
from services.orchestrator.tests.conftest import MakeSuite, Suite, state_of
from tests.support.model_server import FAULTS, Behaviour
from tests.support.telemetry import Watched, watched
from tests.support.waiting import until

QUESTION, ANSWER = "Where do swordfish sleep?", "In the blue Atlantic, mostly."
PRICES = {"test-model": {"prompt": 2_000_000, "completion": 8_000_000, "cached": 1_000_000}}


@pytest.fixture
async def seen_suite(make_suite: MakeSuite) -> AsyncIterator[tuple[Watched, Suite]]:
    """An orchestrator whose telemetry stays here."""
    with watched() as seen:
        async with make_suite(model_prices=PRICES) as suite:
            yield seen, suite


async def until_named(seen: Watched, name: str) -> None:
    await until(lambda: name in [span.name for span in seen.spans])


async def test_a_turns_run_and_model_call_are_in_the_trace_of_its_request_without_a_word(
    seen_suite: tuple[Watched, Suite],
) -> None:
    seen, suite = seen_suite
    suite.model.script(Behaviour(text=ANSWER, cached_tokens=3))
    seen.traces.receive("POST", "")
    session_id = suite.add_session()
    assert state_of(await suite.turn(session_id, QUESTION)) == "SUCCEEDED"
    await until_named(seen, "run")
    turn = seen.span("concerto.orchestrator.v1.OrchestratorService/StreamTurn", "SERVER")
    run, call = seen.span("run"), seen.span("chat test-model")
    assert (run.parent, call.parent) == (turn.context, run.context)
    assert run.attributes is not None
    assert run.attributes["concerto.run.state"] == "SUCCEEDED"
    usage = suite.stored(session_id)[1].metadata.fields["usage"].struct_value.fields
    attributes = dict(call.attributes or {})
    assert 0 < float(str(attributes.pop("gen_ai.response.time_to_first_chunk"))) < 60
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "test-model",
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": usage["prompt_tokens"].number_value,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 3,
    }
    # The writer's task does it for the run.
    for span in seen.spans:
        if span.name.endswith(("/AppendRunEvents", "/FinishRun")) and span.kind.name == "CLIENT":
            assert span.parent is not None
            assert span.parent.span_id == run.context.span_id
    for words in (QUESTION, ANSWER, "swordfish", "Atlantic", suite.caller.token):
        assert words not in seen.exported


async def test_a_long_answers_writes_and_heartbeats_do_not_bury_its_trace(seen_suite: tuple[Watched, Suite]) -> None:
    seen, suite = seen_suite
    suite.model.script(Behaviour(tokens=120, delay_seconds=0.01))
    assert state_of(await suite.turn(suite.add_session(), QUESTION)) == "SUCCEEDED"
    await until_named(seen, "run")
    counts = {labels[1]: count for labels, count in seen.samples("concerto_rpc_duration_seconds_count").items()}
    spans = [span.name.rpartition("/")[2] for span in seen.spans if span.kind.name == "SERVER"]
    assert counts["AppendRunEvents"] > 5
    assert 1 <= spans.count("AppendRunEvents") <= 3  # the first words, and the last ones
    assert counts["RenewLease"] >= 1
    assert "RenewLease" not in spans


async def test_runs_tokens_and_costs_are_counted(seen_suite: tuple[Watched, Suite]) -> None:
    seen, suite = seen_suite
    assert seen.value("concerto_runs_active") == 0
    suite.model.script(Behaviour(text=ANSWER, cached_tokens=3), FAULTS["unauthorized"], Behaviour(text="One two"))
    session_id = suite.add_session()
    states = [state_of(await suite.turn(session_id, QUESTION)) for _ in range(3)]
    assert states == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
    assert seen.samples("concerto_runs_finished_total") == {("FAILED",): 1, ("SUCCEEDED",): 2}
    assert seen.samples("concerto_model_first_token_seconds_count") == {("test-model",): 2}
    answers = [message for message in suite.stored(session_id) if message.role == sessions_pb2.ROLE_ASSISTANT]
    counts = [message.metadata.fields["usage"].struct_value.fields for message in answers]
    prompts = sum(fields["prompt_tokens"].number_value for fields in counts)
    tokens = seen.samples("concerto_model_tokens_total")
    assert tokens["completion", "test-model"] == 5 + 2
    assert tokens["cached", "test-model"] == 3
    assert 0 < tokens["prompt", "test-model"] == prompts
    dollars = (prompts - 3) * 2e-6 + 3 * 1e-6 + 7 * 8e-6
    assert seen.value("concerto_model_cost_dollars_total", model="test-model") == pytest.approx(dollars)
    failed = [span for span in seen.spans if span.name == "chat test-model" and span.status.status_code.name == "ERROR"]
    assert [dict(span.attributes or {})["error.type"] for span in failed] == ["MODEL_CREDENTIALS_REJECTED"]
    assert failed[0].status.description is None


async def test_a_run_is_counted_as_active_while_it_goes_on(seen_suite: tuple[Watched, Suite]) -> None:
    seen, suite = seen_suite
    suite.model.script(Behaviour(tokens=1000, delay_seconds=0.02))
    run = await suite.create(suite.add_session(), QUESTION)
    assert seen.value("concerto_runs_active") == 1
    await suite.cancel(run.id)
    await until_named(seen, "run")
    assert seen.samples("concerto_runs_finished_total") == {("CANCELLED",): 1}
    await until(lambda: not seen.value("concerto_runs_active"))


async def test_names_that_clients_and_providers_choose_are_no_labels(seen_suite: tuple[Watched, Suite]) -> None:
    seen, suite = seen_suite
    suite.model.script(Behaviour(text="Yes.", finish_reason="swordfish"))
    with pytest.raises(AppError):
        await suite.turn(suite.add_session(), QUESTION, model="my-swordfish")
    await suite.turn(suite.add_session(), QUESTION)
    await until_named(seen, "run")
    assert set(seen.samples("concerto_model_first_token_seconds_count")) == {("test-model",)}
    assert (seen.span("chat test-model").attributes or {})["gen_ai.response.finish_reasons"] == ("other",)
    assert "swordfish" not in seen.exported


@pytest.mark.parametrize("is_kept", [False, True])
async def test_completions_at_the_door_are_calls_too(seen_suite: tuple[Watched, Suite], is_kept: bool) -> None:
    seen, suite = seen_suite
    suite.model.script(Behaviour(text=ANSWER))
    body: dict[str, Any] = {"model": "test-model", "messages": [{"role": "user", "content": QUESTION}], "stream": True}
    request = orchestrator_pb2.StreamChatCompletionRequest(
        request_json=json.dumps({**body, "stream_options": {"include_usage": True}}),
        session_id=suite.add_session() if is_kept else "",
    )
    with acting_as(suite.caller):
        stub = orchestrator_pb2_grpc.OrchestratorServiceStub(suite.connection)
        async for _ in channel.stream(stub.StreamChatCompletion, request):
            pass
    await until_named(seen, "run" if is_kept else "chat test-model")
    assert seen.samples("concerto_model_tokens_total")["completion", "test-model"] == 5
    assert (seen.span("chat test-model").attributes or {})["gen_ai.response.finish_reasons"] == ("stop",)
    for words in (QUESTION, ANSWER):
        assert words not in seen.exported


def test_cached_tokens_have_their_own_price() -> None:
    prices = runs_pb2.Prices(prompt=2_000_000, completion=8_000_000, cached=500_000)
    assert cost_dollars(TokenUsage(1000, 100, 400), prices) == pytest.approx(600 * 2e-6 + 400 * 0.5e-6 + 100 * 8e-6)
    # A provider that counts more cached tokens than there are makes nothing cheaper than cached.
    assert cost_dollars(TokenUsage(10, 0, 99), prices) == pytest.approx(10 * 0.5e-6)
