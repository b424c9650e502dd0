import asyncio
import gzip
from collections.abc import AsyncIterator

import httpx2
import pytest
from langchain_core.messages import HumanMessage

from servicekit.errors import AppError
from services.orchestrator.models import short_failures
from services.orchestrator.models.models import Models
from services.orchestrator.models.short_failures import MAX_FAILURE_BYTES, ShortFailures
from services.orchestrator.settings import Settings
from tests.support.waiting import forever


async def answered(status: int, body: AsyncIterator[bytes], **headers: str) -> httpx2.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    below = httpx2.MockTransport(lambda _: httpx2.Response(status, headers=named, content=body))
    async with httpx2.AsyncClient(transport=ShortFailures(below)) as client:
        return await client.post("http://model.test/v1/chat/completions")


@pytest.mark.parametrize("status", [302, 400, 429, 500])
async def test_a_failures_body_is_read_to_a_bound(status: int) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 8 * MAX_FAILURE_BYTES:
            sent += 65_536
            yield b"x" * 65_536

    response = await answered(status, body(), retry_after="7")
    assert (response.status_code, response.headers["retry-after"]) == (status, "7")
    assert response.content == b"x" * MAX_FAILURE_BYTES
    assert sent <= MAX_FAILURE_BYTES + 65_536


async def test_a_compressed_failure_counts_as_it_is_read() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield gzip.compress(b"x" * 8 * MAX_FAILURE_BYTES)

    response = await answered(500, body(), content_encoding="gzip")
    assert response.content == b"x" * MAX_FAILURE_BYTES


async def test_a_failure_whose_body_does_not_end_is_what_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(short_failures, "FAILURE_SECONDS", 0.05)

    async def body() -> AsyncIterator[bytes]:
        yield b"slow"
        await forever()

    response = await answered(429, body())
    assert (response.status_code, response.content) == (429, b"slow")


async def test_a_failure_that_breaks_off_has_still_its_status() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"half"
        raise httpx2.ReadError("gone")

    response = await answered(503, body())
    assert (response.status_code, response.content) == (503, b"half")


async def test_models_keep_no_more_of_a_failure() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.write(b"x" * 3 * MAX_FAILURE_BYTES)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        models = Models(Settings(_env_file=None, openai_base_url=url, openai_api_key="k", model="m"))
        with pytest.raises(AppError) as caught:
            async for _ in models.answer([HumanMessage("Hi")], model="m"):
                pass
        await models.close()
    assert caught.value.reason == "MODEL_REQUEST_REFUSED"
    assert len(caught.value.cause.response.content) == MAX_FAILURE_BYTES  # type: ignore[union-attr]
