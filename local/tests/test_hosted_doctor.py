from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
from pydantic import SecretStr

from local.hosted.api import check_address, check_api, check_key, check_secret_key, kind_of
from local.hosted.database import check_database, check_url
from local.settings import Settings as LocalSettings
from local.settings import load_settings
from services.sessions.settings import Settings
from tests.support.suites import RunningStack

URL = "https://abcdefghijklmnopqrst.supabase.co"


def legacy(role: str, ref: str = "abcdefghijklmnopqrst") -> str:
    claims = {"iss": "supabase", "role": role, "ref": ref, "iat": 1, "exp": 4102444800}
    return jwt.encode(claims, "a secret of the tests that is long enough", algorithm="HS256")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("sb_publishable_x", "publishable"),
        ("sb_secret_x", "secret"),
        (legacy("anon"), "anon"),
        (legacy("service_role"), "service_role"),
        (legacy("authenticated"), "unknown"),
        ("a.b.c", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_key_tells_what_it_is(key: str, kind: str) -> None:
    assert kind_of(key) == kind


@pytest.mark.parametrize(
    ("key", "advised"),
    [
        ("sb_secret_x", "Delete that key"),
        (legacy("service_role"), "Delete that key"),
        (legacy("anon", ref="other"), "API keys"),
        ("nothing", "API keys"),
        ("", "API keys"),
    ],
)
def test_a_key_that_is_not_for_everybody_is_wrong_and_is_not_shown(key: str, advised: str) -> None:
    (finding,) = check_key(key, URL)
    assert advised in finding.advice
    assert not key or key not in str(finding)


@pytest.mark.parametrize("key", ["sb_publishable_x", legacy("anon")])
def test_a_key_for_everybody_is_right(key: str) -> None:
    assert [finding.advice for finding in check_key(key, URL)] == [""]


def test_a_secret_key_is_needed_nowhere() -> None:
    assert list(check_secret_key(None)) == []
    (finding,) = check_secret_key("sb_secret_x")
    assert (finding.advice, "uses none" in finding.hint) == ("", True)
    (finding,) = check_secret_key("sb_publishable_x")
    assert "Remove it" in finding.advice


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("", "https://<ref>"),
        ("abcd.supabase.co", "whole"),
        ("https://x.supabase.co/rest/v1", "https://x.supabase.co alone"),
        ("http://x.supabase.co", "https://x.supabase.co"),
        (URL, ""),
        ("http://127.0.0.1:8001", ""),
    ],
)
def test_the_projects_address_is_looked_at(url: str, advice: str) -> None:
    (finding,) = check_address(url)
    assert (advice in finding.advice) if advice else finding.advice == ""


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("https://x", "Connect"),
        ("postgresql://concerto_login:p@db.x.supabase.co:no/postgres", "Connect"),
        ("postgresql://postgres:p@db.x.supabase.co/postgres?sslmode=require", "concerto_login"),
        ("postgresql://concerto_login:p@aws.pooler.supabase.com:5432/postgres?sslmode=require", "concerto_login.<ref>"),
        ("postgresql://concerto_login.x:p@db.x.supabase.co:5432/postgres?sslmode=require", "only the pooler"),
        ("postgresql://concerto_login:p@db.x.supabase.co:5432/postgres", "sslmode=require"),
        ("postgresql://concerto_login:p@db.x.supabase.co:5432/postgres?sslmode=prefer", "sslmode=require"),
    ],
)
def test_an_address_that_the_services_should_not_use_is_named(url: str, advice: str) -> None:
    (finding,) = [each for each in check_url("SUPABASE_DB_URL", url) if each.advice]
    assert advice in finding.advice
    assert ":p@" not in str(finding)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://concerto_login:p@db.x.supabase.co:5432/postgres?sslmode=require",
        "postgresql://concerto_login.x:p@aws-0-eu.pooler.supabase.com:6543/postgres?sslmode=verify-full",
        "postgresql://concerto_login:p@127.0.0.1:8002/postgres",
    ],
)
def test_an_address_of_the_login_role_is_right(url: str) -> None:
    assert [finding.advice for finding in check_url("SUPABASE_DB_URL", url) if finding.advice] == []


def settings_of(url: str = URL, **variables: str) -> LocalSettings:
    key = {"SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x"}
    return load_settings(environment={"SUPABASE_URL": url, **key, **variables}, env_file=None)


Answers = dict[str, httpx.Response]
ES256 = {"keys": [{"alg": "ES256", "kty": "EC", "kid": "k"}]}


def good() -> Answers:
    return {
        "/auth/v1/settings": httpx.Response(200, json={"external": {"github": True}, "mailer_autoconfirm": False}),
        "/auth/v1/.well-known/jwks.json": httpx.Response(200, json=ES256),
        "/rest/v1/rpc/get_me": httpx.Response(401, json={"code": "42501", "message": "permission denied"}),
        "private": httpx.Response(406, json={"code": "PGRST106"}),
        "public": httpx.Response(401, json={"code": "42501"}),
    }


async def wrong(answers: Answers, *, allowed: str = "https://chat.example", **variables: str) -> list[tuple[str, str]]:
    """Ask an answering project, and return subject and advice of each finding that is wrong."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/v1/verify":
            wanted = request.url.params["redirect_to"]
            goal = wanted if wanted.startswith(allowed) else "https://site.example"
            return httpx.Response(303, headers={"location": f"{goal}#error=access_denied"})
        if request.url.path == "/rest/v1/users":
            return answers[request.headers["accept-profile"]]
        assert request.headers["apikey"] == "sb_publishable_x"
        assert "authorization" not in request.headers
        return answers[request.url.path]

    settings = settings_of(**{"GATEWAY_PUBLIC_URL": "https://chat.example", **variables})
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        findings = await check_api(settings, client)
    return [(finding.subject, finding.advice) for finding in findings if finding.advice]


async def test_a_project_that_is_set_up_is_right() -> None:
    assert await wrong(good()) == []


@pytest.mark.parametrize(
    ("path", "response", "subject", "advice"),
    [
        ("/auth/v1/settings", httpx.Response(401, json={}), "SUPABASE_PUBLISHABLE_KEY", "API keys"),
        ("/auth/v1/settings", httpx.Response(540), "Supabase Auth", "Restore"),
        ("/auth/v1/settings", httpx.Response(200, text="<html>"), "Supabase Auth", "address of a Supabase project"),
        ("/auth/v1/.well-known/jwks.json", httpx.Response(200, json={"keys": []}), "signing keys", "ES256"),
        ("/auth/v1/.well-known/jwks.json", httpx.Response(500), "signing keys", "SUPABASE_URL"),
        ("/rest/v1/rpc/get_me", httpx.Response(406, json={"code": "PGRST106"}), "schema api", "Exposed schemas"),
        ("/rest/v1/rpc/get_me", httpx.Response(404, json={"code": "PGRST202"}), "schema api", "concerto migrate"),
        ("/rest/v1/rpc/get_me", httpx.Response(200, json={}), "schema api", "anon"),
        ("/rest/v1/rpc/get_me", httpx.Response(503), "schema api", "logs"),
        ("private", httpx.Response(401, json={"code": "42501"}), "schema private", "Take private out"),
        ("public", httpx.Response(200, json=[]), "schema public", "revoke all"),
    ],
)
async def test_what_a_project_lacks_is_named_with_its_fix(
    path: str, response: httpx.Response, subject: str, advice: str
) -> None:
    found = await wrong({**good(), path: response})
    assert [name for name, _ in found] == [subject]
    assert advice in found[0][1]


async def test_a_shared_secret_in_place_of_keys_is_no_fault_when_it_is_given() -> None:
    answers = {**good(), "/auth/v1/.well-known/jwks.json": httpx.Response(200, json={"keys": []})}
    assert await wrong(answers, SUPABASE_JWT_SECRET="a secret that is long enough for this") == []


async def test_redirect_addresses_that_are_not_allowed_are_named() -> None:
    ((subject, advice),) = await wrong(good(), allowed="https://other.example")
    assert subject == "redirect addresses"
    for path in ("/reset-password/", "/callback/", "/auth/callback"):
        assert f"https://chat.example{path}" in advice


async def test_without_a_public_address_redirects_are_worth_a_hint_only() -> None:
    assert await wrong(good(), allowed="https://other.example", GATEWAY_PUBLIC_URL="") == []


async def test_a_secret_key_is_sent_nowhere() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as client:
        findings = await check_api(settings_of(SUPABASE_PUBLISHABLE_KEY="sb_secret_x"), client)
    assert [finding.subject for finding in findings if finding.advice] == ["SUPABASE_PUBLISHABLE_KEY"]


async def test_an_address_where_nobody_answers_is_one_finding() -> None:
    async with httpx.AsyncClient() as client:
        findings = await check_api(settings_of("http://127.0.0.1:9"), client)
    assert [(finding.subject, "network" in finding.advice) for finding in findings if finding.advice] == [
        ("Supabase Auth", True)
    ]


def services(url: str | None, **changes: Any) -> Settings:
    return Settings(
        _env_file=None,
        supabase_url=URL,
        supabase_publishable_key=SecretStr("sb_publishable_x"),
        db_url=SecretStr(url) if url else None,
        **changes,
    )


async def test_no_database_address_is_named() -> None:
    (finding,) = await check_database(services(None))
    assert "no answers" in finding.advice


@pytest.fixture(scope="module")
def small(launch: Callable[..., RunningStack]) -> RunningStack:
    return launch(only="postgres,supabase")


@pytest.fixture
async def admin(small: RunningStack) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(small.admin_db_url)
    yield connection
    await connection.close()


async def test_the_login_role_of_the_migrations_is_right(small: RunningStack) -> None:
    findings = await check_database(services(small.db_url))
    assert [finding for finding in findings if finding.advice] == []
    assert "can act for its caller and do nothing by itself" in str(findings)


@pytest.mark.parametrize(
    ("change", "undo", "advice"),
    [
        ("alter role concerto_login bypassrls", "alter role concerto_login nobypassrls", "nobypassrls"),
        ("alter role concerto_login inherit", "alter role concerto_login noinherit", "noinherit"),
        ("alter role concerto_login createrole", "alter role concerto_login nocreaterole", "nocreaterole"),
        ("grant service_role to concerto_login", "revoke service_role from concerto_login", "revoke service_role"),
        (
            "revoke anon from concerto_login granted by postgres",
            "grant anon to concerto_login granted by postgres",
            "grant anon to",
        ),
        (
            "grant usage on schema public to concerto_login; grant select on public.runs to concerto_login",
            "revoke all on public.runs from concerto_login; revoke usage on schema public from concerto_login",
            "revoke all on runs",
        ),
        (
            "revoke execute on function private.call(jsonb, text, jsonb) from concerto_login",
            "grant execute on function private.call(jsonb, text, jsonb) to concerto_login",
            "concerto migrate",
        ),
    ],
)
async def test_a_login_role_that_can_more_or_less_is_named(
    small: RunningStack, admin: asyncpg.Connection, change: str, undo: str, advice: str
) -> None:
    await admin.execute(change)
    try:
        findings = await check_database(services(small.db_url))
    finally:
        await admin.execute(undo)
    wrong = [finding for finding in findings if finding.advice]
    assert {finding.subject for finding in wrong} == {"login role"}
    assert any(advice in finding.advice for finding in wrong)


async def test_pools_larger_than_the_database_are_named(small: RunningStack) -> None:
    findings = await check_database(services(small.db_url, db_pool_size=200))
    assert [finding.subject for finding in findings if finding.advice] == ["connections"]
