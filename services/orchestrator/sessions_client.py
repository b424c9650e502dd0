"""The sessions service as the orchestrator uses it; the only file that knows its stubs."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from uuid import uuid4

import grpc
from concerto.sessions.v1 import (
    runs_pb2,
    runs_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
    sign_ins_pb2,
    sign_ins_pb2_grpc,
)
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.rpc import channel, identity
from servicekit.tls.credentials import Certificates

SERVICE = sessions_pb2.DESCRIPTOR.services_by_name["SessionsService"]
RUNS_SERVICE = runs_pb2.DESCRIPTOR.services_by_name["RunsService"]
SIGN_INS_SERVICE = sign_ins_pb2.DESCRIPTOR.services_by_name["SignInsService"]
MAX_APPEND = 100
MAX_PAGE = 100
MAX_BATCHES = 1000
MAX_LEASES = 1000

# A try that hangs must leave time for others before the lease runs out.
_TRY_SECONDS = 3.0
_RETRYABLE_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def is_retryable(error: AppError) -> bool:
    """Say whether a call that failed with this error may succeed when it is repeated."""
    return error.code in _RETRYABLE_CODES


class SessionsClient:
    """Reads and writes conversations and runs as the caller of the current request; one method per rpc.

    Those that take a lease act by it and send no token, so that a run outlives the one it was started with.
    The channels are made at first use and belong to the event loop that runs then. Every method raises the AppError
    of the sessions service, or SERVICE_UNAVAILABLE.
    """

    def __init__(
        self,
        open_channel: Callable[[], grpc.aio.Channel],
        open_runs_channel: Callable[[], grpc.aio.Channel] | None = None,
        open_sign_ins_channel: Callable[[], grpc.aio.Channel] | None = None,
        *,
        service_key: SecretStr | None = None,
    ) -> None:
        """Make it; `service_key` is what the sessions service knows the orchestrator by."""
        self._service_key = service_key
        self._open_channel = open_channel
        self._open_runs_channel = open_runs_channel or open_channel
        self._open_sign_ins_channel = open_sign_ins_channel or open_channel
        self._channels: list[grpc.aio.Channel] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._made_stub: sessions_pb2_grpc.SessionsServiceAsyncStub | None = None
        self._made_runs_stub: runs_pb2_grpc.RunsServiceAsyncStub | None = None
        self._made_sign_ins_stub: sign_ins_pb2_grpc.SignInsServiceAsyncStub | None = None

    @classmethod
    def at(
        cls, target: str, *, tls: Certificates | None = None, service_key: SecretStr | None = None
    ) -> "SessionsClient":
        """Return a store that speaks to the sessions service at `target` (`host:port`), over TLS as `tls` says."""
        return cls(
            lambda: channel.connect(target, SERVICE, tls=tls),
            lambda: channel.connect(target, RUNS_SERVICE, tls=tls),
            lambda: channel.connect(target, SIGN_INS_SERVICE, tls=tls),
            service_key=service_key,
        )

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The running event loop that the store belongs to; None before its first use and after that loop's end."""
        return self._loop if self._loop is not None and self._loop.is_running() else None

    async def append(
        self,
        session_id: str,
        messages: Sequence[sessions_pb2.NewMessage],
        *,
        request_id: str = "",
    ) -> list[sessions_pb2.Message]:
        """Append 1 to 100 messages, all or none, and return them as they are stored, without their contents.

        request_id: makes the call repeatable; empty means that each call appends.
        """
        request = sessions_pb2.AppendMessagesRequest(session_id=session_id, messages=messages, request_id=request_id)
        return list((await channel.call(self._stub().AppendMessages, request)).messages)

    async def list_messages(
        self,
        session_id: str,
        *,
        page_size: int = MAX_PAGE,
        page_token: str = "",
        from_end: bool = False,
        after_order: int = 0,
        before_order: int = 0,
        include_inactive: bool = False,
    ) -> sessions_pb2.ListMessagesResponse:
        """Return one page of messages, orders rising; see ListMessages in the contract."""
        request = sessions_pb2.ListMessagesRequest(
            session_id=session_id,
            page_size=page_size,
            page_token=page_token,
            from_end=from_end,
            after_order=after_order,
            before_order=before_order,
            include_inactive=include_inactive,
        )
        return await channel.call(self._stub().ListMessages, request)

    async def search_messages(
        self, query: str, *, session_id: str = "", page_size: int = 0, page_token: str = ""
    ) -> sessions_pb2.SearchMessagesResponse:
        """Return one page of the caller's messages that hold the words, best match first."""
        request = sessions_pb2.SearchMessagesRequest(
            query=query, session_id=session_id, page_size=page_size, page_token=page_token
        )
        return await channel.call(self._stub().SearchMessages, request)

    async def get_session(self, session_id: str) -> sessions_pb2.Session:
        """Return the session."""
        request = sessions_pb2.GetSessionRequest(session_id=session_id)
        return (await channel.call(self._stub().GetSession, request)).session

    async def name_session(self, session_id: str, name: str, *, instead_of: str = "") -> sessions_pb2.Session:
        """Name a session that is still called `instead_of` (empty: has no name yet).

        Raises AppError SESSION_NAME_CHANGED when it has another one by now.
        """
        request = sessions_pb2.UpdateSessionRequest(session_id=session_id, name=name, expected_name=instead_of)
        return (await channel.call(self._stub().UpdateSession, request)).session

    async def start_run(self, request: runs_pb2.StartRunRequest) -> runs_pb2.StartRunResponse:
        """Store the user's message and open its run; see StartRun in the contract.

        The lease's secret is made here, so that a call that gRPC repeats after a lost answer still gets the lease.
        """
        request.lease_token = secrets.token_hex(32)
        return await channel.call(self._runs_stub().StartRun, request, service_key=self._service_key)

    async def start_model_call(self, request: runs_pb2.StartModelCallRequest) -> runs_pb2.Lease:
        """Note that a model is about to be asked outside of any run, and return the call's lease; see the contract.

        Raises AppError TOO_MANY_RUNS.
        """
        request.request_id = str(uuid4())
        request.lease_token = secrets.token_hex(32)
        return (await channel.call(self._runs_stub().StartModelCall, request, service_key=self._service_key)).lease

    async def finish_model_call(self, request: runs_pb2.FinishModelCallRequest) -> None:
        """Enter in the ledger what such a call has used. Raises AppError LEASE_LOST when that has been done."""
        with _no_caller():
            await channel.call(self._runs_stub().FinishModelCall, request, timeout_seconds=_TRY_SECONDS)

    async def promote_run(self, lease: runs_pb2.Lease) -> runs_pb2.PromoteRunResponse:
        """Let a queued run begin. Raises AppError RUN_NOT_NEXT while another one is before it, LEASE_LOST."""
        request = runs_pb2.PromoteRunRequest(lease=lease)
        with _no_caller():
            return await channel.call(self._runs_stub().PromoteRun, request, timeout_seconds=_TRY_SECONDS)

    async def append_run_events(self, batches: Sequence[runs_pb2.RunEventBatch]) -> frozenset[str]:
        """Append numbered events of up to MAX_BATCHES runs; return the ids of the runs whose lease is lost."""
        request = runs_pb2.AppendRunEventsRequest(batches=batches)
        with _no_caller():
            answer = await channel.call(self._runs_stub().AppendRunEvents, request, timeout_seconds=_TRY_SECONDS)
        return frozenset(answer.lost_run_ids)

    async def renew_leases(
        self, leases: Sequence[runs_pb2.Lease], *, lease_seconds: int
    ) -> runs_pb2.RenewLeaseResponse:
        """Let up to MAX_LEASES leases end `lease_seconds` from now."""
        request = runs_pb2.RenewLeaseRequest(leases=leases, lease_seconds=lease_seconds)
        with _no_caller():
            return await channel.call(self._runs_stub().RenewLease, request, timeout_seconds=_TRY_SECONDS)

    async def finish_run(self, request: runs_pb2.FinishRunRequest) -> runs_pb2.FinishRunResponse:
        """End a run; may be repeated. Raises AppError LEASE_LOST when somebody else has ended it."""
        with _no_caller():
            return await channel.call(self._runs_stub().FinishRun, request, timeout_seconds=_TRY_SECONDS)

    async def watch_run_events(self, run_id: str, *, after_seq: int) -> AsyncGenerator[runs_pb2.RunEvent, None]:
        """Yield the run's events after `after_seq` from the table, until run_finished. Close it to end it early."""
        request = runs_pb2.WatchRunEventsRequest(run_id=run_id, after_seq=after_seq)
        async with contextlib.aclosing(channel.stream(self._runs_stub().WatchRunEvents, request)) as answers:
            async for answer in answers:
                for event in answer.events:
                    yield event

    async def get_run(self, run_id: str) -> runs_pb2.Run:
        """Return one of the caller's runs."""
        request = runs_pb2.GetStoredRunRequest(run_id=run_id)
        return (await channel.call(self._runs_stub().GetStoredRun, request)).run

    async def list_runs(self, request: runs_pb2.ListStoredRunsRequest) -> runs_pb2.ListStoredRunsResponse:
        """Return one page of the caller's runs, newest first."""
        return await channel.call(self._runs_stub().ListStoredRuns, request)

    async def request_cancellation(self, run_id: str) -> runs_pb2.Run:
        """Ask that one of the caller's runs be cancelled, and return it as it stands."""
        request = runs_pb2.RequestRunCancellationRequest(run_id=run_id)
        return (await channel.call(self._runs_stub().RequestRunCancellation, request)).run

    async def check_sign_in(self, caller: identity.Caller) -> None:
        """Return when the caller's sign-in stands. Raises AppError SIGN_IN_ENDED."""
        request = sign_ins_pb2.CheckSignInRequest(access_token=caller.token)
        await channel.call(self._sign_ins_stub().CheckSignIn, request, timeout_seconds=_TRY_SECONDS)

    async def close(self) -> None:
        """Close the connections; a later use opens others."""
        connections, self._channels, self._loop = self._channels, [], None
        self._made_stub = self._made_runs_stub = self._made_sign_ins_stub = None
        for connection in connections:
            await connection.close()

    def _stub(self) -> "sessions_pb2_grpc.SessionsServiceAsyncStub":
        self._enter_loop()
        if self._made_stub is None:
            self._channels.append(self._open_channel())
            self._made_stub = sessions_pb2_grpc.SessionsServiceStub(self._channels[-1])
        return self._made_stub

    def _runs_stub(self) -> "runs_pb2_grpc.RunsServiceAsyncStub":
        self._enter_loop()
        if self._made_runs_stub is None:
            self._channels.append(self._open_runs_channel())
            self._made_runs_stub = runs_pb2_grpc.RunsServiceStub(self._channels[-1])
        return self._made_runs_stub

    def _sign_ins_stub(self) -> "sign_ins_pb2_grpc.SignInsServiceAsyncStub":
        self._enter_loop()
        if self._made_sign_ins_stub is None:
            self._channels.append(self._open_sign_ins_channel())
            self._made_sign_ins_stub = sign_ins_pb2_grpc.SignInsServiceStub(self._channels[-1])
        return self._made_sign_ins_stub

    def _enter_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self.loop is not None:
            raise RuntimeError("the store belongs to another event loop that is still running")
        self._loop, self._channels = loop, []
        self._made_stub = self._made_runs_stub = self._made_sign_ins_stub = None


@contextlib.contextmanager
def _no_caller() -> Iterator[None]:
    caller = identity.current_caller_or_none()
    identity.set_current_caller(None)
    try:
        yield
    finally:
        identity.set_current_caller(caller)
