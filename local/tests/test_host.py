import asyncio
import re
import stat
import uuid
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
from supabase import AsyncClient
from supabase_auth.errors import AuthApiError, AuthWeakPasswordError

from local.tests.conftest import PASSWORD, close_client, mails_to, new_client, read_link
from tests.support.suites import RunningStack
from tests.support.waiting import until


def headers(stack: RunningStack, token: str | None = None, key: str | None = None) -> dict[str, str]:
    return {"apikey": key or stack.publishable_key} | ({"Authorization": f"Bearer {token}"} if token else {})


async def access_token(client: AsyncClient) -> str:
    session = await client.auth.get_session()
    assert session is not None
    return session.access_token


async def email_of(client: AsyncClient) -> str:
    answer = await client.auth.get_user()
    assert answer is not None
    assert answer.user.email is not None
    return answer.user.email


async def user_id(client: AsyncClient) -> str:
    session = await client.auth.get_session()
    assert session is not None
    return session.user.id


async def test_confirmation_mail_becomes_a_private_file_whose_link_leads_to_a_page(
    embedded: RunningStack, anonymous: AsyncClient
) -> None:
    email = f"new-{uuid.uuid4().hex[:12]}@example.com"
    answer = await anonymous.auth.sign_up({"email": email, "password": PASSWORD})
    assert answer.session is None
    with pytest.raises(AuthApiError) as refused:
        await anonymous.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    assert refused.value.code == "email_not_confirmed"

    (mail,) = mails_to(embedded, email)
    assert re.fullmatch(r"\d{6}", mail.code or "")
    target, fragment = read_link(mail.links[0])
    assert target == embedded.gateway_url
    assert (fragment["type"], fragment["email"]) == ("signup", email)
    files = list((embedded.home / "mail").iterdir())
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((embedded.home / "mail").stat().st_mode) == 0o700

    redeemed = await anonymous.auth.verify_otp({"type": "signup", "token_hash": fragment["token_hash"]})
    assert redeemed.session is not None
    assert (await anonymous.auth.sign_in_with_password({"email": email, "password": PASSWORD})).session is not None


async def test_signing_up_twice_does_not_reveal_that_the_address_is_known(
    embedded: RunningStack, member: AsyncClient, anonymous: AsyncClient
) -> None:
    email = await email_of(member)
    known = await anonymous.auth.sign_up({"email": email, "password": PASSWORD})
    fresh = await anonymous.auth.sign_up({"email": f"x{email}", "password": PASSWORD})
    assert known.session is fresh.session is None
    assert known.user is not None
    assert known.user.id != await user_id(member)
    assert fresh.user is not None
    assert uuid.UUID(known.user.id).version == uuid.UUID(fresh.user.id).version
    assert len(mails_to(embedded, email)) == 1


async def test_reset_link_leads_to_the_page_that_was_asked_for_but_not_to_a_foreign_one(
    embedded: RunningStack, member: AsyncClient
) -> None:
    email = await email_of(member)
    wanted = f"{embedded.gateway_url}/reset"
    for target, expected in ((wanted, wanted), ("https://elsewhere.example/", embedded.gateway_url)):
        await member.auth.reset_password_for_email(email, {"redirect_to": target})
        assert read_link(mails_to(embedded, email)[-1].links[0])[0] == expected


async def test_mail_command_shows_the_last_mail_with_its_code(embedded: RunningStack, member: AsyncClient) -> None:
    email = await email_of(member)
    await member.auth.reset_password_for_email(email)
    shown = embedded.command("mail", "--last").stdout
    mail = mails_to(embedded, email)[-1]
    assert mail.code is not None
    assert mail.code in shown
    assert mail.links[0] in shown
    assert email in embedded.command("mail").stdout


async def test_weak_and_wrong_passwords_and_a_taken_address_are_told_apart(
    embedded: RunningStack, member: AsyncClient, anonymous: AsyncClient
) -> None:
    with pytest.raises(AuthWeakPasswordError):
        await anonymous.auth.sign_up({"email": "weak@example.com", "password": "short"})
    email = await email_of(member)
    with pytest.raises(AuthApiError) as refused:
        await anonymous.auth.sign_in_with_password({"email": email, "password": "not this one"})
    assert refused.value.code == "invalid_credentials"
    with pytest.raises(AuthApiError) as refused:
        await member.auth.update_user({"password": PASSWORD})
    assert refused.value.code == "same_password"


async def test_access_tokens_live_as_long_as_is_configured(member: AsyncClient) -> None:
    first = await member.auth.get_session()
    assert first is not None
    second = (await member.auth.refresh_session(first.refresh_token)).session
    assert second is not None
    for session in (first, second):
        assert session.expires_in == 1800
        claims = jwt.decode(session.access_token, options={"verify_signature": False})
        assert claims["exp"] - claims["iat"] == 1800


async def test_login_moves_last_sign_in(embedded: RunningStack, member: AsyncClient) -> None:
    email = await email_of(member)
    query = "select last_sign_in_at from auth.users where email = $1"
    connection = await asyncpg.connect(embedded.admin_db_url)
    before = await connection.fetchval(query, email)
    await member.auth.sign_in_with_password({"email": email, "password": PASSWORD})
    after = await connection.fetchval(query, email)
    await connection.close()
    assert after > before


async def test_rest_requests_run_as_the_role_of_the_caller_and_never_as_the_login_role(
    embedded: RunningStack, member: AsyncClient
) -> None:
    connection = await asyncpg.connect(embedded.migration_db_url)
    await connection.execute(
        """
        create or replace function api.local_test_role(args jsonb) returns jsonb
        language sql security invoker set search_path = '' as
        $$ select jsonb_build_object('role', current_user, 'session', session_user, 'email', auth.email(),
                                     'uid', auth.uid(), 'kind', jsonb_typeof(args)) $$;
        grant usage on schema api to anon, authenticated, service_role;
        grant execute on function api.local_test_role(jsonb) to anon, authenticated, service_role;
        """
    )
    try:
        assert embedded.command("migrate").returncode == 0  # the host learns of the new function
        token = await access_token(member)
        cases = [(None, None, "anon"), (token, None, "authenticated"), (None, embedded.secret_key, "service_role")]
        async with httpx.AsyncClient(base_url=embedded.supabase_url) as rest:
            for bearer, key, role in cases:
                answer = await _call_role(rest, headers(embedded, bearer, key))
                assert answer["role"] == role
                assert answer["kind"] == "object"
                if bearer:
                    assert answer["uid"] == await user_id(member)
    finally:
        await connection.execute("drop function api.local_test_role(jsonb)")
        await connection.close()


async def _call_role(rest: httpx.AsyncClient, head: dict[str, str]) -> dict[str, str]:
    async def ask() -> httpx.Response:
        return await rest.post(
            "/rest/v1/rpc/local_test_role", json={"args": {"a": 1}}, headers={**head, "Content-Profile": "api"}
        )

    async def is_known() -> bool:
        return (await ask()).status_code != httpx.codes.NOT_FOUND

    await until(is_known, "the REST API to read the new function")
    answer = await ask()
    assert answer.status_code == httpx.codes.OK, answer.text
    return dict(answer.json())


async def test_own_rows_are_inserted_and_read_with_supabase_py_and_strangers_see_none(
    embedded: RunningStack, member: AsyncClient, anonymous: AsyncClient
) -> None:
    made: Any = await member.table("sessions").insert({"name": "Mine"}).execute()
    assert made.data[0]["user_id"] == await user_id(member)
    stranger = await new_client(embedded)
    email = f"stranger-{uuid.uuid4().hex[:12]}@example.com"
    await stranger.auth.sign_up({"email": email, "password": PASSWORD})
    code = mails_to(embedded, email)[0].code
    assert code is not None
    await stranger.auth.verify_otp({"email": email, "token": code, "type": "signup"})
    mine: Any = await member.table("sessions").select("*").execute()
    theirs = await stranger.table("sessions").select("*").execute()
    await close_client(stranger)
    assert [row["name"] for row in mine.data] == ["Mine"]
    assert theirs.data == []


async def test_files_are_stored_read_signed_and_removed_by_their_owner_only(
    embedded: RunningStack, member: AsyncClient, anonymous: AsyncClient, bucket: str
) -> None:
    folder = await user_id(member)
    files = member.storage.from_(bucket)
    content = bytes(range(256)) * 1000
    await files.upload(f"{folder}/a", content, {"content-type": "application/octet-stream"})
    await files.upload(f"{folder}/a/nested.txt", b"beside a file of the same name", {"content-type": "text/plain"})
    assert await files.download(f"{folder}/a") == content

    signed: Any = await files.create_signed_url(f"{folder}/a/nested.txt", 60)
    async with httpx.AsyncClient() as plain:
        answer = await plain.get(signed["signedURL"])
        assert answer.status_code == httpx.codes.OK
        assert answer.headers["content-type"].startswith("text/plain")
        assert answer.content == b"beside a file of the same name"
        refused = await plain.get(signed["signedURL"].replace("token=", "token=x"))
        assert refused.status_code in (400, 401, 403)
    several: Any = await files.create_signed_urls([f"{folder}/a", f"{folder}/missing"], 60)
    assert several[0]["signedURL"].startswith(f"{embedded.supabase_url}/storage/v1/object/sign/")

    await files.upload(f"{folder}/a", b"changed", {"content-type": "text/plain", "upsert": "true"})
    assert await files.download(f"{folder}/a") == b"changed"
    await files.move(f"{folder}/a", f"{folder}/b")
    assert await files.download(f"{folder}/b") == b"changed"
    with pytest.raises(Exception, match=r"(?i)not.?found|bucket"):
        await anonymous.storage.from_(bucket).download(f"{folder}/b")
    with pytest.raises(Exception, match=r"(?i)policy|unauthorized|denied"):
        await files.upload("someone-else/a", b"x", {"content-type": "text/plain"})
    await files.remove([f"{folder}/b", f"{folder}/a/nested.txt"])
    kept = [file for file in (embedded.home / "storage").rglob("*") if file.is_file()]
    assert kept == []


async def test_form_upload_keeps_type_and_cache_time_whatever_the_field_is_called(
    embedded: RunningStack, member: AsyncClient, bucket: str
) -> None:
    path = f"{await user_id(member)}/form.html"
    head = headers(embedded, await access_token(member))
    async with httpx.AsyncClient(base_url=f"{embedded.supabase_url}/storage/v1/object", headers=head) as browser:
        form = {"": ("form.html", b"<p>hello</p>", "text/html")}
        made = await browser.post(f"/{bucket}/{path}", data={"cacheControl": "60"}, files=form)
        assert made.status_code == httpx.codes.OK, made.text
        read = await browser.get(f"/{bucket}/{path}")
        assert (read.content, read.headers["content-type"]) == (b"<p>hello</p>", "text/html")
        assert "max-age=60" in read.headers["cache-control"]
    await member.storage.from_(bucket).remove([path])


async def test_signed_upload_works_without_being_logged_in(
    embedded: RunningStack, member: AsyncClient, anonymous: AsyncClient, bucket: str
) -> None:
    path = f"{await user_id(member)}/signed.txt"
    files = member.storage.from_(bucket)
    signed = await files.create_signed_upload_url(path)
    await anonymous.storage.from_(bucket).upload_to_signed_url(path, signed["token"], b"by link")
    assert await files.download(path) == b"by link"
    await files.remove([path])


@pytest.mark.parametrize(
    "key",
    [
        "..%2f..%2fsecrets.json",
        "%2e%2e/secrets.json",
        "a/..%2f..%2f..%2fsecrets.json",
        "a%5c..%5c..%5csecrets.json",
        "..%00",
    ],
)
async def test_object_keys_cannot_leave_the_storage_folder(
    embedded: RunningStack, member: AsyncClient, bucket: str, key: str
) -> None:
    before = sorted(_all_files(embedded.home))
    token = await access_token(member)
    # A raw request: HTTP clients resolve dot segments before they send them.
    host, port = "127.0.0.1", embedded.base_port + 1
    folder = await user_id(member)
    for method in ("POST", "GET"):
        target = f"/storage/v1/object/{bucket}/{folder}/{key}"
        reader, writer = await asyncio.open_connection(host, port)
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\napikey: {embedded.publishable_key}\r\n"
        )
        head += f"Authorization: Bearer {token}\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nevil"
        writer.write(head.encode())
        status = int((await reader.readline()).split()[1])
        writer.close()
        await writer.wait_closed()
        assert 400 <= status < 500
    assert sorted(_all_files(embedded.home)) == before


def _all_files(home: Path) -> list[str]:
    return [str(file) for name in ("storage", "mail") for file in (home / name).rglob("*")] + [
        str(file) for file in home.iterdir()
    ]


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc33"
    "0000000049454e44ae426082"
)
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")
WEBP = b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00/\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"
HTML = b"<!doctype html><script>alert(1)</script>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.fixture(scope="module")
async def pictures(embedded: RunningStack, bucket: str) -> str:
    """A public bucket for some types, in which each member has a folder; the bucket beside it takes anything."""
    connection = await asyncpg.connect(embedded.migration_db_url)
    await connection.execute(
        """
        insert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types)
        values ('pictures', 'pictures', true, 1000, array['image/png', 'image/jpeg', 'image/webp', 'image/svg+xml',
                                                          'text/plain']);
        create policy "members keep their pictures" on storage.objects for all to authenticated
        using (bucket_id = 'pictures' and (storage.foldername(name))[1] = (select auth.uid())::text)
        with check (bucket_id = 'pictures' and (storage.foldername(name))[1] = (select auth.uid())::text);
        """
    )
    await connection.close()
    return "pictures"


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (PNG, "image/png"),
        (JPEG, "image/jpeg"),
        (WEBP, "image/webp"),
        (SVG, "image/svg+xml"),
        (b"nothing but words", "text/plain"),
    ],
)
async def test_a_file_that_is_what_it_says_is_taken(
    member: AsyncClient, pictures: str, content: bytes, declared: str
) -> None:
    path = f"{await user_id(member)}/{declared.replace('/', '.')}"
    await member.storage.from_(pictures).upload(path, content, {"content-type": declared})
    assert await member.storage.from_(pictures).download(path) == content


@pytest.mark.parametrize(
    ("content", "declared"),
    [
        (HTML, "image/png"),
        (SVG, "image/png"),
        (b"", "image/png"),
        (PNG[:8], "image/png"),
        (b" " + PNG, "image/png"),
        (JPEG, "image/png"),
        (PNG, "image/webp"),
        (PNG, "image/svg+xml"),
        (PNG, "text/plain"),
        (b"PK\x03\x04" + bytes(26) + b"a", "image/jpeg"),
    ],
)
@pytest.mark.parametrize("way", ["upload", "replace", "form", "signed"])
async def test_a_file_that_is_not_what_it_says_is_refused_and_not_kept(
    embedded: RunningStack,
    member: AsyncClient,
    anonymous: AsyncClient,
    pictures: str,
    content: bytes,
    declared: str,
    way: str,
) -> None:
    path = f"{await user_id(member)}/picture"
    files = member.storage.from_(pictures)
    before = _stored(embedded)
    head = {**headers(embedded, await access_token(member)), "x-upsert": "true"}
    url = f"{embedded.supabase_url}/storage/v1/object/{pictures}/{path}"
    async with httpx.AsyncClient() as client:
        match way:
            case "form":
                answer = await client.post(url, headers=head, files={"": ("picture", content, declared)})
            case "signed":
                signed = await files.create_signed_upload_url(path)
                address = f"{embedded.supabase_url}/storage/v1/object/upload/sign/{pictures}/{path}"
                answer = await client.put(
                    address, params={"token": signed["token"]}, content=content, headers={"content-type": declared}
                )
            case _:
                method = "POST" if way == "upload" else "PUT"
                answer = await client.request(method, url, content=content, headers={**head, "content-type": declared})
        assert answer.status_code == httpx.codes.BAD_REQUEST, answer.text
        assert (answer.json()["statusCode"], answer.json()["error"]) == ("415", "invalid_mime_type")
        seen = await client.get(f"{embedded.supabase_url}/storage/v1/object/public/{pictures}/{path}")
        assert not seen.is_success
    assert _stored(embedded) == before


def _stored(stack: RunningStack) -> list[str]:
    return sorted(str(file) for file in (stack.home / "storage").rglob("*") if file.is_file())


@pytest.mark.parametrize("verb", ["copy", "move"])
async def test_a_file_comes_into_a_bucket_with_rules_by_them_only(
    embedded: RunningStack, member: AsyncClient, bucket: str, pictures: str, verb: str
) -> None:
    folder = await user_id(member)
    head = headers(embedded, await access_token(member))
    refused = {"page": (HTML, "text/html"), "disguised": (HTML, "image/png"), "large": (PNG + bytes(1000), "image/png")}
    for name, (content, declared) in {**refused, "good": (PNG, "image/png")}.items():
        await member.storage.from_(bucket).upload(f"{folder}/{verb}-{name}", content, {"content-type": declared})
        body = {
            "bucketId": bucket,
            "sourceKey": f"{folder}/{verb}-{name}",
            "destinationBucket": pictures,
            "destinationKey": f"{folder}/{verb}-{name}",
        }
        async with httpx.AsyncClient(base_url=embedded.supabase_url) as client:
            answer = await client.post(f"/storage/v1/object/{verb}", json=body, headers=head)
            seen = await client.get(f"/storage/v1/object/public/{pictures}/{folder}/{verb}-{name}")
        assert answer.is_success is seen.is_success is (name not in refused), answer.text


async def test_no_answer_is_taken_for_another_type_than_it_says(
    embedded: RunningStack, member: AsyncClient, bucket: str
) -> None:
    path = f"{await user_id(member)}/words"
    await member.storage.from_(bucket).upload(path, b"<b>words</b>", {"content-type": "text/plain"})
    head = headers(embedded, await access_token(member))
    async with httpx.AsyncClient(base_url=embedded.supabase_url, headers=head) as client:
        for address in (
            "/auth/v1/health",
            f"/storage/v1/object/{bucket}/{path}",
            "/rest/v1/sessions",
            "/functions/v1/x",
        ):
            assert (await client.get(address)).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/%73torage/v1/object/{bucket}/x", "the prefix"),
        ("/storage/%761/object/{bucket}/x", "the version"),
        ("/%72est/v1/sessions", "another prefix"),
    ],
)
async def test_a_route_has_one_spelling(
    embedded: RunningStack, member: AsyncClient, bucket: str, path: str, name: str
) -> None:
    raw = httpx.URL(embedded.supabase_url).copy_with(raw_path=path.format(bucket=bucket).encode())
    async with httpx.AsyncClient(headers=headers(embedded, await access_token(member))) as client:
        assert (await client.get(raw)).status_code == httpx.codes.NOT_FOUND


async def test_a_route_of_files_is_the_same_in_each_spelling(
    embedded: RunningStack, member: AsyncClient, bucket: str
) -> None:
    base = httpx.URL(embedded.supabase_url)
    spellings = [b"/storage/v1/object/", b"/storage/v1/%6Fbject/", b"/storage/v1/%6f%62ject/"]
    async with httpx.AsyncClient(headers=headers(embedded, await access_token(member))) as client:
        answers = [await client.get(base.copy_with(raw_path=each + bucket.encode() + b"/x")) for each in spellings]
    assert {(answer.status_code, answer.json()["statusCode"]) for answer in answers} == {(400, "404")}


async def test_names_of_files_and_tables_may_be_encoded(
    embedded: RunningStack, member: AsyncClient, bucket: str
) -> None:
    path = f"{await user_id(member)}/a word %61"
    await member.storage.from_(bucket).upload(path, b"words", {"content-type": "text/plain"})
    assert await member.storage.from_(bucket).download(path) == b"words"
    raw = httpx.URL(embedded.supabase_url).copy_with(raw_path=b"/rest/v1/sess%69ons?select=id")
    async with httpx.AsyncClient(headers=headers(embedded, await access_token(member))) as client:
        assert (await client.get(raw)).is_success


@pytest.mark.parametrize("spelling", ["Bearer  {}", "Bearer\t{}", "Bearer   {}", "BEARER {}", "Bearer {} x", "{}"])
async def test_a_token_is_taken_in_the_one_form_of_its_header(
    embedded: RunningStack, member: AsyncClient, spelling: str
) -> None:
    token = await access_token(member)
    async with httpx.AsyncClient(base_url=f"{embedded.supabase_url}/auth/v1") as client:
        for form, is_taken in (("Bearer {}", True), (spelling, False)):
            head = {"apikey": embedded.publishable_key, "authorization": form.format(token)}
            assert (await client.get("/user", headers=head)).is_success is is_taken


@pytest.mark.parametrize("path", ["/realtime/v1/websocket", "/functions/v1/hello"])
async def test_missing_parts_say_that_they_are_missing(embedded: RunningStack, path: str) -> None:
    async with httpx.AsyncClient(base_url=embedded.supabase_url) as client:
        answer = await client.get(path)
    assert answer.status_code == httpx.codes.NOT_IMPLEMENTED
    assert "not part of the embedded Supabase" in answer.json()["message"]


async def test_host_listens_on_the_loopback_address_only(embedded: RunningStack) -> None:
    import psutil

    for name, port in (("supabase", embedded.base_port + 1), ("postgres", embedded.base_port + 2)):
        listening = psutil.Process(embedded.process(name)).net_connections("tcp")
        assert {c.laddr[0] for c in listening if c.status == psutil.CONN_LISTEN and c.laddr[1] == port} == {"127.0.0.1"}
