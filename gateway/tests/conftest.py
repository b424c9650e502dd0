from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.tests import fakes
from local.setup import error_page
from servicekit.testing import mint_token

error_page.register_all()  # the fakes stand for every service


@pytest.fixture(scope="session")
async def shared() -> AsyncIterator[tuple[fakes.Neighbours, httpx.AsyncClient]]:
    """One gateway for all tests that need no settings of their own."""
    neighbours = fakes.Neighbours()
    limits: dict[str, Any] = {f"login_limit_per_{what}": "100000/minute" for what in ("email", "account", "address")}
    async with fakes.gateway(neighbours, **limits) as client:
        yield neighbours, client


@pytest.fixture
async def neighbours(shared: tuple[fakes.Neighbours, httpx.AsyncClient]) -> fakes.Neighbours:
    """The services behind the shared gateway."""
    shared[0].reset()
    return shared[0]


@pytest.fixture
async def client(
    shared: tuple[fakes.Neighbours, httpx.AsyncClient],
    neighbours: fakes.Neighbours,
) -> httpx.AsyncClient:
    """A client of the shared gateway that nobody is signed in to."""
    shared[1].cookies.clear()
    return shared[1]


@pytest.fixture
def bearer() -> dict[str, str]:
    """The header of somebody who is signed in."""
    return {"authorization": f"Bearer {mint_token()}"}
