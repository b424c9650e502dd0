"""The embedded Supabase alone, with confirmation of e-mail addresses switched on."""

import uuid
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from local.embedded.mailbox import Mail, read_mails
from tests.support.suites import RunningStack

PASSWORD = "a long enough password"


@pytest.fixture(scope="session")
def embedded(launch: Callable[..., RunningStack]) -> RunningStack:
    return launch(only="postgres,supabase", CONCERTO_CONFIRM_EMAIL="true", CONCERTO_ACCESS_TOKEN_SECONDS="1800")


def mails_to(stack: RunningStack, address: str) -> list[Mail]:
    return [mail for mail in read_mails(stack.home) if mail.to == address]


def read_link(link: str) -> tuple[str, httpx.QueryParams]:
    """Return where a mail's link leads, and what the page there finds in the address."""
    target, _, fragment = link.partition("#")
    return target, httpx.QueryParams(fragment)


async def new_client(stack: RunningStack, *, key: str | None = None) -> AsyncClient:
    options = AsyncClientOptions(auto_refresh_token=False, persist_session=False, httpx_client=httpx.AsyncClient())
    return await acreate_client(stack.supabase_url, key or stack.publishable_key, options=options)


async def close_client(client: AsyncClient) -> None:
    await client.auth.close()
    if client.options.httpx_client is not None:
        await client.options.httpx_client.aclose()


@pytest.fixture
async def anonymous(embedded: RunningStack) -> AsyncIterator[AsyncClient]:
    client = await new_client(embedded)
    yield client
    await close_client(client)


async def new_member(stack: RunningStack) -> AsyncClient:
    """Return a client of a person who has signed up, confirmed by the mailed code, and is logged in."""
    client = await new_client(stack)
    email = f"member-{uuid.uuid4().hex[:12]}@example.com"
    await client.auth.sign_up({"email": email, "password": PASSWORD, "options": {"data": {"display_name": "Ada"}}})
    (mail,) = mails_to(stack, email)
    assert mail.code is not None
    await client.auth.verify_otp({"email": email, "token": mail.code, "type": "signup"})
    return client


@pytest.fixture
async def member(embedded: RunningStack) -> AsyncIterator[AsyncClient]:
    """A client of a person who is logged in."""
    client = await new_member(embedded)
    yield client
    await close_client(client)


@pytest.fixture(scope="session")
async def bucket(embedded: RunningStack) -> str:
    """A private bucket in which each member has a folder named by their id."""
    import asyncpg

    connection = await asyncpg.connect(embedded.migration_db_url)
    await connection.execute(
        """
        insert into storage.buckets (id, name, public) values ('folders', 'folders', false);
        create policy "members keep their folder" on storage.objects for all to authenticated
        using (bucket_id = 'folders' and (storage.foldername(name))[1] = (select auth.uid())::text)
        with check (bucket_id = 'folders' and (storage.foldername(name))[1] = (select auth.uid())::text);
        """
    )
    await connection.close()
    return "folders"
