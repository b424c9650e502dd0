import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from concerto.sessions.v1 import sessions_pb2 as pb
from concerto.sessions.v1 import sessions_pb2_grpc as pb_grpc
from google.protobuf import struct_pb2

from servicekit.errors import AppError
from servicekit.rpc.identity import Caller
from servicekit.testing import acting_as
from services.sessions.sessions_servicer import SessionsServicer
from services.sessions.tests.conftest import Service
from tests.support.contract import MAX_CONTENT_BYTES
from tests.support.suites import RunningStack

RPCS = pb.DESCRIPTOR.services_by_name["SessionsService"].methods_by_name
ONE_MESSAGE = [pb.NewMessage(role=pb.ROLE_USER, content="hello")]


async def refusal(service: Service, rpc: str, message: Any) -> AppError:
    with pytest.raises(AppError) as error:
        await service.call(rpc, message)
    return error.value


def about_a_session(session_id: str) -> dict[str, Any]:
    return {
        "GetSession": pb.GetSessionRequest(session_id=session_id),
        "UpdateSession": pb.UpdateSessionRequest(session_id=session_id, name="forged"),
        "DeleteSession": pb.DeleteSessionRequest(session_id=session_id),
        "AppendMessages": pb.AppendMessagesRequest(session_id=session_id, messages=ONE_MESSAGE),
        "ListMessages": pb.ListMessagesRequest(session_id=session_id),
        "SelectBranch": pb.SelectBranchRequest(session_id=session_id, message_id=str(uuid4())),
        "SearchMessages": pb.SearchMessagesRequest(session_id=session_id, query="private"),
    }


def of_any_user() -> dict[str, Any]:
    return {
        "CreateSession": pb.CreateSessionRequest(),
        "ListSessions": pb.ListSessionsRequest(),
        "ListUsage": pb.ListUsageRequest(),
    }


def test_every_rpc_of_the_contract_is_answered() -> None:
    missing = [
        name for name in RPCS if getattr(SessionsServicer, name) is getattr(pb_grpc.SessionsServiceServicer, name)
    ]
    assert missing == []
    assert {*about_a_session(""), *of_any_user()} == set(RPCS)


async def test_a_new_session_is_empty_and_belongs_to_its_creator(service: Service, signed_in: Caller) -> None:
    session = (await service.call("CreateSession", pb.CreateSessionRequest(name="Träume ✨"))).session
    assert (session.user_id, session.name) == (signed_in.user_id, "Träume ✨")
    assert (session.is_archived, session.message_count) == (False, 0)
    assert UUID(session.id).version == 4
    assert session.created_at == session.updated_at
    again = (await service.call("GetSession", pb.GetSessionRequest(session_id=session.id))).session
    assert again == session


async def test_creating_twice_with_one_request_id_makes_one_session(service: Service, signed_in: Caller) -> None:
    request = pb.CreateSessionRequest(name="once", request_id=str(uuid4()))
    answers = await asyncio.gather(*(service.call("CreateSession", request) for _ in range(4)))
    assert len({answer.session.id for answer in answers}) == 1


async def test_two_people_may_choose_one_request_id(service: Service, owner: Caller, stranger: Caller) -> None:
    request = pb.CreateSessionRequest(request_id=str(uuid4()))
    created = []
    for caller in (owner, stranger):
        with acting_as(caller):
            created.append((await service.call("CreateSession", request)).session)
    assert [session.user_id for session in created] == [owner.user_id, stranger.user_id]


async def test_an_update_changes_what_is_present(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session("before")
    update = pb.UpdateSessionRequest(session_id=session_id, is_archived=True)
    session = (await service.call("UpdateSession", update)).session
    assert (session.name, session.is_archived) == ("before", True)
    update = pb.UpdateSessionRequest(session_id=session_id, name="", is_archived=False)
    session = (await service.call("UpdateSession", update)).session
    assert (session.name, session.is_archived) == ("", False)
    session = (await service.call("UpdateSession", pb.UpdateSessionRequest(session_id=session_id))).session
    assert (session.name, session.is_archived) == ("", False)


async def test_an_update_with_an_expected_name_gives_way(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session()
    update = pb.UpdateSessionRequest(session_id=session_id, name="automatic", expected_name="")
    assert (await service.call("UpdateSession", update)).session.name == "automatic"
    assert (await service.call("UpdateSession", update)).session.name == "automatic", "a repetition is no conflict"
    await service.call("UpdateSession", pb.UpdateSessionRequest(session_id=session_id, name="the user's"))
    error = await refusal(service, "UpdateSession", update)
    assert (error.reason, error.http_status) == ("SESSION_NAME_CHANGED", 400)
    session = (await service.call("GetSession", pb.GetSessionRequest(session_id=session_id))).session
    assert session.name == "the user's"


async def test_a_deleted_session_is_gone_with_its_messages(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session()
    await service.append(session_id, "one")
    assert await service.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id)) is not None
    for rpc, message in about_a_session(session_id).items():
        assert (await refusal(service, rpc, message)).reason == "SESSION_NOT_FOUND"


async def test_a_strangers_session_answers_like_a_missing_one(
    service: Service, owner: Caller, stranger: Caller
) -> None:
    with acting_as(owner):
        session_id = await service.new_session("private")
    missing_id = str(uuid4())
    with acting_as(stranger):
        for rpc in about_a_session(session_id):
            foreign = await refusal(service, rpc, about_a_session(session_id)[rpc])
            missing = await refusal(service, rpc, about_a_session(missing_id)[rpc])
            assert (foreign.reason, foreign.http_status) == ("SESSION_NOT_FOUND", 404)
            assert str(foreign).replace(session_id, "") == str(missing).replace(missing_id, "")
        assert list((await service.call("ListSessions", pb.ListSessionsRequest())).sessions) == []
    with acting_as(owner):
        session = (await service.call("GetSession", pb.GetSessionRequest(session_id=session_id))).session
    assert (session.name, session.message_count) == ("private", 0)


@pytest.mark.parametrize("rpc", RPCS)
async def test_nobody_is_served_without_a_token(service: Service, rpc: str) -> None:
    with acting_as(None):
        error = await refusal(service, rpc, {**about_a_session(str(uuid4())), **of_any_user()}[rpc])
    assert (error.reason, error.http_status) == ("TOKEN_MISSING", 401)


async def test_a_token_that_outlives_its_account_does_nothing(service: Service, stack: RunningStack) -> None:
    with acting_as(stack.caller()):
        error = await refusal(service, "CreateSession", pb.CreateSessionRequest())
        assert (error.reason, error.http_status) == ("SIGN_IN_ENDED", 401)
        assert (await refusal(service, "ListSessions", pb.ListSessionsRequest())).reason == "SIGN_IN_ENDED"


async def test_appended_messages_come_back_as_they_were(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session()
    metadata = struct_pb2.Struct()
    metadata.update({"model": "m", "usage": {"tokens": 12, "rate": 0.5}, "tags": ["ä", None, True, "{}"], "": ""})
    sent = [
        pb.NewMessage(role=pb.ROLE_SYSTEM, content="[1, 2]", metadata=metadata),
        pb.NewMessage(role=pb.ROLE_TOOL),
        pb.NewMessage(role=pb.ROLE_ASSISTANT, content='{"a": 1}\r\n\t\u2028 \U0001f3bc\\u0041'),
        pb.NewMessage(role=pb.ROLE_USER, content="null"),
    ]
    request = pb.AppendMessagesRequest(session_id=session_id, messages=sent, include_contents=True)
    appended = list((await service.call("AppendMessages", request)).messages)
    assert [(message.role, message.content) for message in appended] == [(new.role, new.content) for new in sent]
    assert [message.metadata for message in appended] == [new.metadata for new in sent]
    assert [message.order for message in appended] == [1, 2, 3, 4]
    assert {message.session_id for message in appended} == {session_id}
    moments = [message.timestamp.ToNanoseconds() for message in appended]
    assert moments == sorted(moments)
    listed = (await service.call("ListMessages", pb.ListMessagesRequest(session_id=session_id))).messages
    assert list(listed) == appended


async def test_a_repeated_append_answers_the_same(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session()
    request = pb.AppendMessagesRequest(session_id=session_id, messages=ONE_MESSAGE * 3, request_id=str(uuid4()))
    answers = await asyncio.gather(*(service.call("AppendMessages", request) for _ in range(4)))
    assert all(answer == answers[0] for answer in answers)
    assert [message.order for message in answers[0].messages] == [1, 2, 3]
    other = pb.AppendMessagesRequest(session_id=session_id, messages=ONE_MESSAGE, request_id=request.request_id)
    error = await refusal(service, "AppendMessages", other)
    assert (error.reason, error.http_status) == ("REQUEST_ID_REUSED", 409)
    assert error.metadata["request_id"] == request.request_id


async def test_the_largest_message_is_kept(service: Service, signed_in: Caller) -> None:
    session_id = await service.new_session()
    metadata = struct_pb2.Struct()
    metadata["x"] = "y" * (65536 - len('{"x":""}'))
    content = "é" * (MAX_CONTENT_BYTES // 2)
    request = pb.AppendMessagesRequest(
        session_id=session_id, messages=[pb.NewMessage(role=pb.ROLE_USER, content=content, metadata=metadata)]
    )
    await service.call("AppendMessages", request)
    message = (await service.call("ListMessages", pb.ListMessagesRequest(session_id=session_id))).messages[0]
    assert message.content == content
    assert message.metadata == metadata
    request.messages[0].content += "x"
    error = await refusal(service, "AppendMessages", request)
    assert (error.reason, error.metadata["field"]) == ("FIELD_TOO_LARGE", "messages[0].content")


async def test_metadata_of_many_small_entries_fits_as_far_as_the_contract_says(
    service: Service, signed_in: Caller
) -> None:
    metadata = struct_pb2.Struct()
    metadata["x"] = [1] * 999
    request = pb.AppendMessagesRequest(
        session_id=await service.new_session(),
        messages=[pb.NewMessage(role=pb.ROLE_USER, metadata=metadata)],
        include_contents=True,
    )
    assert (await service.call("AppendMessages", request)).messages[0].metadata == metadata
    request.messages[0].metadata["y"] = None
    error = await refusal(service, "AppendMessages", request)
    assert (error.reason, error.metadata["field"]) == ("FIELD_TOO_LARGE", "messages[0].metadata")
    assert error.metadata["limit"] == "1000 values"


@pytest.mark.parametrize(
    ("rpc", "message", "field"),
    [
        ("CreateSession", pb.CreateSessionRequest(name="x" * 201), "name"),
        ("CreateSession", pb.CreateSessionRequest(name="nul \0"), "name"),
        ("CreateSession", pb.CreateSessionRequest(request_id="x"), "request_id"),
        ("ListSessions", pb.ListSessionsRequest(page_size=-1), "page_size"),
        ("ListSessions", pb.ListSessionsRequest(query="x" * 201), "query"),
        ("GetSession", pb.GetSessionRequest(), "session_id"),
        ("GetSession", pb.GetSessionRequest(session_id="1; drop table"), "session_id"),
        ("AppendMessages", pb.AppendMessagesRequest(session_id=str(uuid4())), "messages"),
        ("AppendMessages", pb.AppendMessagesRequest(session_id=str(uuid4()), messages=ONE_MESSAGE * 101), "messages"),
        (
            "AppendMessages",
            pb.AppendMessagesRequest(session_id=str(uuid4()), messages=[pb.NewMessage(content="x")]),
            "messages[0].role",
        ),
        ("ListMessages", pb.ListMessagesRequest(session_id=str(uuid4()), after_order=-1), "after_order"),
        ("SelectBranch", pb.SelectBranchRequest(session_id=str(uuid4())), "message_id"),
        ("SearchMessages", pb.SearchMessagesRequest(query="  "), "query"),
        ("SearchMessages", pb.SearchMessagesRequest(query="x" * 201), "query"),
        ("ListUsage", pb.ListUsageRequest(page_size=-1), "page_size"),
    ],
)
async def test_a_wrong_field_is_named(service: Service, signed_in: Caller, rpc: str, message: Any, field: str) -> None:
    error = await refusal(service, rpc, message)
    assert (error.http_status, error.metadata["field"]) == (400, field)
