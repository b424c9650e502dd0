"""Failures of a provider, read only as far as they are understood: the client would keep all that comes."""

import asyncio
import contextlib

import httpx2

MAX_FAILURE_BYTES = 512 * 1024
"""Most bytes of a failure's body that are read; what is beyond them is left."""
FAILURE_SECONDS = 10.0
"""How long a failure's body may take; what has come by then is what there is."""

_GOOD = range(200, 300)
# They are about the body as it was sent, which is not what is handed on.
_OF_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class ShortFailures(httpx2.AsyncBaseTransport):
    """Sends requests by another transport, and hands answers on: good ones as they come, all others whole and short."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return its answer."""
        response = await self._transport.handle_async_request(request)
        if response.status_code in _GOOD:
            return response
        response.request = request
        headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in _OF_BODY]
        return httpx2.Response(response.status_code, headers=headers, content=await _start_of(response))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()


async def _start_of(response: httpx2.Response) -> bytes:
    content = bytearray()
    try:
        # What breaks in the middle of a failure has still failed, as its status says.
        with contextlib.suppress(TimeoutError, httpx2.RequestError):
            async with asyncio.timeout(FAILURE_SECONDS), contextlib.aclosing(response.aiter_bytes()) as reads:
                async for read in reads:
                    content += read[: MAX_FAILURE_BYTES - len(content)]
                    if len(content) >= MAX_FAILURE_BYTES:
                        break
                    await asyncio.sleep(0)  # what was compressed comes in many pieces that nobody waits for
    finally:
        await response.aclose()
    return bytes(content)
