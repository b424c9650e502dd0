"""What is asked outside of runs is bounded before it is asked, and counted whatever becomes of it."""

import asyncio
from typing import Any

import pytest
from concerto.sessions.v1 import runs_pb2

from servicekit.errors import AppError
from services.orchestrator.tests.conftest import MakeSuite, Suite
from services.orchestrator.tests.test_chat import HELLO, Json, ask, broken, stream, streamed, text_of
from tests.support.model_server import FAULTS, Behaviour, patience_for
from tests.support.waiting import until

PRICES = {"test-model": {"prompt": 2_000_000, "completion": 8_000_000}}


def ended(suite: Suite) -> list[tuple[runs_pb2.StartModelCallRequest, runs_pb2.Usage | None]]:
    """Return the calls outside of runs that are in the ledger; none may be open."""
    assert suite.fake.runs.calls == {}
    return suite.fake.runs.called


NOT_ALLOWED: list[tuple[Json, str]] = [
    ({"service_tier": "priority"}, "service_tier"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ({"Model": "the-dearest"}, "Model"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"store": True}, "store"),
    ({"store": 0}, "store"),
    ({"what the user said": 1}, "…"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "web_search"}]}, "tools[1].type"),
    ({"tools": [{"type": ["web_search"]}]}, "tools[0].type"),
    ({"tools": {"type": "code_interpreter"}}, "tools[0].type"),
    ({"tools": [{"google_search": {}}]}, "tools[0]"),
    ({"tools": {"google_search": {}}}, "tools[0]"),
    ({"tools": [{"type": None, "google_search": {}}]}, "tools[0]"),
    ({"tools": [{"type": "function", "function": {"name": "f"}, "google_search": {}}]}, "tools[0]"),
    ({"tools": [{"Type": "web_search"}]}, "tools[0]"),
    ({"tools": ["web_search"]}, "tools[0]"),
    ({"tools": "web_search"}, "tools[0]"),
    ({"functions": [{"type": "web_search"}]}, "functions[0].type"),
    ({"functions": [{"google_search": {}}]}, "functions[0]"),
]


@pytest.mark.parametrize(("fields", "name"), NOT_ALLOWED, ids=[name for _, name in NOT_ALLOWED])
async def test_a_parameter_that_costs_is_refused_by_its_name(suite: Suite, fields: Json, name: str) -> None:
    for session_id in ("", suite.add_session()):
        with pytest.raises(AppError) as refused:
            await ask(suite, {**HELLO, **fields}, session_id=session_id)
        assert (refused.value.reason, refused.value.metadata) == ("PARAMETER_NOT_ALLOWED", {"param": name})
    assert (suite.model.chats, suite.fake.runs.runs, ended(suite)) == ([], {}, [])


async def test_a_parameter_passes_with_the_value_that_costs_nothing(suite: Suite) -> None:
    await ask(suite, {**HELLO, "store": False, "modalities": ["text"]})
    assert (suite.model.chats[0]["store"], suite.model.chats[0]["modalities"]) == (False, ["text"])


async def test_a_setting_lets_parameters_and_the_providers_tools_through(make_suite: MakeSuite) -> None:
    async with make_suite(openai_parameters=" service_tier, tool:web_search ,") as suite:
        tools = [{"type": "web_search"}, {"type": "function", "function": {"name": "f"}}]
        await ask(suite, {**HELLO, "service_tier": "flex", "tools": tools, "store": None})
        assert (suite.model.chats[0]["service_tier"], suite.model.chats[0]["tools"]) == ("flex", tools)
        with pytest.raises(AppError):
            await ask(suite, {**HELLO, "tools": [{"type": "mcp"}]})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"n": 2}, "n"), ({"n": 0}, "n"), ({"n": -1}, "n"), ({"n": True}, "n"), ({"n": 1.0}, "n"), ({"n": "1"}, "n"),
        ({"max_tokens": 101}, "max_tokens"), ({"max_tokens": 0}, "max_tokens"), ({"max_tokens": 10**400}, "max_tokens"),
        ({"max_tokens": 5.5}, "max_tokens"), ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": 101}, "max_completion_tokens"),
        ({"max_completion_tokens": 5, "max_tokens": 101}, "max_tokens"),
    ],
)  # fmt: skip
async def test_answers_and_their_tokens_are_bounded(make_suite: MakeSuite, fields: Json, field: str) -> None:
    async with make_suite(max_output_tokens=100) as suite:
        with pytest.raises(AppError) as refused:
            await ask(suite, {**HELLO, **fields})
        assert (refused.value.reason, refused.value.metadata["field"]) == ("INVALID_FIELD", field)
        assert (suite.model.chats, ended(suite)) == ([], [])


@pytest.mark.parametrize(
    ("settings", "fields", "sent"),
    [
        ({}, {}, {"max_completion_tokens": 8192}),
        ({"context_tokens": 4096}, {}, {"max_completion_tokens": 1024}),
        ({"max_output_tokens": 20_000}, {}, {"max_completion_tokens": 20_000}),
        ({}, {"max_tokens": None, "max_completion_tokens": None}, {"max_tokens": None, "max_completion_tokens": 8192}),
        ({"limit_parameter": "max_tokens"}, {}, {"max_tokens": 8192}),
        ({"limit_parameter": "max_tokens"}, {"max_tokens": None}, {"max_tokens": 8192}),
        ({}, {"max_tokens": 7, "n": 1}, {"max_tokens": 7, "n": 1}),
        ({}, {"max_completion_tokens": 8}, {"max_completion_tokens": 8}),
    ],
)
async def test_a_request_without_a_bound_gets_the_largest(
    make_suite: MakeSuite, settings: dict[str, Any], fields: Json, sent: Json
) -> None:
    async with make_suite(**settings) as suite:
        for body in ({**HELLO, **fields}, {**HELLO, **fields, "stream": True}):
            await ask(suite, body)
            asked = suite.model.chats[-1]
            assert {name: asked[name] for name in asked if name.startswith("max_") or name == "n"} == sent


@pytest.mark.parametrize(
    "text",
    [
        '{"model": "the-dearest", "messages": [{"role": "user", "content": "x"}], "model": "test-model"}',
        '{"n": 50, "model": "test-model", "messages": [{"role": "user", "content": "x"}], "n": 1}',
        r'{"model": "test-model", "mod\u0065l": "test-model", "messages": [{"role": "user", "content": "x"}]}',
        '{"model": "test-model", "messages": [{"role": "user"}], "tools": [{"type": "mcp", "type": "function"}]}',
    ],
)
async def test_a_key_that_stands_twice_is_refused(suite: Suite, text: str) -> None:
    with pytest.raises(AppError) as refused:
        await ask(suite, text)
    assert refused.value.reason == "INVALID_JSON"
    assert suite.model.chats == []


async def test_only_offered_models_complete_chats(suite: Suite) -> None:
    for session_id in ("", suite.add_session()):
        with pytest.raises(AppError) as refused:
            await ask(suite, {**HELLO, "model": "the-dearest"}, session_id=session_id)
        assert refused.value.reason == "MODEL_NOT_FOUND"
    assert (suite.model.chats, suite.fake.runs.runs, ended(suite)) == ([], {}, [])


@pytest.mark.parametrize("wants_stream", [False, True])
async def test_a_completion_without_a_session_is_in_the_ledger(make_suite: MakeSuite, wants_stream: bool) -> None:
    async with make_suite(model_prices=PRICES, max_user_runs=4) as suite:
        answers = await ask(suite, {**HELLO, "stream": wants_stream})
        assert all("usage" not in answer for answer in answers) == wants_stream
        ((call, usage),) = ended(suite)
        assert (call.model, call.source, call.session_id, call.max_user_runs) == (
            "test-model",
            "chat_completions",
            "",
            4,
        )
        assert (call.prices.prompt, call.prices.completion, call.prompt_tokens > 0) == (2_000_000, 8_000_000, True)
        assert usage is not None
        assert (usage.prompt_tokens > 0, usage.completion_tokens > 0, usage.is_estimated) == (True, True, False)
        assert suite.fake.runs.tokens == [], "the end is told by the lease alone"


@pytest.mark.parametrize(
    ("fault", "estimated", "has_output"),
    [("no_usage", True, True), ("cut", True, True), ("stall", True, True), ("unauthorized", False, False)],
)
async def test_a_failing_provider_is_counted_as_well(
    make_suite: MakeSuite, fault: str, estimated: bool, has_output: bool
) -> None:
    async with make_suite(stall_seconds=patience_for(fault)) as suite:
        body = {**HELLO, "model": f"fault:{fault}", "stream": True}
        if fault == "no_usage":
            await ask(suite, body)
        else:
            await broken(stream(suite, body))
        ((_, usage),) = ended(suite)
        assert usage is not None
        assert (usage.is_estimated, usage.completion_tokens > 0, usage.prompt_tokens > 0) == (
            estimated,
            has_output,
            has_output,
        )


@pytest.mark.parametrize(
    ("further", "least"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "description": "word " * 10_000}}]}, 10_000),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "word " * 10_000}}}, 10_000),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"arguments": "word " * 10_000}}]},
                    {"role": "user", "content": "x"},
                ]
            },
            10_000,
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "x"},
                            *[{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}] * 50,
                        ],
                    }
                ]
            },
            50_000,
        ),
    ],
)
async def test_a_client_that_goes_away_is_counted_with_all_that_the_provider_has_read(
    suite: Suite, further: dict[str, Any], least: int
) -> None:
    suite.model.script(FAULTS["slow"])
    answers = stream(suite, streamed(**further))
    await anext(answers)
    (call,) = suite.fake.runs.calls.values()
    assert least <= call.prompt_tokens < 2 * least
    await answers.aclose()  # type: ignore[attr-defined]
    await until(lambda: not suite.fake.runs.calls)
    ((_, usage),) = ended(suite)
    assert usage is not None
    assert (usage.prompt_tokens, usage.is_estimated) == (call.prompt_tokens, True)


async def test_a_client_that_goes_away_is_counted_with_what_was_said(suite: Suite) -> None:
    suite.model.script(FAULTS["slow"])
    answers = stream(suite, streamed())
    assert text_of([await anext(answers), await anext(answers), await anext(answers)])
    (call,) = suite.fake.runs.calls.values()
    assert call.source == "chat_completions"
    await answers.aclose()  # type: ignore[attr-defined]
    await until(lambda: suite.fake.runs.called)
    ((_, usage),) = ended(suite)
    assert usage is not None
    assert (usage.is_estimated, usage.prompt_tokens > 0, usage.completion_tokens > 0) == (True, True, True)


async def test_a_client_that_goes_before_the_model_is_asked_has_used_nothing(suite: Suite) -> None:
    suite.fake.hold["StartModelCall"] = asyncio.Event()
    asking = asyncio.create_task(ask(suite, HELLO))
    await until(lambda: suite.fake.calls["StartModelCall"])
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    suite.fake.hold.pop("StartModelCall").set()
    await until(lambda: suite.fake.runs.called)
    ((_, usage),) = ended(suite)
    assert (usage, suite.model.chats) == (None, [])


async def test_a_server_that_counts_in_each_chunk_is_counted_once(suite: Suite) -> None:
    suite.model.script(*[Behaviour(text="One two three.", counts_in_each_chunk=True)] * 2)
    await ask(suite, streamed())
    await ask(suite, streamed(), session_id=suite.add_session())
    ((_, usage),) = ended(suite)
    (kept,) = suite.fake.runs.ledger
    assert usage is not None
    for counted in (usage, kept):
        assert (counted.completion_tokens, counted.is_estimated) == (3, False)


@pytest.mark.parametrize("fault", ["error_chunk", "invalid_json", "cut"])
async def test_what_a_server_counts_before_it_fails_is_no_estimate(suite: Suite, fault: Any) -> None:
    failing = Behaviour(text="One two three four five.", counts_in_each_chunk=True, fault=fault)
    suite.model.script(*[failing] * 3)
    await suite.turn(suite.add_session(), "Hello")
    for fields in ({}, {"session_id": suite.add_session()}):
        with pytest.raises(AppError):
            await ask(suite, streamed(), **fields)
    ((_, of_call),) = ended(suite)
    of_run, of_exchange = suite.fake.runs.ledger
    for usage in (of_run, of_call, of_exchange):
        assert usage is not None
        assert (usage.is_estimated, usage.completion_tokens) == (False, failing.fault_after)


async def test_completions_without_a_session_are_limited_like_runs(make_suite: MakeSuite) -> None:
    async with make_suite(max_user_runs=2, max_runs=3) as suite:
        suite.model.default = FAULTS["slow"]
        open_streams = [stream(suite, streamed()) for _ in range(2)]
        for answers in open_streams:
            await anext(answers)
        for attempt in (ask(suite, HELLO), suite.turn(suite.add_session(), "Hello")):
            with pytest.raises(AppError) as refused:
                await attempt
            assert (refused.value.reason, refused.value.retry_after_seconds) == ("TOO_MANY_RUNS", 2)
        assert len(suite.model.chats) == 2
        for answers in open_streams:
            await answers.aclose()  # type: ignore[attr-defined]
        await until(lambda: not suite.fake.runs.calls)
        suite.model.default = Behaviour()
        assert await ask(suite, HELLO)
    async with make_suite(max_user_runs=0, max_runs=1) as suite:
        suite.model.script(FAULTS["slow"])
        answers = stream(suite, streamed())
        await anext(answers)
        with pytest.raises(AppError) as refused:
            await ask(suite, HELLO)
        assert (refused.value.reason, refused.value.metadata["scope"]) == ("TOO_MANY_RUNS", "per server")
        await answers.aclose()  # type: ignore[attr-defined]


async def test_an_end_that_sessions_does_not_hear_is_told_again(suite: Suite) -> None:
    suite.fake.refuse["FinishModelCall"] = "DATABASE_UNAVAILABLE"
    asking = asyncio.create_task(ask(suite, HELLO))
    await until(lambda: suite.fake.calls["FinishModelCall"] >= 1)
    del suite.fake.refuse["FinishModelCall"]
    await asking
    assert len(ended(suite)) == 1


async def test_titles_are_in_the_ledger_and_no_run_of_anybodys(make_suite: MakeSuite) -> None:
    async with make_suite(title_model="small-model", max_user_runs=1) as suite:
        session_id = suite.add_session()
        suite.model.choose = lambda body: Behaviour(text="A Greeting") if body["model"] == "small-model" else None
        await suite.turn(session_id, "Hello there")
        await until(lambda: suite.fake.sessions[session_id].name == "A Greeting")
        ((call, usage),) = ended(suite)
        assert (call.model, call.source, call.session_id, call.max_user_runs) == ("small-model", "title", session_id, 0)
        assert usage is not None
        assert (usage.prompt_tokens > 0, usage.completion_tokens > 0) == (True, True)
        assert suite.model.chats[-1]["max_completion_tokens"] == 256
