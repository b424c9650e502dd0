import pytest

from local.settings import Settings, SettingsError, load_settings
from local.suite.processes import NAMES, PARTS, Mode
from local.suite.stack import check_replicas, plan_names

ALL = ",".join(PARTS)
HOSTED = {"SUPABASE_URL": "https://abc.supabase.co"}


@pytest.fixture
def settings() -> Settings:
    return load_settings(environment={"PATH": "/usr/bin"}, env_file=None)


@pytest.mark.parametrize(
    ("only", "mode", "expected"),
    [
        (None, "one-process", "postgres,supabase,concerto"),
        (None, "processes", f"postgres,supabase,{ALL}"),
        ("supabase", "one-process", "postgres,supabase"),
        ("concerto", "one-process", "concerto"),
        ("concerto", "processes", ALL),
        (",".join(reversed(PARTS)), "one-process", "concerto"),
        ("gateway,sessions", "one-process", "sessions,gateway"),
        ("postgres,gateway,concerto", "one-process", "postgres,concerto"),
    ],
)
def test_a_plan_names_processes_in_the_order_of_starting(
    settings: Settings, only: str | None, mode: Mode, expected: str
) -> None:
    assert ",".join(plan_names(settings, only, mode)) == expected


def test_a_project_of_ones_own_needs_nothing_embedded() -> None:
    hosted = load_settings(environment=HOSTED, env_file=None)
    assert plan_names(hosted, None) == ("concerto",)
    assert plan_names(hosted, None, "processes") == NAMES[2:]


@pytest.mark.parametrize(
    ("replicas", "mode", "port", "refusal"),
    [
        (0, "processes", "8000", "1 to 4"),
        (5, "processes", "8000", "1 to 4"),
        (2, "one-process", "8000", "--processes"),
        (4, "processes", "65520", "CONCERTO_PORT"),
    ],
)
def test_replicas_that_cannot_be_are_refused(replicas: int, mode: Mode, port: str, refusal: str) -> None:
    with pytest.raises(SettingsError, match=refusal):
        check_replicas(load_settings(environment={"CONCERTO_PORT": port}, env_file=None), replicas, mode)


def test_an_unknown_name_is_refused_with_those_that_are_known(settings: Settings) -> None:
    with pytest.raises(SettingsError, match=r"no process named sesions\. Choose from postgres, .*, concerto"):
        plan_names(settings, "sesions,gateway")
