import pytest
from pydantic import SecretStr

from services.sessions.settings import Settings

DIRECT = "postgresql://concerto_login:p@db.x.supabase.co:5432/postgres"
SESSION = "postgresql://concerto_login.x:p@aws-0-eu.pooler.supabase.com:5432/postgres"
TRANSACTION = "postgresql://concerto_login.x:p@aws-0-eu.pooler.supabase.com:6543/postgres"


def settings(url: str, **changes: object) -> Settings:
    return Settings(_env_file=None, db_url=SecretStr(url), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("url", "size"), [(DIRECT, 100), (SESSION, 100), (TRANSACTION, 0), ("postgresql://[", 100)])
def test_the_port_of_transaction_mode_switches_prepared_statements_off(url: str, size: int) -> None:
    assert settings(url).statement_cache_size == size


@pytest.mark.parametrize("size", [0, 7])
def test_a_size_that_is_set_counts_on_every_port(size: int) -> None:
    assert settings(TRANSACTION, db_statement_cache_size=size).statement_cache_size == size
    assert settings(DIRECT, db_statement_cache_size=size).statement_cache_size == size


def test_nobody_listens_in_transaction_mode_unless_another_address_is_given() -> None:
    assert settings(TRANSACTION).notification_url is None
    for url in (DIRECT, SESSION):
        assert settings(url).notification_url == SecretStr(url)
        assert settings(TRANSACTION, listen_db_url=SecretStr(url)).notification_url == SecretStr(url)
