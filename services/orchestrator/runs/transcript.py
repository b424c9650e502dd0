"""What was said in a run so far: the messages to keep, and the tokens that were used."""

import time
from collections.abc import Sequence
from typing import Any

from concerto.sessions.v1 import runs_pb2, sessions_pb2
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from servicekit.errors import AppError
from services.orchestrator.limits import MAX_CONTENT_BYTES
from services.orchestrator.models.messages import from_langchain, to_struct
from services.orchestrator.models.window import count_messages, count_text
from services.orchestrator.steps import Piece, Step, Thought, TokenUsage, ToolCall, ToolResult

MAX_MESSAGES = 100
"""Most messages that one run stores; of more, the newest are kept."""

# After these the provider has read the prompt, and is likely to charge for it.
_CHARGED = ("CANCELLED", "MODEL_TIMEOUT", "MODEL_CONNECTION_LOST", "CONTENT_FILTERED", "RUN_INTERRUPTED")


class Transcript:
    """Gathers the steps of one answer.

    The answer is what was said after the last tool's result; what was said before stands in messages of its own, in
    front of it: the assistant's with its tool calls, then one per result. What was thought
    stands beside what it led to.
    """

    def __init__(self, *, run_id: str, model: str, agent: str) -> None:
        self.prompt: Sequence[BaseMessage] = ()
        self.has_started = False
        self._run_id = run_id
        self._model = model
        self._agent = agent
        self._before: list[sessions_pb2.NewMessage] = []
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._thinking_since: float | None = None
        self._thought_seconds = 0.0
        self._calls: list[ToolCall] = []
        self._finish_reason = ""
        self._usage: TokenUsage | None = None
        self._uncounted: list[str] = []

    def ask(self, prompt: Sequence[BaseMessage]) -> None:
        """Note that the model is asked now, and what."""
        self.prompt = prompt
        self.has_started = True

    def add(self, step: Step) -> None:
        """Take in the next step."""
        match step:
            case Piece():
                if step.takes_back:
                    self._thoughts.clear()
                    self._uncounted.clear()
                    self._thinking_since, self._thought_seconds = None, 0.0
                if step.text:
                    if self._thinking_since is not None:
                        self._end_thought()
                    if self._calls:
                        self._keep_calls()
                    self._text.append(step.text)
                    self._uncounted.append(step.text)
                if step.usage is not None:
                    self._usage = step.usage if self._usage is None else self._usage + step.usage
                    self._uncounted.clear()
                self._finish_reason = step.finish_reason or self._finish_reason
            case Thought(takes_back=True):
                self._thoughts += self._text
                self._text.clear()
            case Thought():
                if self._calls:
                    self._keep_calls()
                if self._thinking_since is None:
                    self._thinking_since = time.monotonic()
                self._thoughts.append(step.text)
                self._uncounted.append(step.text)
            case ToolCall():
                self._end_thought()
                self._calls.append(step)
            case ToolResult():
                if self._calls:
                    self._keep_calls()
                self._before.append(
                    from_langchain(
                        ToolMessage(
                            cut(step.output, MAX_CONTENT_BYTES),
                            tool_call_id=step.call_id,
                            name=step.name,
                            status="error" if step.is_error else "success",
                            additional_kwargs=self._notes({"name": step.name}),
                        )
                    )
                )

    def messages(self, error: AppError | None) -> list[sessions_pb2.NewMessage]:
        """Return the messages to store, the answer last; none when nothing was said or thought and no tool asked.

        error: why the run does not succeed; the answer is then marked as partial.
        """
        if self._calls:
            self._keep_calls()
        if error is not None and not self._text and not self._thoughts and not self._before:
            return []
        return [*self._before, self.answer(error)][-MAX_MESSAGES:]

    def answer(self, error: AppError | None) -> sessions_pb2.NewMessage:
        """Return the answer alone, with what was thought since the last tool's result."""
        usage, is_estimated = self._counts(error)
        metadata: dict[str, Any] = {
            "model": self._model,
            "agent": self._agent,
            "run_id": self._run_id,
            "usage": {
                "prompt_tokens": usage.prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "cached_tokens": usage.cached_tokens,
            },
        }
        if is_estimated:
            metadata["usage"]["estimated"] = True
        if self._finish_reason:
            metadata["finish_reason"] = self._finish_reason
        if error is not None:
            metadata |= {"partial": True, "error_reason": error.reason}
        self._end_thought()
        return self._with_thoughts(
            sessions_pb2.NewMessage(
                role=sessions_pb2.ROLE_ASSISTANT,
                content=cut("".join(self._text), MAX_CONTENT_BYTES),
                metadata=to_struct(metadata),
            )
        )

    def usage(self, error: AppError | None) -> runs_pb2.Usage | None:
        """Return what the run has used; None when no model was asked. Counts are estimated where none were given."""
        if not self.has_started:
            return None
        usage, is_estimated = self._counts(error)
        return runs_pb2.Usage(
            model=self._model,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            is_estimated=is_estimated,
        )

    def _counts(self, error: AppError | None) -> tuple[TokenUsage, bool]:
        # Providers count only at the end, which a broken stream does not reach.
        text = "".join(self._uncounted)
        estimated = TokenUsage(completion_tokens=count_text(text) if text else 0)
        if self._usage is not None:
            return self._usage + estimated, self._usage.is_estimated or bool(text)
        if error is not None and not text and error.reason not in _CHARGED:
            return TokenUsage(), False
        return estimated + TokenUsage(prompt_tokens=count_messages(self.prompt)), True

    def _keep_calls(self) -> None:
        calls, self._calls = self._calls, []
        text, self._text = "".join(self._text), []
        message = AIMessage(
            text,
            tool_calls=[
                {"type": "tool_call", "id": call.call_id, "name": call.name, "args": dict(call.arguments)}
                for call in calls
            ],
            additional_kwargs=self._notes({"model": self._model, "agent": self._agent}),
        )
        self._before.append(self._with_thoughts(from_langchain(message)))
        self._thoughts, self._thought_seconds = [], 0.0

    def _end_thought(self) -> None:
        if self._thinking_since is not None:
            self._thought_seconds += time.monotonic() - self._thinking_since
            self._thinking_since = None

    def _with_thoughts(self, message: sessions_pb2.NewMessage) -> sessions_pb2.NewMessage:
        if self._thoughts:
            message.reasoning = cut("".join(self._thoughts), MAX_CONTENT_BYTES - len(message.content.encode()))
            message.reasoning_milliseconds = round(self._thought_seconds * 1000)
        return message

    def _notes(self, notes: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"run_id": self._run_id, **notes}}


def cut(text: str, max_bytes: int) -> str:
    """Return the text, or as much of its beginning as fits."""
    if len(text) * 4 <= max_bytes:
        return text
    encoded = text.encode()
    return text if len(encoded) <= max_bytes else encoded[:max_bytes].decode(errors="ignore")
