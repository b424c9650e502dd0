"""Settings of the auth service, read once from the environment."""

from pydantic import Field, SecretStr

from servicekit.settings import DatabaseSettings, ServiceSettings


class Settings(ServiceSettings, DatabaseSettings):
    """Where the service listens, the Supabase project that signs people in, and the database of their accounts."""

    host: str = Field("127.0.0.1", validation_alias="AUTH_HOST")
    """Address to listen on."""
    port: int = Field(8003, ge=0, le=65535, validation_alias="AUTH_PORT")
    """Port to listen on; 0 picks a free one."""
    supabase_publishable_key: SecretStr = Field(validation_alias="SUPABASE_PUBLISHABLE_KEY")
    """The project's publishable key (or legacy anon key); every call of Supabase Auth carries it."""
