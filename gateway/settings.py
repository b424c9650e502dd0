"""Settings of the gateway, read once from the environment."""

import secrets
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from limits import RateLimitItem, parse
from pydantic import Field, SecretStr, create_model, field_validator, model_validator
from pydantic_settings import NoDecode

from servicekit import parts
from servicekit.origins import public_origin
from servicekit.settings import ProcessSettings, TlsSettings, TokenSettings, host_field, port_field, target_field

WEB_FOLDER = Path(__file__).resolve().parent.parent / "web" / "out"
"""Where a build of the working copy puts the web app."""

Entries = Annotated[tuple[str, ...], NoDecode]
"""Entries separated by commas."""


_TARGET_FIELDS: dict[str, Any] = {f"{name}_target": (str, target_field(name)) for name in parts.GATEWAY.calls}
Targets = create_model("Targets", __base__=ProcessSettings, __module__=__name__, **_TARGET_FIELDS)
"""Where each registered service is: `AUTH_TARGET` and so on, as `host:port` or a name such as dns:///auth:8003."""


class Settings(TokenSettings, TlsSettings, Targets):
    """Where the gateway listens, whom it calls, and what it lets in."""

    host: str = host_field("gateway")
    """Address to listen on."""
    port: int = port_field("gateway")
    """Port to listen on; 0 picks a free one."""
    drain_seconds: float = Field(10.0, ge=0, validation_alias="CONCERTO_DRAIN_SECONDS")
    """How long running requests may take after SIGTERM."""
    drain_delay_seconds: float = Field(0.0, ge=0, validation_alias="CONCERTO_DRAIN_DELAY_SECONDS")
    """How long after SIGTERM requests are taken as before while /readyz says no, so that balancers forget it."""
    socket_fd: int | None = Field(None, ge=3, validation_alias="GATEWAY_SOCKET_FD")
    """Number of a listening socket that the process inherits and serves beside its own port; replicas share one so."""
    supabase_publishable_key: SecretStr | None = Field(None, validation_alias="SUPABASE_PUBLISHABLE_KEY")
    """The project's publishable key; given to browsers in /config.json."""
    public_url: str = Field("", validation_alias="GATEWAY_PUBLIC_URL")
    """Where browsers find the gateway, the root of a host; absent means http://127.0.0.1:<port>."""
    cors_origins: Entries = Field((), validation_alias="GATEWAY_CORS_ORIGINS")
    """Origins of other web applications that may call the API, separated by commas; `*` allows every one."""
    trusted_proxies: Entries = Field((), validation_alias="GATEWAY_TRUSTED_PROXIES")
    """Addresses or networks whose X-Forwarded-For is believed, separated by commas."""
    cookie_secret: SecretStr | None = Field(None, validation_alias="GATEWAY_COOKIE_SECRET")
    """Encrypts the cookie of a sign-in with a provider, at least 32 characters; the same on every replica."""
    web_folder: Path = Field(WEB_FOLDER, validation_alias="GATEWAY_WEB_FOLDER")
    """Folder of the web app's export."""
    max_body_bytes: int = Field(8 * 1024 * 1024, ge=1024, validation_alias="GATEWAY_MAX_BODY_BYTES")
    """Largest request body."""
    max_buffered_bytes: int = Field(64 * 1024 * 1024, ge=4096, validation_alias="GATEWAY_MAX_BUFFERED_BYTES")
    """Most bytes of all large bodies together while they are received and answered, and as many of unread answers."""
    max_connections_per_address: int = Field(512, ge=1, validation_alias="GATEWAY_MAX_CONNECTIONS_PER_ADDRESS")
    """Most connections of one client address, per replica; those of trusted proxies are not counted."""
    max_connections: int = Field(8192, ge=16, validation_alias="GATEWAY_MAX_CONNECTIONS")
    """Most connections of all clients, per replica."""
    head_timeout_seconds: float = Field(10.0, gt=0, validation_alias="GATEWAY_HEAD_TIMEOUT_SECONDS")
    """How long the head of a request may take from its first byte on."""
    body_timeout_seconds: float = Field(30.0, gt=0, validation_alias="GATEWAY_BODY_TIMEOUT_SECONDS")
    """How long the next piece of a body may take; the whole body may take ten times as long."""
    send_timeout_seconds: float = Field(30.0, gt=0, validation_alias="GATEWAY_SEND_TIMEOUT_SECONDS")
    """How long a client may read next to nothing (less than 16 KiB) of an answer that waits for it."""
    login_limit_per_email: str = Field("10/minute", validation_alias="GATEWAY_LOGIN_LIMIT_PER_EMAIL")
    """Most attempts with one e-mail address from one client address or known browser, per replica, as `count/unit`."""
    login_limit_per_account: str = Field("100/hour", validation_alias="GATEWAY_LOGIN_LIMIT_PER_ACCOUNT")
    """Most attempts with one e-mail address from all browsers that are not known to it, per replica."""
    login_limit_per_address: str = Field("60/minute", validation_alias="GATEWAY_LOGIN_LIMIT_PER_ADDRESS")
    """Most attempts to sign in from one client address, per replica, as `count/unit`."""

    @field_validator("cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(entry.strip().rstrip("/") for entry in value.split(",") if entry.strip())
        return value

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            parts = urlsplit(origin)
            if origin != "*" and (parts.scheme not in ("http", "https") or not parts.netloc or parts.path):
                raise ValueError(f"{origin!r} is no origin; write https://app.example.org")
        return value

    @field_validator("public_url", mode="after")
    @classmethod
    def _check_public_url(cls, value: str) -> str:
        return public_origin(value) if value else ""

    @field_validator("cookie_secret", mode="after")
    @classmethod
    def _check_length(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:
            raise ValueError("must have at least 32 characters")
        return value

    @field_validator("login_limit_per_email", "login_limit_per_account", "login_limit_per_address", mode="after")
    @classmethod
    def _check_limit(cls, value: str) -> str:
        try:
            parse(value)
        except ValueError:
            raise ValueError("write a limit as 10/minute or 100/hour") from None
        return value

    @model_validator(mode="after")
    def _need_secret(self) -> Self:
        if self.environment == "production" and self.cookie_secret is None:
            raise ValueError("set GATEWAY_COOKIE_SECRET, the same on every replica")
        return self

    @model_validator(mode="after")
    def _need_room_for_bodies(self) -> Self:
        if self.max_buffered_bytes < 4 * self.max_body_bytes:
            raise ValueError(
                "GATEWAY_MAX_BUFFERED_BYTES must be four times GATEWAY_MAX_BODY_BYTES at least: of all that is held, "
                "one person may have a quarter"
            )
        return self

    @model_validator(mode="after")
    def _need_authorities(self) -> Self:
        self.refuse_plain_calls(*map(self.target_of, parts.GATEWAY.calls))
        return self

    def target_of(self, part: str) -> str:
        """Return where a registered service is, by the part's name."""
        target: str = getattr(self, f"{part}_target")
        return target

    @property
    def base_url(self) -> str:
        """Where browsers find the gateway, without a slash at the end."""
        return self.public_url or f"http://127.0.0.1:{self.port}"

    @property
    def email_limit(self) -> RateLimitItem:
        """The limit per e-mail address and client."""
        return parse(self.login_limit_per_email)

    @property
    def account_limit(self) -> RateLimitItem:
        """The limit per e-mail address, for all unknown clients together."""
        return parse(self.login_limit_per_account)

    @property
    def address_limit(self) -> RateLimitItem:
        """The limit per client address."""
        return parse(self.login_limit_per_address)

    def cookie_key(self) -> bytes:
        """Return the secret of the cookies; without a configured one, a new one per process (development only)."""
        return self.cookie_secret.get_secret_value().encode() if self.cookie_secret else secrets.token_bytes(32)
