from collections.abc import AsyncIterator

import httpx
import pytest

from local.testing import RunningStack
from tests.support.api import Person


@pytest.fixture(scope="session")
async def api(stack: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running suite's gateway."""
    async with httpx.AsyncClient(base_url=stack.gateway_url, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
async def owner(api: httpx.AsyncClient) -> Person:
    """Somebody with an account."""
    return await Person.sign_up(api)


@pytest.fixture(scope="session")
async def stranger(api: httpx.AsyncClient) -> Person:
    """Somebody else."""
    return await Person.sign_up(api)
