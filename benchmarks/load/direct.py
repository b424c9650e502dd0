"""The reference: the same model server, called with ChatOpenAI.astream and nothing around it.

python -m benchmarks.load.direct URL STREAMS TURNS TOKENS MILLISECONDS      prints one JSON object
"""

import asyncio
import sys
import time

import orjson
import psutil
import uvloop
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from benchmarks.load import model_server
from benchmarks.measures import Phase, spread


async def _main(url: str, streams: int, turns: int, tokens: int, milliseconds: int) -> Phase:
    chat = ChatOpenAI(model="test-model", base_url=url, api_key=SecretStr("x"), max_retries=0, stream_usage=True)
    async for _ in chat.astream(model_server.prompt(tokens=2, milliseconds=1)):
        pass
    phase = Phase()
    process = psutil.Process()
    before, began = sum(process.cpu_times()[:2]), time.monotonic()

    async def turn() -> None:
        asked = time.monotonic()
        first = True
        async for chunk in chat.astream(model_server.prompt(tokens=tokens, milliseconds=milliseconds)):
            if chunk.content:
                if first:
                    phase.waits.append(time.monotonic() - asked)
                first = False
                phase.tokens += 1

    async def watch() -> None:
        while True:
            phase.peak_bytes = max(phase.peak_bytes, process.memory_info().rss)
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    await spread(turn, streams=streams, turns=turns, over_seconds=tokens * milliseconds / 1000)
    watching.cancel()
    phase.seconds = time.monotonic() - began
    phase.cpu = {"ChatOpenAI": sum(process.cpu_times()[:2]) - before}
    return phase


if __name__ == "__main__":
    sys.stdout.buffer.write(orjson.dumps(uvloop.run(_main(sys.argv[1], *map(int, sys.argv[2:])))))
