import email.utils
import time

import pytest

from servicekit.messages import converter
from services.orchestrator.models.server_failures import Report, wait_of
from services.orchestrator.tests.conftest import MakeSuite, Suite, error_of, kinds, state_of, text_of
from tests.support.model_server import FAULTS, Behaviour, patience_for

REFUSALS = {
    "unauthorized": "MODEL_CREDENTIALS_REJECTED",
    "forbidden": "MODEL_CREDENTIALS_REJECTED",
    "no_model": "MODEL_NOT_FOUND",
    "no_model_plain": "MODEL_NOT_FOUND",
    "wrong_address": "MODEL_UNREACHABLE",
    "rate_limited": "MODEL_RATE_LIMITED",
    "no_quota": "MODEL_QUOTA_EXHAUSTED",
    "too_long": "PROMPT_TOO_LONG",
    "too_long_plain": "PROMPT_TOO_LONG",
    "bad_request": "MODEL_REQUEST_REFUSED",
    "prompt_filtered": "CONTENT_FILTERED",
    "server_error": "MODEL_UNAVAILABLE",
    "bad_gateway": "MODEL_UNAVAILABLE",
    "overloaded": "MODEL_UNAVAILABLE",
    "gateway_timeout": "MODEL_TIMEOUT",
    "silent": "MODEL_TIMEOUT",
    "no_answer": "MODEL_TIMEOUT",
}
BREAKS = {
    "stall": "MODEL_TIMEOUT",
    "cut": "MODEL_CONNECTION_LOST",
    "invalid_json": "MODEL_ANSWER_MALFORMED",
    "wrong_shape": "MODEL_ANSWER_MALFORMED",
    "error_chunk": "MODEL_UNAVAILABLE",
    "no_finish": "MODEL_CONNECTION_LOST",
    "content_filter": "CONTENT_FILTERED",
}


def test_every_fault_of_the_model_server_has_its_case() -> None:
    assert FAULTS.keys() == REFUSALS.keys() | BREAKS.keys() | {
        "length",
        "no_usage",
        "slow",
        "loop",
        "parallel_loop",
        "not_a_stream",
    }


@pytest.mark.parametrize(("fault", "reason"), REFUSALS.items())
async def test_refusal_gets_its_reason_and_stores_no_answer(make_suite: MakeSuite, fault: str, reason: str) -> None:
    async with make_suite(stall_seconds=patience_for(fault)) as suite:
        session_id = suite.add_session()
        events = await suite.turn(session_id, "Hello", model=f"fault:{fault}")
        assert kinds(events) == ["run_started", "usage", "error", "run_finished"]
        assert error_of(events).details[0].reason == reason
        assert state_of(events) == "FAILED"
        assert suite.texts(session_id) == ["Hello"]
        assert len(suite.model.chats) <= 2
        assert state_of(await suite.turn(session_id, "Again")) == "SUCCEEDED"


@pytest.mark.parametrize(("fault", "reason"), BREAKS.items())
async def test_break_in_the_stream_gets_its_reason_and_keeps_the_partial_text(
    make_suite: MakeSuite, fault: str, reason: str
) -> None:
    async with make_suite(stall_seconds=patience_for(fault)) as suite:
        session_id = suite.add_session()
        events = await suite.turn(session_id, f"Say a few words [[fault:{fault}]]")
        assert kinds(events) == [
            "run_started", "message_delta", "message_completed", "usage", "error", "run_finished",
        ]  # fmt: skip
        assert error_of(events).details[0].reason == reason
        assert state_of(events) == "FAILED"
        answer = suite.stored(session_id)[1]
        metadata = converter.to_json(answer.metadata)
        assert answer.content == text_of(events) != ""
        assert (metadata["partial"], metadata["error_reason"]) == (True, reason)
        assert len(suite.model.chats) == 1
        assert state_of(await suite.turn(session_id, "Again")) == "SUCCEEDED"
        assert suite.model.chats[1]["messages"][-2]["content"] == answer.content


async def test_rate_limit_tells_how_long_to_wait(suite: Suite) -> None:
    error = error_of(await suite.turn(suite.add_session(), "Hello", model="fault:rate_limited"))
    assert (error.code, error.status) == (429, "RESOURCE_EXHAUSTED")
    assert dict(error.details[0].metadata) == {"retry_after_seconds": "7"}
    assert len(suite.model.chats) == 1


async def test_unknown_model_is_named(suite: Suite) -> None:
    error = error_of(await suite.turn(suite.add_session(), "Hello", model="fault:no_model"))
    assert dict(error.details[0].metadata) == {"model": "fault:no_model"}
    assert "fault:no_model" in error.message


async def test_provider_that_is_not_there_is_unreachable(make_suite: MakeSuite) -> None:
    async with make_suite(openai_base_url="http://127.0.0.1:9/v1") as suite:
        events = await suite.turn(suite.add_session(), "Hello")
        assert error_of(events).details[0].reason == "MODEL_UNREACHABLE"


async def test_failure_before_the_first_token_is_tried_once_more(suite: Suite) -> None:
    suite.model.script(FAULTS["overloaded"], Behaviour(text="Here I am."))
    events = await suite.turn(suite.add_session(), "Hello")
    assert (state_of(events), text_of(events)) == ("SUCCEEDED", "Here I am.")
    assert len(suite.model.chats) == 2


async def test_answer_cut_by_its_length_is_an_answer(suite: Suite) -> None:
    session_id = suite.add_session()
    events = await suite.turn(session_id, "Hello [[fault:length]]")
    assert state_of(events) == "SUCCEEDED"
    assert converter.to_json(suite.stored(session_id)[1].metadata)["finish_reason"] == "length"


async def test_usage_is_estimated_when_the_provider_tells_none(suite: Suite) -> None:
    session_id = suite.add_session()
    events = await suite.turn(session_id, "Hello [[fault:no_usage]]")
    usage = converter.to_json(suite.stored(session_id)[1].metadata)["usage"]
    assert usage["estimated"] is True
    assert usage["prompt_tokens"] > 0
    assert events[-2].usage.completion_tokens == usage["completion_tokens"] > 0


async def test_error_says_nothing_of_what_the_provider_said(suite: Suite) -> None:
    quoting = Behaviour(status=400, error={"message": "bad prompt: orange-question", "type": "x", "code": None})
    suite.model.script(quoting)
    error = error_of(await suite.turn(suite.add_session(), "orange-question"))
    assert "orange" not in str(error)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "1e12"}, 86_400.0),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read_in_each_form(headers: dict[str, str], seconds: float | None) -> None:
    assert wait_of(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    seconds = wait_of({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)})
    assert seconds is not None
    assert 50 < seconds <= 60


@pytest.mark.parametrize(
    "wait",
    [
        "Mon, 01 Jan 99999 00:00:00 GMT",
        f"Mon, 01 Jan {10**20} 00:00:00 GMT",
        f"Mon, 01 Jan 2020 00:00:00 +{10**20}",
        " " * 200 + "1s",
        "Mon, " + "1" * 5_000 + " Jan 2020 00:00:00",
        "1" * 20_000 + "x",
        10**400,
        {"seconds": {"seconds": 1}},
        [1],
    ],
    ids=repr,
)
def test_a_wait_that_is_none_is_passed_over(wait: object) -> None:
    if isinstance(wait, str):
        for name in ("retry-after", "retry-after-ms", "x-ratelimit-reset"):
            assert wait_of({name: wait}) in (None, 0.0)
    report = Report.read({"error": {"retry_after": wait, "x-ratelimit-reset": wait, "code": "a"}}, status=429)
    assert (report.status, report.codes, report.wait_seconds) in ((429, {"a"}, None), (429, {"a"}, 0.0))


def test_a_wait_may_be_nested_as_deeply_as_json_can() -> None:
    wait: object = 1
    for _ in range(1_000):
        wait = {"seconds": wait}
    assert Report.read({"error": {"retry_delay": wait}}, status=429).wait_seconds is None


def test_names_of_parameters_are_short() -> None:
    report = Report.read({"detail": [{"loc": ["body", "x" * 5_000]}, {"param": "messages." + "1" * 5_000 + ".role"}]})
    assert [len(param) for param in report.params] == [200, 200]
