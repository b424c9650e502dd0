"""What `concerto` is configured with: the environment and the `.env` file, read once."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from servicekit import parts, settings_file
from servicekit.origins import public_origin
from servicekit.outgoing.settings import forget_other_programs

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the working copy."""

DEFAULT_PORT = parts.GATEWAY.port
PORT_NAMES = ("gateway", "supabase", "postgres", *(part.name for part in parts.SERVICES))
"""The listeners of the suite; the position is what is added to `CONCERTO_PORT`."""
MOST_REPLICAS = 4
"""Most processes of each of our parts on one machine; each further one has the next block of ports."""


Admits = Literal["open", "domains", "invitations", "closed"]
"""Who may sign up: everybody, addresses of certain domains and the invited, the invited, nobody."""
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")


class SettingsError(Exception):
    """The configuration is wrong. The message says which variable and what to do."""


class Settings(BaseModel):
    """The settings of the embedded stack and of the `concerto` command.

    `variables` holds the whole merged environment (real variables win over the file), from which each process
    is given only the names that it needs.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="ignore")

    port: int = Field(DEFAULT_PORT, validation_alias="CONCERTO_PORT", ge=1024, le=65535 - len(PORT_NAMES))
    home: Path = Field(ROOT / ".concerto", validation_alias="CONCERTO_HOME")
    environment: Literal["development", "production"] = Field("development", validation_alias="CONCERTO_ENVIRONMENT")
    confirm_email: bool = Field(default=False, validation_alias="CONCERTO_CONFIRM_EMAIL")
    access_token_seconds: int = Field(3600, validation_alias="CONCERTO_ACCESS_TOKEN_SECONDS", ge=5, le=604_800)
    bcrypt_cost: int = Field(10, validation_alias="CONCERTO_BCRYPT_COST", ge=4, le=15)
    messages_per_minute: int | None = Field(None, validation_alias="CONCERTO_MESSAGES_PER_MINUTE", ge=1, le=2**31 - 1)
    files_per_user: int | None = Field(None, validation_alias="CONCERTO_FILES_PER_USER", ge=0, le=2**31 - 1)
    file_bytes_per_user: int | None = Field(None, validation_alias="CONCERTO_FILE_BYTES_PER_USER", ge=0, le=2**63 - 1)
    sign_up: Admits | None = Field(None, validation_alias="CONCERTO_SIGN_UP")
    sign_up_domains: tuple[str, ...] = Field((), validation_alias="CONCERTO_SIGN_UP_DOMAINS")
    github_client_id: str = Field("", validation_alias="CONCERTO_GITHUB_CLIENT_ID")
    github_client_secret: SecretStr = Field(SecretStr(""), validation_alias="CONCERTO_GITHUB_CLIENT_SECRET")
    google_client_id: str = Field("", validation_alias="CONCERTO_GOOGLE_CLIENT_ID")
    google_client_secret: SecretStr = Field(SecretStr(""), validation_alias="CONCERTO_GOOGLE_CLIENT_SECRET")
    embedded_host: str = Field("127.0.0.1", validation_alias="CONCERTO_EMBEDDED_HOST")
    embedded_public_url: str = Field("", validation_alias="CONCERTO_EMBEDDED_URL")
    embedded_publishable_key: SecretStr | None = Field(None, validation_alias="CONCERTO_EMBEDDED_PUBLISHABLE_KEY")
    embedded_jwt_secret: SecretStr | None = Field(None, validation_alias="CONCERTO_EMBEDDED_JWT_SECRET")
    embedded_login_password: SecretStr | None = Field(None, validation_alias="CONCERTO_EMBEDDED_LOGIN_PASSWORD")
    embedded_forwarding_key: SecretStr | None = Field(None, validation_alias="CONCERTO_EMBEDDED_FORWARDING_KEY")
    embedded_signing: Literal["ES256", "HS256"] = Field("ES256", validation_alias="CONCERTO_EMBEDDED_SIGNING")
    embedded_sign_in_limit: int = Field(30, validation_alias="CONCERTO_EMBEDDED_SIGN_IN_LIMIT", ge=1)
    embedded_code_limit: int = Field(30, validation_alias="CONCERTO_EMBEDDED_CODE_LIMIT", ge=1)
    embedded_refresh_limit: int = Field(150, validation_alias="CONCERTO_EMBEDDED_REFRESH_LIMIT", ge=1)
    embedded_mail_seconds: int = Field(60, validation_alias="CONCERTO_EMBEDDED_MAIL_SECONDS", ge=0, le=86_400)
    supabase_url: str = Field("", validation_alias="SUPABASE_URL")
    project_id: str = Field("", validation_alias="SUPABASE_PROJECT_ID")
    access_token: SecretStr = Field(SecretStr(""), validation_alias="SUPABASE_ACCESS_TOKEN")
    db_password: SecretStr = Field(SecretStr(""), validation_alias="SUPABASE_DB_PASSWORD")
    migration_db_url: SecretStr = Field(SecretStr(""), validation_alias="SUPABASE_MIGRATION_DB_URL")
    gateway_host: str = Field("127.0.0.1", validation_alias="GATEWAY_HOST")
    gateway_public_url: str = Field("", validation_alias="GATEWAY_PUBLIC_URL")
    metrics_port: int | None = Field(None, validation_alias="CONCERTO_METRICS_PORT", ge=1, le=65500)
    drain_seconds: float = Field(10.0, validation_alias="CONCERTO_DRAIN_SECONDS", ge=0)
    drain_delay_seconds: float = Field(0.0, validation_alias="CONCERTO_DRAIN_DELAY_SECONDS", ge=0)
    tls_cert_file: Path | None = Field(None, validation_alias="CONCERTO_TLS_CERT_FILE")
    tls_key_file: Path | None = Field(None, validation_alias="CONCERTO_TLS_KEY_FILE")
    tls_ca_file: Path | None = Field(None, validation_alias="CONCERTO_TLS_CA_FILE")
    tls_client_auth: bool = Field(default=False, validation_alias="CONCERTO_TLS_CLIENT_AUTH")
    env_file: Path | None = None
    variables: dict[str, str] = Field(default_factory=dict, repr=False)

    @field_validator("home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        return (ROOT / home.expanduser()).resolve()

    @field_validator("tls_cert_file", "tls_key_file", "tls_ca_file")
    @classmethod
    def _absolute_link(cls, file: Path | None) -> Path | None:
        return None if file is None else ROOT / file.expanduser()  # a link stays one, as it may lead elsewhere later

    @field_validator(
        "embedded_publishable_key", "embedded_jwt_secret", "embedded_login_password", "embedded_forwarding_key"
    )
    @classmethod
    def _long_and_plain(cls, value: SecretStr | None) -> SecretStr | None:
        # They stand in headers and addresses, so nothing in them may need quoting.
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_-]{32,200}", value.get_secret_value()):
            raise ValueError("needs 32 to 200 letters, digits, - or _; leave it out to have one made")
        return value

    @field_validator("gateway_public_url")
    @classmethod
    def _at_a_root(cls, value: str) -> str:
        return public_origin(value) if value else ""

    @field_validator("sign_up_domains", mode="before")
    @classmethod
    def _spell_domains(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        # Here, as few need it and it brings the tables of Unicode along.
        from servicekit import spelling

        domains = [spelling.domain(part.removeprefix("@")) for part in value.replace(",", " ").split()]
        if not all(map(_DOMAIN.fullmatch, domains)):
            raise ValueError("write domains as example.com, separated by commas")
        return tuple(domains)

    @model_validator(mode="after")
    def _need_domains(self) -> Self:
        if (self.sign_up == "domains") != bool(self.sign_up_domains):
            raise ValueError("CONCERTO_SIGN_UP=domains and CONCERTO_SIGN_UP_DOMAINS belong together")
        return self

    def port_of(self, name: str) -> int:
        """The TCP port of a process, by the name it has in `PORT_NAMES`; of our one process, the gateway's.

        `sessions-2` is the second replica of sessions.
        """
        part, _, number = name.partition("-")
        first = self.port + len(PORT_NAMES) * (int(number or 1) - 1)
        return first if part == "concerto" else first + PORT_NAMES.index(part)

    @property
    def stop_seconds(self) -> float:
        """How long a process of ours may take to end after SIGTERM: its calls, then what runs have to store."""
        return self.drain_delay_seconds + self.drain_seconds + 20.0

    @property
    def embedded_url(self) -> str:
        """Where browsers and the suite find the embedded Supabase."""
        return self.embedded_public_url.rstrip("/") or f"http://127.0.0.1:{self.port_of('supabase')}"

    @property
    def chosen_credentials(self) -> dict[str, str]:
        """The keys of the embedded Supabase that are given from outside, by their names in Credentials."""
        chosen = {
            "publishable_key": self.embedded_publishable_key,
            "jwt_secret": self.embedded_jwt_secret,
            "login_password": self.embedded_login_password,
            "forwarding_key": self.embedded_forwarding_key,
        }
        return {name: value.get_secret_value() for name, value in chosen.items() if value is not None}

    @property
    def gateway_url(self) -> str:
        """Where people and the web app find the suite."""
        return self.gateway_public_url or f"http://127.0.0.1:{self.port}"

    @property
    def tls_variables(self) -> dict[str, str]:
        """The settings of TLS between our processes, by their documented names; empty without any."""
        files = {
            "CONCERTO_TLS_CERT_FILE": self.tls_cert_file,
            "CONCERTO_TLS_KEY_FILE": self.tls_key_file,
            "CONCERTO_TLS_CA_FILE": self.tls_ca_file,
        }
        chosen = {name: str(file) for name, file in files.items() if file is not None}
        return {**chosen, "CONCERTO_TLS_CLIENT_AUTH": "true"} if self.tls_client_auth else chosen

    @property
    def is_hosted(self) -> bool:
        """True when a Supabase project of one's own is configured, so that nothing of it is started here."""
        return bool(self.supabase_url) and self.supabase_url.rstrip("/") != self.embedded_url

    def with_port(self, port: int | None) -> "Settings":
        """The same settings on another base port."""
        if port is None:
            return self
        return load_settings(environment={**self.variables, "CONCERTO_PORT": str(port)}, env_file=None)


def read_environment() -> dict[str, str]:
    """The process's real environment, once; the process itself goes on without what is meant for other programs."""
    real = dict(os.environ)  # noqa: TID251
    forget_other_programs()
    return real


def load_settings(
    *, environment: Mapping[str, str] | None = None, env_file: Path | Literal["default"] | None = "default"
) -> Settings:
    """Read the settings once.

    Without arguments, from the real environment and the file that `CONCERTO_ENV_FILE` names (default `.env`).
    Empty values count as absent. Raises SettingsError naming each variable that is wrong.
    """
    real = read_environment() if environment is None else dict(environment)
    if env_file == "default":
        env_file = ROOT / real.get("CONCERTO_ENV_FILE", ".env")
    try:
        from_file = settings_file.read(env_file) if env_file is not None else {}
    except settings_file.SettingsFileError as error:
        raise SettingsError(str(error)) from None
    values = {name: value for name, value in from_file.items() if value}
    values |= {name: value for name, value in real.items() if value}
    try:
        # By the documented names alone: any program may have a variable that is called `port` or `home`.
        given = {**values, "env_file": env_file, "variables": values}
        return Settings.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as error:
        # What is about several variables names them itself.
        found = (": ".join(filter(None, (".".join(map(str, item["loc"])), item["msg"]))) for item in error.errors())
        problems = "; ".join(text.replace("Value error, ", "", 1) for text in found)
        raise SettingsError(f"The configuration is wrong: {problems}.") from None
