import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import runs_pb2

from servicekit.errors import AppError
from servicekit.messages import converter
from servicekit.rpc import channel
from servicekit.testing import acting_as
from services.orchestrator.openai.chat import MAX_WAITING_CHUNKS, Exchange
from services.orchestrator.openai.completions import Request
from services.orchestrator.openai.terms import Terms
from services.orchestrator.tests.conftest import MakeSuite, Suite
from tests.support.model_server import FAULTS, Behaviour, ToolUse, patience_for
from tests.support.waiting import forever, until

Json = dict[str, Any]
HELLO: Json = {"model": "test-model", "messages": [{"role": "user", "content": "Hello"}]}


async def stream(suite: Suite, body: Json | str, **fields: str) -> AsyncIterator[Json]:
    text = body if isinstance(body, str) else json.dumps(body)
    request = orchestrator_pb2.StreamChatCompletionRequest(request_json=text, **fields)
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(suite.connection)
    with acting_as(suite.caller):
        responses = channel.stream(stub.StreamChatCompletion, request, timeout_seconds=30)
        async with contextlib.aclosing(responses):
            async for response in responses:
                yield json.loads(response.completion_json)


async def ask(suite: Suite, body: Json | str, **fields: str) -> list[Json]:
    return [answer async for answer in stream(suite, body, **fields)]


async def broken(answers: AsyncIterator[Json]) -> tuple[AppError, list[Json]]:
    """Return how a stream breaks, and what came before; fails when it does not."""
    came: list[Json] = []
    try:
        async for answer in answers:
            came.append(answer)  # noqa: PERF401 (a comprehension would be lost with the error)
    except AppError as error:
        return error, came
    raise AssertionError("it ended well")


def streamed(**fields: Any) -> Json:
    return {**HELLO, "stream": True, **fields}


def text_of(answers: list[Json]) -> str:
    return "".join(
        choice.get("message", choice.get("delta"))["content"] or ""
        for answer in answers
        for choice in answer["choices"]
        if "content" in choice.get("message", choice.get("delta"))
    )


async def test_a_whole_answer_is_the_providers(suite: Suite) -> None:
    (answer,) = await ask(suite, HELLO)
    assert (answer["object"], answer["id"]) == ("chat.completion", "chatcmpl-1")
    assert text_of([answer]) == "You said: Hello I was given 1 messages."
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] > 0


async def test_a_whole_answer_that_no_client_takes_is_refused_with_what_to_do(suite: Suite) -> None:
    for is_kept in (False, True):
        suite.model.script(Behaviour(text="ж" * (600 * 1024)))  # six bytes each in JSON that is ASCII
        fields = {"session_id": suite.add_session()} if is_kept else {}
        error, answers = await broken(stream(suite, HELLO, **fields))
        assert (error.reason, error.metadata, answers) == ("MODEL_ANSWER_TOO_LARGE", {"limit": "3145728 bytes"}, [])
        suite.model.script(Behaviour(text="ж" * (300 * 1024)))
        fields = {"session_id": suite.add_session()} if is_kept else {}
        assert len(text_of(await ask(suite, HELLO, **fields))) == 300 * 1024


async def test_a_stream_is_the_providers_chunks(suite: Suite) -> None:
    answers = await ask(suite, streamed(stream_options={"include_usage": True}))
    assert {answer["object"] for answer in answers} == {"chat.completion.chunk"}
    assert text_of(answers) == "You said: Hello I was given 1 messages."
    assert answers[-2]["choices"][0]["finish_reason"] == "stop"
    assert (answers[-1]["choices"], answers[-1]["usage"]["prompt_tokens"] > 0) == ([], True)


async def test_usage_is_there_only_when_it_was_asked_for(suite: Suite) -> None:
    session_id = suite.add_session()
    for fields in ({}, {"session_id": session_id}):
        answers = await ask(suite, streamed(), **fields)
        assert all(answer["choices"] and "usage" not in answer for answer in answers)
    answers = await ask(suite, streamed(stream_options={"include_usage": True}), session_id=session_id)
    assert answers[-1]["usage"]["prompt_tokens"] > 0


async def test_what_costs_nothing_is_passed_on_letter_by_letter(make_suite: MakeSuite) -> None:
    schema = {"type": "object", "properties": {"steps": {}, "answer": {}, "alpha": {}}}
    body = {
        "seed": 12345678901234567890123,
        "temperature": 1.0,
        "surprise": {"zeta": None, "alpha": [1, {"b": 2, "a": 1}]},
        "tools": [{"type": "function", "function": {"name": "look", "parameters": schema}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        **HELLO,
    }
    async with make_suite(openai_parameters="surprise") as suite:
        await ask(suite, body)
        await ask(suite, {**body, "stream": True}, session_id=suite.add_session())
        added = ("stream", "stream_options", "max_completion_tokens")
        for asked in suite.model.chats:
            sent = {name: value for name, value in asked.items() if name not in added}
            assert json.dumps(sent) == json.dumps(body)
        assert suite.model.requests[0].headers["authorization"] == "Bearer test-key"


async def test_calls_of_the_clients_tools_reach_the_client(suite: Suite) -> None:
    parameters = {"type": "object", "properties": {"place": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": parameters}}]
    use = Behaviour(tool_calls=(ToolUse(name="look", arguments={"place": "here"}),))
    suite.model.script(use, use)
    (answer,) = await ask(suite, {**HELLO, "tools": tools})
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("look", {"place": "here"})
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    answers = await ask(suite, streamed(tools=tools))
    deltas = [choice["delta"] for answer in answers for choice in answer["choices"]]
    parts = [part for delta in deltas for part in delta.get("tool_calls", [])]
    assert parts[0]["function"]["name"] == "look"
    arguments = "".join(part["function"].get("arguments", "") for part in parts)
    assert json.loads(arguments) == {"place": "here"}


BAD: list[tuple[str, str, str]] = [
    ("{", "INVALID_JSON", ""),
    ("[" * 90_000, "INVALID_JSON", ""),
    ("[1]", "INVALID_FIELD", "The body"),
    ('{"messages": [{"role": "user"}]}', "MISSING_FIELD", "model"),
    ('{"model": 7, "messages": [{"role": "user"}]}', "INVALID_FIELD", "model"),
    (json.dumps({**HELLO, "model": "x" * 201}), "FIELD_TOO_LARGE", "model"),
    ('{"model": "m"}', "MISSING_FIELD", "messages"),
    ('{"model": "m", "messages": []}', "MISSING_FIELD", "messages"),
    ('{"model": "m", "messages": {"role": "user"}}', "INVALID_FIELD", "messages"),
    ('{"model": "m", "messages": [{"role": "user"}, 7]}', "INVALID_FIELD", "messages[1]"),
    ('{"model": "m", "messages": [{"content": "x"}]}', "INVALID_FIELD", "messages[0]"),
    (json.dumps({**HELLO, "messages": HELLO["messages"] * 10_001}), "FIELD_TOO_LARGE", "messages"),
    (json.dumps({**HELLO, "n": 2}), "INVALID_FIELD", "n"),
    (json.dumps({**HELLO, "stream": "yes"}), "INVALID_FIELD", "stream"),
    (json.dumps({**HELLO, "stream": 1}), "INVALID_FIELD", "stream"),
]


@pytest.mark.parametrize(("body", "reason", "field"), BAD)
async def test_a_request_that_cannot_be_read_is_refused_before_any_model_is_asked(
    suite: Suite, body: str, reason: str, field: str
) -> None:
    with pytest.raises(AppError) as caught:
        await ask(suite, body)
    assert (caught.value.reason, caught.value.metadata.get("field", "")) == (reason, field)
    assert suite.model.chats == []


REFUSALS = {
    "unauthorized": "MODEL_CREDENTIALS_REJECTED",
    "no_model": "MODEL_NOT_FOUND",
    "no_model_plain": "MODEL_NOT_FOUND",
    "wrong_address": "MODEL_UNREACHABLE",
    "rate_limited": "MODEL_RATE_LIMITED",
    "no_quota": "MODEL_QUOTA_EXHAUSTED",
    "too_long": "PROMPT_TOO_LONG",
    "bad_request": "MODEL_REQUEST_REFUSED",
    "prompt_filtered": "CONTENT_FILTERED",
    "server_error": "MODEL_UNAVAILABLE",
    "bad_gateway": "MODEL_UNAVAILABLE",
    "overloaded": "MODEL_UNAVAILABLE",
    "gateway_timeout": "MODEL_TIMEOUT",
    "no_answer": "MODEL_TIMEOUT",
}
BREAKS = {
    "stall": "MODEL_TIMEOUT",
    "cut": "MODEL_CONNECTION_LOST",
    "invalid_json": "MODEL_ANSWER_MALFORMED",
    "wrong_shape": "MODEL_ANSWER_MALFORMED",
    "error_chunk": "MODEL_UNAVAILABLE",
    "no_finish": "MODEL_CONNECTION_LOST",
}


@pytest.mark.parametrize(("fault", "reason"), REFUSALS.items())
async def test_a_refusal_of_the_provider_gets_its_reason(make_suite: MakeSuite, fault: str, reason: str) -> None:
    # What is asked for as a whole may take five times as long.
    async with make_suite(stall_seconds=patience_for(fault) / 3) as suite:
        session_id = suite.add_session()
        for index, (kept_in, wants_stream) in enumerate(itertools.product(("", session_id), (False, True)), start=1):
            body = {**HELLO, "model": f"fault:{fault}", "stream": wants_stream}
            error, answers = await broken(stream(suite, body, session_id=kept_in))
            assert (error.reason, answers) == (reason, [])
            assert len(suite.model.chats) == index, "there is no second try"
            if fault == "rate_limited":
                assert error.retry_after_seconds == 7
        assert suite.texts(session_id) == ["Hello", "Hello"]
        assert len(suite.fake.runs.ledger) == 2


@pytest.mark.parametrize(("fault", "reason"), BREAKS.items())
async def test_a_break_in_the_stream_comes_after_what_was_said(make_suite: MakeSuite, fault: str, reason: str) -> None:
    async with make_suite(stall_seconds=patience_for(fault)) as suite:
        session_id = suite.add_session()
        for kept_in in ("", session_id):
            body = {**HELLO, "model": f"fault:{fault}", "stream": True}
            error, answers = await broken(stream(suite, body, session_id=kept_in))
            assert (error.reason, text_of(answers)) == (reason, "You said: Hello")
        assert suite.texts(session_id) == ["Hello", "You said: Hello"]
        assert suite.stored(session_id)[1].metadata["partial"] is True


@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [("SAFETY", "CONTENT_FILTERED"), ("error", "MODEL_UNAVAILABLE"), ("swordfish", "MODEL_ANSWER_CUT")],
)
@pytest.mark.parametrize("wants_stream", [False, True])
async def test_an_answer_that_was_cut_is_kept_as_what_it_is(
    suite: Suite, finish_reason: str, reason: str, wants_stream: bool
) -> None:
    session_id = suite.add_session()
    suite.model.default = Behaviour(text="Some words", finish_reason=finish_reason)
    for kept_in in ("", session_id):
        error, answers = await broken(stream(suite, {**HELLO, "stream": wants_stream}, session_id=kept_in))
        assert (error.reason, text_of(answers)) == (reason, "Some words")
        assert not any(choice["finish_reason"] for answer in answers for choice in answer["choices"])
    (stored,) = suite.fake.runs.runs.values()
    assert stored.run.state == runs_pb2.RUN_STATE_FAILED
    assert suite.fake.runs.ledger[0].completion_tokens == 2
    answer = suite.stored(session_id)[1]
    assert (answer.content, answer.metadata["partial"]) == ("Some words", True)
    assert answer.metadata["error_reason"] == reason


async def test_a_refused_parameter_is_named_and_nothing_else_of_the_provider(suite: Suite) -> None:
    error = {"message": "bad orange", "type": "invalid_request_error", "param": "tools[0].function", "code": None}
    quoting = {**error, "param": "the prompt was: orange"}
    suite.model.script(Behaviour(status=400, error=error), Behaviour(status=400, error=quoting))
    for metadata in ({"param": "tools[0].function"}, {}):
        with pytest.raises(AppError) as caught:
            await ask(suite, HELLO)
        assert (caught.value.reason, caught.value.metadata) == ("MODEL_REQUEST_REFUSED", metadata)
        assert "orange" not in str(caught.value)


@pytest.mark.parametrize("wants_stream", [False, True])
async def test_with_a_session_the_exchange_is_kept_as_a_run(suite: Suite, wants_stream: bool) -> None:
    session_id = suite.add_session()
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Before"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": [{"type": "text", "text": "Now"}, {"type": "image_url", "image_url": {}}]},
    ]
    answers = await ask(suite, {**HELLO, "messages": messages, "stream": wants_stream}, session_id=session_id)
    # What the client has got in full is stored by then.
    assert suite.texts(session_id) == ["Now", text_of(answers)]
    assert suite.model.chats[0]["messages"] == messages
    (stored,) = suite.fake.runs.runs.values()
    assert (stored.source, stored.run.state) == ("chat_completions", runs_pb2.RUN_STATE_SUCCEEDED)
    (usage,) = suite.fake.runs.ledger
    assert (usage.model, usage.is_estimated, usage.prompt_tokens > 0) == ("test-model", False, True)
    metadata = converter.to_json(suite.stored(session_id)[1].metadata)
    assert metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("wants_stream", [False, True])
async def test_thoughts_are_apart_in_the_answer_in_what_is_kept_and_in_a_repetition(
    suite: Suite, wants_stream: bool
) -> None:
    session_id, request_id = suite.add_session(), str(uuid4())
    suite.model.script(Behaviour(text="Zwölf.", thoughts="6 × 2"))
    for _ in range(2):
        answers = await ask(suite, {**HELLO, "stream": wants_stream}, session_id=session_id, request_id=request_id)
        parts = [choice.get("message", choice.get("delta")) for answer in answers for choice in answer["choices"]]
        assert "".join(part.get("reasoning_content") or "" for part in parts) == "6 × 2"
        assert text_of(answers) == "Zwölf."
    _, answer = suite.stored(session_id)
    assert (answer.content, answer.reasoning) == ("Zwölf.", "6 × 2")
    assert len(suite.model.chats) == 1


@pytest.mark.parametrize("wants_stream", [False, True])
async def test_a_repetition_gets_the_first_answer(suite: Suite, wants_stream: bool) -> None:
    session_id, request_id = suite.add_session(), str(uuid4())
    body = {**HELLO, "stream": wants_stream, **({"stream_options": {"include_usage": True}} if wants_stream else {})}
    first = await ask(suite, body, session_id=session_id, request_id=request_id)
    second = await ask(suite, body, session_id=session_id, request_id=request_id)
    assert text_of(second) == text_of(first)
    assert second[-1]["usage"] == {**second[-1]["usage"], **suite_usage(first[-1])}
    assert len(suite.model.chats) == len(suite.fake.runs.ledger) == 1


def suite_usage(answer: Json) -> Json:
    return {name: answer["usage"][name] for name in ("prompt_tokens", "completion_tokens")}


async def test_a_client_that_goes_away_ends_what_is_not_kept(suite: Suite) -> None:
    suite.model.script(FAULTS["slow"])
    answers = stream(suite, streamed())
    await anext(answers)
    await answers.aclose()  # type: ignore[attr-defined]
    await until(lambda: suite.model.open_streams == 0)
    assert suite.model.sent_tokens < 900


async def test_a_client_that_goes_away_leaves_the_run_that_keeps_its_exchange(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(Behaviour(tokens=20, delay_seconds=0.02))
    answers = stream(suite, streamed(), session_id=session_id)
    await anext(answers)
    await answers.aclose()  # type: ignore[attr-defined]
    await until(lambda: len(suite.stored(session_id)) == 2)
    assert suite.texts(session_id)[1] == "".join(f"t{index} " for index in range(20))


async def test_a_cancelled_run_ends_its_stream_with_that(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(FAULTS["slow"])
    stub = orchestrator_pb2_grpc.OrchestratorServiceStub(suite.connection)
    answers = stream(suite, streamed(), session_id=session_id)
    await anext(answers)
    with acting_as(suite.caller):
        (run_id,) = suite.fake.runs.runs
        await channel.call(stub.CancelRun, orchestrator_pb2.CancelRunRequest(run_id=run_id))
    assert (await broken(answers))[0].reason == "CANCELLED"


async def test_a_session_that_is_busy_or_of_somebody_else_refuses(suite: Suite) -> None:
    session_id = suite.add_session()
    suite.model.script(FAULTS["slow"])
    answers = stream(suite, streamed(), session_id=session_id)
    await anext(answers)
    for wanted, reason in ((session_id, "RUN_IN_PROGRESS"), (str(uuid4()), "SESSION_NOT_FOUND")):
        with pytest.raises(AppError) as caught:
            await ask(suite, HELLO, session_id=wanted)
        assert caught.value.reason == reason
    await answers.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", [None, "  ", [{"type": "image_url"}]])
async def test_what_has_no_text_of_the_users_cannot_be_kept(suite: Suite, content: object) -> None:
    body = {**HELLO, "messages": [{"role": "user", "content": content}]}
    with pytest.raises(AppError) as caught:
        await ask(suite, body, session_id=suite.add_session())
    assert (caught.value.reason, caught.value.metadata) == ("MISSING_FIELD", {"field": "messages"})
    assert await ask(suite, body)


async def test_text_that_no_message_can_hold_is_mended_where_it_is_kept(suite: Suite) -> None:
    session_id = suite.add_session()
    await ask(suite, {**HELLO, "messages": [{"role": "user", "content": "a\0b\ud800c"}]}, session_id=session_id)
    assert suite.texts(session_id)[0] == "a\ufffdb\ufffdc"


async def test_a_client_that_reads_too_slowly_is_cut_off_and_its_run_goes_on() -> None:
    asked = json.dumps(streamed(stream_options={"include_usage": True}))
    request = Request.read(asked, Terms(most_tokens=1000))
    count = MAX_WAITING_CHUNKS + 5

    async def say() -> AsyncIterator[Json]:
        for index in range(count):
            yield {"choices": [{"index": 0, "delta": {"content": str(index % 10)}}]}

    exchange = Exchange(request, say)  # type: ignore[arg-type]
    texts = [piece.text async for piece in exchange.answer("", [], model="test-model")]
    assert len("".join(texts)) == count
    ending = asyncio.create_task(forever())
    error, came = await broken(exchange.chunks(until=ending))
    ending.cancel()
    assert (error.reason, came) == ("DEADLINE_EXCEEDED", [])


OFFLINE: Json = {"model": "offline", "messages": [{"role": "user", "content": "Hello"}]}


async def test_the_offline_model_answers_in_the_same_shape(make_suite: MakeSuite) -> None:
    async with make_suite(openai_base_url=None, openai_api_key=None) as suite:
        session_id = suite.add_session()
        (answer,) = await ask(suite, OFFLINE)
        assert (answer["model"], answer["choices"][0]["finish_reason"]) == ("offline", "stop")
        body = {**OFFLINE, "stream": True, "stream_options": {"include_usage": True}}
        for answers in (await ask(suite, body), await ask(suite, body, session_id=session_id)):
            assert text_of(answers) == text_of([answer])
            assert answers[-1]["usage"] == answer["usage"]
            assert answers[-2]["choices"][0]["finish_reason"] == "stop"
        assert suite.texts(session_id) == ["Hello", text_of([answer])]
        plain = await ask(suite, {**OFFLINE, "stream": True})
        assert all("usage" not in chunk for chunk in plain)


async def test_the_offline_model_stops_where_it_is_told(make_suite: MakeSuite) -> None:
    async with make_suite(openai_base_url=None, openai_api_key=None) as suite:
        for stop, text in (("Concerto", "I am "), ([" am", "'s"], "I"), ("nowhere", None)):
            (answer,) = await ask(suite, {**OFFLINE, "stop": stop})
            assert text is None or text_of([answer]) == text
            assert answer["choices"][0]["finish_reason"] == "stop"
        for name in ("max_tokens", "max_completion_tokens"):
            (answer,) = await ask(suite, {**OFFLINE, name: 5})
            assert answer["choices"][0]["finish_reason"] == "length"
            assert 0 < answer["usage"]["completion_tokens"] <= 5


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "gpt-4"}, "MODEL_NOT_FOUND"),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, "PROMPT_TOO_LONG"),
        ({"max_tokens": 0}, "INVALID_FIELD"),
        ({"max_tokens": "many"}, "INVALID_FIELD"),
        ({"stop": 7}, "INVALID_FIELD"),
        ({"stop": [7]}, "INVALID_FIELD"),
    ],
)
async def test_the_offline_model_refuses_what_a_provider_would(
    make_suite: MakeSuite, fields: Json, reason: str
) -> None:
    async with make_suite(openai_base_url=None, openai_api_key=None, context_tokens=512) as suite:
        with pytest.raises(AppError) as caught:
            await ask(suite, {**OFFLINE, **fields})
        assert caught.value.reason == reason


async def test_many_streams_share_the_process(suite: Suite) -> None:
    suite.model.default = Behaviour(tokens=20, delay_seconds=0.005)
    sessions = [suite.add_session() for _ in range(5)] + [""] * 5
    found = await asyncio.gather(*(ask(suite, streamed(), session_id=session_id) for session_id in sessions))
    assert {text_of(answers) for answers in found} == {"".join(f"t{index} " for index in range(20))}
