from pathlib import Path

import pytest
import trustme

from local.doctor import check_data, check_processes, check_tls, check_variables, known_names
from local.settings import ROOT, Settings, load_settings
from servicekit import parts
from tests.support.certificates import Mount, days

KNOWN = {"CONCERTO_PORT", "SUPABASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "GATEWAY_PORT", "SESSIONS_TARGET"}


@pytest.mark.parametrize(
    ("variables", "subject", "advice"),
    [
        ({"CONCERTO_PROT": "1"}, "CONCERTO_PROT", "Did you mean CONCERTO_PORT?"),
        ({"CONCERTO_FAVOURITE_COLOUR": "blue"}, "CONCERTO_FAVOURITE_COLOUR", ".env.example"),
        ({"SESSION_TARGET": "x"}, "", ""),
        ({"SESSIONS_TARGTE": "x"}, "SESSIONS_TARGTE", "Did you mean SESSIONS_TARGET?"),
        ({"SUPABASE_URL": "abc.supabase.co"}, "SUPABASE_URL", "https://"),
        ({"OPENAI_BASE_URL": "127.0.0.1:1"}, "OPENAI_BASE_URL", "https://"),
        ({"OPENAI_API_KEY": "changeme"}, "OPENAI_API_KEY", "real value"),
        ({"GATEWAY_PORT": "high"}, "GATEWAY_PORT", "number"),
        ({"CONCERTO_GITHUB_CLIENT_ID": "x"}, "CONCERTO_GITHUB_CLIENT_SECRET", "both"),
        ({"GATEWAY_CORS_ORIGINS": "https://a.example, b.example"}, "GATEWAY_CORS_ORIGINS", "https://host"),
    ],
)
def test_mistake_is_named_with_what_to_do(variables: dict[str, str], subject: str, advice: str) -> None:
    names = KNOWN | {"CONCERTO_GITHUB_CLIENT_ID", "GATEWAY_CORS_ORIGINS"}
    wrong = [(finding.subject, finding.advice) for finding in check_variables(variables, names) if finding.advice]
    if not subject:
        assert wrong == []
        return
    assert [found for found, _ in wrong] == [subject]
    assert advice in wrong[0][1]


def test_right_settings_and_names_of_other_programs_are_left_in_peace() -> None:
    variables = {"CONCERTO_PORT": "8100", "PATH": "/usr/bin", "OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": "http://a/v1"}
    assert check_variables(variables, KNOWN) == []


def test_a_models_address_needs_no_key() -> None:
    assert check_variables({"OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}, KNOWN) == []


def settings_with(home: Path, **variables: str) -> Settings:
    return load_settings(environment={"CONCERTO_HOME": str(home), **variables}, env_file=None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_COOKIE_SECRET", "short"),
        ("GATEWAY_LOGIN_LIMIT_PER_EMAIL", "often"),
        ("CONCERTO_MODEL_TIMEOUT_SECONDS", "-1"),
        ("CONCERTO_DB_POOL_SIZE", "many"),
        ("CONCERTO_LOG_LEVEL", "loud"),
        ("CONCERTO_MODEL_PRICES", "{'a-model': 1}"),
    ],
)
def test_a_setting_that_keeps_a_process_from_starting_is_named_once(tmp_path: Path, name: str, value: str) -> None:
    found = check_processes(settings_with(tmp_path, **{name: value}))
    assert [finding.subject for finding in found] == [name]
    assert ".env.example" in found[0].advice


def test_the_settings_that_are_lists_or_json_are_read_as_the_processes_read_them(tmp_path: Path) -> None:
    lists = {
        "CONCERTO_MODEL_PRICES": '{"a-model": {"prompt": 250000, "completion": 2000000, "cached": 25000}}',
        "CONCERTO_MODELS": "small, large",
        "CONCERTO_OPENAI_PARAMETERS": "service_tier, tool:web_search",
        "GATEWAY_CORS_ORIGINS": "https://app.example.org, http://127.0.0.1:3000",
        "GATEWAY_TRUSTED_PROXIES": "10.0.0.0/8",
    }
    assert check_processes(settings_with(tmp_path, **lists)) == []


@pytest.mark.parametrize("environment", ["development", "production"])
def test_the_embedded_stacks_own_settings_keep_no_process_from_starting(tmp_path: Path, environment: str) -> None:
    assert check_processes(settings_with(tmp_path, CONCERTO_ENVIRONMENT=environment)) == []


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    first, *_ = check_data(settings_with(tmp_path / "file" / "home"))
    assert "CONCERTO_HOME" in first.advice


def test_names_are_taken_from_the_example_file() -> None:
    assert {"CONCERTO_PORT", "SUPABASE_URL", "OPENAI_API_KEY"} <= known_names(ROOT)


def test_certificates_are_looked_at(tmp_path: Path) -> None:
    assert check_tls(settings_with(tmp_path)) == []
    mount = Mount(tmp_path / "tls", trustme.CA())
    (finding,) = check_tls(settings_with(tmp_path, **mount.variables()))
    assert (finding.subject, finding.advice) == ("TLS", "")
    assert "ends at 3000-01-01" in finding.detail
    mount.renew(trustme.CA(), "sessions.concerto.svc")
    (finding,) = check_tls(settings_with(tmp_path, **mount.variables()))
    assert finding.advice == "Issue it for IP:127.0.0.1 too."
    mount.renew(trustme.CA(), not_after=days(6))
    (finding,) = check_tls(settings_with(tmp_path, **mount.variables()))
    assert finding.advice.startswith("Renew it")
    mount.key.unlink()
    (finding,) = check_tls(settings_with(tmp_path, **mount.variables()))
    assert "cannot be read" in finding.advice


def test_calls_that_would_not_be_encrypted_are_named(tmp_path: Path) -> None:
    mount = Mount(tmp_path / "tls", trustme.CA())
    half = {name: value for name, value in mount.variables().items() if name != "CONCERTO_TLS_CA_FILE"}
    found = check_processes(settings_with(tmp_path, **half))
    assert {finding.subject for finding in found} == {part.name for part in parts.PARTS if part.calls}
    assert all("set CONCERTO_TLS_CA_FILE too" in finding.detail for finding in found)
