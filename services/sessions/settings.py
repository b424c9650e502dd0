"""What the sessions service reads from the environment."""

from pydantic import Field, SecretStr

from servicekit.settings import (
    DatabaseSettings,
    ServiceKeySettings,
    ServiceSettings,
    host_field,
    is_transaction_pooled,
    pool_field,
    port_field,
)


class Settings(ServiceSettings, ServiceKeySettings, DatabaseSettings):
    """Settings of the sessions service."""

    host: str = host_field("sessions")
    """Address to listen on."""
    port: int = port_field("sessions")
    """Port to listen on; 0 picks a free one."""
    db_pool_size: int = pool_field("sessions")
    """Most connections of one process."""
    run_events_kept_seconds: float = Field(3600.0, ge=60, validation_alias="CONCERTO_RUN_EVENTS_KEPT_SECONDS")
    """How long the deltas of a run are kept after its end; its message holds their text."""
    listen_db_url: SecretStr | None = Field(None, validation_alias="SUPABASE_LISTEN_DB_URL")
    """postgresql:// address to listen on, direct or a pooler's in session mode; absent: SUPABASE_DB_URL."""

    @property
    def notification_url(self) -> SecretStr | None:
        """Where to listen; None where notifications cannot arrive, so that watchers have to look by themselves."""
        if self.listen_db_url is not None:
            return self.listen_db_url
        return None if is_transaction_pooled(self.db_url) else self.db_url
