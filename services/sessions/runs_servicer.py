"""The rpcs of RunsService: the durable log of answers in the making."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC
from typing import Any

import grpc
from concerto.sessions.v1 import runs_pb2 as pb
from concerto.sessions.v1 import runs_pb2_grpc as pb_grpc

from servicekit.errors import AppError
from servicekit.messages import paging
from servicekit.rpc import sizes
from servicekit.rpc.identity import current_caller
from servicekit.telemetry import observing, watches
from services.sessions import pages
from services.sessions.notifications import Notifications
from services.sessions.runs_store import RunsStore

EVENTS_PER_RESPONSE = 200
# Notifications may get lost, so a watcher also looks by itself; more often where none arrive.
POLL_SECONDS = 1.0
UNDELIVERED_POLL_SECONDS = 0.25

_APPENDABLE = frozenset({"message_delta", "reasoning_delta", "tool_started", "tool_finished"})
_ENDS = frozenset({pb.RUN_STATE_SUCCEEDED, pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED, pb.RUN_STATE_INTERRUPTED})

Context = grpc.aio.ServicerContext[Any, Any]


class RunsServicer(pb_grpc.RunsServiceServicer):
    """Answers RunsService: for the current caller, or by the lease tokens in the request.

    notifications: None without a direct database connection; then no run can be started or watched.
    """

    def __init__(self, store: RunsStore, notifications: Notifications | None) -> None:
        self._store = store
        self._notifications = notifications
        self._is_draining = False

    async def drain(self, _seconds: float) -> None:
        """End all watches: whoever follows a run goes on elsewhere, from the last event that it saw."""
        self._is_draining = True
        if self._notifications is not None:
            self._notifications.wake_all()

    async def StartRun(self, request: pb.StartRunRequest, _: Context) -> pb.StartRunResponse:
        """Store the user's message and open its run."""
        if self._notifications is None:  # nobody could end it
            raise AppError("DIRECT_DATABASE_NEEDED")
        return await self._store.start(current_caller(), request)

    async def PromoteRun(self, request: pb.PromoteRunRequest, _: Context) -> pb.PromoteRunResponse:
        """Begin a queued run."""
        return await self._store.promote(request.lease)

    async def AppendRunEvents(self, request: pb.AppendRunEventsRequest, _: Context) -> pb.AppendRunEventsResponse:
        """Append events to any number of runs."""
        for position, batch in enumerate(request.batches):
            for index, event in enumerate(batch.events):
                if event.WhichOneof("payload") not in _APPENDABLE or event.seq < 1:
                    raise AppError(
                        "INVALID_FIELD",
                        metadata={
                            "field": f"batches[{position}].events[{index}]",
                            "problem": "must have a seq and be a delta or a tool's event",
                        },
                    )
        return pb.AppendRunEventsResponse(lost_run_ids=await self._store.append_events(request.batches))

    async def RenewLease(self, request: pb.RenewLeaseRequest, _: Context) -> pb.RenewLeaseResponse:
        """Give leases more time."""
        lost, cancelled = await self._store.renew_leases(request.leases, lease_seconds=request.lease_seconds)
        return pb.RenewLeaseResponse(lost_run_ids=lost, cancelled_run_ids=cancelled)

    async def FinishRun(self, request: pb.FinishRunRequest, _: Context) -> pb.FinishRunResponse:
        """End a run."""
        if request.state not in _ENDS:
            raise AppError(
                "INVALID_FIELD",
                metadata={"field": "state", "problem": "must be SUCCEEDED, FAILED, CANCELLED or INTERRUPTED"},
            )
        if request.state in (pb.RUN_STATE_FAILED, pb.RUN_STATE_INTERRUPTED) and not request.error.details:
            raise AppError("MISSING_FIELD", metadata={"field": "error"})
        return await self._store.finish(request)

    async def StartModelCall(self, request: pb.StartModelCallRequest, _: Context) -> pb.StartModelCallResponse:
        """Note that a model is asked outside of any run."""
        if self._notifications is None:  # nobody could end it
            raise AppError("DIRECT_DATABASE_NEEDED")
        return await self._store.start_model_call(current_caller(), request)

    async def FinishModelCall(self, request: pb.FinishModelCallRequest, _: Context) -> pb.FinishModelCallResponse:
        """Enter in the ledger what such a call has used."""
        await self._store.finish_model_call(request)
        return pb.FinishModelCallResponse()

    async def WatchRunEvents(
        self, request: pb.WatchRunEventsRequest, _: Context
    ) -> AsyncIterator[pb.WatchRunEventsResponse]:
        """Yield a run's events until its end, or until this process is to stop."""
        if self._notifications is None:
            raise AppError("DIRECT_DATABASE_NEEDED")
        # Verified when the watch began; it may go on when the token has expired.
        caller = current_caller()
        after_seq = request.after_seq
        watch = watches.NOTHING
        has_looked = False
        with self._notifications.watch(request.run_id) as wake:
            while True:
                # Cleared before the look, so that nothing between the two is missed.
                wake.clear()
                try:
                    with watch:
                        page = await self._store.read_events(
                            caller, request.run_id, after_seq=after_seq, page_size=EVENTS_PER_RESPONSE
                        )
                except AppError as error:
                    # The caller's other calls have its share of the database for a moment; nothing is lost by waiting.
                    if error.reason != "TOO_MANY_REQUESTS" or not has_looked or self._is_draining:
                        raise
                    await asyncio.sleep(random.uniform(0, POLL_SECONDS))  # noqa: S311 (nothing secret)
                    continue
                has_looked = True
                watch = observing.untraced()  # the first look says how long one takes; many follow
                if page.events:
                    after_seq = page.events[-1].seq
                    # Numbers in a tool's arguments have more bytes on the wire than as text, which bounds a page.
                    for events in sizes.in_parts(page.events, most_bytes=sizes.MAX_CONTENT_BYTES):
                        yield pb.WatchRunEventsResponse(events=events)
                if page.has_more:
                    continue
                if page.is_finished or self._is_draining:
                    return
                try:
                    seconds = POLL_SECONDS if self._notifications.is_listening else UNDELIVERED_POLL_SECONDS
                    await asyncio.wait_for(wake.wait(), seconds)
                except TimeoutError:
                    continue

    async def GetStoredRun(self, request: pb.GetStoredRunRequest, _: Context) -> pb.GetStoredRunResponse:
        """Return one run."""
        return pb.GetStoredRunResponse(run=await self._store.get(current_caller(), request.run_id))

    async def ListStoredRuns(self, request: pb.ListStoredRunsRequest, _: Context) -> pb.ListStoredRunsResponse:
        """List the caller's runs, newest first."""
        filters = pages.fingerprint("runs", request.session_id.lower())
        page = await self._store.list_runs(
            current_caller(),
            page_size=pages.size(request.page_size),
            session_id=request.session_id,
            before=pages.time_position(request.page_token, filters) if request.page_token else None,
        )
        token = ""
        if page.has_more:
            last = page.runs[-1]
            token = paging.encode(filters, last.created_at.ToDatetime(UTC).isoformat(), last.id)
        return pb.ListStoredRunsResponse(runs=page.runs, next_page_token=token)

    async def RequestRunCancellation(
        self, request: pb.RequestRunCancellationRequest, _: Context
    ) -> pb.RequestRunCancellationResponse:
        """Ask that a run be cancelled."""
        run = await self._store.request_cancellation(current_caller(), request.run_id)
        return pb.RequestRunCancellationResponse(run=run)
