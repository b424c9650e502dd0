import asyncio
import contextlib
import gc
import weakref

import pytest
import uvloop

from servicekit.rpc import loop
from tests.support.waiting import until


class Node:
    """One that may refer to itself."""

    def __init__(self) -> None:
        self.other: Node | None = None


def test_every_process_runs_on_uvloop() -> None:
    async def main() -> bool:
        return isinstance(asyncio.get_running_loop(), uvloop.Loop)

    assert loop.run(main())


async def test_a_process_at_rest_gives_back_what_its_work_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(loop, "REST_SHARE", 100.0)
    monkeypatch.setattr(loop, "WORK_SECONDS", 0.0)
    returned: list[bool] = []
    return_free_memory = loop.return_free_memory
    monkeypatch.setattr(loop, "return_free_memory", lambda: returned.append(return_free_memory() is None))
    left = Node()
    left.other = left
    gone = weakref.ref(left)
    gc.disable()  # only the collection at rest can find it
    collecting = asyncio.create_task(loop.collect_at_rest())
    try:
        del left
        await until(lambda: gone() is None and bool(returned))
    finally:
        gc.enable()
        collecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await collecting
