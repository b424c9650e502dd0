import socket
from pathlib import Path

import pytest

from local.embedded.credentials import Credentials
from local.embedded.postgres import Postgres
from local.settings import PORT_NAMES, ROOT, Settings, load_settings
from local.suite.processes import (
    NAMES,
    PARTS,
    SERVICES,
    WHOLE,
    ports_of,
    service_environment,
    service_specs,
    suite_variables,
    supabase_spec,
)
from servicekit import parts

SETTINGS = {
    "CONCERTO_PORT": "9100",
    "CONCERTO_HOME": "/nowhere",
    "PATH": "/usr/bin",
    "OPENAI_API_KEY": "key-of-the-model",
    "CONCERTO_GITHUB_CLIENT_ID": "github-id",
    "CONCERTO_GITHUB_CLIENT_SECRET": "github-secret",
    "GATEWAY_CORS_ORIGINS": "https://app.example",
    "SESSIONS_PORT": "1",
    "AWS_SECRET_ACCESS_KEY": "nobody's business",
}


@pytest.fixture
def settings() -> Settings:
    return load_settings(environment=SETTINGS, env_file=None)


def environments(settings: Settings, credentials: Credentials) -> dict[str, dict[str, str]]:
    postgres = Postgres(Path("/nowhere"), 9102, credentials)
    suite = suite_variables(settings, credentials, postgres)
    found = {name: service_environment(name, settings, suite) for name in PARTS}
    return {**found, "supabase": supabase_spec(settings, credentials, postgres).environment}


def holders(environments: dict[str, dict[str, str]], secret: str) -> set[str]:
    return {name for name, values in environments.items() if any(secret in value for value in values.values())}


def test_passwords_are_hashed_as_dearly_as_usual_unless_told_otherwise(settings: Settings) -> None:
    credentials = Credentials.generate()
    in_one_process = load_settings(environment={**SETTINGS, "CONCERTO_BCRYPT_COST": "4"}, env_file=None)
    costs = [
        environments(each, credentials)["supabase"]["LITE_AUTH_BCRYPT_COST"] for each in (settings, in_one_process)
    ]
    assert costs == ["10", "4"]


def test_each_secret_reaches_only_the_processes_that_need_it(settings: Settings) -> None:
    credentials = Credentials.generate()
    given = environments(settings, credentials)
    assert holders(given, credentials.admin_password) == {"supabase"}
    assert holders(given, credentials.secret_key) == {"supabase"}
    assert holders(given, credentials.migration_password) == set()
    assert holders(given, credentials.login_password) == {part.name for part in parts.PARTS if part.database}
    needing_key = {part.name for part in parts.PARTS if part.publishable_key}
    assert holders(given, credentials.publishable_key) == {"supabase", *needing_key}
    assert not needing_key.intersection({"sessions", "orchestrator"})
    assert holders(given, credentials.cookie_secret) == {"gateway"}
    assert holders(given, "key-of-the-model") == {"orchestrator"}
    assert holders(given, "github-secret") == {"supabase"}
    assert holders(given, "nobody's business") == set()


def test_one_process_is_told_what_its_parts_are_told_and_no_more(settings: Settings) -> None:
    credentials = Credentials.generate()
    alone = environments(settings, credentials)
    del alone["supabase"]
    suite = suite_variables(settings, credentials, Postgres(Path("/nowhere"), 9102, credentials))
    whole = service_environment(WHOLE, settings, suite)
    assert whole == {name: value for values in alone.values() for name, value in values.items()}
    assert all(whole.items() >= values.items() for values in alone.values())
    for secret in (credentials.secret_key, credentials.admin_password, credentials.migration_password):
        assert not [value for value in whole.values() if secret in value]
    assert {"github-secret", "nobody's business"}.isdisjoint(whole.values())


def test_addresses_follow_the_base_port_and_services_do_not_read_the_file_again(settings: Settings) -> None:
    given = environments(settings, Credentials.generate())
    assert given["sessions"]["SESSIONS_PORT"] == "9104"
    assert given["orchestrator"]["SESSIONS_TARGET"] == "127.0.0.1:9104"
    assert given["gateway"]["AUTH_TARGET"] == "127.0.0.1:9103"
    assert given["gateway"]["GATEWAY_CORS_ORIGINS"] == "https://app.example"
    assert {given[name]["CONCERTO_ENV_FILE"] for name in SERVICES} == {"/dev/null"}


def test_every_replica_has_a_port_of_its_own_and_is_known_to_all_who_call_it(settings: Settings) -> None:
    credentials = Credentials.generate()
    suite = suite_variables(settings, credentials, Postgres(Path("/nowhere"), 9102, credentials), replicas=2)
    with socket.create_server(("127.0.0.1", 0)) as shared:
        specs = {spec.name: spec for spec in service_specs(settings, suite, PARTS, replicas=2, shared=shared)}
        descriptor = shared.fileno()
    assert list(specs) == [f"{part}{suffix}" for part in PARTS for suffix in ("", "-2")]
    block = len(PORT_NAMES)
    both = f"ipv4:127.0.0.1:9104,127.0.0.1:{9104 + block}"
    for name in ("orchestrator", "orchestrator-2", "gateway", "gateway-2"):
        assert specs[name].environment["SESSIONS_TARGET"] == both, name
    assert [specs[name].environment["SESSIONS_PORT"] for name in ("sessions", "sessions-2")] == [
        "9104",
        f"{9104 + block}",
    ]
    for name, port in (("gateway", 9100 + block), ("gateway-2", 9100 + 2 * block)):
        given = specs[name].environment
        assert (given["GATEWAY_PORT"], given["GATEWAY_SOCKET_FD"]) == (str(port), str(descriptor))
        assert given["GATEWAY_PUBLIC_URL"] == "http://127.0.0.1:9100"
        assert specs[name].inherits == (descriptor,)
    assert specs["sessions"].inherits == ()
    observed = load_settings(environment={**SETTINGS, "CONCERTO_METRICS_PORT": "9464"}, env_file=None)
    watched = service_specs(observed, suite, PARTS, replicas=4)
    assert sorted(int(spec.environment["CONCERTO_METRICS_PORT"]) for spec in watched) == list(
        range(9464, 9464 + 4 * len(PARTS))
    )
    for replicas in (1, 2, 4):
        ports = ports_of(settings, NAMES, replicas)
        assert len(set(ports.values()) | {9100}) == len(ports) + (replicas > 1)
        assert max(ports.values()) <= 9100 + block * replicas


def test_access_tokens_live_as_long_as_is_configured() -> None:
    for value, expected in ((None, "3600"), ("60", "60")):
        chosen = {} if value is None else {"CONCERTO_ACCESS_TOKEN_SECONDS": value}
        given = environments(load_settings(environment={**SETTINGS, **chosen}, env_file=None), Credentials.generate())
        assert given["supabase"]["HOST_ACCESS_TOKEN_SECONDS"] == expected


def test_hosted_project_is_passed_on_as_it_is_configured() -> None:
    configured = {"SUPABASE_URL": "https://abc.supabase.co", "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x"}
    settings = load_settings(environment={**SETTINGS, **configured}, env_file=None)
    suite = suite_variables(settings, Credentials.generate(), None)
    for name in ("auth", "sessions"):
        given = service_environment(name, settings, suite)
        assert {key: given[key] for key in configured} == configured  # no SUPABASE_DB_URL: sessions go through REST
        assert "SUPABASE_JWT_SECRET" not in given


def test_a_proxy_for_the_world_outside_is_not_asked_for_the_neighbours() -> None:
    proxied = load_settings(
        environment={**SETTINGS, "https_proxy": "http://p:1", "NO_PROXY": "corp.example"}, env_file=None
    )
    for name, values in environments(proxied, Credentials.generate()).items():
        if name != "supabase":
            assert values["no_proxy"] == values["NO_PROXY"] == "corp.example,127.0.0.1,localhost,::1", name


def test_each_process_serves_its_metrics_on_a_port_of_its_own() -> None:
    credentials = Credentials.generate()
    settings = load_settings(environment={**SETTINGS, "CONCERTO_METRICS_PORT": "9464"}, env_file=None)
    given = environments(settings, credentials)
    ports = {name: given[name]["CONCERTO_METRICS_PORT"] for name in PARTS}
    assert ports == {name: str(9464 + index) for index, name in enumerate(("gateway", *SERVICES))}
    suite = suite_variables(settings, credentials, Postgres(Path("/nowhere"), 9102, credentials))
    assert service_environment(WHOLE, settings, suite)["CONCERTO_METRICS_PORT"] == "9464"
    assert (
        "CONCERTO_METRICS_PORT"
        not in environments(load_settings(environment=SETTINGS, env_file=None), credentials)["auth"]
    )


def test_certificates_are_named_to_our_processes_by_absolute_paths() -> None:
    files = {"CONCERTO_TLS_CERT_FILE": "tls/tls.crt", "CONCERTO_TLS_KEY_FILE": "/etc/tls.key"}
    chosen = load_settings(environment={**SETTINGS, **files, "CONCERTO_TLS_CLIENT_AUTH": "1"}, env_file=None)
    expected = {
        "CONCERTO_TLS_CERT_FILE": str(ROOT / "tls/tls.crt"),
        "CONCERTO_TLS_KEY_FILE": "/etc/tls.key",
        "CONCERTO_TLS_CLIENT_AUTH": "true",
    }
    for name, values in environments(chosen, Credentials.generate()).items():
        given = {key: value for key, value in values.items() if key.startswith("CONCERTO_TLS_")}
        assert given == ({} if name == "supabase" else expected), name


def test_only_who_listens_is_told_where_and_nobody_how_to_migrate() -> None:
    listen, migrate = "postgresql://concerto_login:a@listen/postgres", "postgresql://postgres:b@migrate/postgres"
    hosted = {"SUPABASE_URL": "https://x.supabase.co", "SUPABASE_LISTEN_DB_URL": listen}
    hosted |= {"SUPABASE_MIGRATION_DB_URL": migrate, "SUPABASE_ACCESS_TOKEN": "token-t", "SUPABASE_DB_PASSWORD": "db-p"}
    settings = load_settings(environment={**SETTINGS, **hosted}, env_file=None)
    suite = suite_variables(settings, None, None)
    found = {name: service_environment(name, settings, suite) for name in PARTS}
    assert holders(found, listen) == {part.name for part in parts.PARTS if part.database and part.database.listeners}
    assert "sessions" in holders(found, listen)
    assert listen in service_environment(WHOLE, settings, suite).values()
    for secret in (migrate, "token-t", "db-p"):
        assert holders(found, secret) == set()
        assert secret not in repr(settings)
