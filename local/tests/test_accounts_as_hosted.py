"""What accounts, sign-ins and their tokens have in common with those of a hosted project."""

import asyncio
import time
import uuid
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
from supabase import AsyncClient
from supabase_auth.errors import AuthApiError

from local.tests.conftest import PASSWORD, mails_to, new_member
from tests.support.suites import RunningStack

NO_ID = "0197f7a4-0000-7000-8000-000000000000"


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


async def session_of(client: AsyncClient) -> Any:
    session = await client.auth.get_session()
    assert session is not None
    return session


def auth_client(stack: RunningStack, token: str | None = None) -> httpx.AsyncClient:
    headers = {"apikey": stack.publishable_key} | ({"authorization": f"Bearer {token}"} if token else {})
    return httpx.AsyncClient(base_url=f"{stack.supabase_url}/auth/v1", headers=headers, timeout=60)


async def refusal(client: AsyncClient, refresh_token: str) -> str:
    with pytest.raises(AuthApiError) as refused:
        await client.auth.refresh_session(refresh_token)
    return str(refused.value.code)


async def refreshed(client: AsyncClient, refresh_token: str) -> Any:
    session = (await client.auth.refresh_session(refresh_token)).session
    assert session is not None
    return session


async def test_tokens_carry_what_those_of_a_hosted_project_carry(embedded: RunningStack, member: AsyncClient) -> None:
    first = await session_of(member)
    claims = claims_of(first.access_token)
    assert claims["iss"] == f"{embedded.supabase_url}/auth/v1"
    assert (claims["aud"], claims["role"], claims["aal"], claims["phone"]) == (
        *("authenticated", "authenticated", "aal1", ""),
    )
    assert claims["is_anonymous"] is False
    assert claims["app_metadata"] == {"provider": "email", "providers": ["email"]}
    assert claims["user_metadata"]["display_name"] == "Ada"
    # Confirmed by a code; a password says otherwise, and a refresh says nothing new.
    assert [entry["method"] for entry in claims["amr"]] == ["otp"]
    again = claims_of((await refreshed(member, first.refresh_token)).access_token)
    assert (again["amr"], again["session_id"]) == (claims["amr"], claims["session_id"])
    answer = await member.auth.sign_in_with_password({"email": claims["email"], "password": PASSWORD})
    assert answer.session is not None
    other = claims_of(answer.session.access_token)
    assert [entry["method"] for entry in other["amr"]] == ["password"]
    assert abs(other["amr"][0]["timestamp"] - time.time()) < 3600
    assert other["session_id"] != claims["session_id"]


async def test_policies_see_all_claims_of_a_token(embedded: RunningStack, member: AsyncClient) -> None:
    connection = await asyncpg.connect(embedded.migration_db_url)
    # The table of a view that row level security does not guard is its owner's.
    await connection.execute(
        """
        create policy "only for the test" on storage.buckets for select to authenticated
        using (id = 'of-claims' and (select auth.jwt()) -> 'app_metadata' ->> 'provider' = 'email');
        insert into storage.buckets (id, name) values ('of-claims', 'of-claims');
        """
    )
    try:
        assert "of-claims" in [bucket.id for bucket in await member.storage.list_buckets()]
    finally:
        await connection.execute(
            """
            drop policy "only for the test" on storage.buckets;
            set storage.allow_delete_query = 'true';
            delete from storage.buckets where id = 'of-claims';
            """
        )
        await connection.close()


async def test_a_refresh_token_that_is_used_again_is_forgiven_for_some_seconds(
    embedded: RunningStack, member: AsyncClient
) -> None:
    first = (await session_of(member)).refresh_token
    second = (await refreshed(member, first)).refresh_token
    assert (await refreshed(member, first)).refresh_token == second != first
    third = (await refreshed(member, second)).refresh_token
    # Other tabs come late with older ones, and each sign-in goes on.
    fourth = (await refreshed(member, first)).refresh_token
    assert len({first, second, third, fourth}) == 4
    assert (await refreshed(member, first)).refresh_token == fourth
    connection = await asyncpg.connect(embedded.admin_db_url)
    await connection.execute(
        "update auth.refresh_tokens set updated_at = updated_at - interval '11 seconds' where token = $1", second
    )
    await connection.close()
    assert await refusal(member, second) == "refresh_token_already_used"
    # Whoever has the others may have stolen them.
    for token in (third, fourth):
        assert await refusal(member, token) == "refresh_token_already_used"


async def test_the_parent_of_the_active_token_is_forgiven_at_any_time(
    embedded: RunningStack, member: AsyncClient
) -> None:
    first = (await session_of(member)).refresh_token
    second = (await refreshed(member, first)).refresh_token
    connection = await asyncpg.connect(embedded.admin_db_url)
    await connection.execute(
        "update auth.refresh_tokens set updated_at = updated_at - interval '1 day' where token = $1", first
    )
    await connection.close()
    assert (await refreshed(member, first)).refresh_token == second


async def test_refreshes_at_once_share_one_token(embedded: RunningStack, member: AsyncClient) -> None:
    first = await session_of(member)
    async with auth_client(embedded) as client:
        body = {"refresh_token": first.refresh_token}
        answers = await asyncio.gather(*(client.post("/token?grant_type=refresh_token", json=body) for _ in range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


@pytest.mark.parametrize("token", [NO_ID, "no-token-at-all", "ü" * 200])
async def test_a_refresh_token_of_nobody_is_not_found(anonymous: AsyncClient, token: str) -> None:
    assert await refusal(anonymous, token) == "refresh_token_not_found"


async def test_hosts_need_no_dot_and_letters_are_those_of_ascii(embedded: RunningStack) -> None:
    name = uuid.uuid4().hex
    async with auth_client(embedded) as client:
        taken = await client.post("/signup", json={"email": f"{name}@B", "password": PASSWORD})
        assert (taken.status_code, taken.json()["email"]) == (200, f"{name}@b")
        assert len(mails_to(embedded, f"{name}@b")) == 1
        for email in (
            f"ü{name}@example.com",
            f"{name}@exämple.com",
            f"{name}@-b",
            f"{name}@b..c",
            f" {name}@b.c",
            "x" * 250 + "@b.com",
        ):
            for route, more in (
                ("signup", {"password": PASSWORD}),
                ("otp", {}),
                ("recover", {}),
                ("resend", {"type": "signup"}),
            ):
                answer = await client.post(f"/{route}", json={"email": email, **more})
                assert (answer.status_code, answer.json()["error_code"]) == (400, "validation_failed"), (route, email)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/factors", {"factor_type": "totp"}, 422, "mfa_totp_enroll_not_enabled"),
        ("POST", f"/factors/{NO_ID}/challenge", {}, 422, "mfa_totp_verify_not_enabled"),
        ("DELETE", f"/factors/{NO_ID}", None, 422, "mfa_totp_verify_not_enabled"),
        ("POST", "/signup", {"data": {}}, 422, "anonymous_provider_disabled"),
        ("POST", "/signup", {"phone": "+491", "password": PASSWORD}, 400, "phone_provider_disabled"),
        ("POST", "/otp", {"phone": "+491"}, 400, "phone_provider_disabled"),
        ("PUT", "/user", {"phone": "+491"}, 400, "phone_provider_disabled"),
        ("POST", "/token?grant_type=id_token", {"id_token": "a"}, 400, "provider_disabled"),
        ("POST", "/token?grant_type=web3", {"message": "a"}, 422, "web3_provider_disabled"),
        ("POST", "/sso", {"domain": "example.com"}, 404, "saml_provider_disabled"),
        ("GET", "/user/identities/authorize?provider=github", None, 404, "manual_linking_disabled"),
        ("GET", "/oauth/authorizations/1", None, 404, "oauth_server_disabled"),
        ("GET", "/admin/users", None, 404, "not_implemented"),
        ("POST", "/invite", {"email": "a@b.c"}, 404, "not_implemented"),
    ],
)
async def test_what_is_missing_says_so_in_json(
    embedded: RunningStack, method: str, path: str, body: Any, status: int, code: str
) -> None:
    async with auth_client(embedded) as client:
        answer = await client.request(method, path, json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (status, code)
    assert answer.headers["x-sb-error-code"] == code
    assert "not part of the embedded Supabase" in answer.json()["msg"]


async def test_wrong_codes_and_wrong_links_are_told_apart(embedded: RunningStack, member: AsyncClient) -> None:
    email = (await session_of(member)).user.email
    async with auth_client(embedded) as client:
        code = await client.post("/verify", json={"type": "email", "email": email, "token": "000000x"})
        link = await client.post("/verify", json={"type": "email", "token_hash": "0" * 56})
    assert [(answer.status_code, answer.json()["error_code"], answer.json()["msg"]) for answer in (code, link)] == [
        (403, "otp_expired", "Token has expired or is invalid"),
        (403, "otp_expired", "Email link is invalid or has expired"),
    ]


async def test_an_account_that_a_code_was_sent_to_is_confirmed_by_the_code(
    embedded: RunningStack, anonymous: AsyncClient
) -> None:
    email = f"by-code-{uuid.uuid4().hex[:12]}@example.com"
    state = """
        select email_confirmed_at is not null, (select count(*) from auth.sessions as s where s.user_id = u.id)
        from auth.users as u where email = $1
    """
    connection = await asyncpg.connect(embedded.admin_db_url)
    try:
        for _ in range(2):
            await anonymous.auth.sign_in_with_otp({"email": email})
            assert tuple(await connection.fetchrow(state, email)) == (False, 0)
        code = mails_to(embedded, email)[-1].code
        assert code is not None
        assert (await anonymous.auth.verify_otp({"email": email, "token": code, "type": "email"})).session
        assert tuple(await connection.fetchrow(state, email)) == (True, 1)
    finally:
        await connection.close()


async def test_a_blocked_account_is_told_before_its_password_is_judged(
    embedded: RunningStack, member: AsyncClient
) -> None:
    session = await session_of(member)
    connection = await asyncpg.connect(embedded.admin_db_url)
    await connection.execute(
        "update auth.users set banned_until = now() + interval '1 hour' where id = $1::text::uuid", session.user.id
    )
    await connection.close()
    async with auth_client(embedded) as client:
        for password in (PASSWORD, "not this one"):
            body = {"email": session.user.email, "password": password}
            answer = await client.post("/token?grant_type=password", json=body)
            assert (answer.status_code, answer.json()["error_code"]) == (400, "user_banned")


async def test_a_log_out_without_a_scope_ends_all_sign_ins(embedded: RunningStack, member: AsyncClient) -> None:
    one = await session_of(member)
    body = {"email": one.user.email, "password": PASSWORD}
    async with auth_client(embedded) as client:
        other = (await client.post("/token?grant_type=password", json=body)).json()["access_token"]
        left = await client.post("/logout", headers={"authorization": f"Bearer {other}"})
        assert left.status_code == 204
        late = await client.get("/user", headers={"authorization": f"Bearer {one.access_token}"})
        assert (late.status_code, late.json()["error_code"]) == (403, "session_not_found")


async def test_slow_questions_for_data_keep_nobody_from_signing_in(embedded: RunningStack) -> None:
    member = await new_member(embedded)
    session = await session_of(member)
    headers = {"apikey": embedded.publishable_key, "authorization": f"Bearer {session.access_token}"}
    connection = await asyncpg.connect(embedded.admin_db_url)
    lock = connection.transaction()
    await lock.start()
    await connection.execute("lock table public.sessions in access exclusive mode")
    async with httpx.AsyncClient(base_url=embedded.supabase_url, headers=headers, timeout=120) as client:
        waiting = [asyncio.create_task(client.get("/rest/v1/sessions?select=id")) for _ in range(30)]
        try:
            for _ in range(3):
                body = {"email": session.user.email, "password": PASSWORD}
                answer = await client.post("/auth/v1/token?grant_type=password", json=body)
                assert answer.status_code == 200
            assert not any(task.done() for task in waiting)
        finally:
            await lock.rollback()
            await connection.close()
        assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    await member.auth.close()


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [("banned_until", "now() + interval '1 hour'", "user_banned"), ("deleted_at", "now()", "user_not_found")],
)
async def test_a_blocked_account_is_neither_shown_nor_changed_by_a_token_of_before(
    embedded: RunningStack, member: AsyncClient, column: str, value: str, code: str
) -> None:
    session = await session_of(member)
    admin = await asyncpg.connect(embedded.admin_db_url)
    await admin.execute(f"update auth.users set {column} = {value} where id = $1::text::uuid", session.user.id)
    await admin.close()
    async with auth_client(embedded, session.access_token) as client:
        answers = [
            await client.get("/user"),
            await client.put("/user", json={"password": "another long password"}),
            await client.get("/reauthenticate"),
        ]
    assert [(answer.status_code, answer.json()["error_code"]) for answer in answers] == [(403, code)] * 3


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/signup", {"email": ["a@example.com"], "password": PASSWORD}),
        ("/otp", {"email": 5}),
        ("/magiclink", {"email": True}),
        ("/recover", {"email": {"a": 1}}),
        ("/resend", {"type": "signup", "email": ["a@example.com"]}),
        ("/token?grant_type=password", {"email": "a@example.com", "password": [PASSWORD]}),
        ("/token?grant_type=refresh_token", {"refresh_token": {"a": 1}}),
    ],
)
async def test_what_is_no_text_is_refused(embedded: RunningStack, path: str, body: Any) -> None:
    async with auth_client(embedded) as client:
        answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "bad_json")
