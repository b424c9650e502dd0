"""Who may sign up: the setting, the command, what the embedded auth server answers, and where it is warned."""

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import httpx
import pytest

from local.migrations.limits import set_limits, statements_of
from local.settings import Settings, SettingsError, load_settings
from local.sign_up.warning import findings_of, rule_at, warning_of
from local.tests.conftest import PASSWORD
from tests.support.suites import RunningStack

KEY = {"OPENAI_API_KEY": "sk-paid"}
LOCAL_MODEL = {**KEY, "OPENAI_BASE_URL": "http://127.0.0.1:11434/v1"}


@pytest.fixture(scope="module")
def undecided(launch: Callable[..., RunningStack]) -> RunningStack:
    """The first of this module, as later suites may begin with a copy of its database."""
    return launch(only="postgres,supabase", CONCERTO_SIGN_UP="", **KEY)


@pytest.fixture(scope="module")
def invited_only(launch: Callable[..., RunningStack], undecided: RunningStack) -> RunningStack:
    return launch(only="postgres,supabase", CONCERTO_SIGN_UP="invitations")


@pytest.fixture
async def client(invited_only: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    address = f"{invited_only.supabase_url}/auth/v1"
    async with httpx.AsyncClient(base_url=address, headers={"apikey": invited_only.publishable_key}) as opened:
        yield opened


def settings_of(**variables: str) -> Settings:
    return load_settings(environment=variables, env_file=None)


def new_email() -> str:
    return f"p-{uuid.uuid4().hex[:12]}@example.com"


async def sign_up(client: httpx.AsyncClient, email: str) -> httpx.Response:
    return await client.post("/signup", json={"email": email, "password": PASSWORD})


@pytest.mark.parametrize("route", ["signup", "otp", "magiclink"])
async def test_straight_at_the_auth_server_a_stranger_is_told_why(
    invited_only: RunningStack, client: httpx.AsyncClient, route: str
) -> None:
    email = new_email()
    answer = await client.post(f"/{route}", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 403, answer.text
    assert (answer.json()["code"], answer.json()["message"]) == ("PT403", "SIGN_UP_NOT_INVITED")
    admin = await asyncpg.connect(invited_only.admin_db_url)
    try:
        assert await admin.fetchval("select count(*) from auth.users where email = $1", email) == 0
    finally:
        await admin.close()
    assert email not in (invited_only.home / "logs" / "supabase.log").read_text()


async def test_the_command_invites_in_any_spelling_and_takes_back(
    invited_only: RunningStack, client: httpx.AsyncClient
) -> None:
    kept, withdrawn, umlauts = new_email(), new_email(), new_email().replace("example", "B\u00dcCHER")
    done = invited_only.command("sign-up", "invite", kept.upper(), withdrawn, umlauts, "--days", "3")
    assert done.returncode == 0, done.stderr
    assert "xn--bcher-kva" in done.stdout
    assert invited_only.command("sign-up", "withdraw", withdrawn).stdout == "Taken back: 1 of 1.\n"
    shown = invited_only.command("sign-up", "show").stdout
    assert shown.startswith("Sign-up: invitations\n")
    assert kept in shown
    assert withdrawn not in shown
    assert (await sign_up(client, withdrawn)).status_code == 403
    assert (await sign_up(client, kept)).is_success
    assert kept not in invited_only.command("sign-up", "show").stdout
    assert f"{kept}: has an account" in invited_only.command("sign-up", "invite", kept).stdout


@pytest.mark.parametrize("email", ["nobody", "a@b@c.de", "a b@c.de", "@c.de", "a@b\u00fc..de", ""])
def test_what_is_no_address_is_not_invited(invited_only: RunningStack, email: str) -> None:
    done = invited_only.command("sign-up", "invite", new_email(), email)
    assert done.returncode == 1
    assert "is no e-mail address" in done.stderr
    assert "example.com" not in invited_only.command("sign-up", "show").stdout


async def test_the_setting_is_in_the_database_and_an_absent_one_changes_nothing(invited_only: RunningStack) -> None:
    url = invited_only.admin_db_url
    admin = await asyncpg.connect(url)
    try:
        domains = {"CONCERTO_SIGN_UP": "domains", "CONCERTO_SIGN_UP_DOMAINS": "@Example.com, b\u00fccher.example"}
        await set_limits(url, settings_of(**domains))
        row = await admin.fetchrow("select admits, domains from private.sign_up_rule")
        assert tuple(row) == ("domains", ["example.com", "xn--bcher-kva.example"])
        await set_limits(url, settings_of())
        assert await rule_at(url) == "domains"
        await set_limits(url, settings_of(CONCERTO_SIGN_UP="closed"))
        assert tuple(await admin.fetchrow("select admits, domains from private.sign_up_rule")) == ("closed", [])
    finally:
        await set_limits(url, settings_of(CONCERTO_SIGN_UP="invitations"))
        await admin.close()


@pytest.mark.parametrize(
    "variables",
    [
        {"CONCERTO_SIGN_UP": "sometimes"},
        {"CONCERTO_SIGN_UP": "domains"},
        {"CONCERTO_SIGN_UP_DOMAINS": "example.com"},
        {"CONCERTO_SIGN_UP": "closed", "CONCERTO_SIGN_UP_DOMAINS": "example.com"},
        {"CONCERTO_SIGN_UP": "domains", "CONCERTO_SIGN_UP_DOMAINS": "exa'mple.com"},
        {"CONCERTO_SIGN_UP": "domains", "CONCERTO_SIGN_UP_DOMAINS": "a@example.com"},
        {"CONCERTO_SIGN_UP": "domains", "CONCERTO_SIGN_UP_DOMAINS": "b\u00fc..example"},
    ],
)
def test_a_rule_that_is_none_is_refused(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="CONCERTO_SIGN_UP"):
        settings_of(**variables)
    assert statements_of(settings_of()) == {}


@pytest.mark.parametrize(
    ("variables", "admits", "warns"),
    [
        (KEY, "open", True),
        (KEY, None, True),
        (KEY, "invitations", False),
        (KEY, "closed", False),
        ({**KEY, "CONCERTO_SIGN_UP": "open"}, "open", False),
        (LOCAL_MODEL, "open", False),
        ({}, "open", False),
    ],
)
def test_it_is_warned_where_everybody_may_sign_up_at_somebodys_cost(
    variables: dict[str, str], admits: str | None, warns: bool
) -> None:
    settings = settings_of(**variables)
    assert bool(warning_of(settings, admits)) is warns
    [finding] = findings_of(settings, admits, are_addresses_confirmed=True)
    assert bool(finding.advice) is warns
    assert "CONCERTO_SIGN_UP" in finding.advice or not warns


@pytest.mark.parametrize(("admits", "warns"), [("domains", True), ("invitations", True), ("open", False)])
def test_addresses_that_nobody_confirms_prove_nothing(admits: Any, warns: bool) -> None:
    [finding] = findings_of(settings_of(), admits, are_addresses_confirmed=False)
    assert ("CONCERTO_CONFIRM_EMAIL" in finding.advice) is warns


def test_doctor_and_banner_warn_until_it_is_decided(undecided: RunningStack) -> None:
    done = undecided.command("doctor")
    assert done.returncode == 1
    assert "!!  sign-up: open to everybody. Anybody may sign up and ask your paid model." in done.stdout
    assert "Sign-up   Anybody may sign up and ask your paid model. CONCERTO_SIGN_UP decides." in undecided.output
