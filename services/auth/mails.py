"""Mails that are asked for once the caller has its answer, so that it tells nothing of who has an account."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from servicekit.errors import AppError
from servicekit.rpc import request

_LOG = structlog.stdlib.get_logger(__name__)

MOST_UNDER_WAY = 100
"""Most mails that one process asks for at once; each takes as long as the mail server does."""
RETRY_AFTER_SECONDS = 5.0


class Mails:
    """Asks the auth server for mails beside the calls that wanted them."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[None]] = set()

    def refuse_more(self) -> None:
        """Raise AppError AUTH_RATE_LIMITED when too many are under way, for whomever the next one would be."""
        if len(self._under_way) >= MOST_UNDER_WAY:
            cause = f"{MOST_UNDER_WAY} mails are under way"
            raise AppError("AUTH_RATE_LIMITED", cause=cause, retry_after_seconds=RETRY_AFTER_SECONDS)

    def ask(self, sending: Coroutine[Any, Any, None]) -> None:
        """Let `sending` run by itself, with time of its own; what goes wrong is logged, without an address."""
        task = asyncio.create_task(_send(sending))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def close(self) -> None:
        """Return when every mail that was asked for has been sent or refused."""
        while self._under_way:
            await asyncio.wait(self._under_way)


async def _send(sending: Coroutine[Any, Any, None]) -> None:
    # The caller's deadline ends with its answer.
    request.begin(request.current_id(), None)
    try:
        await sending
    except AppError as error:
        _LOG.warning("auth.mail_not_sent", reason=error.reason, cause=error.cause)
