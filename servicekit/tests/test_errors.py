import grpc
import pytest
from grpc_status import rpc_status

from servicekit import reasons
from servicekit.errors import AppError, from_rpc_error
from servicekit.reasons import HTTP_STATUS, REASONS


class Refused(grpc.RpcError, grpc.Call):  # type: ignore[misc]
    """What a client sees of a status, without a network between."""

    def __init__(self, status: grpc.Status) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status.code

    def details(self) -> str:
        return self._status.details

    def trailing_metadata(self) -> object:
        return self._status.trailing_metadata


def sample(name: str) -> AppError:
    return AppError(
        name,
        metadata={field: f"<{field}>" for field in REASONS[name].fields},
        cause="private",
        retry_after_seconds=7.2,
    )


@pytest.mark.parametrize("name", REASONS)
def test_every_reason_survives_the_way_through_grpc(name: str) -> None:
    sent = sample(name)
    got = from_rpc_error(Refused(sent.to_status()), service="sessions")
    assert (got.reason, got.message, got.metadata, got.code) == (name, sent.message, sent.metadata, sent.code)
    assert got.retry_after_seconds == 8


@pytest.mark.parametrize("name", REASONS)
def test_every_reason_has_the_agreed_json_and_hides_its_cause(name: str) -> None:
    body = sample(name).to_json()
    assert body["code"] == HTTP_STATUS[REASONS[name].code]
    assert body["details"][0]["reason"] == name
    assert body["details"][0]["domain"] == "concerto"
    assert "private" not in str(body)
    assert "private" not in rpc_status.from_call(Refused(sample(name).to_status())).message


@pytest.mark.parametrize("name", REASONS)
def test_every_reason_is_named_and_worded_as_agreed(name: str) -> None:
    assert name == name.upper()
    assert len(name) <= 63
    assert REASONS[name].message.endswith(".")
    assert REASONS[name].remedy.endswith(".")
    assert f"`{name}`" in reasons.document()


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_code_has_a_status(code: grpc.StatusCode) -> None:
    assert 200 <= HTTP_STATUS[code] < 600


def test_a_reason_without_its_values_is_a_mistake_at_once() -> None:
    with pytest.raises(KeyError):
        AppError("SESSION_NOT_FOUND")
    with pytest.raises(KeyError):
        AppError("NO_SUCH_REASON")


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
    got = from_rpc_error(error, service="sessions")
    assert got.reason == reason
    assert "text of the neighbour" not in got.message
