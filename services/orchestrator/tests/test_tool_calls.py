import json
from typing import Any

import pytest

from servicekit.errors import AppError
from services.orchestrator.agents.tool_calls import (
    MAX_ARGUMENT_BYTES,
    MAX_CALLS,
    MOST_BYTES,
    MOST_CALLS,
    CallParts,
    CallPiece,
    storable,
)


def part(index: int | None, args: str | None, *, name: str | None = None, call_id: str | None = None) -> CallPiece:
    return CallPiece(index, call_id, name, args)


def whole(*parts: CallPiece) -> list[tuple[str, dict[str, Any]]]:
    calls = CallParts()
    for one in parts:
        calls.add([one])
    return [(call.name, dict(call.arguments)) for call in calls.whole()]


def test_parts_are_put_together_by_their_index() -> None:
    assert whole(
        part(0, "", name="a", call_id="1"),
        part(1, "", name="b", call_id="2"),
        part(0, '{"x": '),
        part(1, '{"y": '),
        part(0, "1}"),
        part(1, "2}"),
    ) == [("a", {"x": 1}), ("b", {"y": 2})]


@pytest.mark.parametrize("index", [0, None])
def test_calls_of_servers_that_do_not_count_are_told_apart_by_their_ids(index: int | None) -> None:
    assert whole(
        part(index, '{"x": 1}', name="a", call_id="1"),
        part(index, '{"x": ', name="a", call_id="2"),
        part(index, "2}", name="a", call_id="2"),
    ) == [("a", {"x": 1}), ("a", {"x": 2})]


def test_call_without_arguments_has_none() -> None:
    assert whole(part(0, None, name="a", call_id="1")) == [("a", {})]


@pytest.mark.parametrize(
    "text",
    ['{"x": ', "[1]", "7", '"x"', "NaN", "[" * 5_000, '{"x": ' * 50 + "1" + "}" * 50, '{"x": "' + "y" * 30_000 + '"}'],
)
def test_arguments_that_cannot_be_kept_are_a_problem_of_the_call(text: str) -> None:
    calls = CallParts()
    calls.add([part(0, text, name="a", call_id="1")])
    (call,) = calls.whole()
    assert (call.name, call.arguments, bool(call.problem)) == ("a", {}, True)


def test_characters_that_no_text_may_hold_are_replaced_and_halves_joined() -> None:
    assert whole(part(0, '{"x\\u0000": "\\u0000', name="a"), part(0, "\ud83d"), part(0, '\ude00"}')) == [
        ("a", {"x\ufffd": "\ufffd😀"})
    ]


def test_arguments_of_one_message_are_bounded_together() -> None:
    large = '{"x": "' + "y" * (MAX_ARGUMENT_BYTES // 2) + '"}'
    calls = whole(*(part(position, large, name="a", call_id=str(position)) for position in range(3)))
    assert [bool(arguments) for _, arguments in calls] == [True, False, False]
    many = CallParts()
    many.add([part(position, "{}", name="a", call_id=str(position)) for position in range(MAX_CALLS + 1)])
    with pytest.raises(AppError) as caught:
        many.whole()
    assert caught.value.reason == "RUN_LIMIT_REACHED"


def test_call_without_a_name_is_an_error_and_one_without_an_id_gets_one() -> None:
    calls = CallParts()
    calls.add([part(1, "{}", name="a")])
    (call,) = calls.whole()
    assert call.call_id.startswith("call_")
    calls.add([part(2, "{}")])
    with pytest.raises(AppError) as caught:
        calls.whole()
    assert caught.value.reason == "MODEL_ANSWER_MALFORMED"


def test_name_has_only_what_providers_take_back() -> None:
    assert whole(part(0, "{}", name="Werkzeug für\0alles " + "x" * 100)) == [
        ("Werkzeug_f_r_alles_" + "x" * 45, {}),
    ]


@pytest.mark.parametrize(
    "parts",
    [
        [part(index, "{}", name="a", call_id=str(index)) for index in range(MOST_CALLS + 1)],
        [part(0, "", name=f"n{index}", call_id="1") for index in range(1_000)],
        [part(0, "x" * 100_000) for _ in range(MOST_BYTES // 100_000 + 1)],
        [part(None, "x", call_id=f"{index:0100000}") for index in range(MOST_BYTES // 100_000 + 1)],
    ],
    ids=["calls", "name", "arguments", "ids"],
)
def test_calls_without_an_end_are_malformed(parts: list[CallPiece]) -> None:
    calls = CallParts()
    with pytest.raises(AppError, match="MODEL_ANSWER_MALFORMED"):
        calls.add(parts)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": "}"}}',
        '{"a": "\\"}"}',
        '{"a\\\\": "{"} \n',
        ' {"a": [{}, "\\\\\\""]}',
        '{"a": "\ud83d\ude00"}',
        "{}",
    ],
)
def test_a_call_is_whole_wherever_its_text_is_cut(text: str) -> None:
    for at in range(1, len(text)):
        pieces = [part(0, text[:at], name="a", call_id="1"), part(0, text[at:]), part(0, "{}", name="b", call_id="2")]
        assert whole(*pieces) == [("a", json.loads(storable(text))), ("b", {})], at


@pytest.mark.parametrize("text", ['{"a": 1', '{"a": "}', "{}}", "{} x", "x{}", '{"a" 1}', "[{}]", '"}'])
def test_a_call_that_is_not_whole_goes_on_wherever_its_text_is_cut(text: str) -> None:
    for at in range(1, len(text)):
        calls = CallParts()
        for one in (part(0, text[:at], name="a"), part(0, text[at:]), part(0, "", name="a")):
            calls.add([one])
        assert len(calls.as_sent()) == 1, at
