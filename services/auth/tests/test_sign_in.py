import asyncio
import gc
from typing import Any

import asyncpg
import jwt
import pytest
from concerto.auth.v1 import auth_pb2
from supabase_auth import AsyncGoTrueClient
from supabase_auth.types import Session

from servicekit.errors import AppError
from services.auth.tests.support import PASSWORD, Client, new_email
from tests.support.waiting import until


async def test_sign_up_answers_the_account_and_a_session(client: Client) -> None:
    email = new_email()
    answer = await client.sign_up(email, display_name="Ada Lovelace")
    assert answer.user.email == email
    assert answer.user.display_name == "Ada Lovelace"
    assert answer.user.role == auth_pb2.USER_ROLE_USER
    assert answer.user.settings.theme == auth_pb2.THEME_SYSTEM
    assert answer.user.HasField("profile")
    assert answer.user.created_at.seconds > 0
    assert answer.session.token_type == "bearer"
    assert answer.session.expires_in == 3600
    claims = jwt.decode(answer.session.access_token, options={"verify_signature": False})
    assert claims["sub"] == answer.user.id
    assert claims["exp"] == pytest.approx(answer.session.expires_at, abs=2)


async def test_sign_up_without_a_name_takes_the_addresss_first_part(client: Client) -> None:
    email = new_email("grace")
    assert (await client.sign_up(email)).user.display_name == email.partition("@")[0]


async def test_sign_up_and_log_in_with_umlauts_and_other_scripts(client: Client) -> None:
    email = new_email("juergen.gross")
    signed_up = await client.sign_up(email, "Pässwört-ßehr-geheim-密码", display_name="Jürgen Groß 🎶 田中")
    assert (signed_up.user.email, signed_up.user.display_name) == (email, "Jürgen Groß 🎶 田中")
    answer = await client.log_in(email, "Pässwört-ßehr-geheim-密码")
    assert (answer.user.email, answer.user.display_name) == (email, "Jürgen Groß 🎶 田中")


async def test_of_sign_ups_with_one_address_at_once_one_succeeds_and_the_others_are_told_why(client: Client) -> None:
    email = new_email()
    answers = await asyncio.gather(*(client.sign_up(email) for _ in range(4)), return_exceptions=True)
    refusals = [answer for answer in answers if isinstance(answer, BaseException)]
    assert len(refusals) == 3
    assert {getattr(refusal, "reason", refusal) for refusal in refusals} == {"EMAIL_TAKEN"}


async def test_sign_up_with_a_registered_address_is_refused(client: Client) -> None:
    email = new_email()
    await client.sign_up(email)
    with pytest.raises(AppError) as refusal:
        await client.sign_up(email.upper(), "another long password")
    assert refusal.value.reason == "EMAIL_TAKEN"


@pytest.mark.parametrize("password", ["short", "1234567"])
async def test_sign_up_with_a_weak_password_says_what_is_wrong(client: Client, password: str) -> None:
    with pytest.raises(AppError) as refusal:
        await client.sign_up(new_email(), password)
    assert refusal.value.reason == "WEAK_PASSWORD"
    assert refusal.value.metadata == {"problem": "it has fewer than 8 characters"}


async def test_sign_up_with_an_address_that_the_auth_server_does_not_take_is_refused(client: Client) -> None:
    with pytest.raises(AppError) as refusal:
        await client.sign_up("ada@-nowhere.com")
    assert refusal.value.reason == "EMAIL_REJECTED"


async def test_log_in_answers_the_account_and_notes_the_time(client: Client) -> None:
    email = new_email()
    first = await client.sign_up(email)
    answer = await client.log_in(email)
    assert answer.user.id == first.user.id
    assert answer.user.last_login_at.ToDatetime() >= first.user.last_login_at.ToDatetime()
    assert answer.session.refresh_token != first.session.refresh_token
    assert (await client.get_me(answer.session.access_token)).email == email


async def test_log_in_ignores_the_addresss_letter_case(client: Client) -> None:
    email = new_email()
    await client.sign_up(email)
    assert (await client.log_in(email.upper())).user.email == email


async def test_wrong_password_and_unknown_address_are_answered_alike(client: Client) -> None:
    email = new_email()
    await client.sign_up(email)
    refusals = []
    for address, password in ((email, "wrong password"), (new_email(), PASSWORD)):
        with pytest.raises(AppError) as refusal:
            await client.log_in(address, password)
        refusals.append(refusal.value.to_json())
    assert refusals[0] == refusals[1]
    assert refusals[0]["details"][0]["reason"] == "INVALID_CREDENTIALS"


async def test_refresh_answers_new_tokens_for_the_same_account(client: Client) -> None:
    first = await client.sign_up(new_email())
    answer = await client.refresh(first.session.refresh_token)
    assert answer.user.id == first.user.id
    assert answer.user.HasField("profile")
    assert answer.session.refresh_token != first.session.refresh_token
    assert (await client.get_me(answer.session.access_token)).id == first.user.id


async def test_refresh_token_used_long_ago_ends_the_sign_in(client: Client, stack: Any) -> None:
    first = (await client.sign_up(new_email())).session.refresh_token
    second = (await client.refresh(first)).session.refresh_token
    third = (await client.refresh(second)).session.refresh_token
    connection = await asyncpg.connect(stack.admin_db_url)
    aged = "update auth.refresh_tokens set updated_at = updated_at - interval '11 seconds' where token = $1"
    await connection.execute(aged, first)
    await connection.close()
    with pytest.raises(AppError) as refusal:
        await client.refresh(first)
    assert refusal.value.reason == "REFRESH_TOKEN_REUSED"
    with pytest.raises(AppError) as refusal:
        await client.refresh(third)
    assert refusal.value.reason == "REFRESH_TOKEN_REUSED"


async def test_refresh_repeated_after_a_lost_answer_gets_the_current_token(client: Client) -> None:
    first = (await client.sign_up(new_email())).session.refresh_token
    second = (await client.refresh(first)).session.refresh_token
    assert (await client.refresh(first)).session.refresh_token == second


@pytest.mark.parametrize(
    "token", ["garbage", "0192f2f2-0000-7000-8000-000000000000", "a.b.c", "ünïcode", "' or 1=1 --"]
)
async def test_unknown_refresh_token_is_refused(client: Client, token: str) -> None:
    with pytest.raises(AppError) as refusal:
        await client.refresh(token)
    assert refusal.value.reason == "REFRESH_TOKEN_INVALID"


@pytest.mark.parametrize(
    ("scope", "first_lives", "second_lives"),
    [
        ("UNSPECIFIED", False, True),
        ("LOCAL", False, True),
        ("GLOBAL", False, False),
        ("OTHERS", True, False),
    ],
)
async def test_log_out_ends_the_sign_ins_of_its_scope(
    client: Client, scope: str, first_lives: bool, second_lives: bool
) -> None:
    email = new_email()
    first = (await client.sign_up(email)).session
    second = (await client.log_in(email)).session
    stranger = (await client.sign_up(new_email())).session
    await client.log_out(first.access_token, scope)
    assert await _lives(client, first.refresh_token) is first_lives
    assert await _lives(client, second.refresh_token) is second_lives
    assert await _lives(client, stranger.refresh_token)


async def _lives(client: Client, refresh_token: str) -> bool:
    try:
        await client.refresh(refresh_token)
    except AppError as error:
        if error.reason != "REFRESH_TOKEN_INVALID":
            raise
        return False
    return True


async def test_log_out_may_be_repeated(client: Client) -> None:
    session = (await client.sign_up(new_email())).session
    await client.log_out(session.access_token)
    await client.log_out(session.access_token)


@pytest.mark.parametrize("scope", ["GLOBAL", "OTHERS"])
async def test_log_out_of_other_sign_ins_from_an_ended_one_is_refused(client: Client, scope: str) -> None:
    email = new_email()
    first = (await client.sign_up(email)).session
    second = (await client.log_in(email)).session
    await client.log_out(first.access_token)
    with pytest.raises(AppError) as refusal:
        await client.log_out(first.access_token, scope)
    assert refusal.value.reason == "SIGN_IN_ENDED"
    assert await _lives(client, second.refresh_token)


async def test_log_out_needs_a_token(client: Client) -> None:
    with pytest.raises(AppError) as refusal:
        await client.call("LogOut", auth_pb2.LogOutRequest())
    assert refusal.value.reason == "TOKEN_MISSING"


async def test_twenty_people_at_once_never_meet_each_others_sign_ins(confirmed_people: Any) -> None:
    client, emails = confirmed_people

    async def log_in_and_look(email: str) -> None:
        answer = await client.log_in(email, f"{PASSWORD} {email}")
        claims = jwt.decode(answer.session.access_token, options={"verify_signature": False})
        assert (answer.user.email, claims["email"]) == (email, email)
        assert answer.user.id == claims["sub"]
        refreshed = await client.refresh(answer.session.refresh_token)
        assert refreshed.user.email == email
        assert (await client.get_me(refreshed.session.access_token)).email == email
        with pytest.raises(AppError) as refusal:
            await client.log_in(email, PASSWORD)
        assert refusal.value.reason == "INVALID_CREDENTIALS"
        await client.update_password(refreshed.session.access_token, f"new {PASSWORD} {email}")
        assert (await client.log_in(email, f"new {PASSWORD} {email}")).user.email == email
        await client.log_out(refreshed.session.access_token)

    await asyncio.gather(*(log_in_and_look(email) for email in emails))


async def test_nothing_of_a_sign_in_outlives_its_call(client: Client) -> None:
    session = (await client.sign_up(new_email())).session
    session = (await client.refresh(session.refresh_token)).session
    await client.update_password(session.access_token, f"new {PASSWORD}")

    def is_nothing_left() -> bool:
        gc.collect()
        return not any(type(one) in (AsyncGoTrueClient, Session) for one in gc.get_objects())

    # The answer may be here before the call's own task has ended.
    await until(is_nothing_left, "the call to end", look=0.1)
