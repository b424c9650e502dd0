from typing import Any

import pytest
from concerto.auth.v1 import auth_pb2
from concerto.orchestrator.v1 import orchestrator_pb2
from concerto.sessions.v1 import runs_pb2, sessions_pb2
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servicekit.errors import AppError
from servicekit.messages import converter, json_fields, json_reader

ID = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"
TIMES = [
    "2026-11-20T14:40:12.123456+00:00", "2026-11-20T14:40:12Z", "2026-11-20t14:40:12.5-09:30", "2026-11-20 14:40:12Z",
    "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-14:00", "2026-11-20T14:40:12",
    "2026-11-20T14+00:00", "20261120T144012+00:00", "2026-W47-5T10:00:00Z", "2026-11-20T14:40:12+00:00:00.5",
]  # fmt: skip
TEXTS = ["", " ", "a", "user", "tool", "\0", "ü", "\ud800", ID, ID.upper(), ID[:-1], f"{{{ID}}}", "１" * 36, *TIMES]
NUMBERS = [0, 1, -1, 50, 2**31, -(2**31) - 1, 2**63, 2**70, 1.0, 1.5, float("inf"), 1e300, True, False]
TYPES: list[type[Message]] = [
    sessions_pb2.AppendMessagesRequest, sessions_pb2.ListMessagesRequest, sessions_pb2.Message, sessions_pb2.Session,
    sessions_pb2.UpdateSessionRequest, sessions_pb2.ListUsageRequest, sessions_pb2.ListMessagesResponse,
    runs_pb2.RunEvent, runs_pb2.StartRunRequest, orchestrator_pb2.StreamTurnRequest, auth_pb2.UpdateMeRequest,
    auth_pb2.SignUpRequest,
]  # fmt: skip

leaf = st.one_of(st.sampled_from(TEXTS), st.sampled_from(NUMBERS), st.none())


def json_of(descriptor: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Return JSON that is often nearly right for a message type."""
    if descriptor.full_name == "google.protobuf.Timestamp":
        return st.sampled_from([*TIMES, None, 3])
    if descriptor.full_name.startswith("google.protobuf.") or depth > 3:
        return st.one_of(st.dictionaries(st.sampled_from(["a", "\0", "ü"]), st.recursive(leaf, st.lists)), leaf)
    parts = {field.name: value_of(field, depth) for field in descriptor.fields}
    return st.one_of(
        st.fixed_dictionaries({}, optional={**parts, "unknown": leaf}), st.fixed_dictionaries({}, optional=parts), leaf
    )


def value_of(field: Any, depth: int) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any] = st.sampled_from(NUMBERS)
    if field.message_type is not None:
        one = json_of(field.message_type, depth + 1)
    elif field.type == field.TYPE_STRING:
        one = st.sampled_from(TEXTS)
    elif field.type == field.TYPE_BOOL:
        one = st.booleans()
    if field.enum_type is not None:
        one = st.sampled_from([*json_fields.enum_spellings(field.enum_type), "nobody", 1])
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return st.dictionaries(st.sampled_from(["a", "\ud800"]), leaf)
    return st.one_of(st.lists(one, max_size=3), leaf) if field.is_repeated else st.one_of(one, one, one, leaf)


def outcome(read: Any) -> Any:
    try:
        return read()
    except AppError as error:
        return error.reason, error.metadata


@pytest.mark.parametrize("message_type", TYPES)
@pytest.mark.parametrize("ignore_unknown", [False, True])
def test_reading_comes_out_the_same_both_ways(message_type: type[Message], ignore_unknown: bool) -> None:
    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(json_of(message_type.DESCRIPTOR))
    def check(data: Any) -> None:
        def long_way() -> Message:
            message = message_type()
            json_reader.reader_of(message_type.DESCRIPTOR)(message, data, "", ignore_unknown, 0)
            return message

        found = outcome(lambda: converter.from_json(message_type, data, ignore_unknown=ignore_unknown))
        assert found == outcome(long_way)

    check()
