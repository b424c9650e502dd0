"""What every attack needs: the suite it is run against, and what an observer beside it saw meanwhile."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.api import Person
from tests.support.contract import ROOT
from tests.support.suites import RunningStack

MB = 1_000_000


@dataclass(frozen=True)
class Target:
    """The suite under attack."""

    stack: RunningStack = field(repr=False)
    client: httpx.AsyncClient = field(repr=False)
    """For what is well-behaved: signing up, preparing."""

    @property
    def address(self) -> tuple[str, int]:
        """Where the gateway listens, for raw sockets."""
        parts = urlsplit(self.stack.gateway_url)
        return str(parts.hostname), parts.port or 80

    async def person(self) -> Person:
        """Return somebody new."""
        return await Person.sign_up(self.client)


@dataclass
class Outcome:
    """What an attack met."""

    counts: Counter[str] = field(default_factory=Counter)
    """How often each thing happened: `431`, `closed`, …"""
    wrong: list[str] = field(default_factory=list)
    """What must not have happened, a sentence each."""

    def expect(self, holds: object, otherwise: str) -> None:
        """Note that something is wrong unless it holds."""
        if not holds:
            self.wrong.append(otherwise)


@dataclass(frozen=True)
class Attack:
    """One attack: what it is called, and what it does."""

    name: str
    run: Callable[[Target], Awaitable[Outcome]]
    most_growth_bytes: int = 150 * MB
    """How far the memory of our processes may grow meanwhile: generous, as it tells a bound from none."""
    settings: dict[str, str] = field(default_factory=dict)
    """With which the suite is started; attacks with the same settings share one."""


@dataclass(frozen=True)
class Seen:
    """What the observer saw: a signed-in stranger who asks for their sessions twenty times a second."""

    asked: int
    failed: int
    middle_ms: float
    late_ms: float
    """The 99th percentile."""
    worst_ms: float
    rss_before: int
    """Resident memory of our processes, in bytes; the database is not among them."""
    rss_peak: int
    rss_after: int

    @property
    def growth_bytes(self) -> int:
        """How far the memory grew at most."""
        return self.rss_peak - self.rss_before

    def describe(self) -> str:
        """Return the figures in a line."""
        memory = " → ".join(f"{rss / MB:.0f}" for rss in (self.rss_before, self.rss_peak, self.rss_after))
        return (
            f"memory {memory} MB (before, most, after), another person's requests {self.middle_ms:.0f} ms, "
            f"p99 {self.late_ms:.0f} ms, worst {self.worst_ms:.0f} ms, {self.failed} of {self.asked} failed"
        )


async def observed(target: Target, work: Awaitable[Outcome]) -> tuple[Outcome, Seen]:
    """Return what the attack met, and what a process of its own saw while it ran."""
    watcher = await target.person()
    pids = [str(target.stack.process(name)) for name in target.stack.own_processes]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.attacks.observer", target.stack.gateway_url, *pids),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(watcher.tokens["access_token"].encode() + b"\n")
    assert await process.stdout.readline() == b"watching\n"
    try:
        outcome = await work
    finally:
        process.stdin.close()
        report: dict[str, Any] = json.loads(await process.stdout.readline() or b"{}")
        await process.wait()
    return outcome, Seen(**report)
