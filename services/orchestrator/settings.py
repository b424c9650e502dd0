"""Settings of the orchestrator, read once from the environment."""

import json
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit
from uuid import UUID

from concerto.sessions.v1 import runs_pb2
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
)

from servicekit.settings import ServiceKeySettings, ServiceSettings, host_field, port_field, target_field

PROVIDER_URL = "https://api.openai.com/v1"
"""The provider that is asked where OPENAI_BASE_URL names none."""
_SYSTEM_PROMPT = "CONCERTO_SYSTEM_PROMPT"
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


class _EmptyPrompt(PydanticBaseSettingsSource):
    """Tells that the system prompt is set to nothing, where it is."""

    def __init__(self, settings_cls: type[BaseSettings], variables: EnvSettingsSource) -> None:
        super().__init__(settings_cls)
        self._is_empty = variables.env_vars.get(_SYSTEM_PROMPT.lower()) == ""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 (its shape)
        """Return nothing: all is told at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return the field where it is empty."""
        return {_SYSTEM_PROMPT: ""} if self._is_empty else {}


class Settings(ServiceSettings, ServiceKeySettings):
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
    """The model that answers when a turn names none; see `takes_first_model`."""
    context_tokens: int = Field(128_000, ge=512, validation_alias="CONCERTO_MODEL_CONTEXT_TOKENS")
    """The model's window: prompt and answer together, in tokens."""
    max_output_tokens: int | None = Field(None, ge=1, validation_alias="CONCERTO_MODEL_MAX_OUTPUT_TOKENS")
    """Most tokens of an answer; absent leaves turns to the provider and keeps a part of the window free for them."""
    limit_parameter: Literal["max_completion_tokens", "max_tokens"] = Field(
        "max_completion_tokens", validation_alias="CONCERTO_MODEL_LIMIT_PARAMETER"
    )
    """What the provider calls the bound on an answer's tokens: OpenAI the first, others often the second alone."""
    history_messages: int = Field(100, ge=0, le=10_000, validation_alias="CONCERTO_MODEL_HISTORY_MESSAGES")
    """Most earlier messages that a turn reads and gives to the model, even where more would fit the window."""
    stall_seconds: float = Field(120.0, gt=0, validation_alias="CONCERTO_MODEL_TIMEOUT_SECONDS")
    """How long the model may be silent, before its first token and between two."""
    system_prompt: str = Field(DEFAULT_SYSTEM_PROMPT, validation_alias=_SYSTEM_PROMPT)
    """What the model is told before every conversation; empty means nothing."""
    models: str = Field("", max_length=4_000, validation_alias="CONCERTO_MODELS")
    """Further models that are offered beside the default one, separated by commas; `model_names` is the list."""
    models_given_reasoning: str = Field("", max_length=4_000, validation_alias="CONCERTO_MODELS_GIVEN_REASONING")
    """Models that are given back what they thought before, by commas; `given_reasoning` is the set."""
    title_model: str = Field("", max_length=200, validation_alias="CONCERTO_TITLE_MODEL")
    """The model that writes sessions' titles; empty means the one that answered, `off` leaves it to the first line."""
    openai_parameters: str = Field("", max_length=4_000, validation_alias="CONCERTO_OPENAI_PARAMETERS")
    """Parameters that chat completions may name beside the usual ones, by commas; `openai_parameter_names`."""
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
    model_prices: Annotated[dict[str, ModelPrices], NoDecode] = Field(
        default_factory=dict, validation_alias="CONCERTO_MODEL_PRICES"
    )
    """What models cost, as JSON by the model's name; a model that is not named costs nothing."""
    process_id: UUID | None = Field(None, validation_alias="CONCERTO_PROCESS_ID")
    """How whoever started this process will call it when it tells the database of its end; set by `concerto up`."""
    tracing: bool = Field(default=False, validation_alias="LANGSMITH_TRACING")
    """True sends prompts and answers to LangSmith (its own variables say where); off unless asked for."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let an empty CONCERTO_SYSTEM_PROMPT mean none, where empty variables are otherwise as if they were absent."""
        env_file = dotenv_settings.env_file if isinstance(dotenv_settings, DotEnvSettingsSource) else None
        empty = EnvSettingsSource(settings_cls, env_ignore_empty=False)
        empty_in_file = DotEnvSettingsSource(settings_cls, env_file=env_file, env_ignore_empty=False)
        return (
            init_settings,
            env_settings,
            _EmptyPrompt(settings_cls, empty),
            dotenv_settings,
            _EmptyPrompt(settings_cls, empty_in_file),
            file_secret_settings,
        )

    @field_validator("model_prices", mode="before")
    @classmethod
    def _read_prices(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError('write JSON, such as {"a-model": {"prompt": 250000, "completion": 2000000}}') from None

    @field_validator("openai_api_key", mode="after")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not all("!" <= char <= "~" for char in value.get_secret_value()):
            raise ValueError(
                "holds white space or a character that no HTTP header may hold; copy the key anew, on one line and "
                "without quotation marks"
            )
        return value

    @field_validator("openai_base_url", mode="after")
    @classmethod
    def _check_base_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            is_whole = bool(urlsplit(value).hostname) and urlsplit(value).port != 0
        except ValueError:
            is_whole = False
        if not is_whole or not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https:// and name a host")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _need_authorities(self) -> Self:
        self.refuse_plain_calls(self.sessions_target)
        return self

    @property
    def takes_first_model(self) -> bool:
        """Whether the first model of the provider's list answers: a server is named, not OpenAI's, and no model."""
        host = (urlsplit(self.openai_base_url).hostname or "") if self.openai_base_url is not None else ""
        is_openai = host == "api.openai.com" or host.endswith(".api.openai.com")
        return self.openai_base_url is not None and not is_openai and "model" not in self.model_fields_set

    @property
    def model_names(self) -> tuple[str, ...]:
        """The models that are offered: the default one, then CONCERTO_MODELS, each once."""
        return tuple(dict.fromkeys([self.model, *self.further_names]))

    @property
    def further_names(self) -> tuple[str, ...]:
        """The models of CONCERTO_MODELS."""
        return tuple(filter(None, (name.strip() for name in self.models.split(","))))

    @property
    def given_reasoning(self) -> frozenset[str]:
        """The models of CONCERTO_MODELS_GIVEN_REASONING."""
        return frozenset(filter(None, (name.strip() for name in self.models_given_reasoning.split(","))))

    @property
    def openai_parameter_names(self) -> frozenset[str]:
        """What CONCERTO_OPENAI_PARAMETERS lets through: parameters, and the provider's own tools as `tool:<type>`."""
        return frozenset(filter(None, (name.strip() for name in self.openai_parameters.split(","))))

    @property
    def completion_tokens(self) -> int:
        """Most tokens of a chat completion's answer: as set, or a quarter of the window and 8192 at most."""
        return self.max_output_tokens or min(8_192, self.context_tokens // 4)

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
