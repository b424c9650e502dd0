from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from tests.support.api import Person
from tests.support.database import add_user
from tests.support.runs import RunsWorld
from tests.support.suites import RunningStack


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


@pytest.fixture(scope="session")
async def database_connections(stack: RunningStack) -> AsyncIterator[tuple[asyncpg.Connection, asyncpg.Pool]]:
    """The superuser's connection and a pool of the services' login."""
    admin = await asyncpg.connect(stack.admin_db_url)
    async with asyncpg.create_pool(stack.db_url, min_size=16, max_size=16) as pool:
        yield admin, pool
    await admin.close()


@pytest.fixture
async def world(database_connections: tuple[asyncpg.Connection, asyncpg.Pool]) -> RunsWorld:
    """A new user who starts runs."""
    admin, pool = database_connections
    return RunsWorld(admin, pool, await add_user(admin))
