"""A real PgBouncer in front of the running suite's Postgres."""

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from local.embedded.credentials import read_credentials
from local.embedded.postgres import Account, Postgres
from tests.support.suites import RunningStack

START_SECONDS = 240
Mode = Literal["session", "transaction"]


def program() -> str:
    """Return PgBouncer's path; skips the test, saying what to install, where there is none."""
    path = f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin"  # noqa: TID251 (where Debian puts it)
    found = shutil.which("pgbouncer", path=path)
    if found is None:
        pytest.skip("PgBouncer is not on this machine: apt-get install pgbouncer")
    return found


def keeps_statements() -> bool:
    """Return whether this PgBouncer can keep prepared statements in transaction mode (1.21 and newer)."""
    output = subprocess.run([program(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)", output)
    return found is not None and (int(found[1]), int(found[2])) >= (1, 21)


@contextlib.asynccontextmanager
async def pgbouncer(
    stack: RunningStack, folder: Path, mode: Mode, *, pool_size: int, prepared_statements: int = 0
) -> AsyncIterator[str]:
    """Run a PgBouncer while the block runs, and yield the address of the services' login through it.

    pool_size: most connections to Postgres. prepared_statements: how many it keeps per connection; 0 keeps none, as
    versions before 1.21 do.
    """
    url = urlsplit(stack.db_url)
    port = _free_port()
    account = Postgres(stack.home, url.port or 0, read_credentials(stack.home)).account
    (folder / "users.txt").write_text(f'"{url.username}" "{url.password}"\n')
    settings: dict[str, object] = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": folder / "users.txt",
        "pool_mode": mode,
        "default_pool_size": pool_size,
        "max_client_conn": 500,
        "logfile": folder / "pgbouncer.log",
    }
    if keeps_statements():
        settings["max_prepared_statements"] = prepared_statements
    lines = [f"{name} = {value}" for name, value in settings.items()]
    database = f"postgres = host=127.0.0.1 port={url.port} dbname={url.path[1:]}"
    (folder / "pgbouncer.ini").write_text("\n".join(["[databases]", database, "[pgbouncer]", *lines, ""]))
    _open_for(account, folder)
    process = await asyncio.create_subprocess_exec(
        *(*account.prefix, program(), "-q", str(folder / "pgbouncer.ini")),
        user=account.user,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        address = urlunsplit(url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{port}"))
        await asyncio.wait_for(_until_ready(address, process, folder), START_SECONDS)
        yield address
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _open_for(account: Account, folder: Path) -> None:
    if account.user is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user=account.user)


async def _until_ready(address: str, process: asyncio.subprocess.Process, folder: Path) -> None:
    while True:
        try:
            connection = await asyncpg.connect(address, statement_cache_size=0)
        except (OSError, asyncpg.PostgresError) as error:
            if process.returncode is not None:
                log = folder / "pgbouncer.log"
                raise RuntimeError(log.read_text() if log.exists() else "PgBouncer ended at once") from error
            await asyncio.sleep(0.05)  # the pause between two looks
        else:
            return await connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
