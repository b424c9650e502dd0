from collections.abc import AsyncIterator

import pytest

from tests.support.calls import World, opened


@pytest.fixture(params=["wire", "within"])
def kind(request: pytest.FixtureRequest) -> str:
    """How the server is reached."""
    return str(request.param)


@pytest.fixture
async def world(kind: str) -> AsyncIterator[World]:
    """The server, reached in each way."""
    async with opened(kind) as made:
        yield made
