"""The service in this process on the real embedded Supabase, and a second auth server with mails and a provider."""

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from local.settings import ROOT
from local.suite.processes import node_program
from servicekit import testing
from services.auth import reasons
from services.auth.__main__ import build
from services.auth.settings import Settings
from services.auth.tests.support import PASSWORD, AnsweringServer, Client, new_email
from tests.support.waiting import until_in_thread

reasons.register()


def settings_of(stack: Any, supabase_url: str) -> Settings:
    return Settings(
        _env_file=None,
        supabase_url=supabase_url,
        supabase_publishable_key=stack.publishable_key,
        supabase_jwt_secret=testing.JWT_SECRET,
        db_url=stack.db_url,
    )


@pytest.fixture(scope="session")
async def client(stack: Any) -> AsyncIterator[Client]:
    async with (
        build(settings_of(stack, stack.supabase_url)) as registrations,
        testing.served(registrations, supabase_url=stack.supabase_url) as connection,
    ):
        yield Client(connection)


@dataclass(frozen=True)
class SecondHost:
    """A second auth server on the same database: confirms addresses by mail, knows GitHub, hashes cheaply."""

    url: str
    home: Path
    github: AnsweringServer


@pytest.fixture(scope="session")
def second_host(stack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondHost]:
    home = tmp_path_factory.mktemp("second-host")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    github = AnsweringServer()
    provider = {"enabled": True, "client_id": "client", "secret": "secret", "url": github.url}
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251
        "HOST_DATABASE_URL": stack.admin_db_url,
        "HOST_JWT_SECRET": testing.JWT_SECRET,
        "HOST_PUBLISHABLE_KEY": stack.publishable_key,
        "HOST_SECRET_KEY": stack.secret_key,
        "HOST_API_URL": url,
        "HOST_SITE_URL": "http://127.0.0.1:9",
        "HOST_REDIRECT_URLS": json.dumps(["http://127.0.0.1:9/**"]),
        "HOST_PROVIDERS": json.dumps({"github": provider}),
        "HOST_CONFIRM_EMAIL": "true",
        "HOST_ACCESS_TOKEN_SECONDS": "3600",
        "HOST_HOME": str(home),
        "HOST_PORT": str(port),
        "LITE_AUTH_BCRYPT_COST": "4",
    }
    with (home / "host.log").open("wb") as log, github.running():
        command = [str(node_program()), str(ROOT / "local" / "embedded" / "host" / "main.mjs")]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:

            def has_come() -> bool:
                if process.poll() is not None:
                    pytest.fail((home / "host.log").read_text(), pytrace=False)
                return answers(url, stack.publishable_key)

            until_in_thread(has_come, "the second host")
            yield SecondHost(url=url, home=home, github=github)
        finally:
            process.terminate()
            process.wait(timeout=10)


def answers(url: str, key: str) -> bool:
    try:
        return httpx.get(f"{url}/auth/v1/health", headers={"apikey": key}).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="session")
async def confirming_client(stack: Any, second_host: SecondHost) -> AsyncIterator[Client]:
    async with (
        build(settings_of(stack, second_host.url)) as registrations,
        testing.served(registrations) as connection,
    ):
        yield Client(connection)


@pytest.fixture(scope="session")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


@pytest.fixture
async def confirmed_people(stack: Any, confirming_client: Client) -> tuple[Client, list[str]]:
    """Twenty people, each with a password of their own, on the server whose hashes are cheap."""
    emails = [new_email(f"person{number}") for number in range(20)]
    await asyncio.gather(*(confirming_client.sign_up(email, f"{PASSWORD} {email}") for email in emails))
    connection = await asyncpg.connect(stack.admin_db_url)
    try:
        await connection.execute("update auth.users set email_confirmed_at = now() where email = any($1)", emails)
    finally:
        await connection.close()
    return confirming_client, emails
