"""What an answer is made of while it comes, and who makes it: the line between a run and its agent."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from concerto.sessions.v1 import sessions_pb2
from langchain_core.messages import BaseMessage


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one answer, as the provider counts them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Those of the prompt that the provider had cached."""
    is_estimated: bool = False
    """True when the provider did not count at least a part of them."""

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        """Return the sum, for an answer that takes more than one call of a model."""
        return TokenUsage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            is_estimated=self.is_estimated or other.is_estimated,
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer's text. The last ones bring no text but what is known at the end."""

    text: str = ""
    finish_reason: str = ""
    """Why the model stopped; `length` when it ran into its limit."""
    usage: TokenUsage | None = None
    """What one call of a model has used, once per call; a run sums them up."""
    takes_back: bool = False
    """True: `text` replaces what the model was said to think since the last ToolResult."""


@dataclass(frozen=True, slots=True)
class Thought:
    """A part of what the model thinks before it says something or asks a tool; never part of an answer's text."""

    text: str
    """Ready to be stored (no NUL, no half characters); empty only where it takes back."""
    takes_back: bool = False
    """True: what was said since the last ToolResult was thinking, too, and is none of the answer's text."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks a tool or another agent. Text since the last step belongs to the same message."""

    call_id: str
    """Identifies the call within the run; not empty."""
    name: str
    """The tool, or the agent that is asked."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What it is asked, as JSON values."""
    problem: str = ""
    """Why the call cannot be carried out, where what the model sent makes no call; there are no arguments then."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool or another agent has answered an earlier ToolCall of the run."""

    call_id: str
    name: str
    output: str
    """What it answered; whole, whatever its length."""
    is_error: bool = False
    """True when it failed; `output` then says how, to the model."""


Step = Piece | Thought | ToolCall | ToolResult


class Answerer(Protocol):
    """Makes answers: agents with their models and tools."""

    def agent_for(self, wanted: str) -> str:
        """Return the agent that answers when a turn asks for `wanted`; empty asks for the configured one.

        Raises AppError AGENT_NOT_FOUND.
        """
        ...

    def answer(self, agent: str, prompt: Sequence[BaseMessage], *, model: str) -> AsyncGenerator[Step, None]:
        """Yield the steps of the agent's answer to a prompt (its last message is the user's), text as it is said.

        Runs in the caller's context: who asks is identity.current_caller(). A ToolResult follows its ToolCall; calls
        of one message come before the first of their results. Closing the generator stops the model.
        Raises AppError with a reason of docs/errors.md; what was yielded before stays said.
        """
        ...


class Namer(Protocol):
    """Gives sessions a name, beside the run and never in its way."""

    async def name_session(self, session_id: str, user_message: sessions_pb2.Message, *, model: str) -> None:
        """Give the session a title when it has no name yet; a name of the user's own stays.

        user_message: what the run answers. Called after the run's first words or about a second, while the caller's
        token is fresh; cancelled when the process ends. Raises nothing.
        """
        ...
