"""What metrics and traces see of calls of models: how long, how many tokens, what they cost; never a word of them."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from concerto.sessions.v1 import runs_pb2

from servicekit.telemetry import measures, observing, watches
from services.orchestrator.models import offline
from services.orchestrator.settings import Settings
from services.orchestrator.steps import Piece, Step, Thought, TokenUsage

OTHER = "other"
"""Stands for models and reasons that are not ours to name: a client or a provider may put anything there."""

# `model` is one that is configured, or `other`.
FIRST_TOKEN_SECONDS = measures.Histogram(
    "concerto_model_first_token_seconds",
    "Time from asking a model to the first text of its answer.",
    ("model",),
    buckets=(0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 8, 13, 20, 30, 60, 120),
)
TOKENS = measures.Counter(
    "concerto_model_tokens",
    "Tokens as the provider counts them; `cached` ones are among those of the `prompt`.",
    ("model", "kind"),
)
DOLLARS = measures.Counter(
    "concerto_model_cost_dollars",
    "What these tokens cost by CONCERTO_MODEL_PRICES, in US dollars.",
    ("model",),
)

_FINISH_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_DOLLAR = 10**12
"""What prices are in, millionths of a dollar per million tokens, to the dollar."""


class ModelCalls:
    """Watches calls of models, by the names and prices that are configured."""

    def __init__(self, settings: Settings) -> None:
        known = (offline.NAME, *settings.model_names, settings.title_model, *settings.model_prices)
        self._names = frozenset(name for name in known if name)
        self._prices: Mapping[str, runs_pb2.Prices] = settings.prices
        self._provider = offline.NAME if settings.offline else "openai"

    def know(self, model: str) -> None:
        """Let a model have its own name, that was not known from the settings."""
        self._names |= {model}

    def watch(self, model: str) -> "ModelCall | None":
        """Return the watch of a call that begins now; None while telemetry is off."""
        if not observing.is_on():
            return None
        return ModelCall(self.name_of(model), provider=self._provider, prices=self._prices.get(model))

    def name_of(self, model: str) -> str:
        """Return the model's name where it is configured, else `other`."""
        return model if model in self._names else OTHER


class ModelCall:
    """One call of a model, second tries included. Its block is the time of the call; every exception passes."""

    def __init__(self, model: str, *, provider: str, prices: runs_pb2.Prices | None) -> None:
        self._model = model
        self._prices = prices
        self._started_at = time.perf_counter()
        self._first_token_seconds: float | None = None
        self._usage: TokenUsage | None = None
        self._finish_reason = ""
        # The semantic conventions for generative AI of OpenTelemetry.
        attributes: dict[str, str | bool] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": model,
            "gen_ai.request.stream": True,
        }
        self._watch = observing.asking(f"chat {model}", attributes)

    def __enter__(self) -> Self:
        return self

    def take(self, step: Step) -> None:
        """Note what a step of the answer tells: that the model speaks, what it has used, why it ends."""
        if isinstance(step, Thought):
            return
        if not isinstance(step, Piece):
            self._finish_reason = self._finish_reason or "tool_calls"
            return
        if step.text and self._first_token_seconds is None:
            self._first_token_seconds = time.perf_counter() - self._started_at
        self._usage = step.usage or self._usage
        self._finish_reason = step.finish_reason or self._finish_reason

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._count()
        noted: dict[str, watches.Value] = {}
        if self._first_token_seconds is not None:
            noted["gen_ai.response.time_to_first_chunk"] = self._first_token_seconds
        if self._finish_reason:
            known = self._finish_reason if self._finish_reason in _FINISH_REASONS else OTHER
            noted["gen_ai.response.finish_reasons"] = [known]
        if self._usage is not None:
            noted["gen_ai.usage.input_tokens"] = self._usage.prompt_tokens
            noted["gen_ai.usage.output_tokens"] = self._usage.completion_tokens
            noted["gen_ai.usage.cache_read.input_tokens"] = self._usage.cached_tokens
        self._watch.note(noted)
        self._watch.__exit__(kind, error, traceback)

    def _count(self) -> None:
        if self._first_token_seconds is not None:
            FIRST_TOKEN_SECONDS.observe(self._first_token_seconds, self._model)
        usage = self._usage
        if usage is None:
            return
        counts = {"prompt": usage.prompt_tokens, "completion": usage.completion_tokens, "cached": usage.cached_tokens}
        for token_kind, count in counts.items():
            TOKENS.add(count, self._model, token_kind)
        if self._prices is not None:
            DOLLARS.add(cost_dollars(usage, self._prices), self._model)


def cost_dollars(usage: TokenUsage, prices: runs_pb2.Prices) -> float:
    """Return what tokens cost, in US dollars; cached ones have a price of their own."""
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    parts = (usage.prompt_tokens - cached) * prices.prompt + cached * prices.cached
    return (parts + usage.completion_tokens * prices.completion) / _DOLLAR
