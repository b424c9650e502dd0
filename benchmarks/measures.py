"""What a phase of a benchmark measures, and how its load is spread."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
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

    async def one(index: int) -> None:
        await asyncio.sleep(over_seconds * index / streams)
        for _ in range(turns):
            await turn()

    await asyncio.gather(*(one(index) for index in range(streams)))


class Processes:
    """Some processes by name, each with its children. alone: the names of those that are meant without them."""

    def __init__(self, pids: dict[str, int], *, alone: Collection[str] = ()) -> None:
        self._parents = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._alone = frozenset(alone)

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
            used[name] = times.user + times.system
            if name in self._alone:
                continue
            used[name] += times.children_user + times.children_system
            for child in parent.children(recursive=True):
                try:
                    used[name] += sum(child.cpu_times()[:2])
                except psutil.NoSuchProcess:
                    continue
        return used

    def since(self, before: dict[str, float]) -> dict[str, float]:
        """Seconds of processor time that each has used since `cpu` answered `before`."""
        return {name: used - before[name] for name, used in self.cpu().items()}

    def memory(self) -> dict[str, int]:
        """Bytes of memory that each holds, pages that it shares counted once (PSS)."""
        held = {}
        for name, parent in self._parents.items():
            held[name] = 0
            children = [] if name in self._alone else parent.children(recursive=True)
            for process in (parent, *children):
                try:
                    held[name] += process.memory_full_info().pss
                except psutil.NoSuchProcess:
                    continue
        return held

    def resident(self) -> int:
        """Bytes that all of them hold together, pages of a file that several of them map counted once.

        Unlike PSS it does not shrink when other programs of the machine map the same files.
        """
        own, files = 0, dict[str, int]()
        for name, parent in self._parents.items():
            children = [] if name in self._alone else parent.children(recursive=True)
            for process in (parent, *children):
                by_path: dict[str, int] = {}
                for mapping in process.memory_maps(grouped=False):
                    if mapping.path.startswith("/"):
                        private = mapping.private_dirty
                        own += private
                        by_path[mapping.path] = by_path.get(mapping.path, 0) + mapping.rss - private
                    else:
                        own += mapping.rss
                for path, size in by_path.items():
                    files[path] = max(files.get(path, 0), size)
        return own + sum(files.values())


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
