"""The provider's model for LangChain: what ChatOpenAI is, with the one reader and the one way of asking."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr

from services.orchestrator.models.messages import REASONING
from services.orchestrator.models.provider_requests import ProviderRequests, joined
from services.orchestrator.models.server_chunks import TURNED, Part
from services.orchestrator.steps import TokenUsage


class ProviderChat(ChatOpenAI):
    """A model behind OpenAI's chat completions, whichever server it is; always streamed."""

    _requests: ProviderRequests = PrivateAttr()
    _stall_seconds: float = PrivateAttr()

    def __init__(self, *, stall_seconds: float, **fields: Any) -> None:
        """Make it. stall_seconds: see provider_stream.parts_of. fields: ChatOpenAI's."""
        super().__init__(streaming=True, **fields)
        self._requests = ProviderRequests(self.root_async_client)
        self._stall_seconds = stall_seconds

    @property
    def requests(self) -> ProviderRequests:
        """Asks the provider, on the connections that all models share."""
        return self._requests

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        body = self._get_request_payload(messages, stop=stop, **kwargs)
        body = {
            "stream_options": {"include_usage": True},
            **body,
            **(body.pop("extra_body", None) or {}),
            "stream": True,
        }
        for message, written in zip(messages, body["messages"], strict=True):
            # LangChain's own conversion knows no such field.
            if REASONING in message.additional_kwargs:
                written[REASONING] = message.additional_kwargs[REASONING]
        body["messages"] = joined(body["messages"])
        async with contextlib.aclosing(self._requests.answer(body, stall_seconds=self._stall_seconds)) as parts:
            async for part in parts:
                for message in _chunks_of(part):
                    chunk = ChatGenerationChunk(message=message)
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk


def part_of(chunk: AIMessageChunk) -> Part:
    """Return the part that a chunk of LangChain's brings."""
    text = str(chunk.text)
    thought = chunk.additional_kwargs.get(REASONING)
    return Part(
        texts=[text] if text else [],
        thoughts=[thought] if isinstance(thought, str) and thought else [],
        finish_reason=str(chunk.response_metadata.get("finish_reason") or ""),
        usage=_usage_of(chunk.usage_metadata),
        tool_calls=list(chunk.tool_call_chunks),
        turned=chunk.additional_kwargs.get(TURNED, ""),
    )


def _chunks_of(part: Part) -> list[AIMessageChunk]:
    chunks = [AIMessageChunk(content="", additional_kwargs={TURNED: part.turned})] if part.turned else []
    chunks += [AIMessageChunk(content="", additional_kwargs={REASONING: thought}) for thought in part.thoughts]
    chunks += [AIMessageChunk(content=text) for text in part.texts]
    metadata: Mapping[str, Any] = {"finish_reason": part.finish_reason} if part.finish_reason else {}
    if part.tool_calls or metadata or part.usage is not None:
        chunks.append(
            AIMessageChunk(
                content="",
                tool_call_chunks=part.tool_calls,
                response_metadata=dict(metadata),
                usage_metadata=None if part.usage is None else _metadata_of(part.usage),
            )
        )
    return chunks


def _metadata_of(usage: TokenUsage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        input_token_details={"cache_read": usage.cached_tokens},
    )


def _usage_of(usage: UsageMetadata | None) -> TokenUsage | None:
    if usage is None:
        return None
    details = usage.get("input_token_details") or {}
    return TokenUsage(
        prompt_tokens=usage["input_tokens"],
        completion_tokens=usage["output_tokens"],
        cached_tokens=details.get("cache_read") or 0,
    )
