"""ProcessSettings that every process has, read once from the environment."""

import os
import re
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from servicekit import parts, settings_file
from servicekit.outgoing.settings import forget_other_programs

ENV_FILE = os.environ.get("CONCERTO_ENV_FILE", ".env")  # noqa: TID251 (the one name needed before any settings)

STATEMENT_CACHE_SIZE = 100
TRANSACTION_POOLER_PORT = 6543

_PLACEHOLDERS = ("changeme", "change-me", "replace-me", "your-", "<")


class ProcessSettings(BaseSettings):
    """Base of all settings: names are spelt out per field, `.env` stands behind the environment, nothing is written.

    Secrets are SecretStr and refused while they still hold a placeholder.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_file_encoding="utf-8-sig", env_ignore_empty=True, extra="ignore", frozen=True,
        populate_by_name=True,
        # Fields may be given by their names, and would be read from variables of these names too, which belong to other
        # programs: LOG_LEVEL, HOST, MODEL. With the prefix no program has them.
        env_prefix="CONCERTO_FIELD_",
    )  # fmt: skip

    environment: Literal["development", "production"] = Field("development", validation_alias="CONCERTO_ENVIRONMENT")
    """`production` refuses what only development may do (reflection, a shared JWT secret without an issuer)."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", validation_alias="CONCERTO_LOG_LEVEL")
    """Least severe entries that are logged."""
    log_format: Literal["console", "json"] = Field("console", validation_alias="CONCERTO_LOG_FORMAT")
    """`json` writes one object per line."""
    otlp_endpoint: str | None = Field(None, validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT")
    """Address of an OpenTelemetry collector (gRPC) that takes the traces; absent keeps tracing off."""
    metrics_port: int | None = Field(None, ge=1, le=65535, validation_alias="CONCERTO_METRICS_PORT")
    """Port on which the process serves its metrics at /metrics; absent keeps them off."""
    metrics_host: str = Field("127.0.0.1", min_length=1, validation_alias="CONCERTO_METRICS_HOST")
    """Address to listen on for metrics."""

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_placeholder(cls, value: object) -> object:
        if isinstance(value, SecretStr) and value.get_secret_value().lower().startswith(_PLACEHOLDERS):
            raise ValueError("still holds a placeholder; set the real value")
        return value

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Return the settings, or end the process with one sentence per wrong variable.

        From then on the process does without what its libraries would read of other programs' variables.
        """
        forget_other_programs()
        try:
            settings_file.read(Path(ENV_FILE))
        except settings_file.SettingsFileError as error:
            raise SystemExit(str(error)) from None
        try:
            return cls(**values)
        except ValidationError as error:
            problems = "\n".join(
                f"  {'.'.join(map(str, item['loc']))}: {item['msg'].removeprefix('Value error, ')}"
                for item in error.errors(include_input=False)
            )
            raise SystemExit(f"Wrong settings; see .env.example for their meaning:\n{problems}") from None


class TokenSettings(ProcessSettings):
    """How access tokens are verified."""

    supabase_url: str = Field("http://127.0.0.1:8001", validation_alias="SUPABASE_URL")
    """The Supabase project's address."""
    supabase_public_url: str = Field("", validation_alias="SUPABASE_PUBLIC_URL")
    """Where browsers find the Supabase project; absent means SUPABASE_URL. `browser_supabase_url` is the one to use."""
    supabase_jwt_secret: SecretStr | None = Field(None, validation_alias="SUPABASE_JWT_SECRET")
    """Verifies HS256 tokens (legacy projects, earlier embedded ones); absent accepts only the project's key set."""
    supabase_jwt_issuer: str | None = Field(None, validation_alias="SUPABASE_JWT_ISSUER")
    """The `iss` of tokens; `*` is any. Absent: /auth/v1 of SUPABASE_URL or SUPABASE_PUBLIC_URL, unchecked for HS256."""
    sign_in_check_seconds: float = Field(20.0, gt=0, le=20.0, validation_alias="CONCERTO_SIGN_IN_CHECK_SECONDS")
    """How long a process believes that a sign-in stands before it asks again; access ends within three times that."""

    @field_validator("supabase_url", "supabase_public_url", mode="after")
    @classmethod
    def _strip_slash(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        return value.rstrip("/")

    @property
    def browser_supabase_url(self) -> str:
        """Where browsers find the Supabase project, without a slash at the end."""
        return self.supabase_public_url or self.supabase_url


class TlsSettings(ProcessSettings):
    """Certificates between services, from files: what a server listens with, and what others are checked by."""

    tls_cert_file: Path | None = Field(None, validation_alias="CONCERTO_TLS_CERT_FILE")
    """This process's certificate and its chain, PEM. With it, a service listens with TLS only."""
    tls_key_file: Path | None = Field(None, validation_alias="CONCERTO_TLS_KEY_FILE")
    """The certificate's private key, PEM, without a passphrase."""
    tls_ca_file: Path | None = Field(None, validation_alias="CONCERTO_TLS_CA_FILE")
    """Authorities whose certificates are trusted, PEM. With it, calls to other services use TLS."""
    tls_client_auth: bool = Field(default=False, validation_alias="CONCERTO_TLS_CLIENT_AUTH")
    """True: servers take only clients that show a certificate by one of these authorities (mutual TLS)."""

    @model_validator(mode="after")
    def _need_whole_tls(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            missing = "CONCERTO_TLS_CERT_FILE" if self.tls_cert_file is None else "CONCERTO_TLS_KEY_FILE"
            raise ValueError(f"set {missing} too: a certificate and its key go together")
        if self.tls_client_auth and self.tls_cert_file is None:
            raise ValueError(
                "CONCERTO_TLS_CLIENT_AUTH needs this process's own certificate: set CONCERTO_TLS_CERT_FILE and "
                "CONCERTO_TLS_KEY_FILE"
            )
        if self.tls_client_auth and self.tls_ca_file is None:
            raise ValueError(
                "CONCERTO_TLS_CLIENT_AUTH needs CONCERTO_TLS_CA_FILE: the authorities whose clients are let in"
            )
        return self

    def refuse_plain_calls(self, *targets: str) -> None:
        """Raise ValueError where a process with a certificate would call one of the targets without TLS."""
        is_remote = any(not target.startswith("inprocess:") for target in targets)
        if is_remote and self.tls_cert_file is not None and self.tls_ca_file is None:
            raise ValueError(
                "set CONCERTO_TLS_CA_FILE too: without the authorities of the other services' certificates, calls to "
                "them, which carry users' tokens, would not be encrypted"
            )


class ServiceSettings(TokenSettings, TlsSettings):
    """ProcessSettings of a gRPC service. Subclasses set `host` and `port` to `host_field` and `port_field`."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(0, ge=0, le=65535)
    """Port to listen on; 0 picks a free one."""
    drain_seconds: float = Field(10.0, ge=0, validation_alias="CONCERTO_DRAIN_SECONDS")
    """How long running calls may take after SIGTERM."""
    drain_delay_seconds: float = Field(0.0, ge=0, validation_alias="CONCERTO_DRAIN_DELAY_SECONDS")
    """How long after SIGTERM calls are taken as before while readiness says no, so that balancers forget it."""
    connection_age_seconds: float = Field(60.0, ge=0.1, le=86_400, validation_alias="CONCERTO_CONNECTION_AGE_SECONDS")
    """How long a client keeps a connection, about; then it looks the name up again and so finds new replicas.

    Calls and streams that are open go on."""


class ServiceKeySettings(ProcessSettings):
    """The key by which services know each other where a user's token is not enough (policy `services_only`)."""

    service_key: SecretStr | None = Field(None, validation_alias="CONCERTO_SERVICE_KEY")
    """At least 32 characters, the same for all services; without it such calls are refused. Required in production."""

    @field_validator("service_key", mode="after")
    @classmethod
    def _check_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]{32,200}", value.get_secret_value()):
            raise ValueError("needs 32 to 200 characters without spaces, for instance from openssl rand -hex 32")
        return value

    @model_validator(mode="after")
    def _need_key(self) -> Self:
        if self.environment == "production" and self.service_key is None:
            raise ValueError("set CONCERTO_SERVICE_KEY, the same for the orchestrator and the sessions service")
        return self


class DatabaseSettings(ProcessSettings):
    """How a service reaches the database: directly when `db_url` is set, otherwise over REST.

    Subclasses set `db_pool_size` to `pool_field`.
    """

    supabase_url: str = Field("http://127.0.0.1:8001", validation_alias="SUPABASE_URL")
    """The Supabase project's address."""
    supabase_publishable_key: SecretStr | None = Field(None, validation_alias="SUPABASE_PUBLISHABLE_KEY")
    """The project's publishable key (or legacy anon key)."""
    db_url: SecretStr | None = Field(None, validation_alias="SUPABASE_DB_URL")
    """postgresql:// address with the role concerto_login; absent uses REST."""
    db_pool_size: int = Field(10, ge=1, validation_alias="CONCERTO_DB_POOL_SIZE")
    """Most connections of one process."""
    db_statement_cache_size: int | None = Field(None, ge=0, validation_alias="CONCERTO_DB_STATEMENT_CACHE_SIZE")
    """Prepared statements kept per connection; absent: 100, and 0 on the port of a pooler in transaction mode."""

    @model_validator(mode="after")
    def _need_an_address(self) -> Self:
        if self.db_url is None and self.supabase_publishable_key is None:
            raise ValueError("set SUPABASE_DB_URL (direct) or SUPABASE_PUBLISHABLE_KEY (REST)")
        return self

    @property
    def statement_cache_size(self) -> int:
        """Prepared statements kept per connection, as set or as the address asks for."""
        if self.db_statement_cache_size is not None:
            return self.db_statement_cache_size
        return 0 if is_transaction_pooled(self.db_url) else STATEMENT_CACHE_SIZE


def host_field(part: str) -> Any:
    """Return the field for the address that a part listens on, `<NAME>_HOST`."""
    return Field("127.0.0.1", validation_alias=f"{parts.named(part).variable}_HOST")


def port_field(part: str) -> Any:
    """Return the field for the port that a part listens on, `<NAME>_PORT`; 0 picks a free one."""
    found = parts.named(part)
    return Field(found.port, ge=0, le=65535, validation_alias=f"{found.variable}_PORT")


def target_field(part: str) -> Any:
    """Return the field for where another part is, `<NAME>_TARGET`: `host:port`, or a gRPC name such as `dns:///…`."""
    found = parts.named(part)
    return Field(f"127.0.0.1:{found.port}", validation_alias=found.target_variable)


def pool_field(part: str) -> Any:
    """Return the field for the most connections of a part's pool, by default as many as the registry declares."""
    return Field(parts.named(part).pool_size, ge=1, validation_alias="CONCERTO_DB_POOL_SIZE")


def is_transaction_pooled(db_url: SecretStr | None) -> bool:
    """Whether an address leads to one of Supabase's poolers in transaction mode, which the port tells."""
    if db_url is None:
        return False
    try:
        return urlsplit(db_url.get_secret_value()).port == TRANSACTION_POOLER_PORT
    except ValueError:  # no address at all; connecting will say so
        return False
