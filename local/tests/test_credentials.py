import stat
from pathlib import Path

import pytest

from local.embedded.credentials import (
    Credentials,
    CredentialsError,
    credentials_file,
    ensure_credentials,
    read_credentials,
)


def test_secrets_are_made_once_and_readable_by_their_owner_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = ensure_credentials(home)
    assert ensure_credentials(home) == first == read_credentials(home)
    assert stat.S_IMODE(credentials_file(home).stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_opened_file_is_closed_again_at_the_next_start(tmp_path: Path) -> None:
    ensure_credentials(tmp_path)
    credentials_file(tmp_path).chmod(0o644)
    ensure_credentials(tmp_path)
    assert stat.S_IMODE(credentials_file(tmp_path).stat().st_mode) == 0o600


def test_lost_secrets_of_an_existing_database_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with pytest.raises(CredentialsError, match="Restore the file"):
        ensure_credentials(tmp_path)


def test_damaged_file_is_reported_without_its_content(tmp_path: Path) -> None:
    credentials_file(tmp_path).write_text('{"jwt_secret": "do not show this"}')
    with pytest.raises(CredentialsError) as refused:
        read_credentials(tmp_path)
    assert "do not show this" not in str(refused.value)


def test_secrets_do_not_show_in_a_traceback() -> None:
    credentials = Credentials.generate()
    assert credentials.jwt_secret not in repr(credentials)
    assert credentials.jwt_secret not in str(credentials)


def test_chosen_values_are_kept_for_every_later_reader_and_the_others_stay(tmp_path: Path) -> None:
    first = ensure_credentials(tmp_path)
    chosen = {"login_password": "p" * 32, "jwt_secret": "j" * 32}
    second = ensure_credentials(tmp_path, chosen)
    assert second == first.model_copy(update=chosen) == read_credentials(tmp_path) == ensure_credentials(tmp_path)
    assert stat.S_IMODE(credentials_file(tmp_path).stat().st_mode) == 0o600
