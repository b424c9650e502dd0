"""The leases of this process's runs: one heartbeat for all of them."""

import asyncio
import contextvars
import time
from collections.abc import Callable

import structlog
from concerto.sessions.v1 import runs_pb2

from servicekit.errors import AppError
from servicekit.telemetry import logs, observing
from services.orchestrator.sessions_client import MAX_LEASES, SessionsClient

_LOG = structlog.stdlib.get_logger(__name__)

LEASE_SECONDS = 10
"""How long a run counts as alive without a sign of life."""

HEARTBEAT_SECONDS = 1.0
"""How often leases are renewed; the answer brings cancellations, which are to be known within about a second."""

_RETRY_SECONDS = 0.3


class HeldLease:
    """The lease of one run, as its process knows it.

    on_lost: called once, when the run is somebody else's to end. on_cancelled: called when the run is to be cancelled.
    """

    def __init__(self, lease: runs_pb2.Lease, *, on_lost: Callable[[], None], on_cancelled: Callable[[], None]) -> None:
        self.lease = lease
        self.is_lost = False
        self.valid_until = time.monotonic() + LEASE_SECONDS
        self._on_lost = on_lost
        self._on_cancelled = on_cancelled

    @property
    def may_be_valid(self) -> bool:
        """False once the lease is lost, or has not been renewed in its time."""
        return not self.is_lost and time.monotonic() < self.valid_until

    def lose(self) -> None:
        """Stop the run: it is no longer this process's."""
        if not self.is_lost:
            self.is_lost = True
            self._on_lost()

    def cancel(self) -> None:
        """Cancel the run, as somebody has asked for it."""
        self._on_cancelled()


class Leases:
    """Renews all leases in one call; tells runs that they are cancelled or lost."""

    def __init__(self, store: SessionsClient) -> None:
        self._store = store
        self._held: dict[str, HeldLease] = {}
        self._has_leases = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, held: HeldLease) -> None:
        """Renew this lease from now on."""
        self._held[held.lease.run_id] = held
        self._has_leases.set()
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="leases", context=contextvars.Context())

    def remove(self, held: HeldLease) -> None:
        """Let the lease run out; what is heard of it from now on is passed over."""
        self._held.pop(held.lease.run_id, None)
        if not self._held:
            self._has_leases.clear()

    async def close(self) -> None:
        """Renew nothing any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _work(self) -> None:
        pause_seconds = HEARTBEAT_SECONDS
        while True:
            await self._has_leases.wait()
            await asyncio.sleep(pause_seconds)
            pause_seconds = HEARTBEAT_SECONDS
            held = list(self._held.values())
            for start in range(0, len(held), MAX_LEASES):
                if not await self._renew(held[start : start + MAX_LEASES]):
                    pause_seconds = _RETRY_SECONDS
            for one in held:
                if not one.may_be_valid and self._holds(one):
                    one.lose()

    async def _renew(self, held: list[HeldLease]) -> bool:
        # The lease lasts from the moment that the database saw, which is no earlier than this one.
        asked_at = time.monotonic()
        try:
            with observing.unseen():
                answer = await self._store.renew_leases([one.lease for one in held], lease_seconds=LEASE_SECONDS)
        except AppError as error:
            _LOG.warning("leases.not_renewed", count=len(held), reason=error.reason)
            return False
        except Exception as error:  # noqa: BLE001 (the heartbeat outlives whatever happens to one beat)
            _LOG.error("leases.not_renewed", count=len(held), cause=logs.describe(error))
            return False
        lost, cancelled = set(answer.lost_run_ids), set(answer.cancelled_run_ids)
        for one in held:
            if not self._holds(one):
                continue
            if one.lease.run_id in lost:
                one.lose()
                continue
            one.valid_until = asked_at + LEASE_SECONDS
            if one.lease.run_id in cancelled:
                one.cancel()
        return True

    def _holds(self, held: HeldLease) -> bool:
        return self._held.get(held.lease.run_id) is held
