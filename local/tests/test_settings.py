from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.settings import Settings as GatewaySettings
from local.settings import PORT_NAMES, ROOT, SettingsError, load_settings

EVERYWHERE = "0.0.0.0"  # noqa: S104


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://chat.example/", "https://chat.example"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("https://[::1]:8443//", "https://[::1]:8443"),
        ("", "http://127.0.0.1:8000"),
        ("https://example.com/concerto/", None),
        ("https://example.com/?a=b", None),
        ("https://example.com/#a", None),
        ("https://me@example.com", None),
        ("example.com", None),
        ("https://", None),
        ("https://host:port", None),
    ],
)
def test_browsers_find_it_at_the_root_of_a_host(url: str, origin: str | None) -> None:
    given = {"GATEWAY_PUBLIC_URL": url}
    if origin is not None:
        assert load_settings(environment=given, env_file=None).gateway_url == origin
        return
    with pytest.raises(SettingsError, match="GATEWAY_PUBLIC_URL: must be"):
        load_settings(environment=given, env_file=None)
    with pytest.raises(ValidationError, match="must be"):
        GatewaySettings.model_validate(given)


def test_real_environment_wins_over_the_file_and_empty_values_count_as_absent(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("CONCERTO_PORT=8100\nCONCERTO_CONFIRM_EMAIL=true\nOPENAI_API_KEY=\n")
    settings = load_settings(environment={"CONCERTO_ENV_FILE": str(file), "CONCERTO_PORT": "8200"})
    assert settings.port == 8200
    assert settings.confirm_email is True
    assert "OPENAI_API_KEY" not in settings.variables


def test_one_variable_moves_all_ports() -> None:
    settings = load_settings(environment={"CONCERTO_PORT": "9100"}, env_file=None)
    assert [settings.port_of(name) for name in PORT_NAMES] == list(range(9100, 9100 + len(PORT_NAMES)))
    assert [settings.port_of(name) for name in ("gateway", "postgres", "sessions")] == [9100, 9102, 9104]


def test_data_folder_is_inside_the_working_copy_unless_it_is_named() -> None:
    assert load_settings(environment={}, env_file=None).home == ROOT / ".concerto"
    assert load_settings(environment={"CONCERTO_HOME": "/srv/data"}, env_file=None).home == Path("/srv/data")


@pytest.mark.parametrize(
    ("url", "hosted"),
    [
        ("", False),
        ("https://abc.supabase.co", True),
        ("http://127.0.0.1:8001", False),
        ("http://127.0.0.1:8001/", False),
    ],
)
def test_only_a_foreign_supabase_url_means_a_hosted_project(url: str, hosted: bool) -> None:
    assert load_settings(environment={"SUPABASE_URL": url}, env_file=None).is_hosted is hosted


@pytest.mark.parametrize("port", ["0", "70000", "eight"])
def test_wrong_port_is_refused_by_name(port: str) -> None:
    with pytest.raises(SettingsError, match="CONCERTO_PORT"):
        load_settings(environment={"CONCERTO_PORT": port}, env_file=None)


def test_the_embedded_supabase_can_be_found_elsewhere_than_it_listens() -> None:
    environment = {"CONCERTO_EMBEDDED_HOST": EVERYWHERE, "CONCERTO_EMBEDDED_URL": "http://127.0.0.1:9999/"}
    settings = load_settings(environment=environment, env_file=None)
    assert (settings.embedded_host, settings.embedded_url) == (EVERYWHERE, "http://127.0.0.1:9999")
    assert settings.is_hosted is False


@pytest.mark.parametrize("value", ["short", "with spaces and 'quotes' in it, of 32+", "@" * 32, "x" * 201])
def test_a_key_that_would_need_quoting_or_is_weak_is_refused_without_being_shown(value: str) -> None:
    with pytest.raises(SettingsError, match="CONCERTO_EMBEDDED_LOGIN_PASSWORD") as refused:
        load_settings(environment={"CONCERTO_EMBEDDED_LOGIN_PASSWORD": value}, env_file=None)
    assert value not in str(refused.value)


def test_chosen_keys_have_the_names_of_the_credentials() -> None:
    environment = {"CONCERTO_EMBEDDED_JWT_SECRET": "j" * 32, "CONCERTO_EMBEDDED_PUBLISHABLE_KEY": "k" * 32}
    settings = load_settings(environment=environment, env_file=None)
    assert settings.chosen_credentials == {"jwt_secret": "j" * 32, "publishable_key": "k" * 32}
    assert "j" * 32 not in repr(settings)
