from typing import Any

import pytest
from concerto.auth.v1 import auth_pb2
from concerto.auth.v1.auth_pb2 import ProfileChanges
from concerto.sessions.v1 import sessions_pb2
from google.protobuf.message import Message

from servicekit.errors import AppError
from servicekit.messages import validation

ID = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"
USER = sessions_pb2.ROLE_USER


def append(*messages: sessions_pb2.NewMessage, **fields: Any) -> sessions_pb2.AppendMessagesRequest:
    return sessions_pb2.AppendMessagesRequest(session_id=ID, messages=messages, **fields)


def new(content: str = "x", **fields: Any) -> sessions_pb2.NewMessage:
    message = sessions_pb2.NewMessage(role=USER, content=content)
    message.metadata.update(fields)
    return message


@pytest.mark.parametrize(
    "message",
    [
        append(new()),
        append(new("é" * 524_288)),
        append(*[new("")] * 100),
        append(new(), request_id=ID.upper()),
        append(new(note="a\\u0000b")),
        append(new(ones=[1] * 999)),
        append(new(nested=[{"a": [[None]]}] * 249)),
        sessions_pb2.ListSessionsRequest(),
        sessions_pb2.UpdateSessionRequest(session_id=ID, name="", expected_name=""),
        auth_pb2.LogInRequest(email="jörg.o'neil+x@bücher.example", password="x"),
        auth_pb2.UpdateMeRequest(profile=ProfileChanges(avatar_url="")),
    ],
)
def test_what_keeps_the_contract_passes(message: Message) -> None:
    validation.check(message)


@pytest.mark.parametrize(
    ("message", "reason", "field"),
    [
        (sessions_pb2.GetSessionRequest(), "MISSING_FIELD", "session_id"),
        (sessions_pb2.GetSessionRequest(session_id="x"), "INVALID_FIELD", "session_id"),
        (sessions_pb2.GetSessionRequest(session_id=ID.replace("-", "")), "INVALID_FIELD", "session_id"),
        (sessions_pb2.GetSessionRequest(session_id=f"{{{ID}}}"), "INVALID_FIELD", "session_id"),
        (sessions_pb2.GetSessionRequest(session_id="１" * 36), "INVALID_FIELD", "session_id"),
        (append(), "MISSING_FIELD", "messages"),
        (append(*[new()] * 101), "FIELD_TOO_LARGE", "messages"),
        (append(new("x" * 1_048_577)), "FIELD_TOO_LARGE", "messages[0].content"),
        (append(new(), new("é" * 524_289)), "FIELD_TOO_LARGE", "messages[1].content"),
        (append(new(big="x" * 65_536)), "FIELD_TOO_LARGE", "messages[0].metadata"),
        (append(new("a\0b")), "INVALID_FIELD", "messages[0].content"),
        (append(new(note="a\0b")), "INVALID_FIELD", "messages[0].metadata"),
        (append(new("x", **{"a\0b": 1})), "INVALID_FIELD", "messages[0].metadata"),
        (append(new(), request_id="1"), "INVALID_FIELD", "request_id"),
        (append(new(), new(ones=[1] * 1000)), "FIELD_TOO_LARGE", "messages[1].metadata"),
        (append(new(nested=[{"a": [[None]]}] * 250)), "FIELD_TOO_LARGE", "messages[0].metadata"),
        (append(new(**{str(number): "" for number in range(1001)})), "FIELD_TOO_LARGE", "messages[0].metadata"),
        (append(sessions_pb2.NewMessage(content="x")), "MISSING_FIELD", "messages[0].role"),
        (append(sessions_pb2.NewMessage(role=99, content="x")), "INVALID_FIELD", "messages[0].role"),  # type: ignore[arg-type]
        (sessions_pb2.ListSessionsRequest(page_size=-1), "INVALID_FIELD", "page_size"),
        (sessions_pb2.ListSessionsRequest(page_token="x" * 1025), "FIELD_TOO_LARGE", "page_token"),
        (sessions_pb2.CreateSessionRequest(name="n" * 201), "FIELD_TOO_LARGE", "name"),
        (auth_pb2.LogInRequest(email="nobody", password="x"), "INVALID_FIELD", "email"),
        (auth_pb2.LogInRequest(email="a@b@c", password="x"), "INVALID_FIELD", "email"),
        (auth_pb2.LogInRequest(email="a b@c", password="x"), "INVALID_FIELD", "email"),
        (auth_pb2.LogInRequest(email=" ", password="x"), "MISSING_FIELD", "email"),
        (auth_pb2.SignUpRequest(email="a@b", password="x" * 73), "FIELD_TOO_LARGE", "password"),
        (auth_pb2.SignUpRequest(email="a@b", password="x", redirect_to="javascript:x"), "INVALID_FIELD", "redirect_to"),
        (
            auth_pb2.UpdateMeRequest(profile=auth_pb2.ProfileChanges(avatar_url="x")),
            "INVALID_FIELD",
            "profile.avatar_url",
        ),
    ],
)
def test_what_breaks_the_contract_is_refused_with_its_field(message: Message, reason: str, field: str) -> None:
    with pytest.raises(AppError) as caught:
        validation.check(message)
    assert (caught.value.reason, caught.value.metadata["field"]) == (reason, field)
