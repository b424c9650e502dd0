"""A session as LangChain's chat message history."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from functools import cache
from typing import TypeVar

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage

from servicekit.rpc import identity
from services.orchestrator.models.messages import cleared_mark, from_langchain, to_langchain
from services.orchestrator.models.window import after_cleared_mark, trim
from services.orchestrator.sessions_client import MAX_APPEND, SessionsClient

T = TypeVar("T")


class SessionChatMessageHistory(BaseChatMessageHistory):
    """Reads and writes one session's messages through the sessions service, as the caller of the current request.

    session_id: the session (UUID).
    max_tokens: gives back only the newest messages within this many tokens; None gives back all.

    Where no caller is known (a thread that does not share the request's context), the one who was known when the
    history was made is taken. Every method raises the AppError of the sessions service.

    The asynchronous methods run on any event loop. Their synchronous twins are for threads without a running loop:
    they wait for the loop that the store belongs to, or for one of their own when there is none, and raise
    RuntimeError where waiting would block a running loop.
    """

    def __init__(self, store: SessionsClient, session_id: str, *, max_tokens: int | None = None) -> None:
        super().__init__()
        self.session_id = session_id
        self._store = store
        self._max_tokens = max_tokens
        self._caller = identity.current_caller_or_none()

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]
        """Synchronous twin of `aget_messages`."""
        return self._wait_for(self._read)

    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Synchronous twin of `aadd_messages`."""
        self._wait_for(lambda: self._add(messages))

    def clear(self) -> None:
        """Synchronous twin of `aclear`."""
        self._wait_for(self._clear)

    async def aget_messages(self) -> list[BaseMessage]:
        """Return the messages since the conversation was last cleared, oldest first."""
        return await self._run(self._read)

    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Append the messages, in order.

        Up to 100 are appended all or none; more go in several calls. Raises ValueError for a message that has no
        role or no JSON form, before anything is appended.
        """
        await self._run(lambda: self._add(messages))

    async def aclear(self) -> None:
        """Start the conversation anew: readers of history and the model see nothing that was said before.

        Messages are never deleted by it: a mark is appended, and what stands before it stays in the session's list.
        """
        await self._run(self._clear)

    async def _read(self) -> list[BaseMessage]:
        pages: list[list[BaseMessage]] = []
        page_token = ""
        while True:
            # From the end, so that what stands before the last mark is never read.
            answer = await self._store.list_messages(self.session_id, page_token=page_token, from_end=True)
            kept = after_cleared_mark(answer.messages)
            pages.append([to_langchain(message) for message in kept])
            page_token = answer.next_page_token
            if not page_token or len(kept) < len(answer.messages):
                break
        messages = [message for page in reversed(pages) for message in page]
        return messages if self._max_tokens is None else trim(messages, self._max_tokens)

    async def _add(self, messages: Sequence[BaseMessage]) -> None:
        new = [from_langchain(message) for message in messages]
        for start in range(0, len(new), MAX_APPEND):
            await self._store.append(self.session_id, new[start : start + MAX_APPEND])

    async def _clear(self) -> None:
        await self._store.append(self.session_id, [cleared_mark()])

    async def _run(self, operation: Callable[[], Awaitable[T]]) -> T:
        home = self._store.loop
        caller = identity.current_caller_or_none()
        if home in (None, asyncio.get_running_loop()) and (caller is not None or self._caller is None):
            return await operation()
        return await asyncio.wrap_future(self._submit(operation, home or asyncio.get_running_loop()))

    def _wait_for(self, operation: Callable[[], Awaitable[T]]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._submit(operation, self._store.loop or _background_loop()).result()
        raise RuntimeError(
            "This would block the event loop that is running here. Use aget_messages, aadd_messages or aclear, "
            "or call it from another thread (asyncio.to_thread)."
        )

    def _submit(self, operation: Callable[[], Awaitable[T]], loop: asyncio.AbstractEventLoop) -> Future[T]:
        caller = identity.current_caller_or_none() or self._caller

        async def act() -> T:
            # The task has a copy of the calling thread's context, so this is seen by nobody else.
            identity.set_current_caller(caller)
            return await operation()

        return asyncio.run_coroutine_threadsafe(act(), loop)


@cache
def _background_loop() -> asyncio.AbstractEventLoop:
    # For programs without any event loop: one thread that runs one for as long as the process lives.
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="concerto-history", daemon=True).start()
    return loop
