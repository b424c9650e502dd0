from typing import Any

import pytest
from langchain_core.messages import ToolCallChunk
from langchain_core.messages.tool import tool_call_chunk

from services.orchestrator.agents.tool_calls import MAX_ARGUMENT_BYTES, MAX_CALLS, CallParts


def part(index: int | None, args: str | None, *, name: str | None = None, call_id: str | None = None) -> ToolCallChunk:
    return tool_call_chunk(index=index, args=args, name=name, id=call_id)


def whole(*parts: ToolCallChunk) -> list[tuple[str, dict[str, Any]]]:
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
def test_arguments_that_cannot_be_kept_are_left_out(text: str) -> None:
    assert whole(part(0, text, name="a", call_id="1")) == [("a", {})]


def test_characters_that_no_text_may_hold_are_replaced_and_halves_joined() -> None:
    assert whole(part(0, '{"x\\u0000": "\\u0000', name="a"), part(0, "\ud83d"), part(0, '\ude00"}')) == [
        ("a", {"x\ufffd": "\ufffd😀"})
    ]


def test_arguments_of_one_message_are_bounded_together() -> None:
    large = '{"x": "' + "y" * (MAX_ARGUMENT_BYTES // 2) + '"}'
    calls = whole(*(part(position, large, name="a", call_id=str(position)) for position in range(3)))
    assert [bool(arguments) for _, arguments in calls] == [True, False, False]
    assert len(whole(*(part(position, "{}", name="a", call_id=str(position)) for position in range(100)))) == MAX_CALLS


def test_call_without_a_name_is_none_and_one_without_an_id_gets_one() -> None:
    calls = CallParts()
    calls.add([part(0, "{}"), part(1, "{}", name="a")])
    (call,) = calls.whole()
    assert call.name == "a"
    assert call.call_id.startswith("call_")


def test_name_has_only_what_providers_take_back() -> None:
    assert whole(part(0, "{}", name="Werkzeug für\0alles " + "x" * 100)) == [
        ("Werkzeug_f_r_alles_" + "x" * 45, {}),
    ]
