from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import trustme

from servicekit import reasons
from servicekit.reasons import Reason
from tests.support.calls import World, opened
from tests.support.certificates import Mount

# A domain of the tests' own; the last one has an HTTP status that its code does not have.
reasons.register(
    {
        "THING_NOT_FOUND": Reason(grpc.StatusCode.NOT_FOUND, "Thing {thing_id} was not found.", "Check the id."),
        "THING_TOO_HOT": Reason(grpc.StatusCode.FAILED_PRECONDITION, "It is too hot.", "Let it cool.", status=418),
    }
)


@pytest.fixture(params=["wire", "within"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the server is reached."""
    return str(request.param)


@pytest.fixture
async def world(kind: str) -> AsyncIterator[World]:
    """The server, reached in each way."""
    async with opened(kind) as made:
        yield made


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs certificates."""
    return trustme.CA()


@pytest.fixture
def mount(tmp_path: Path, authority: trustme.CA) -> Mount:
    """The certificate files of a service on this machine."""
    return Mount(tmp_path / "own", authority, organization_name="first")
