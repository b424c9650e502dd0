"""Which model answers, for people: the offline one, or the provider's, after asking the provider."""

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from local.findings import Finding
from local.settings import ROOT

SUBJECT = "model"
OFFLINE = Finding(
    SUBJECT,
    "offline: answers are written by rule",
    hint="Set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own, and start again.",
)
# The provider has two seconds; the rest is for a machine that is busy with the start.
PATIENCE_SECONDS = 8.0
_MODULE = "services.orchestrator.models.provider_check"


@dataclass(frozen=True)
class ModelCheck:
    """A check that runs in a process of its own: what it takes would stay in the supervisor's memory."""

    task: "asyncio.Task[Finding | None]"

    @classmethod
    def begin(cls, environment: Mapping[str, str]) -> "ModelCheck":
        """Start it. environment: of the process that asks the model."""
        return cls(asyncio.create_task(_check(environment), name="check the model"))

    async def result(self, stopping: "asyncio.Task[object]") -> Finding | None:
        """Return what was found; None where it takes too long, or where `stopping` ends before it."""
        await asyncio.wait({self.task, stopping}, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        return self.task.result() if self.task.done() and not self.task.cancelled() else None

    async def close(self) -> None:
        """End it."""
        self.task.cancel()
        await asyncio.wait({self.task})


def is_offline(environment: Mapping[str, str]) -> bool:
    """Whether no provider is configured."""
    return not (environment.get("OPENAI_API_KEY") or environment.get("OPENAI_BASE_URL"))


async def _check(environment: Mapping[str, str]) -> Finding | None:
    if is_offline(environment):
        return OFFLINE
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", _MODULE),
        cwd=ROOT,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    try:
        return Finding(SUBJECT, **json.loads(output))
    except (ValueError, TypeError):
        return None  # with such settings the orchestrator has not started either, and has said why
