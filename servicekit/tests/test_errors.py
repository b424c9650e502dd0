from typing import Any

import grpc
import pytest
from concerto.errors.v1 import errors_pb2
from grpc_status import rpc_status

from servicekit import reasons
from servicekit.errors import AppError, from_message, from_rpc_error
from servicekit.reasons import HTTP_STATUS, Reason


class Refused(grpc.RpcError, grpc.Call):
    """What a client sees of a status, without a network between."""

    def __init__(self, status: grpc.Status) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status.code

    def details(self) -> str:
        return self._status.details

    def trailing_metadata(self) -> Any:
        return self._status.trailing_metadata


def hot() -> AppError:
    return AppError("THING_TOO_HOT", metadata={"degrees": "99"}, cause="private", retry_after_seconds=7.2)


def test_an_error_survives_the_way_through_grpc_and_leaves_its_cause_behind() -> None:
    sent = hot()
    got = from_rpc_error(Refused(sent.to_status()), service="things")
    assert got.to_json() == sent.to_json()
    assert (got.reason, got.code, got.retry_after_seconds) == ("THING_TOO_HOT", sent.code, 8)
    assert "private" not in str(rpc_status.from_call(Refused(sent.to_status())))


def test_an_error_has_the_agreed_json_and_the_contracts_message_says_the_same() -> None:
    assert hot().to_json() == {
        "code": 418,
        "status": "FAILED_PRECONDITION",
        "message": "It is too hot.",
        "details": [{"reason": "THING_TOO_HOT", "domain": "concerto", "metadata": {"degrees": "99"}}],
    }
    assert from_message(hot().to_message()).to_json() == hot().to_json()


def test_a_reason_that_this_process_does_not_know_keeps_what_its_part_said() -> None:
    sent = AppError.received(
        "OF_ANOTHER_PART", code=grpc.StatusCode.ABORTED, message="It said so.", metadata={"a": "b"}
    )
    got = from_rpc_error(Refused(sent.to_status()), service="things")
    assert (got.reason, got.http_status, got.message, got.metadata) == (
        "OF_ANOTHER_PART",
        409,
        "It said so.",
        {"a": "b"},
    )


@pytest.mark.parametrize(
    "error",
    [
        errors_pb2.Error(),
        errors_pb2.Error(status="UNAVAILABLE", message="of somebody else"),
        errors_pb2.Error(
            status="NO_CODE", message="x", details=[errors_pb2.ErrorDetail(reason="A", domain="concerto")]
        ),
    ],
)
def test_an_error_that_is_none_of_ours_is_internal(error: errors_pb2.Error) -> None:
    assert from_message(error).reason == "INTERNAL"


@pytest.mark.parametrize("http_status", [-5, 0, 100, 200, 204, 304, 399, 600, 99999])
def test_an_http_status_that_tells_of_no_failure_is_replaced_by_the_codes(http_status: int) -> None:
    body = AppError("INTERNAL").to_message()
    body.code, body.status = http_status, "ABORTED"
    assert from_message(body).http_status == 409


def test_an_error_with_the_code_of_success_is_internal() -> None:
    body = AppError("INTERNAL").to_message()
    body.status = "OK"
    assert from_message(body).to_json() == AppError("INTERNAL").to_json()
    status = rpc_status.from_call(Refused(hot().to_status()))
    status.code = 0
    assert from_rpc_error(Refused(rpc_status.to_status(status)), service="things").reason != "THING_TOO_HOT"


def test_a_wait_of_more_than_a_day_counts_as_a_day() -> None:
    sent = AppError("INTERNAL", retry_after_seconds=10**12)
    assert from_rpc_error(Refused(sent.to_status()), service="things").retry_after_seconds == 86_400


def test_only_where_its_http_status_is_its_own_a_status_carries_more_than_error_info_and_retry_info() -> None:
    def details(error: AppError) -> int:
        return len(rpc_status.from_call(Refused(error.to_status())).details)

    assert (details(hot()), details(AppError("INTERNAL"))) == (3, 1)


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_code_has_a_status(code: grpc.StatusCode) -> None:
    assert 200 <= HTTP_STATUS[code] < 600


def test_a_reason_without_its_values_is_a_mistake_at_once() -> None:
    with pytest.raises(KeyError):
        AppError("THING_NOT_FOUND")
    with pytest.raises(KeyError):
        AppError("NO_SUCH_REASON")


def test_parts_may_share_a_reason_and_not_disagree_about_it() -> None:
    known = reasons.REASONS["INTERNAL"]
    reasons.register({"INTERNAL": known})
    with pytest.raises(ValueError, match="INTERNAL has another meaning already"):
        reasons.register({"INTERNAL": Reason(grpc.StatusCode.INTERNAL, "Something else.", "Nothing.")})
    assert reasons.REASONS["INTERNAL"] == known


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, "SERVICE_UNAVAILABLE"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
        (grpc.StatusCode.CANCELLED, "SERVICE_UNAVAILABLE"),  # only a server that stops cancels what it was asked
        (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED"),
        (grpc.StatusCode.UNKNOWN, "INTERNAL"),
        (grpc.StatusCode.DATA_LOSS, "INTERNAL"),
    ],
)
def test_a_bare_status_of_a_neighbour_becomes_a_reason(code: grpc.StatusCode, reason: str) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="text of the neighbour")
    got = from_rpc_error(error, service="things")
    assert got.reason == reason
    assert "text of the neighbour" not in got.message
