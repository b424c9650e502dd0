"""Whether the sign-ins behind verified tokens still stand: what is known of each, for how long, and whom its end ends.

A token is good until it expires, a sign-in until it is ended: by a log-out, a changed password, a ban, the end of the
account. So whoever knows is asked, once for all calls with a token, and again behind them while the answer holds.
"""

import asyncio
import contextlib
import contextvars
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Generic, TypeVar

import structlog

from servicekit.errors import AppError
from servicekit.rpc import request
from servicekit.telemetry import logs

_LOG = structlog.stdlib.get_logger(__name__)

CHECK_SECONDS = 20.0
"""How long an answer holds, unless a setting says otherwise. Where a process asks another, both hold theirs as long."""
OVERLAP = 0.25
"""By which part of that time an old answer serves while the question is asked again."""
RETRY_SECONDS = 1.0
"""Pause after a question that was not answered, where no call waits for the answer."""
OUTAGE_SECONDS = 300.0
"""How long a good answer serves, from when it was given, while nobody answers."""
LOOK_SECONDS = 1.0
"""How often open streams are looked at, at most."""
ENDED = "SIGN_IN_ENDED"

C = TypeVar("C")


class SignIn(Generic[C]):
    """What is known of one token's sign-in.

    caller: whom the token names. expires_at: the token's end, in seconds since 1970.
    """

    __slots__ = ("answered_at", "asked_again_at", "caller", "expires_at", "failure", "holds_until", "question")

    def __init__(self, caller: C, expires_at: float) -> None:
        self.caller = caller
        self.expires_at = expires_at
        self.holds_until = 0.0
        """Until when (monotonic) the caller is let in without a further look."""
        self.answered_at: float | None = None
        """When the last good answer was asked for; None before the first."""
        self.asked_again_at = 0.0
        """From when on it may be asked after a failure."""
        self.failure: AppError | None = None
        """Why the last question had no good answer."""
        self.question: asyncio.Task[None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended, which is for ever."""
        return self.failure is not None and self.failure.reason == ENDED


class Watch:
    """An open stream: ended with its caller's sign-in, while it waits for what comes next or at its next message."""

    __slots__ = ("_is_waiting", "_task", "failure")

    def __init__(self, task: "asyncio.Task[object] | None") -> None:
        self._task = task
        self._is_waiting = True
        self.failure: AppError | None = None
        """Why the stream has to end; None while it may go on. With it comes a cancellation of the task."""

    def pause(self) -> None:
        """The stream has a message to hand over; whoever takes it must not be cut in the middle."""
        self._is_waiting = False

    def resume(self) -> None:
        """The message is handed over. Raises AppError where the sign-in has ended meanwhile."""
        if self.failure is not None:
            raise AppError(self.failure.reason, cause=self.failure.cause)
        self._is_waiting = True

    def end(self, failure: AppError) -> None:
        """End the stream with this error."""
        if self.failure is not None:
            return
        self.failure = failure
        if self._is_waiting and self._task is not None:
            self._task.cancel()


class SignIns(Generic[C]):
    """Asks whether sign-ins stand, one question for a sign-in at a time.

    ask: returns while the caller's sign-in stands. Raises AppError SIGN_IN_ENDED once it does not, others where it
        cannot be told. None: nobody can be asked, and every sign-in counts as standing.
    is_advisory: True where others ask again behind this process: nobody waits for an answer, and only an end that is
        known refuses.
    """

    def __init__(
        self,
        ask: Callable[[C], Awaitable[None]] | None,
        *,
        check_seconds: float = CHECK_SECONDS,
        is_advisory: bool = False,
    ) -> None:
        self._ask = ask
        self._check_seconds = check_seconds
        self._usable_seconds = check_seconds * (1 + OVERLAP)
        self._is_advisory = is_advisory
        self._watches: dict[SignIn[C], set[Watch]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_unchecked = False

    async def confirm(self, sign_in: SignIn[C]) -> None:
        """Return when the sign-in stands, and note how long that holds.

        Raises AppError SIGN_IN_ENDED, or why it cannot be told: of a sign-in that stood that is only raised when
        nobody has answered for 5 minutes.
        """
        now = time.monotonic()
        if self._ask is None:
            sign_in.holds_until = now + max(0.0, sign_in.expires_at - time.time())
            return
        if self._is_due(sign_in, now):
            self._begin(sign_in)
        if not self._may_pass(sign_in, now) and sign_in.question is not None:
            # Whoever leaves leaves the question to the others.
            await asyncio.shield(sign_in.question)
            now = time.monotonic()
        if sign_in.failure is not None and not self._may_pass(sign_in, now):
            failure = sign_in.failure
            raise AppError(failure.reason, metadata=failure.metadata, cause=failure.cause)

    @contextlib.contextmanager
    def watching(self, sign_in: SignIn[C]) -> Iterator[Watch]:
        """End the stream that the current task serves in this block when the sign-in ends."""
        watch = Watch(asyncio.current_task())
        if self._ask is None:
            yield watch
            return
        self._watches.setdefault(sign_in, set()).add(watch)
        if self._timer is None:
            self._look_later()
        try:
            yield watch
        finally:
            watches = self._watches[sign_in]
            watches.discard(watch)
            if not watches:
                del self._watches[sign_in]

    def close(self) -> None:
        """Ask no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _is_due(self, sign_in: SignIn[C], now: float) -> bool:
        if sign_in.question is not None or sign_in.has_ended:
            return False
        if sign_in.answered_at is None and not self._is_advisory:
            return True  # a call waits for it
        if now < sign_in.asked_again_at:
            return False
        return sign_in.answered_at is None or now >= sign_in.answered_at + self._check_seconds

    def _may_pass(self, sign_in: SignIn[C], now: float) -> bool:
        if sign_in.has_ended:
            return False
        if self._is_advisory:
            return True
        if sign_in.answered_at is None:
            return False
        seconds = self._usable_seconds if sign_in.failure is None else OUTAGE_SECONDS
        return now < sign_in.answered_at + seconds

    def _begin(self, sign_in: SignIn[C]) -> None:
        # In a context of its own: the question is nobody's request, and outlasts the one that it began with.
        sign_in.question = asyncio.get_running_loop().create_task(
            self._question(sign_in), context=contextvars.Context()
        )

    async def _question(self, sign_in: SignIn[C]) -> None:
        began_at = time.monotonic()
        failure: AppError | None = None
        try:
            failure = await self._answer(sign_in.caller)
        finally:
            sign_in.question = None
            sign_in.failure = failure
            now = time.monotonic()
            if failure is None:
                sign_in.answered_at = began_at
                left_seconds = sign_in.expires_at - time.time()
                sign_in.holds_until = min(began_at + self._check_seconds, now + left_seconds)
            else:
                sign_in.asked_again_at = now + RETRY_SECONDS
                sign_in.holds_until = 0.0
        if sign_in.has_ended:
            self._end(sign_in)

    async def _answer(self, caller: C) -> AppError | None:
        request.begin(None, None)
        if self._ask is None:
            return None
        try:
            await self._ask(caller)
        except AppError as error:
            if error.reason == "UNIMPLEMENTED":
                # Whoever is asked is older than this process, as while a new version is rolled out.
                if not self._is_unchecked:
                    _LOG.warning("sign_ins.unchecked", cause="nobody knows the question yet")
                self._is_unchecked = True
                return None
            return error
        except Exception as error:  # noqa: BLE001 (whoever waits is told so; its text stays here)
            _LOG.error("sign_ins.failed", cause=logs.describe(error))
            return AppError("INTERNAL", cause=error)
        return None

    def _end(self, sign_in: SignIn[C]) -> None:
        failure = sign_in.failure
        if failure is not None:
            for watch in tuple(self._watches.get(sign_in, ())):
                watch.end(failure)

    def _look_later(self) -> None:
        seconds = min(LOOK_SECONDS, self._check_seconds / 4)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._watches:
            return
        now = time.monotonic()
        for sign_in in tuple(self._watches):
            if sign_in.failure is not None and not self._may_pass(sign_in, now):
                self._end(sign_in)
            elif self._is_due(sign_in, now):
                self._begin(sign_in)
        self._look_later()
