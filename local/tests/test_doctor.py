import pytest

from local.doctor import check_variables, known_names
from local.settings import ROOT

KNOWN = {"CONCERTO_PORT", "SUPABASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "GATEWAY_PORT", "SESSIONS_TARGET"}


@pytest.mark.parametrize(
    ("variables", "subject", "advice"),
    [
        ({"CONCERTO_PROT": "1"}, "CONCERTO_PROT", "Did you mean CONCERTO_PORT?"),
        ({"CONCERTO_FAVOURITE_COLOUR": "blue"}, "CONCERTO_FAVOURITE_COLOUR", ".env.example"),
        ({"SESSION_TARGET": "x"}, "", ""),
        ({"SESSIONS_TARGTE": "x"}, "SESSIONS_TARGTE", "Did you mean SESSIONS_TARGET?"),
        ({"SUPABASE_URL": "abc.supabase.co"}, "SUPABASE_URL", "https://"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1"}, "OPENAI_BASE_URL", "offline model"),
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
    assert [finding.advice for finding in check_variables(variables, KNOWN)] == [""]


def test_names_are_taken_from_the_example_file() -> None:
    assert {"CONCERTO_PORT", "SUPABASE_URL", "OPENAI_API_KEY"} <= known_names(ROOT)
