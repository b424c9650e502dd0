"""Memory of our Python with many answers under way, and a minute after the last of them has ended."""

import asyncio

from benchmarks.groups.streams import Shape, through
from benchmarks.progress import say
from benchmarks.rows import Row
from benchmarks.suites import Suite

STREAMS = {100: 200.0, 500: 350.0}
"""How many, and the megabytes that they may take, with all else that the suite holds."""
MILLISECONDS = 100
SECONDS = 30.0
QUICK_SECONDS = 10.0
AFTER_SECONDS = 60.0
MOST_AFTER = 1.1
"""How much of what the idle suite held it may hold a minute after."""
MEGABYTE = 1_000_000


async def measure(suite: Suite, *, quick: bool) -> list[Row]:
    """Return the memory (PSS) of the suite's Python at the end of many streams, and a minute after them."""
    ours, person, rows = suite.our_processes(), await suite.person(), []
    seconds = QUICK_SECONDS if quick else SECONDS

    async def memory() -> float:
        return sum((await asyncio.to_thread(ours.memory)).values()) / MEGABYTE

    # What the first answer loads is no part of what streams cost.
    warm = Shape(5, 1, 10, 1)
    await through(suite.url, person, warm, await suite.fill(person, warm.streams))
    await asyncio.sleep(AFTER_SECONDS if not quick else 2.0)
    idle = await memory()
    for streams, most in STREAMS.items():
        say(f"{suite.mode}: {streams} open streams")
        shape = Shape(streams, 1, round(seconds * 1000 / MILLISECONDS), MILLISECONDS)
        sessions = await suite.fill(person, streams)
        load = asyncio.create_task(through(suite.url, person, shape, sessions))
        # They begin over the time of one answer: then all are open.
        await asyncio.sleep(seconds)
        held = await memory()
        await load
        await asyncio.sleep(AFTER_SECONDS)
        after = await memory()
        rows += [
            Row.absolute(f"memory with {streams} open streams, PSS", suite.mode, [held], unit="MB", at_most=most),
            Row.compared(
                f"memory a minute after {streams} streams, PSS", suite.mode, [after], [idle], unit="MB",
                beside="idle, after a first answer", at_most=MOST_AFTER,
            ),
        ]  # fmt: skip
    return rows
