"""A client that grpcio-tools makes of the contract, with gRPC's own settings."""

from collections.abc import Callable

import grpc
from concerto.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from concerto.sessions.v1 import runs_pb2, sessions_pb2, sessions_pb2_grpc, turns_pb2
from features import SETTINGS, feature, run
from google.rpc import error_details_pb2
from grpc_status import rpc_status

MEBIBYTE = 2**20
UNKNOWN = "7f9c24e8-3b12-4fef-91e0-56a2d5a0b1c3"

bearer = (("authorization", f"Bearer {SETTINGS['CONCERTO_TOKEN']}"),)
client = sessions_pb2_grpc.SessionsServiceStub(grpc.insecure_channel(SETTINGS["CONCERTO_SESSIONS_TARGET"]))
answering = orchestrator_pb2_grpc.OrchestratorServiceStub(
    grpc.insecure_channel(SETTINGS["CONCERTO_ORCHESTRATOR_TARGET"])
)


def new_session(name: str = "") -> str:
    return str(client.CreateSession(sessions_pb2.CreateSessionRequest(name=name), metadata=bearer).session.id)


@feature("an rpc with a token")
def _() -> None:
    request = sessions_pb2.GetSessionRequest(session_id=new_session("Études"))
    assert client.GetSession(request, metadata=bearer).session.name == "Études"


@feature("five mebibytes, stored and read in pages")
def _() -> None:
    session_id = new_session()
    message = sessions_pb2.NewMessage(role=sessions_pb2.ROLE_USER, content="x" * MEBIBYTE)
    request = sessions_pb2.AppendMessagesRequest(session_id=session_id, messages=[message] * 5)
    assert [one.order for one in client.AppendMessages(request, metadata=bearer).messages] == [1, 2, 3, 4, 5]
    size, token = 0, None
    while token != "":
        asked = sessions_pb2.ListMessagesRequest(session_id=session_id, page_token=token or "")
        page = client.ListMessages(asked, metadata=bearer)
        size += sum(len(one.content) for one in page.messages)
        token = page.next_page_token
    assert size == 5 * MEBIBYTE, size


@feature("an answer, event by event")
def _() -> None:
    request = orchestrator_pb2.StreamTurnRequest(session_id=new_session(), turn=turns_pb2.Turn(content="Hello"))
    events = [answer.event for answer in answering.StreamTurn(request, metadata=bearer)]
    text = "".join(event.message_delta.text for event in events)
    assert text.startswith("You said: Hello"), text
    assert events[-1].run_finished.state == runs_pb2.RUN_STATE_SUCCEEDED


@feature("errors have a reason")
def _() -> None:
    unknown = sessions_pb2.GetSessionRequest(session_id=UNKNOWN)
    assert refusal(lambda: client.GetSession(unknown, metadata=bearer)) == ("NOT_FOUND", "SESSION_NOT_FOUND")
    assert refusal(lambda: client.GetSession(unknown)) == ("UNAUTHENTICATED", "TOKEN_MISSING")
    events = answering.StreamRun(orchestrator_pb2.StreamRunRequest(run_id=UNKNOWN), metadata=bearer)
    assert refusal(lambda: next(events)) == ("NOT_FOUND", "RUN_NOT_FOUND")


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    try:
        call()
    except grpc.RpcError as refused:
        error = refused
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(error).details:
        detail.Unpack(info)
    return error.code().name, info.reason


@feature("a deadline of a millisecond")
def _() -> None:
    codes = {"DEADLINE_EXCEEDED"}
    for _ in range(50):
        try:
            client.ListSessions(sessions_pb2.ListSessionsRequest(), metadata=bearer, timeout=0.001)
        except grpc.RpcError as error:
            codes.add(error.code().name)
    assert codes == {"DEADLINE_EXCEEDED"}, codes


run()
