"""What a phase of a benchmark measures, and how its load is spread."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil


@dataclass
class Phase:
    """What was measured while one side was under load."""

    waits: list[float] = field(default_factory=list)
    """Seconds from the request to the first token, one per turn."""
    tokens: int = 0
    seconds: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict)
    """Seconds of processor time, by process."""
    peak_bytes: int = 0


async def spread(turn: Callable[[], Awaitable[None]], *, streams: int, turns: int, over_seconds: float) -> None:
    """Keep `streams` turns under way, each followed by the next, `turns` per stream; their starts are spread."""

    async def one(place: int) -> None:
        await asyncio.sleep(over_seconds * place / streams)
        for _ in range(turns):
            await turn()

    await asyncio.gather(*(one(place) for place in range(streams)))


class Processes:
    """The processes of a running suite, each with its children, by name."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._parents = {name: psutil.Process(pid) for name, pid in pids.items()}

    @classmethod
    def of(cls, state: dict[str, Any], *names: str) -> "Processes":
        """Take them from a stack's state; all of them when no names are given."""
        entries = state["processes"]
        return cls({name: entries[name]["pid"] for name in names or entries})

    def cpu(self) -> dict[str, float]:
        """Seconds of processor time that each has used so far."""
        used = {}
        for name, parent in self._parents.items():
            times = parent.cpu_times()
            used[name] = times.user + times.system + times.children_user + times.children_system
            for child in parent.children(recursive=True):
                try:
                    used[name] += sum(child.cpu_times()[:2])
                except psutil.NoSuchProcess:
                    continue
        return used

    def memory(self) -> dict[str, int]:
        """Bytes of memory that each holds, pages that it shares counted once (PSS)."""
        held = {}
        for name, parent in self._parents.items():
            held[name] = 0
            for process in (parent, *parent.children(recursive=True)):
                try:
                    held[name] += process.memory_full_info().pss
                except psutil.NoSuchProcess:
                    continue
        return held


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Return the rows as text with aligned columns; the first row holds the headings."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        numbers = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        cells = [row[0].ljust(widths[0]), *numbers]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
