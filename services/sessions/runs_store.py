"""The runs' operations in the database: as the caller in schema `api`, by lease token in schema `private`."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from concerto.sessions.v1 import runs_pb2 as pb

from servicekit.database.client import Database
from servicekit.errors import AppError
from servicekit.messages import converter
from servicekit.rpc.identity import Caller

SYSTEM_OPERATIONS = frozenset(
    {
        "append_run_events",
        "finish_model_call",
        "finish_run",
        "interrupt_expired_runs",
        "promote_run",
        "prune_run_events",
        "renew_leases",
    }
)
"""Functions of schema `private` that act by a lease or for upkeep."""

REAPED_AT_ONCE = 50
"""Most runs that one transaction interrupts."""


class RunPage(NamedTuple):
    """A part of the list of runs, newest first."""

    runs: list[pb.Run]
    has_more: bool
    """True when the list goes on after the last run."""


class EventPage(NamedTuple):
    """A part of a run's events, and the run's state when it was read."""

    events: list[pb.RunEvent]
    has_more: bool
    """True when more events are stored already."""
    is_finished: bool
    """True when no event will follow those that are stored."""


class RunsStore:
    """Keeps runs and their events.

    Every method raises AppError DATABASE_UNAVAILABLE or DATABASE_BUSY; those that take no caller need the direct
    connection (DIRECT_DATABASE_NEEDED) and may be repeated.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(self, caller: Caller, request: pb.StartRunRequest) -> pb.StartRunResponse:
        """Store the user's message and open its run, or return the run of a repeated request_id.

        Raises SESSION_NOT_FOUND, MESSAGE_NOT_FOUND, NOT_A_USER_MESSAGE, REQUEST_ID_REUSED, RUN_IN_PROGRESS,
        TOO_MANY_RUNS and, for a turn that says nothing or two things at once, MISSING_FIELD and INVALID_FIELD.
        """
        args = converter.to_json(request)
        args["turn"] = _given(args["turn"])
        args["process_id"] = request.process_id or None
        answer = await self._database.call("start_run", args, caller, row=request.session_id)
        return converter.from_json(pb.StartRunResponse, answer, ignore_unknown=True)

    async def get(self, caller: Caller, run_id: str) -> pb.Run:
        """Return a run. Raises RUN_NOT_FOUND."""
        answer = await self._database.call("get_run", {"run_id": run_id}, caller)
        return _run(answer["run"])

    async def list_runs(
        self, caller: Caller, *, page_size: int, session_id: str, before: tuple[str, str] | None
    ) -> RunPage:
        """Return up to `page_size` (at most 100) runs of a session (empty: of all). Raises SESSION_NOT_FOUND.

        before: `created_at` (RFC 3339) and id of the run to continue behind; None begins with the newest.
        """
        before_created_at, before_id = before or (None, None)
        args = {
            "page_size": page_size,
            "session_id": session_id or None,
            "before_created_at": before_created_at,
            "before_id": before_id,
        }
        answer = await self._database.call("list_runs", args, caller)
        return RunPage([_run(entry) for entry in answer["runs"]], answer["has_more"])

    async def request_cancellation(self, caller: Caller, run_id: str) -> pb.Run:
        """Ask that a run be cancelled. Raises RUN_NOT_FOUND."""
        answer = await self._database.call("request_run_cancellation", {"run_id": run_id}, caller, row=run_id)
        return _run(answer["run"])

    async def read_events(self, caller: Caller, run_id: str, *, after_seq: int, page_size: int) -> EventPage:
        """Return up to `page_size` (at most 1000) events behind `after_seq`. Raises RUN_NOT_FOUND."""
        args = {"run_id": run_id, "after_seq": after_seq, "page_size": page_size}
        answer = await self._database.call("read_run_events", args, caller)
        is_finished = answer["state"] not in ("QUEUED", "RUNNING")
        return EventPage([_event(entry) for entry in answer["events"]], answer["has_more"], is_finished)

    async def promote(self, lease: pb.Lease) -> pb.PromoteRunResponse:
        """Begin a queued run. Raises LEASE_LOST, RUN_NOT_NEXT."""
        answer = await self._database.call_system("promote_run", {"lease": converter.to_json(lease)})
        return converter.from_json(pb.PromoteRunResponse, answer, ignore_unknown=True)

    async def append_events(self, batches: Iterable[pb.RunEventBatch]) -> list[str]:
        """Append events to running runs; return the runs whose lease is lost, for which nothing was stored."""
        args = {"batches": [converter.to_json(batch) for batch in batches]}
        answer = await self._database.call_system("append_run_events", args)
        return list(answer["lost_run_ids"])

    async def renew_leases(self, leases: Iterable[pb.Lease], *, lease_seconds: int) -> tuple[list[str], list[str]]:
        """Give leases `lease_seconds` (0: 10) from now; return the lost runs and those that are to be cancelled."""
        args = {"leases": [converter.to_json(lease) for lease in leases], "lease_seconds": lease_seconds}
        answer = await self._database.call_system("renew_leases", args)
        return list(answer["lost_run_ids"]), list(answer["cancelled_run_ids"])

    async def finish(self, request: pb.FinishRunRequest) -> pb.FinishRunResponse:
        """End a run. Raises LEASE_LOST."""
        answer = await self._database.call_system("finish_run", _given(converter.to_json(request)))
        return converter.from_json(pb.FinishRunResponse, answer, ignore_unknown=True)

    async def start_model_call(self, caller: Caller, request: pb.StartModelCallRequest) -> pb.StartModelCallResponse:
        """Note that a model is asked for the caller outside of any run. Raises TOO_MANY_RUNS."""
        args = _given(converter.to_json(request))
        answer = await self._database.call("start_model_call", args, caller, row=caller.user_id)
        return converter.from_json(pb.StartModelCallResponse, answer, ignore_unknown=True)

    async def finish_model_call(self, request: pb.FinishModelCallRequest) -> None:
        """Enter in the ledger what such a call has used. Raises LEASE_LOST."""
        await self._database.call_system("finish_model_call", converter.to_json(request))

    async def interrupt_expired(self) -> list[str]:
        """End up to 50 runs whose lease is over as INTERRUPTED; return them."""
        args = {"limit": REAPED_AT_ONCE, "error": AppError("RUN_INTERRUPTED").to_json()}
        answer = await self._database.call_system("interrupt_expired_runs", args)
        return list(answer["run_ids"])

    async def prune_events(self, *, older_than_seconds: float) -> int:
        """Delete the deltas of runs that ended before that time; return of how many, 0 when done."""
        answer = await self._database.call_system("prune_run_events", {"older_than_seconds": older_than_seconds})
        return int(answer["pruned"])


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    # An empty text means "not given", which is null to SQL: '' is no UUID.
    return {name: value for name, value in fields.items() if value not in ("", None)}


def _run(data: dict[str, Any]) -> pb.Run:
    return converter.from_json(pb.Run, data, ignore_unknown=True)


def _event(data: dict[str, Any]) -> pb.RunEvent:
    return converter.from_json(pb.RunEvent, data, ignore_unknown=True)
