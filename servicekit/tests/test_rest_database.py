import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import SecretStr

from servicekit.database import admission
from servicekit.database.client import Database, open_database
from servicekit.errors import AppError
from servicekit.settings import DatabaseSettings
from servicekit.testing import make_caller
from tests.support.waiting import until

POOL = 6

Answer = Callable[[int], tuple[int, dict[str, Any]]]


@dataclass
class RestInterface:
    """Answers as PostgREST does, once it may; counts what is under way at once, by token."""

    answer: Answer = lambda _: (200, {"done": True})
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: dict[str, int] = field(default_factory=dict)
    most: int = 0
    requests: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                await reader.readexactly(int(fields.get("content-length", 0)))
                token = fields["authorization"]
                self.requests += 1
                number = self.requests
                self.under_way[token] = self.under_way.get(token, 0) + 1
                self.most = max(self.most, self.under_way[token])
                await self.may_answer.wait()
                self.under_way[token] -= 1
                status, content = self.answer(number)
                body = json.dumps(content).encode()
                answered = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
                writer.write(f"{answered}\r\n\r\n".encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def over_rest(interface: RestInterface) -> AsyncIterator[Database]:
    server = await asyncio.start_server(interface.serve, "127.0.0.1", 0)
    settings = DatabaseSettings(
        _env_file=None,
        supabase_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        supabase_publishable_key=SecretStr("sb_publishable_x"),
        db_url=None,
        db_pool_size=POOL,
    )
    database = await open_database(settings)
    try:
        yield database
    finally:
        await database.close()
        server.close()
        await server.wait_closed()


async def test_one_caller_has_a_third_at_once_over_rest_too() -> None:
    interface = RestInterface()
    ada, ben = make_caller(), make_caller()
    async with over_rest(interface) as database:
        flood = [asyncio.create_task(database.call("get_me", {}, ada)) for _ in range(40)]
        await until(lambda: interface.requests == admission.share_of(POOL), "the caller's share")
        other = asyncio.create_task(database.call("get_me", {}, ben))
        await until(lambda: len(interface.under_way) == 2, "the other caller")
        interface.may_answer.set()
        assert await asyncio.gather(*flood, other) == [{"done": True}] * 41
    assert interface.most == admission.share_of(POOL)


async def test_a_call_whose_row_is_locked_is_repeated_over_rest_too() -> None:
    locked = (500, {"code": "55P03", "message": "canceling statement due to lock timeout", "details": None})
    interface = RestInterface(answer=lambda number: locked if number < 3 else (200, {"done": True}))
    interface.may_answer.set()
    async with over_rest(interface) as database:
        assert await database.call("append_messages", {}, make_caller(), row="session") == {"done": True}
    assert interface.requests == 3


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [(504, "PGRST003", "DATABASE_BUSY"), (429, "429", "DATABASE_BUSY"), (503, "PGRST001", "DATABASE_UNAVAILABLE")],
)
async def test_a_project_that_is_busy_is_not_a_fault_of_ours(status: int, code: str, reason: str) -> None:
    interface = RestInterface(answer=lambda _: (status, {"code": code, "message": "x", "details": None}))
    interface.may_answer.set()
    async with over_rest(interface) as database:
        with pytest.raises(AppError) as error:
            await database.call("get_me", {}, make_caller())
    assert error.value.reason == reason
