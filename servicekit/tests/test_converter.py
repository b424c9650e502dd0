from typing import Any

import pytest
from concerto.auth.v1 import auth_pb2
from concerto.sessions.v1 import runs_pb2, sessions_pb2
from google.protobuf import struct_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit.errors import AppError
from servicekit.messages import converter, json_reader

ID = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"


def refusal(message_type: type, data: Any) -> tuple[str, str]:
    with pytest.raises(AppError) as caught:
        converter.from_json(message_type, data)
    return caught.value.reason, caught.value.metadata["field"]


def test_message_survives_the_way_to_json_and_back() -> None:
    message = sessions_pb2.Message(
        id=ID, role=sessions_pb2.ROLE_TOOL, content="Grüße 🎻", order=3, timestamp=Timestamp(seconds=1, nanos=123456000)
    )
    message.metadata.update({"n": 3, "x": 1.5, "list": [1, None, {"deep": True}], "text": "ü"})
    data = converter.to_json(message)
    assert data["role"] == "tool"
    assert data["timestamp"] == "1970-01-01T00:00:01.123456Z"
    assert data["metadata"] == {"n": 3, "x": 1.5, "list": [1, None, {"deep": True}], "text": "ü"}
    assert converter.from_json(sessions_pb2.Message, data) == message


def test_defaults_are_written_and_unset_messages_are_null() -> None:
    data = converter.to_json(auth_pb2.SignUpResponse(user=auth_pb2.User(id=ID)))
    assert data["session"] is None
    assert data["user"]["email"] == ""
    assert data["user"]["last_login_at"] is None
    assert data["user"]["role"] is None


def test_only_the_chosen_part_of_a_oneof_is_written() -> None:
    event = runs_pb2.RunEvent(seq=2, message_delta=runs_pb2.MessageDelta(text="a"))
    assert converter.to_json(event) == {"seq": 2, "created_at": None, "message_delta": {"text": "a"}}


def test_states_keep_their_names_without_the_prefix() -> None:
    finished = runs_pb2.RunFinished(state=runs_pb2.RUN_STATE_SUCCEEDED)
    assert converter.to_json(finished) == {"state": "SUCCEEDED"}


def test_integers_within_a_struct_stay_integers_and_large_floats_stay_floats() -> None:
    struct = struct_pb2.Struct()
    struct.update({"a": 2**53 - 1, "b": 1e300, "c": 0.1})
    assert converter.to_json(struct) == {"a": 2**53 - 1, "b": 1e300, "c": 0.1}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([], ("INVALID_FIELD", "The body")),
        ("x", ("INVALID_FIELD", "The body")),
        ({"nope": 1}, ("UNKNOWN_FIELD", "nope")),
        ({"messages": {}}, ("INVALID_FIELD", "messages")),
        ({"messages": [1]}, ("INVALID_FIELD", "messages[0]")),
        ({"messages": [{"role": "robot"}]}, ("INVALID_FIELD", "messages[0].role")),
        ({"messages": [{"role": 1}]}, ("INVALID_FIELD", "messages[0].role")),
        ({"messages": [{"content": 1}]}, ("INVALID_FIELD", "messages[0].content")),
        ({"messages": [{}, {"content": "\ud800"}]}, ("INVALID_FIELD", "messages[1].content")),
        ({"messages": [{"metadata": []}]}, ("INVALID_FIELD", "messages[0].metadata")),
        ({"messages": [{"x": 1}]}, ("UNKNOWN_FIELD", "messages[0].x")),
        ({"session_id": True}, ("INVALID_FIELD", "session_id")),
    ],
)
def test_wrong_json_is_refused_with_its_path(data: object, expected: tuple[str, str]) -> None:
    assert refusal(sessions_pb2.AppendMessagesRequest, data) == expected


@pytest.mark.parametrize("value", [True, 1.5, "1", 2**31, -(2**31) - 1, [1]])
def test_what_is_no_32_bit_integer_is_refused(value: object) -> None:
    assert refusal(sessions_pb2.ListSessionsRequest, {"page_size": value}) == ("INVALID_FIELD", "page_size")


@pytest.mark.parametrize("text", ["2026", "2026-01-01", "2026-01-01T00:00:00", "20260101T000000Z!", "x" * 30, ""])
def test_timestamps_without_offset_or_form_are_refused(text: str) -> None:
    data = {"status_expires_at": text}
    assert refusal(auth_pb2.ProfileChanges, data) == ("INVALID_FIELD", "status_expires_at")


def test_timestamps_of_any_offset_mean_the_same_instant() -> None:
    changes = converter.from_json(auth_pb2.ProfileChanges, {"status_expires_at": "2026-01-01T02:00:00.5+02:00"})
    assert converter.to_json(changes)["status_expires_at"] == "2026-01-01T00:00:00.500000Z"


def test_nesting_without_end_is_refused() -> None:
    data: dict[str, object] = {}
    for _ in range(200):
        data = {"a": [data]}
    assert refusal(sessions_pb2.NewMessage, {"metadata": data})[0] == "INVALID_FIELD"


def test_null_means_absent() -> None:
    changes = converter.from_json(auth_pb2.ProfileChanges, {"username": None, "full_name": ""})
    assert not changes.HasField("username")
    assert changes.HasField("full_name")


def test_data_of_a_newer_database_is_readable() -> None:
    session = converter.from_json(sessions_pb2.Session, {"id": ID, "new_column": 1}, ignore_unknown=True)
    assert session.id == ID


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [("page_size", "7", 7), ("is_archived", "true", True), ("query", "7", "7"), ("page_size", "-3", -3)],
)
def test_url_texts_become_values(path: str, text: str, expected: object) -> None:
    request = sessions_pb2.ListSessionsRequest()
    converter.set_field_from_text(request, path, text)
    assert getattr(request, path) == expected


def test_instants_in_urls_are_read_and_present() -> None:
    request = sessions_pb2.ListUsageRequest()
    converter.set_field_from_text(request, "to", "1970-01-01T01:00:00+01:00")
    assert request.HasField("to")
    assert request.to.seconds == 0
    for text in ("", "yesterday", "2026-11-20", "2026-11-20T10:00:00"):
        with pytest.raises(AppError) as caught:
            converter.set_field_from_text(request, "to", text)
        assert (caught.value.reason, caught.value.metadata["field"]) == ("INVALID_FIELD", "to")


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("page_size", "x", "INVALID_FIELD"),
        ("page_size", "1e3", "INVALID_FIELD"),
        ("page_size", "٣", "INVALID_FIELD"),
        ("page_size", "9" * 400, "INVALID_FIELD"),
        ("is_archived", "yes", "INVALID_FIELD"),
        ("nope", "1", "UNKNOWN_FIELD"),
        ("page_size.x", "1", "UNKNOWN_FIELD"),
    ],
)
def test_wrong_url_texts_are_refused(path: str, text: str, reason: str) -> None:
    with pytest.raises(AppError) as caught:
        converter.set_field_from_text(sessions_pb2.ListSessionsRequest(), path, text)
    assert caught.value.reason == reason


def test_whatever_nesting_is_accepted_can_be_sent() -> None:
    data: dict[str, object] = {}
    for _ in range(json_reader.MAX_DEPTH * 2):
        data = {"a": data}
        try:
            message = converter.from_json(sessions_pb2.AppendMessagesRequest, {"messages": [{"metadata": data}]})
        except AppError:
            break
        assert sessions_pb2.AppendMessagesRequest.FromString(message.SerializeToString()) == message
    else:
        pytest.fail("no limit was met")


def test_years_have_four_digits() -> None:
    changes = converter.from_json(auth_pb2.ProfileChanges, {"status_expires_at": "0208-10-20T01:02:03Z"})
    assert converter.to_json(changes)["status_expires_at"] == "0208-10-20T01:02:03Z"
