from pathlib import Path

from local.embedded.credentials import Credentials
from local.embedded.postgres import LOGIN_ROLE, Postgres

EVERYWHERE = "0.0.0.0"  # noqa: S104


def options_of(postgres: Postgres) -> dict[str, str]:
    return dict(word[2:].split("=", 1) for word in postgres.command() if word.startswith("--") and "=" in word)


def test_it_listens_on_the_loopback_address_and_elsewhere_only_when_told(tmp_path: Path) -> None:
    credentials = Credentials.generate()
    usual = options_of(Postgres(tmp_path, 9102, credentials))
    assert usual["listen_addresses"] == "127.0.0.1"
    assert "hba_file" not in usual
    assert options_of(Postgres(tmp_path, 9102, credentials, EVERYWHERE))["listen_addresses"] == EVERYWHERE
    assert options_of(Postgres(tmp_path, 9102, credentials, "10.0.0.5"))["listen_addresses"] == "127.0.0.1,10.0.0.5"


def test_the_rules_let_only_the_login_role_in_from_the_network(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path, 9102, Credentials.generate(), EVERYWHERE)
    postgres.prepare_start()
    file = Path(options_of(postgres)["hba_file"])
    assert file.read_text().splitlines() == [
        "host all all 127.0.0.1/32 scram-sha-256",
        f"host postgres {LOGIN_ROLE} samenet scram-sha-256",
    ]
    assert file.stat().st_mode & 0o777 == 0o600
