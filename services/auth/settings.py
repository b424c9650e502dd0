"""Settings of the auth service, read once from the environment."""

from pydantic import Field, SecretStr

from servicekit.settings import DatabaseSettings, ServiceSettings, host_field, pool_field, port_field


class Settings(ServiceSettings, DatabaseSettings):
    """Where the service listens, the Supabase project that signs people in, and the database of their accounts."""

    host: str = host_field("auth")
    """Address to listen on."""
    port: int = port_field("auth")
    """Port to listen on; 0 picks a free one."""
    db_pool_size: int = pool_field("auth")
    """Most connections of one process."""
    supabase_publishable_key: SecretStr = Field(validation_alias="SUPABASE_PUBLISHABLE_KEY")
    """The project's publishable key (or legacy anon key); every call of Supabase Auth carries it."""
    forwarding_key: SecretStr | None = Field(None, validation_alias="AUTH_FORWARDING_KEY")
    """Tells the embedded Supabase that calls are for many people, whom the gateway limits one by one."""
