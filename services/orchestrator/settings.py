"""Settings of the orchestrator, read once from the environment."""

from typing import Self

from concerto.sessions.v1 import runs_pb2
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from servicekit.settings import ServiceSettings, host_field, port_field, target_field

DEFAULT_SYSTEM_PROMPT = (
    "You are Concerto, a helpful assistant. Answer in the language of the user, plainly and to the point. "
    "Say so when you do not know something."
)


class ModelPrices(BaseModel):
    """What a model costs, in millionths of a US dollar per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: int = Field(ge=0, le=10**12)
    """Per million tokens of prompt."""
    completion: int = Field(ge=0, le=10**12)
    """Per million tokens of answer."""
    cached: int | None = Field(None, ge=0, le=10**12)
    """Per million tokens of prompt that the provider had cached; absent means the same as `prompt`."""


class Settings(ServiceSettings):
    """Where to listen, where the sessions service is, which model answers and how much it is given."""

    host: str = host_field("orchestrator")
    """Address to listen on."""
    port: int = port_field("orchestrator")
    """Port to listen on; 0 picks a free one."""
    sessions_target: str = target_field("sessions")
    """The sessions service, `host:port` or `dns:///name:port`."""
    openai_api_key: SecretStr | None = Field(None, validation_alias="OPENAI_API_KEY")
    """Key of the model provider; without it and without OPENAI_BASE_URL the offline model answers."""
    openai_base_url: str | None = Field(None, validation_alias="OPENAI_BASE_URL")
    """Address of an OpenAI-compatible API, up to and with `/v1`; may be set without a key (local servers)."""
    model: str = Field("gpt-5.6-luna", min_length=1, max_length=200, validation_alias="CONCERTO_MODEL")
    """The model that answers when a turn names none."""
    context_tokens: int = Field(128_000, ge=512, validation_alias="CONCERTO_MODEL_CONTEXT_TOKENS")
    """The model's window: prompt and answer together, in tokens."""
    max_output_tokens: int | None = Field(None, ge=1, validation_alias="CONCERTO_MODEL_MAX_OUTPUT_TOKENS")
    """Most tokens of an answer; absent leaves it to the provider and keeps a part of the window free for it."""
    history_messages: int = Field(100, ge=0, le=10_000, validation_alias="CONCERTO_MODEL_HISTORY_MESSAGES")
    """Most earlier messages that a turn reads and gives to the model, even where more would fit the window."""
    stall_seconds: float = Field(120.0, gt=0, validation_alias="CONCERTO_MODEL_TIMEOUT_SECONDS")
    """How long the model may be silent, before its first token and between two."""
    system_prompt: str = Field(DEFAULT_SYSTEM_PROMPT, validation_alias="CONCERTO_SYSTEM_PROMPT")
    """What the model is told before every conversation."""
    models: str = Field("", max_length=4_000, validation_alias="CONCERTO_MODELS")
    """Further models that are offered beside the default one, separated by commas; `model_names` is the list."""
    title_model: str = Field("", max_length=200, validation_alias="CONCERTO_TITLE_MODEL")
    """The model that writes sessions' titles; empty means the one that answered, `off` leaves it to the first line."""
    agent: str = Field("assistant", min_length=1, max_length=100, validation_alias="CONCERTO_AGENT")
    """The agent that answers when a run names none."""
    run_max_steps: int = Field(25, ge=1, le=90, validation_alias="CONCERTO_RUN_MAX_STEPS")
    """Most steps of a run that uses tools: calls of a model and of tools, those of its sub-agents included."""
    run_max_tokens: int = Field(200_000, ge=1, validation_alias="CONCERTO_RUN_MAX_TOKENS")
    """Most tokens of a run that uses tools, prompts and answers together; looked at before each call of a model."""
    max_runs: int = Field(500, ge=1, validation_alias="CONCERTO_MAX_RUNS")
    """Most runs of this process at once, queued ones included."""
    max_user_runs: int = Field(10, ge=0, validation_alias="CONCERTO_MAX_RUNS_PER_USER")
    """Most runs of one user at once, in all processes; 0 means no limit."""
    model_prices: dict[str, ModelPrices] = Field(default_factory=dict, validation_alias="CONCERTO_MODEL_PRICES")
    """What models cost, as JSON by the model's name; a model that is not named costs nothing."""
    tracing: bool = Field(default=False, validation_alias="LANGSMITH_TRACING")
    """True sends prompts and answers to LangSmith (its own variables say where); off unless asked for."""

    @field_validator("openai_base_url", mode="after")
    @classmethod
    def _check_base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _need_authorities(self) -> Self:
        self.refuse_plain_calls(self.sessions_target)
        return self

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models that are offered: the default one, then CONCERTO_MODELS, each once."""
        further = (name.strip() for name in self.models.split(","))
        return tuple(dict.fromkeys([self.model, *(name for name in further if name)]))

    @property
    def prices(self) -> dict[str, runs_pb2.Prices]:
        """The models' prices as runs carry them."""
        return {
            model: runs_pb2.Prices(
                prompt=price.prompt,
                completion=price.completion,
                cached=price.prompt if price.cached is None else price.cached,
            )
            for model, price in self.model_prices.items()
        }

    @property
    def offline(self) -> bool:
        """True when no provider is configured."""
        return self.openai_api_key is None and self.openai_base_url is None

    @property
    def answer_tokens(self) -> int:
        """Part of the window that is kept free for the answer."""
        if self.max_output_tokens is not None:
            return min(self.max_output_tokens, self.context_tokens // 2)
        return min(8_192, self.context_tokens // 4)
