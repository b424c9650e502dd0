from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from concerto.auth.v1 import auth_pb2
from google.protobuf import struct_pb2, timestamp_pb2

from servicekit import testing
from servicekit.errors import AppError
from servicekit.testing import mint_token
from services.auth.__main__ import build
from services.auth.tests.conftest import settings_of
from services.auth.tests.support import AnsweringServer, Client, caller_of, new_email


@pytest.fixture(scope="module", params=["direct", "rest"])
async def client(stack: Any, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    settings = settings_of(stack, stack.supabase_url)
    if request.param == "rest":
        settings = settings.model_copy(update={"db_url": None})
    async with (
        build(settings) as registrations,
        testing.served(registrations, supabase_url=stack.supabase_url) as connection,
    ):
        yield Client(connection)


@pytest.fixture
async def token(client: Client) -> str:
    return (await client.sign_up(new_email(), display_name="Ada")).session.access_token


def new_username() -> str:
    return f"ada_{uuid4().hex[:12]}"


async def test_account_is_read_as_it_is(client: Client) -> None:
    answer = await client.sign_up(new_email(), display_name="Ada")
    user = await client.get_me(answer.session.access_token)
    assert user == answer.user
    assert user.profile == auth_pb2.Profile()
    assert not user.settings.notification_preferences.fields


async def test_account_needs_a_token(client: Client) -> None:
    with pytest.raises(AppError) as refusal:
        await client.call("GetMe", auth_pb2.GetMeRequest())
    assert refusal.value.reason == "TOKEN_MISSING"


async def test_account_of_a_forged_token_is_refused(client: Client) -> None:
    with pytest.raises(AppError) as refusal:
        await client.get_me(mint_token(secret="a secret of somebody else's, long enough"))
    assert refusal.value.reason == "TOKEN_INVALID"


async def test_deleted_account_is_not_found(client: Client, stack: Any) -> None:
    answer = await client.sign_up(new_email())
    connection = await asyncpg.connect(stack.admin_db_url)
    try:
        await connection.execute("delete from auth.users where id = $1::uuid", answer.user.id)
    finally:
        await connection.close()
    for method, message in (("GetMe", auth_pb2.GetMeRequest()), ("UpdateMe", auth_pb2.UpdateMeRequest())):
        with pytest.raises(AppError) as refusal:
            await client.call(method, message, token=answer.session.access_token)
        # The service still believes in the sign-in for a moment, the REST interface does not.
        assert refusal.value.reason in ("ACCOUNT_NOT_FOUND", "SIGN_IN_ENDED")


async def test_blocked_account_gets_no_tokens_until_the_block_ends(client: Client, stack: Any) -> None:
    email = new_email()
    answer = await client.sign_up(email)

    async def block(interval: str) -> None:
        connection = await asyncpg.connect(stack.admin_db_url)
        statement = "update auth.users set banned_until = now() + $2::text::interval where id = $1::text::uuid"
        try:
            await connection.execute(statement, answer.user.id, interval)
        finally:
            await connection.close()

    await block("1 hour")
    for attempt in (lambda: client.log_in(email), lambda: client.refresh(answer.session.refresh_token)):
        with pytest.raises(AppError) as refusal:
            await attempt()
        assert refusal.value.reason == "USER_BANNED"
    await block("-1 second")
    assert (await client.log_in(email)).user.id == answer.user.id


async def test_sign_in_that_has_ended_before_it_is_answered_says_so(stack: Any, token: str) -> None:
    subject = caller_of(token).claims["sub"]
    ended = mint_token(subject, session_id=str(uuid4()))
    user = {"id": subject, "aud": "authenticated", "email": new_email(), "app_metadata": {}, "user_metadata": {}}
    user["created_at"] = "2026-01-01T00:00:00Z"
    tokens = {"access_token": ended, "refresh_token": "r", "expires_in": 3600, "token_type": "bearer", "user": user}
    with AnsweringServer().running() as auth_server:
        auth_server.answer = lambda *_: (200, tokens)
        async with (
            build(settings_of(stack, auth_server.url)) as registrations,
            testing.served(registrations) as connection,
        ):
            with pytest.raises(AppError) as refusal:
                await Client(connection).refresh("spent")
    assert refusal.value.reason == "SIGN_IN_ENDED"


async def test_every_part_of_the_account_can_be_changed(client: Client, token: str) -> None:
    username = new_username()
    expires_at = timestamp_pb2.Timestamp(seconds=1_900_000_000, nanos=123_456_000)
    preferences = struct_pb2.Struct()
    preferences.update({"mentions": True, "digest": {"hour": 7, "days": ["mo", "fr"]}, "größe": "klein"})
    changed = await client.update_me(
        token,
        display_name="Ada Müller",
        profile=auth_pb2.ProfileChanges(
            username=username.upper(),
            full_name="Ada Müller-Groß",
            avatar_url="https://example.com/ada.png?größe=1",
            status_text="in Zürich 🏔",
            status_emoji="🏔",
            status_expires_at=expires_at,
        ),
        settings=auth_pb2.UserSettingsChanges(theme=auth_pb2.THEME_DARK, notification_preferences=preferences),
    )
    assert changed == await client.get_me(token)
    assert changed.display_name == "Ada Müller"
    assert changed.profile == auth_pb2.Profile(
        username=username,
        full_name="Ada Müller-Groß",
        avatar_url="https://example.com/ada.png?größe=1",
        status_text="in Zürich 🏔",
        status_emoji="🏔",
        status_expires_at=expires_at,
    )
    assert changed.settings.theme == auth_pb2.THEME_DARK
    assert changed.settings.notification_preferences == preferences


async def test_absent_fields_stay_and_empty_texts_remove(client: Client, token: str) -> None:
    username = new_username()
    await client.update_me(token, profile={"username": username, "full_name": "Ada", "avatar_url": "https://a.example"})
    kept = await client.update_me(token, settings={"theme": "THEME_LIGHT"})
    assert (kept.display_name, kept.profile.username, kept.profile.full_name) == ("Ada", username, "Ada")
    removed = await client.update_me(token, profile={"username": "", "full_name": "", "avatar_url": ""})
    assert removed.profile == auth_pb2.Profile()
    assert removed.settings.theme == auth_pb2.THEME_LIGHT


async def test_status_without_an_end_replaces_one_with_an_end(client: Client, token: str) -> None:
    until = timestamp_pb2.Timestamp()
    until.FromDatetime(datetime(2027, 1, 1, tzinfo=UTC))
    first = await client.update_me(token, profile={"status_text": "away", "status_expires_at": until})
    assert first.profile.status_expires_at == until
    second = await client.update_me(token, profile={"status_text": "back"})
    assert not second.profile.HasField("status_expires_at")


async def test_preferences_are_replaced_as_a_whole(client: Client, token: str) -> None:
    await client.update_me(token, settings={"notification_preferences": {"a": True, "b": 1.5}})
    changed = await client.update_me(token, settings={"notification_preferences": {"c": None}})
    assert dict(changed.settings.notification_preferences) == {"c": None}


async def test_taken_username_is_refused_whatever_its_letter_case(client: Client, token: str) -> None:
    username = new_username()
    await client.update_me(token, profile={"username": username})
    other = (await client.sign_up(new_email())).session.access_token
    with pytest.raises(AppError) as refusal:
        await client.update_me(other, display_name="Eve", profile={"username": username.upper()})
    assert refusal.value.reason == "USERNAME_TAKEN"
    assert refusal.value.metadata == {"username": username}
    assert (await client.get_me(other)).display_name != "Eve"


@pytest.mark.parametrize("username", ["ab", "jürgen", "with space", "a/b", "x" * 32 + "!"])
async def test_invalid_username_is_refused(client: Client, token: str, username: str) -> None:
    with pytest.raises(AppError) as refusal:
        await client.update_me(token, profile={"username": username})
    assert refusal.value.reason in ("INVALID_USERNAME", "FIELD_TOO_LARGE")


async def test_changes_reach_the_callers_account_only(client: Client, token: str) -> None:
    other = (await client.sign_up(new_email(), display_name="Grace")).session.access_token
    await client.update_me(token, display_name="Changed", profile={"full_name": "Changed"})
    untouched = await client.get_me(other)
    assert (untouched.display_name, untouched.profile.full_name) == ("Grace", "")


@pytest.mark.parametrize("instant", [{"seconds": 10**14}, {"seconds": -(10**14)}, {"seconds": 1, "nanos": -5}])
async def test_instant_that_no_calendar_has_is_refused(client: Client, token: str, instant: dict[str, int]) -> None:
    with pytest.raises(AppError) as refusal:
        await client.update_me(token, profile={"status_expires_at": timestamp_pb2.Timestamp(**instant)})
    assert (refusal.value.reason, refusal.value.metadata["field"]) == ("INVALID_FIELD", "profile.status_expires_at")
