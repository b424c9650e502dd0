import asyncio

import uvloop

from servicekit.rpc import loop


def test_every_process_runs_on_uvloop() -> None:
    async def main() -> bool:
        return isinstance(asyncio.get_running_loop(), uvloop.Loop)

    assert loop.run(main())
