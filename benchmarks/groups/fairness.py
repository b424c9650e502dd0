"""Whether one account's load is felt by others: their appends and lists while it floods, beside a quiet suite.

The account searches forty large messages, exports them page by page, and appends to a single session, over more
connections than a browser ever opens. It may be refused with 429, as that is what keeps the others fast; another person
may not, and each of their calls counts.
"""

import asyncio
import math
import statistics
from collections.abc import Sequence

from benchmarks.load import calls
from benchmarks.load.calls import Load
from benchmarks.load.visitor import Visitor
from benchmarks.progress import say
from benchmarks.rows import Row
from benchmarks.suites import SENTENCE, Suite
from tests.support.api import Person

AT_MOST = 3.0
"""How many times as long a hundredth of another person's calls may take."""
LARGE_MESSAGES, LARGE_BYTES = 40, 100_000
SESSIONS = 20
"""Of the other person: what is listed."""
FLOODS = ("search", "export", "append")
CONNECTIONS = {"search": 20, "export": 10, "append": 20}
PAUSE_SECONDS = 0.01
SETTLE_SECONDS = 1.0
"""From the first request of a flood until its effect is measured, and from its last one until nothing of it is left."""

_WORDS = SENTENCE.split()
_MESSAGE = {"role": "user", "content": SENTENCE}


async def measure(suite: Suite, *, quick: bool) -> list[Row]:
    """Return the rows of another person's appends and lists, p99 under the flood beside p99 without it."""
    rounds, seconds = (3, 4.0) if quick else (5, 10.0)
    flooder, other = await suite.person(), await suite.person()
    large = await suite.fill(flooder, 1, messages=LARGE_MESSAGES, text=_long_text())
    crowded = await suite.fill(flooder, 1)
    own = await suite.fill(other, SESSIONS, messages=2)
    searched = "/messages/search?query=" + "+".join(dict.fromkeys(word.strip(",.").lower() for word in _WORDS))
    paths = {
        "search": searched,
        "export": f"/sessions/{large[0]}/messages?page_size=100",
        "append": f"/sessions/{crowded[0]}/messages",
    }
    taken: dict[str, list[float]] = {"append": [], "list": []}
    quiet: dict[str, list[float]] = {"append": [], "list": []}
    loads: dict[str, list[Load]] = {kind: [] for kind in FLOODS}

    async def visits() -> tuple[list[float], list[float]]:
        token = other.tokens["access_token"]
        body = {"messages": [_MESSAGE]}
        async with (
            Visitor.at(suite.url, f"/sessions/{own[0]}/messages", token=token, body=body) as appending,
            Visitor.at(suite.url, "/sessions?page_size=20", token=token) as listing,
        ):
            work = {"for_seconds": seconds, "pause_seconds": PAUSE_SECONDS}
            appended, listed = await asyncio.gather(appending.work(**work), listing.work(**work))
        return appended, listed

    await visits()  # plans, pools and caches are warm afterwards
    for number in range(rounds):
        say(f"{suite.mode}: fairness, round {number + 1} of {rounds}")
        for values, found in zip(quiet.values(), await visits(), strict=True):
            values.append(_p99(found))
        flood = asyncio.gather(
            *(_flood(suite, flooder, kind, paths[kind], seconds=seconds + 2 * SETTLE_SECONDS) for kind in FLOODS)
        )
        await asyncio.sleep(SETTLE_SECONDS)
        for values, found in zip(taken.values(), await visits(), strict=True):
            values.append(_p99(found))
        for kind, load in zip(FLOODS, await flood, strict=True):
            loads[kind].append(load)
        await asyncio.sleep(SETTLE_SECONDS)
    note = "the flood: " + ", ".join(_describe(kind, loads[kind]) for kind in FLOODS)
    return [
        Row.compared(
            f"another person's {name}, p99 under a flood",
            suite.mode,
            taken[name],
            quiet[name],
            unit="ms",
            at_most=AT_MOST,
            beside="without the flood",
            note=note,
        )
        for name in taken
    ]


async def _flood(suite: Suite, person: Person, kind: str, path: str, *, seconds: float) -> Load:
    return await calls.wrk(
        suite.url,
        [path],
        token=person.tokens["access_token"],
        seconds=seconds,
        body={"messages": [_MESSAGE]} if kind == "append" else None,
        connections=CONNECTIONS[kind],
        may_be_refused=True,
    )


def _describe(kind: str, loads: Sequence[Load]) -> str:
    answered = statistics.median((load.requests - load.refused) / load.seconds for load in loads)
    refused = statistics.median(load.refused / load.seconds for load in loads)
    return f"{kind} {answered:.0f}/s answered and {refused:.0f}/s refused"


def _p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[math.ceil(len(seconds) * 0.99) - 1] * 1000


def _long_text() -> str:
    """Many different words between those that are searched for."""
    words = [f"{word}{number}" if number % 3 else word for number, word in enumerate(_WORDS * (LARGE_BYTES // 30))]
    return " ".join(words)[:LARGE_BYTES]
