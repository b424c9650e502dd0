"""The language models: a provider's or the offline one, behind one stream of pieces."""

import asyncio
import contextlib
import time
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import httpx2
import langsmith
import openai
from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables.config import ensure_config
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from servicekit.errors import AppError
from services.orchestrator.agents.tool_calls import CallParts
from services.orchestrator.limits import MAX_CONTENT_BYTES
from services.orchestrator.models import offline
from services.orchestrator.models.messages import to_provider
from services.orchestrator.models.model_calls import ModelCalls
from services.orchestrator.models.provider_errors import from_provider
from services.orchestrator.models.provider_stream import Part, parts_of
from services.orchestrator.settings import Settings
from services.orchestrator.steps import Piece, TokenUsage, ToolCall

PROVIDER_URL = "https://api.openai.com/v1"
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 60.0
"""How long a connection to the provider is kept for the next turn."""

# Only failures that pass quickly and before anything was said are worth a silent second try.
_RETRIED = ("MODEL_UNREACHABLE", "MODEL_CONNECTION_LOST", "MODEL_UNAVAILABLE")
_TRIES = 2
_TOGETHER_SECONDS = 0.001
_PAUSE_SECONDS = 0.3


class Models:
    """Makes answers. One HTTP client and one model object serve all turns of the process."""

    def __init__(self, settings: Settings) -> None:
        # LangSmith would otherwise follow variables that were set for another program.
        langsmith.configure(enabled=settings.tracing)
        # Such a warning quotes what a provider sent; a malformed chunk has its own reason.
        warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
        self.calls = ModelCalls(settings)
        """Watches what is asked here, and what others ask the provider themselves."""
        self._default = offline.NAME if settings.offline else settings.model
        self._offline = settings.offline
        self._stall_seconds = settings.stall_seconds
        self._request_fields: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        if settings.max_output_tokens is not None:
            self._request_fields["max_completion_tokens"] = settings.max_output_tokens
        self._client: openai.DefaultAsyncHttpxClient | None = None
        self.chat: BaseChatModel = offline.OfflineModel() if settings.offline else self._chat_openai(settings)
        """What LangGraph or LangChain may be handed: the same model, on the same connections."""

    @property
    def is_offline(self) -> bool:
        """True when no provider is configured; the offline model can use no tools."""
        return self._offline

    @property
    def provider(self) -> openai.AsyncOpenAI | None:
        """The provider's client, on the connections that all models share; None when no provider is configured."""
        return self.chat.root_async_client if isinstance(self.chat, ChatOpenAI) else None

    def name_for(self, wanted: str) -> str:
        """Return the model that answers when a turn asks for `wanted`; empty asks for the configured one."""
        return self._default if self._offline or not wanted else wanted

    async def answer(
        self, messages: Sequence[BaseMessage], *, model: str, options: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Piece | ToolCall, None]:
        """Yield the answer's pieces as the model says them, ready to be stored (no NUL, no half characters).

        The tools that the model asks come last, whole, and only when `options` offers it some.
        model: as `name_for` gives it.
        options: further fields of the request as OpenAI names them (tools, max_completion_tokens, temperature …).
        Raises AppError with a reason of the table's Models section; what was yielded before stays said. An answer
        that ends without the model saying why, counts as cut off.
        """
        call = self.calls.watch(model)
        with call or contextlib.nullcontext():
            for attempt in range(1, _TRIES + 1):
                has_output = False
                attempting = self._attempt(messages, model=model, options=options or {})
                try:
                    async with contextlib.aclosing(attempting) as pieces:
                        async for piece in pieces:
                            has_output = has_output or isinstance(piece, ToolCall) or bool(piece.text)
                            if call is not None:
                                call.take(piece)
                            yield piece
                    return
                except AppError as error:
                    if has_output or attempt == _TRIES or error.reason not in _RETRIED:
                        raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def close(self) -> None:
        """Close the connections to the provider."""
        if self._client is not None:
            await self._client.aclose()

    async def _attempt(
        self, messages: Sequence[BaseMessage], *, model: str, options: Mapping[str, Any]
    ) -> AsyncGenerator[Piece | ToolCall, None]:
        sanitizer, size, finish_reason, calls, last_at = TextSanitizer(), 0, "", CallParts(), 0.0
        usage: TokenUsage | None = None
        try:
            async with contextlib.aclosing(self._parts(messages, model=model, options=options)) as parts:
                async for part in parts:
                    if part.tool_calls:
                        size += calls.add(part.tool_calls)
                    for text in part.texts:
                        # One read may bring hundreds of pieces; those who store and read them get their turns.
                        last_at, before_at = time.monotonic(), last_at
                        if last_at - before_at < _TOGETHER_SECONDS:
                            await asyncio.sleep(0)
                        clean = sanitizer.feed(text)
                        size += len(clean) if clean.isascii() else len(clean.encode())
                        if size <= MAX_CONTENT_BYTES and clean:
                            yield Piece(text=clean)
                    if size > MAX_CONTENT_BYTES:
                        yield Piece(finish_reason="length")
                        return
                    finish_reason = part.finish_reason or finish_reason
                    # Some servers count in each chunk what there was so far; the last count is the call's.
                    usage = part.usage or usage
        except (AppError, GeneratorExit):
            raise
        except Exception as error:
            known = from_provider(error, model=model)
            if known is None:
                raise
            raise known from error
        if (tail := sanitizer.finish()) or usage is not None:
            yield Piece(text=tail, usage=usage)
        if not finish_reason:
            raise AppError("MODEL_CONNECTION_LOST", cause="the stream ended without a finish_reason")
        if finish_reason == "content_filter":
            raise AppError("CONTENT_FILTERED", cause="finish_reason content_filter")
        yield Piece(finish_reason=finish_reason)
        if finish_reason != "length":
            for call in calls.whole():
                yield call

    def _parts(
        self, messages: Sequence[BaseMessage], *, model: str, options: Mapping[str, Any]
    ) -> AsyncGenerator[Part, None]:
        if (client := self.provider) is not None and not self._is_watched():
            written = [to_provider(message, model=model) for message in messages]
            if None not in written:
                return self._provider_parts(client, {"model": model, "messages": written, **options})
        return self._watched_parts(messages, model=model, options=options)

    def _is_watched(self) -> bool:
        """Say whether somebody follows what LangChain does: its tracing, or a callback of the surrounding graph."""
        callbacks = ensure_config().get("callbacks")
        return bool(AsyncCallbackManager.configure(callbacks, self.chat.callbacks, self.chat.verbose).handlers)

    async def _provider_parts(self, client: openai.AsyncOpenAI, body: Mapping[str, Any]) -> AsyncGenerator[Part, None]:
        """Yield what `_watched_parts` would, without making and merging LangChain's objects for each token."""
        response: Any = await client.post(
            "/chat/completions",
            body={**self._request_fields, **body},
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=openai.AsyncStream[object],
        )
        async with contextlib.aclosing(parts_of(response, stall_seconds=self._stall_seconds)) as parts:
            async for part in parts:
                yield part

    async def _watched_parts(
        self, messages: Sequence[BaseMessage], *, model: str, options: Mapping[str, Any]
    ) -> AsyncGenerator[Part, None]:
        stream = self.chat.astream(list(messages), model=model, **options)
        try:
            async for chunk in stream:
                if isinstance(chunk, AIMessageChunk):
                    yield Part(
                        texts=[text] if (text := str(chunk.text)) else (),
                        finish_reason=str(chunk.response_metadata.get("finish_reason") or ""),
                        usage=_usage_of(chunk.usage_metadata),
                        tool_calls=chunk.tool_call_chunks,
                    )
        finally:
            # Closing it is what tells the provider to stop.
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    def _chat_openai(self, settings: Settings) -> BaseChatModel:
        timeout = openai.Timeout(settings.stall_seconds, connect=min(CONNECT_SECONDS, settings.stall_seconds))
        self._client = openai.DefaultAsyncHttpxClient(timeout=timeout, limits=_limits())
        return ChatOpenAI(
            model=settings.model,
            # Local servers need no key, but the client insists on one.
            api_key=settings.openai_api_key or SecretStr("not-needed"),
            # Always named, so that no other variable leads the conversation elsewhere.
            base_url=settings.openai_base_url or PROVIDER_URL,
            http_async_client=self._client,
            timeout=timeout,
            stream_chunk_timeout=settings.stall_seconds,
            max_retries=0,
            max_completion_tokens=settings.max_output_tokens,
            stream_usage=True,
            # Compatible servers know chat completions; not all know OpenAI's newer Responses API.
            use_responses_api=False,
        )


def _limits() -> Any:
    known = openai.DEFAULT_CONNECTION_LIMITS
    # The next turn comes when a person has read this one; the client's own five seconds would have it connect anew.
    return type(known)(
        max_connections=known.max_connections,
        max_keepalive_connections=known.max_keepalive_connections,
        keepalive_expiry=IDLE_SECONDS,
    )


class TextSanitizer:
    """Makes text storable: characters that a provider cut in two are joined, what no text may hold is replaced."""

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the text, clean; half a character at its end waits for the next one."""
        if text.isascii() and not self._half:
            return text.replace("\0", "\ufffd")
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")

    def finish(self) -> str:
        """Return what is left of half a character."""
        half, self._half = self._half, ""
        return "\ufffd" if half else ""


def _usage_of(usage: UsageMetadata | None) -> TokenUsage | None:
    if usage is None:
        return None
    details = usage.get("input_token_details") or {}
    return TokenUsage(
        prompt_tokens=usage["input_tokens"],
        completion_tokens=usage["output_tokens"],
        cached_tokens=details.get("cache_read") or 0,
    )
