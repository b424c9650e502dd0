"""The model server of the benchmarks: how fast it speaks stands in the prompt, so that one server serves every phase.

python -m benchmarks.pace      prints its address, serves until SIGINT
"""

import asyncio
import contextlib
import re
import sys

from tests.support.model_server import Behaviour, Json, ModelServer

_MARK = re.compile(r"\[\[pace:(\d+):(\d+)\]\]")


def prompt(*, tokens: int, milliseconds: int) -> str:
    """Return a prompt that is answered with so many tokens, each after such a pause."""
    return f"Please count. [[pace:{tokens}:{milliseconds}]]"


def behaviour(body: Json) -> Behaviour | None:
    """Read the pace from the last message of a request."""
    mark = _MARK.search(str(body["messages"][-1]["content"]))
    return mark and Behaviour(tokens=int(mark[1]), delay_seconds=int(mark[2]) / 1000)


async def _main() -> None:
    async with ModelServer.running() as server:
        server.choose = behaviour
        sys.stdout.write(f"{server.base_url}\n")
        sys.stdout.flush()
        while True:
            await asyncio.sleep(5)
            server.requests.clear()  # they would be most of the memory by the end


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())
