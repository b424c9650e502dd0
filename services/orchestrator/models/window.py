"""What of a conversation a model is given: the newest messages that fit its window, read backward from the end."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import orjson
from concerto.sessions.v1 import sessions_pb2
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage, trim_messages

from servicekit.errors import AppError
from services.orchestrator.models.messages import REASONING, is_cleared_mark, to_langchain
from services.orchestrator.sessions_client import MAX_PAGE, SessionsClient

MAX_AT_START = 20
"""Most earlier messages that a run's start brings along; more would make starts in long sessions noticeably slower."""

FILE_TOKENS = 1_000
"""What a picture, a sound or another file in a message counts as: about what a provider counts for a large picture."""
FILE_KINDS = frozenset({"image_url", "input_audio", "file"})
"""Parts of messages that are files, as OpenAI names them."""

_TOKENS_PER_MESSAGE = 4
_ASCII_PER_TOKEN = 3.6


def count_text(text: str) -> int:
    """Return about how many tokens a text has, rather too many than too few (docs/decisions/0004)."""
    plain = len(text) if text.isascii() else len(text.encode("ascii", "ignore"))
    return int(plain / _ASCII_PER_TOKEN) + len(text) - plain + 1


def count_message(message: BaseMessage) -> int:
    """Return about how many tokens a message has, calls, blocks and thoughts included; FILE_TOKENS for a file."""
    content, files = message.content, 0
    if not isinstance(content, str):
        blocks = [block for block in content if not (isinstance(block, dict) and block.get("type") in FILE_KINDS)]
        content, files = orjson.dumps(blocks, default=str).decode(), len(content) - len(blocks)
    count = _TOKENS_PER_MESSAGE + count_text(content) + files * FILE_TOKENS
    if isinstance(message, AIMessage) and message.tool_calls:
        count += count_text(orjson.dumps(message.tool_calls, default=str).decode())
    if reasoning := message.additional_kwargs.get(REASONING):
        count += count_text(str(reasoning))
    return count


def count_messages(messages: Sequence[BaseMessage]) -> int:
    """Return about how many tokens the messages have together."""
    return sum(count_message(message) for message in messages)


@dataclass(frozen=True, slots=True)
class Window:
    """How much a model is given."""

    prompt_tokens: int
    """Most tokens of the whole prompt."""
    refuse_tokens: int
    """A single message with more tokens than this is refused before any model is asked."""
    history_messages: int
    """Most earlier messages that are read."""
    system_prompt: str
    """Stands before every conversation and is never trimmed; empty for none."""
    given_reasoning: frozenset[str] = frozenset()
    """The models that are given back what they thought in earlier answers."""

    @property
    def messages_at_start(self) -> int:
        """How many earlier messages a run's start is to bring along."""
        return min(self.history_messages, MAX_AT_START)

    async def prompt(
        self,
        store: SessionsClient,
        session_id: str,
        user_message: sessions_pb2.Message,
        *,
        model: str = "",
        newest: Sequence[sessions_pb2.Message] = (),
        has_earlier: bool = True,
    ) -> list[BaseMessage]:
        """Return the system prompt, the newest earlier messages that fit, and the user's message.

        model: the one that is asked.
        newest: the messages right before the user's, where they are known already; none asks for all that is needed.
        has_earlier: whether there are messages before those.
        Only as many pages are read as the window needs, whatever the length of the session.
        Raises AppError PROMPT_TOO_LONG, and what the sessions service raises.
        """
        question = to_langchain(user_message)
        fixed = [SystemMessage(self.system_prompt)] if self.system_prompt else []
        if count_message(question) > self.refuse_tokens:
            raise AppError("PROMPT_TOO_LONG", cause="larger than the window before any model was asked")
        free_tokens = self.prompt_tokens - count_messages([*fixed, question])
        pages = self._pages(store, session_id, user_message.order, newest=newest, has_earlier=has_earlier)
        earlier = await self._earlier(pages, free_tokens=free_tokens, with_reasoning=model in self.given_reasoning)
        return [*fixed, *trim(earlier, free_tokens), question]

    async def _earlier(
        self,
        pages: AsyncGenerator[Sequence[sessions_pb2.Message], None],
        *,
        free_tokens: int,
        with_reasoning: bool,
    ) -> list[BaseMessage]:
        found: list[list[BaseMessage]] = []
        async with contextlib.aclosing(pages):
            while free_tokens > 0:
                messages = await anext(pages, None)
                if messages is None:
                    break
                stored = after_cleared_mark(messages)
                page = [to_langchain(message, with_reasoning=with_reasoning) for message in stored]
                found.append(page)
                free_tokens -= count_messages(page)
                if len(stored) < len(messages):
                    break
        return [message for page in reversed(found) for message in page]

    async def _pages(
        self,
        store: SessionsClient,
        session_id: str,
        before_order: int,
        *,
        newest: Sequence[sessions_pb2.Message],
        has_earlier: bool,
    ) -> AsyncGenerator[Sequence[sessions_pb2.Message], None]:
        """Yield the pages before that place, the newest first; each is read when it is asked for."""
        left = self.history_messages
        if newest and left > 0:
            page = newest[-left:]
            left -= len(page)
            before_order = page[0].order
            yield page
            if not has_earlier:
                return
        page_token = ""
        while left > 0 and before_order > 1:
            answer = await store.list_messages(
                session_id,
                page_size=min(left, MAX_PAGE),
                page_token=page_token,
                from_end=True,
                before_order=before_order,
            )
            left -= len(after_cleared_mark(answer.messages))
            page_token = answer.next_page_token
            yield answer.messages
            if not page_token:
                return


def after_cleared_mark(messages: Sequence[sessions_pb2.Message]) -> Sequence[sessions_pb2.Message]:
    """Return the messages after the last one that starts the conversation anew; all when there is none."""
    for index in range(len(messages) - 1, -1, -1):
        if is_cleared_mark(messages[index]):
            return messages[index + 1 :]
    return messages


def trim(messages: Sequence[BaseMessage], max_tokens: int) -> list[BaseMessage]:
    """Return the newest messages within `max_tokens`, beginning with a user's, with no tool result without its call."""
    if not messages or max_tokens <= 0:
        return []
    # trim_messages counts many overlapping lists; each message is counted once.
    counts = {id(message): count_message(message) for message in messages}
    kept: list[BaseMessage] = trim_messages(
        _without_loose_ends(messages),
        max_tokens=max_tokens,
        token_counter=lambda messages: sum(counts.get(id(message)) or count_message(message) for message in messages),
        strategy="last",
        start_on=("human", "system"),
    )
    return kept


def _without_loose_ends(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    # Providers refuse tool results without their call, calls without their results, and messages without any content.
    answered = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    called: set[str] = set()
    kept: list[BaseMessage] = []
    for message in messages:
        if isinstance(message, ToolMessage):
            if message.tool_call_id not in called:
                continue
        elif isinstance(message, AIMessage) and message.tool_calls:
            ids = {call["id"] or "" for call in message.tool_calls}
            if not ids <= answered:
                continue
            called |= ids
        elif not message.content:
            continue
        kept.append(message)
    return kept
