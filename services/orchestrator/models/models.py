"""The language models: a provider's or the offline one, behind one stream of pieces."""

import asyncio
import contextlib
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import langsmith
import openai
import structlog
from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.runnables.config import ensure_config
from pydantic import SecretStr

from servicekit.errors import AppError
from servicekit.outgoing import clients
from services.orchestrator.agents.tool_calls import CallParts, pieces_of
from services.orchestrator.limits import MAX_CONTENT_BYTES
from services.orchestrator.models import endings, offline, provider_check
from services.orchestrator.models.messages import to_provider
from services.orchestrator.models.model_calls import ModelCalls
from services.orchestrator.models.provider_chat import ProviderChat, part_of
from services.orchestrator.models.provider_errors import from_provider
from services.orchestrator.models.provider_requests import ProviderRequests, joined
from services.orchestrator.models.server_chunks import Part
from services.orchestrator.models.short_failures import ShortFailures
from services.orchestrator.settings import PROVIDER_URL, Settings
from services.orchestrator.steps import Piece, Thought, TokenUsage, ToolCall

_LOG = structlog.stdlib.get_logger(__name__)

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 60.0
"""How long a connection to the provider is kept for the next turn."""

# Only failures that pass quickly and before anything was said are worth a silent second try.
_RETRIED = ("MODEL_UNREACHABLE", "MODEL_CONNECTION_LOST", "MODEL_UNAVAILABLE")
_TRIES = 2
_PIECES_IN_A_TURN = 8
_PAUSE_SECONDS = 0.3
LIMIT = "max_completion_tokens"
"""What the bound on an answer's tokens is called here; a provider may know it by another name."""


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
        self._names = (offline.NAME,) if settings.offline else settings.model_names
        self._unnamed = settings if settings.takes_first_model else None
        self._naming: asyncio.Task[None] | None = None
        self._stall_seconds = settings.stall_seconds
        self._request_fields: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        self._limit_parameter = settings.limit_parameter
        if settings.max_output_tokens is not None:
            self._request_fields[settings.limit_parameter] = settings.max_output_tokens
        self._client: openai.DefaultAsyncHttpxClient | None = None
        self.chat: BaseChatModel = offline.OfflineModel() if settings.offline else self._chat_openai(settings)
        """What LangGraph or LangChain may be handed: the same model, on the same connections."""

    @property
    def is_offline(self) -> bool:
        """True when no provider is configured; the offline model can use no tools."""
        return self._offline

    @property
    def requests(self) -> ProviderRequests | None:
        """Asks the provider, on the connections that all models share; None when no provider is configured."""
        return self.chat.requests if isinstance(self.chat, ProviderChat) else None

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are offered, the one that answers when none is named first; see `learn_names`."""
        return self._names

    async def learn_names(self) -> None:
        """Ask the provider which model answers when none is named, where the settings leave that to its list.

        To be awaited before `names` and `name_for`; at once where it is known. Raises AppError with a reason of the
        table's Models section while the provider does not say.
        """
        if self._unnamed is None:
            return
        if self._naming is None:  # many may ask at once, while the provider is away
            self._naming = asyncio.create_task(self._take_first(self._unnamed), name="learn the model's name")
        await asyncio.shield(self._naming)

    async def _take_first(self, settings: Settings) -> None:
        try:
            if self._client is None:
                return
            first = await provider_check.first_model(settings, self._client)
        except provider_check.ListError as error:
            _LOG.warning("model.unknown", problem=str(error))
            raise AppError(error.reason, cause=error.detail) from None
        finally:
            self._naming = None
        self._default, self._names = first, tuple(dict.fromkeys([first, *settings.further_names]))
        self.calls.know(first)
        self._unnamed = None

    def name_for(self, wanted: str) -> str:
        """Return the model that answers when somebody asks for `wanted`; empty asks for the configured one.

        Raises AppError MODEL_NOT_FOUND for one that is not offered.
        """
        if wanted and wanted not in self._names:
            raise AppError("MODEL_NOT_FOUND", metadata={"model": wanted[:200]})
        return wanted or self._default

    async def answer(
        self, messages: Sequence[BaseMessage], *, model: str, options: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Piece | Thought | ToolCall, None]:
        """Yield the answer's pieces as the model says them, ready to be stored (no NUL, no half characters).

        What it thinks comes apart from what it says, and counts like it against MAX_CONTENT_BYTES.
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
                            has_output = has_output or not isinstance(piece, Piece) or bool(piece.text)
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
        if self._naming is not None:
            self._naming.cancel()
            await asyncio.wait({self._naming})
        if self._client is not None:
            await self._client.aclose()

    async def _attempt(
        self, messages: Sequence[BaseMessage], *, model: str, options: Mapping[str, Any]
    ) -> AsyncGenerator[Piece | Thought | ToolCall, None]:
        sanitizer, thinking, size, finish_reason, calls = TextSanitizer(), TextSanitizer(), 0, "", CallParts()
        usage: TokenUsage | None = None
        has_text = False
        try:
            async with contextlib.aclosing(self._parts(messages, model=model, options=options)) as parts:
                async for part in parts:
                    if part.turned:
                        has_text = False
                        yield Thought("", takes_back=True) if part.turned == "thought" else Piece(takes_back=True)
                    if part.tool_calls:
                        size += sum(len(piece["args"] or "") for piece in calls.add(pieces_of(part.tool_calls)))
                    for index, text in enumerate(part.thoughts, 1):
                        if index % _PIECES_IN_A_TURN == 0:
                            await asyncio.sleep(0)
                        thought = thinking.feed(text)
                        size += len(thought) if thought.isascii() else len(thought.encode())
                        if size <= MAX_CONTENT_BYTES and thought:
                            yield Thought(thought)
                    for index, text in enumerate(part.texts, 1):
                        # One read may bring hundreds of pieces; those who store and read them get their turns.
                        if index % _PIECES_IN_A_TURN == 0:
                            await asyncio.sleep(0)
                        clean = sanitizer.feed(text)
                        size += len(clean) if clean.isascii() else len(clean.encode())
                        if size <= MAX_CONTENT_BYTES and clean:
                            has_text = has_text or not clean.isspace()
                            yield Piece(text=clean)
                    finish_reason = endings.LENGTH if size > MAX_CONTENT_BYTES else part.finish_reason or finish_reason
                    # Some servers count in each chunk what there was so far; the last count is the call's.
                    usage = part.usage or usage
                    if size > MAX_CONTENT_BYTES:
                        break
        except (AppError, GeneratorExit):
            raise
        except Exception as error:
            known = from_provider(error, model=model)
            if known is None:
                raise
            if usage is not None:
                yield Piece(usage=usage)
            raise known from error
        if half := thinking.finish():
            yield Thought(half)
        if (tail := sanitizer.finish()) or usage is not None:
            yield Piece(text=tail, usage=usage)
        failure = endings.failure_of(finish_reason, has_text=has_text or bool(tail), has_calls=bool(calls))
        if failure is not None:
            if named := endings.noted(finish_reason):
                yield Piece(finish_reason=named)
            raise failure
        if calls and not options.get("tools"):
            raise AppError("MODEL_ANSWER_MALFORMED", cause="a call of a tool that nobody has offered")
        asked = calls.whole()
        yield Piece(finish_reason=finish_reason)
        for call in asked:
            yield call

    def _parts(
        self, messages: Sequence[BaseMessage], *, model: str, options: Mapping[str, Any]
    ) -> AsyncGenerator[Part, None]:
        requests = self.requests
        options = dict(options)
        bound: dict[str, Any] = {}
        if requests is not None and self._limit_parameter != LIMIT and LIMIT in options:
            bound[self._limit_parameter] = options.pop(LIMIT)
        if requests is not None and not self._is_watched():
            written = [one for message in messages if (one := to_provider(message, model=model)) is not None]
            if len(written) == len(messages):
                body = {**self._request_fields, "model": model, "messages": joined(written), **options, **bound}
                # What `_watched_parts` yields, without making and merging LangChain's objects for each token.
                return requests.answer(body, stall_seconds=self._stall_seconds)
        return self._watched_parts(
            messages, model=model, options={**options, "extra_body": bound} if bound else options
        )

    def _is_watched(self) -> bool:
        """Say whether somebody follows what LangChain does: its tracing, or a callback of the surrounding graph."""
        callbacks = ensure_config().get("callbacks")
        return bool(AsyncCallbackManager.configure(callbacks, self.chat.callbacks, self.chat.verbose).handlers)

    async def _watched_parts(
        self, messages: Sequence[BaseMessage], *, model: str, options: Mapping[str, Any]
    ) -> AsyncGenerator[Part, None]:
        stream = self.chat.astream(list(messages), model=model, **options)
        try:
            async for chunk in stream:
                if isinstance(chunk, AIMessageChunk):
                    yield part_of(chunk)
        finally:
            # Closing it is what tells the provider to stop.
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()

    def _chat_openai(self, settings: Settings) -> BaseChatModel:
        timeout = openai.Timeout(settings.stall_seconds, connect=min(CONNECT_SECONDS, settings.stall_seconds))
        self._client = openai.DefaultAsyncHttpxClient(
            **clients.routing("httpx2", wrap=ShortFailures, timeout=timeout, limits=_limits())
        )
        bound, is_renamed = settings.max_output_tokens, settings.limit_parameter != LIMIT
        return ProviderChat(
            stall_seconds=settings.stall_seconds,
            model=settings.model,
            # Local servers need no key, but the client insists on one.
            api_key=settings.openai_api_key or SecretStr("not-needed"),
            # Always named, so that no other variable leads the conversation elsewhere.
            base_url=settings.openai_base_url or PROVIDER_URL,
            http_async_client=self._client,
            # Never asked, but made in any case, and then by the environment.
            http_client=openai.DefaultHttpxClient(**clients.blocking_routing("httpx2")),
            openai_proxy=None,
            timeout=timeout,
            max_retries=0,
            max_completion_tokens=None if is_renamed else bound,
            # LangChain would write the newer name for the older one.
            extra_body={settings.limit_parameter: bound} if is_renamed and bound is not None else None,
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
