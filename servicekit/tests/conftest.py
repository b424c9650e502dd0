from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from tests.support.calls import World, opened
from tests.support.certificates import Mount


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
