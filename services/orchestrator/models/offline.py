"""The model that answers when no provider is configured, so that everything runs without an account."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from typing_extensions import override

from services.orchestrator.models.window import count_messages, count_text

NAME = "offline"
_QUOTED_CHARS = 80


class OfflineModel(BaseChatModel):
    """Answers by rule: says that it is offline and how to change that, and shows what it was given.

    The same messages always get the same answer. Tokens are counted approximately.
    """

    pause_seconds: float = 0.01
    """Pause between two words, so that streaming can be seen."""

    @property
    def _llm_type(self) -> str:
        return NAME

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        text = answer_to(messages)
        message = AIMessage(
            text, usage_metadata=_usage(messages, text), response_metadata={"finish_reason": "stop", "model_name": NAME}
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from _chunks(messages)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(messages):
            await asyncio.sleep(self.pause_seconds)
            yield chunk


def answer_to(messages: list[BaseMessage]) -> str:
    """Return the offline answer to a conversation that ends with the user's message."""
    questions = [message.text for message in messages if isinstance(message, HumanMessage)]
    earlier = [message for message in messages if not isinstance(message, SystemMessage)][:-1]
    lines = [
        "I am Concerto's offline model: no language model is configured, so this answer is written by rule.",
        "To talk to a real one, set OPENAI_API_KEY (or OPENAI_BASE_URL for a server of your own) and start again.",
        f"You said: “{_quote(questions[-1] if questions else '')}”.",
    ]
    if earlier:
        count = f"{len(earlier)} earlier message{'s' if len(earlier) > 1 else ''}"
        first = f", beginning with your “{_quote(questions[0])}”" if len(questions) > 1 else ""
        lines.append(f"I was given {count} of this conversation{first}.")
    else:
        lines.append("This is the first message of this conversation.")
    return "\n\n".join(lines)


def _chunks(messages: list[BaseMessage]) -> Iterator[ChatGenerationChunk]:
    text = answer_to(messages)
    for word in re.findall(r"\s*\S+\s*$|\s*\S+", text):
        yield ChatGenerationChunk(message=AIMessageChunk(content=word))
    yield ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            usage_metadata=_usage(messages, text),
            response_metadata={"finish_reason": "stop", "model_name": NAME},
            chunk_position="last",
        )
    )


def _usage(messages: list[BaseMessage], text: str) -> UsageMetadata:
    prompt_tokens, answer_tokens = count_messages(messages), count_text(text)
    return UsageMetadata(
        input_tokens=prompt_tokens, output_tokens=answer_tokens, total_tokens=prompt_tokens + answer_tokens
    )


def _quote(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= _QUOTED_CHARS else folded[: _QUOTED_CHARS - 1].rstrip() + "…"
