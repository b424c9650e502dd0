from pathlib import Path

import pytest

from local.settings import ROOT, SettingsError, load_settings


def test_real_environment_wins_over_the_file_and_empty_values_count_as_absent(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("CONCERTO_PORT=8100\nCONCERTO_CONFIRM_EMAIL=true\nOPENAI_API_KEY=\n")
    settings = load_settings(environment={"CONCERTO_ENV_FILE": str(file), "CONCERTO_PORT": "8200"})
    assert settings.port == 8200
    assert settings.confirm_email is True
    assert "OPENAI_API_KEY" not in settings.variables


def test_one_variable_moves_all_ports() -> None:
    settings = load_settings(environment={"CONCERTO_PORT": "9100"}, env_file=None)
    names = ("gateway", "supabase", "postgres", "auth", "sessions", "orchestrator")
    assert [settings.port_of(name) for name in names] == list(range(9100, 9106))


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
