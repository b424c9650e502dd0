"""The runs of this process, and the way to the events of any run."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import structlog
from concerto.sessions.v1 import runs_pb2, turns_pb2
from langchain_core.messages import BaseMessage

from servicekit.errors import AppError
from servicekit.rpc import identity, request
from servicekit.telemetry import logs, measures
from services.orchestrator.models.models import Models
from services.orchestrator.models.window import Window
from services.orchestrator.runs.calls import Call, Calls
from services.orchestrator.runs.event_writer import EventWriter
from services.orchestrator.runs.leases import LEASE_SECONDS, Leases
from services.orchestrator.runs.run import Dependencies, Run
from services.orchestrator.sessions_client import SessionsClient, is_retryable
from services.orchestrator.steps import Answerer, Namer

_LOG = structlog.stdlib.get_logger(__name__)

CLOSE_SECONDS = 10.0
"""How long interrupted runs may take to store their end."""

TABLE_PATIENCE_SECONDS = 15.0
"""How long a reader waits for a sessions service that is away."""

ACTIVE = measures.Gauge("concerto_runs_active", "Runs that are executed, queued ones included.")

RETRY_AFTER_SECONDS = 2.0
_FIRST_PAUSE_SECONDS = 0.1
_MAX_PAUSE_SECONDS = 1.0
_ENDED = (
    runs_pb2.RUN_STATE_SUCCEEDED,
    runs_pb2.RUN_STATE_FAILED,
    runs_pb2.RUN_STATE_CANCELLED,
    runs_pb2.RUN_STATE_INTERRUPTED,
)


class RunRegistry:
    """Begins runs, executes each in a task of its own, and gives their events to those that follow them.

    max_runs: most runs of this process at once, queued ones and calls outside of runs included. max_user_runs: most of
    one user anywhere.
    prices: by model; a model without prices costs nothing.
    process_id: how the supervisor that would tell of this process's death calls it (UUID); empty where none would.
    """

    def __init__(
        self,
        *,
        store: SessionsClient,
        models: Models,
        window: Window,
        answerer: Answerer,
        namer: Namer,
        leases: Leases,
        calls: Calls,
        max_runs: int,
        max_user_runs: int,
        prices: Mapping[str, runs_pb2.Prices],
        process_id: str = "",
    ) -> None:
        self._store = store
        self._models = models
        self._leases = leases
        self._calls = calls
        self._writer = EventWriter(store)
        self._dependencies = Dependencies(
            store=store, writer=self._writer, leases=self._leases, window=window, answerer=answerer, namer=namer
        )
        self._max_runs = max_runs
        self._max_user_runs = max_user_runs
        self._prices = prices
        self._process_id = process_id
        self._runs: dict[str, Run] = {}
        self._starting = 0
        self._calling = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._is_draining = False
        self._is_closing = False
        ACTIVE.set(0)  # there before the first run

    def __len__(self) -> int:
        """Return how many runs this process executes."""
        return len(self._runs)

    def find(self, run_id: str) -> Run | None:
        """Return a run that this process executes; None for any other."""
        return self._runs.get(run_id)

    async def begin(
        self,
        session_id: str,
        turn: turns_pb2.Turn,
        *,
        source: str = "turn",
        prompt: Sequence[BaseMessage] | None = None,
        answerer: Answerer | None = None,
    ) -> runs_pb2.Run:
        """Store what the current caller says in a session and start its run; for a repetition, return the run there is.

        turn: an empty model or agent is filled in with the one that answers. source: who asks, for the ledger, at most
        50 characters. prompt: what the model is given; None means the system prompt and the session's history.
        answerer: who answers; None means the agents.
        Goes on when the caller goes away. Raises AppError TOO_MANY_RUNS, SHUTTING_DOWN, AGENT_NOT_FOUND and what
        StartRun raises, before anything runs.
        """
        await self._models.learn_names()
        known = self._find_repeated(session_id, turn.request_id)
        if known is not None:
            return await self._store.get_run(known.id)
        self._refuse_more()
        answerer = answerer or self._dependencies.answerer
        turn.agent = answerer.agent_for(turn.agent)
        turn.model = self._models.name_for(turn.model)
        wanted = runs_pb2.StartRunRequest(
            session_id=session_id,
            turn=turn,
            lease_seconds=LEASE_SECONDS,
            max_user_runs=self._max_user_runs,
            prices=self._prices.get(turn.model),
            source=source,
            process_id=self._process_id,
            history_messages=0 if prompt is not None else self._dependencies.window.messages_at_start,
        )
        self._starting += 1
        starting = asyncio.create_task(self._start(wanted, answerer, prompt), name="start a run")
        starting.add_done_callback(self._note_started)
        # A client that vanishes in between must not leave a run that no process executes.
        return await asyncio.shield(starting)

    @contextlib.asynccontextmanager
    async def calling(self, model: str, prompt: Sequence[BaseMessage], *, source: str) -> AsyncIterator[Call]:
        """Note a call of a model that belongs to no run and is limited like one, while the block asks the model.

        model: as Models.name_for gives it. Raises AppError TOO_MANY_RUNS, SHUTTING_DOWN and what StartModelCall raises.
        """
        self._refuse_more()
        self._calling += 1
        try:
            begun = await self._calls.begin(model, prompt, source=source, max_user_runs=self._max_user_runs)
            async with begun as call:
                yield call
        finally:
            self._calling -= 1

    async def follow(
        self, run_id: str, *, user_id: str, after_seq: int = 0
    ) -> AsyncGenerator[Sequence[runs_pb2.RunEvent], None]:
        """Yield a run's events after `after_seq`, and the new ones, until it has ended; nothing when that is all.

        Each time it is one event or several, up to MAX_BATCH.

        From this process's memory where the run executes here, else from the table as the current caller.
        Raises AppError RUN_NOT_FOUND and what the sessions service raises.
        """
        run = self._runs.get(run_id)
        if run is not None and run.user_id == user_id:
            async with contextlib.aclosing(run.log.follow(after_seq)) as batches:
                async for events in batches:
                    yield events
                    after_seq = events[-1].seq
                    if events[-1].HasField("run_finished"):
                        return
        async with contextlib.aclosing(self._follow_table(run_id, after_seq)) as stored:
            async for event in stored:
                yield (event,)

    async def cancel(self, run_id: str, *, user_id: str) -> runs_pb2.Run:
        """Ask that a run be cancelled, here or elsewhere, and return it. Raises AppError RUN_NOT_FOUND."""
        run = self._runs.get(run_id)
        # Stored first: a run that ends as CANCELLED always says that it was asked for. It stops even if that fails.
        try:
            return await self._store.request_cancellation(run_id)
        finally:
            if run is not None and run.user_id == user_id:
                run.cancel()

    async def drain(self, seconds: float) -> None:
        """Begin nothing more; give the runs `seconds` to end, then interrupt them and let them store that."""
        self._is_draining = True
        if self._tasks:
            _LOG.info("runs.draining", count=len(self._runs), seconds=seconds)
        await self._wait_for_runs(seconds)
        self._is_closing = True
        for run in list(self._runs.values()):
            run.interrupt()
        await self._wait_for_runs(CLOSE_SECONDS)

    async def close(self) -> None:
        """Interrupt what still runs, and end what works beside it."""
        await self.drain(0.0)
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(set(self._background))
        await self._writer.close()
        await self._leases.close()

    @property
    def _is_full(self) -> bool:
        return len(self._runs) + self._starting + self._calling >= self._max_runs

    def _refuse_more(self) -> None:
        if self._is_draining:
            raise AppError("SHUTTING_DOWN")
        if self._is_full:
            raise AppError("TOO_MANY_RUNS", metadata={"scope": "per server"}, retry_after_seconds=RETRY_AFTER_SECONDS)

    def _find_repeated(self, session_id: str, request_id: str) -> Run | None:
        """Return the run of this process that is asked for again, so that a limit refuses no repetition."""
        if not request_id or not (self._is_full or self._is_draining):
            return None
        key = (identity.current_caller().user_id, session_id.lower(), request_id.lower())
        return next((run for run in self._runs.values() if (run.user_id, run.session_id, run.request_id) == key), None)

    async def _start(
        self, wanted: runs_pb2.StartRunRequest, answerer: Answerer, prompt: Sequence[BaseMessage] | None
    ) -> runs_pb2.Run:
        request.begin(request.current_id(), None)
        started = await self._store.start_run(wanted)
        if started.HasField("lease"):
            self._execute(Run(wanted.turn, started, self._dependencies, answerer=answerer, prompt=prompt))
        return started.run

    def _execute(self, run: Run) -> None:
        self._runs[run.id] = run
        if run.is_queued and run.turn.if_running == turns_pb2.IF_RUNNING_CANCEL:
            # The sessions service has noted it for runs elsewhere; those that are here need not wait for a heartbeat.
            for other in self._runs.values():
                if other is not run and other.session_id == run.session_id:
                    other.cancel()
        ACTIVE.add(1)
        task = asyncio.create_task(run.execute(), name=f"run {run.id}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._forget(run, done))
        if self._is_closing:
            run.interrupt()

    def _note_started(self, starting: "asyncio.Task[runs_pb2.Run]") -> None:
        self._starting -= 1
        if not starting.cancelled():
            # Whoever asked may be gone; without a look at it asyncio would complain.
            starting.exception()

    def _forget(self, run: Run, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._runs.pop(run.id, None)
        ACTIVE.add(-1)
        if run.naming is not None and not run.naming.done():
            self._background.add(run.naming)
            run.naming.add_done_callback(self._background.discard)
        for other in self._runs.values():
            if other.session_id == run.session_id:
                other.session_may_be_free.set()
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("run.broken", run_id=run.id, cause=logs.describe(task.exception() or ""))

    async def _wait_for_runs(self, seconds: float) -> None:
        give_up_at = time.monotonic() + seconds
        while (self._tasks or self._starting) and (left_seconds := give_up_at - time.monotonic()) > 0:
            if self._tasks:
                await asyncio.wait(set(self._tasks), timeout=min(left_seconds, 0.1))
            else:
                await asyncio.sleep(min(left_seconds, 0.02))

    async def _follow_table(self, run_id: str, after_seq: int) -> AsyncGenerator[runs_pb2.RunEvent, None]:
        """Yield the run's events from the table; a sessions service that is away for a while is waited for."""
        give_up_at, pause_seconds = time.monotonic() + TABLE_PATIENCE_SECONDS, _FIRST_PAUSE_SECONDS
        while True:
            try:
                async with contextlib.aclosing(self._store.watch_run_events(run_id, after_seq=after_seq)) as events:
                    async for event in events:
                        yield event
                        after_seq = event.seq
                        give_up_at, pause_seconds = time.monotonic() + TABLE_PATIENCE_SECONDS, _FIRST_PAUSE_SECONDS
                        if event.HasField("run_finished"):
                            return
                if (await self._store.get_run(run_id)).state in _ENDED:
                    return
            except AppError as error:
                if not is_retryable(error) or min(give_up_at - time.monotonic(), _left_seconds()) < pause_seconds:
                    raise
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 2, _MAX_PAUSE_SECONDS)


def _left_seconds() -> float:
    return request.remaining_seconds(TABLE_PATIENCE_SECONDS)
