"""Supabase's own client for Python, against the embedded Supabase as against a hosted project."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from features import SETTINGS, feature, run
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import AsyncClient, AsyncClientOptions, acreate_client
from supabase_auth.errors import AuthError

URL = SETTINGS["SUPABASE_URL"]
PASSWORD = "a long enough password"
TEXT = b"0123456789"
BUCKET = f"py-{uuid4()}"


async def connect(key: str = SETTINGS["SUPABASE_PUBLISHABLE_KEY"]) -> AsyncClient:
    options = AsyncClientOptions(auto_refresh_token=False, persist_session=False)
    return await acreate_client(URL, key, options=options)


def new_address() -> str:
    return f"py-{uuid4()}@example.com"


async def member() -> tuple[AsyncClient, Any]:
    """Return a client of a person of its own, and their session."""
    client = await connect()
    answer = await client.auth.sign_up({"email": new_address(), "password": PASSWORD})
    return client, answer.session


async def error_of(call: Any, kind: type[Exception]) -> Any:
    """Return the error of this kind that a call ends with."""
    try:
        await call
    except kind as error:
        return error
    raise AssertionError("nothing was refused")


async def refused(call: Any, code: str) -> None:
    """Check that the auth server refuses with this code."""
    error = await error_of(call, AuthError)
    assert error.code == code, f"{error.code}: {error.message}"


def mail_to(address: str) -> dict[str, Any]:
    """Return the last mail to an address."""
    for file in sorted(Path(SETTINGS["CONCERTO_HOME"], "mail").glob("[!.]*.json"), reverse=True):
        mail: dict[str, Any] = json.loads(file.read_text())
        if mail["to"] == address:
            return mail
    raise AssertionError(f"no mail to {address}")


@feature("auth: sign-up, with metadata and claims as a hosted project's")
async def sign_up() -> None:
    client = await connect()
    options = {"data": {"display_name": "Ada"}}
    answer = await client.auth.sign_up({"email": new_address(), "password": PASSWORD, "options": options})
    assert answer.user.user_metadata["display_name"] == "Ada"
    found = await client.auth.get_claims(answer.session.access_token)
    claims = found["claims"]
    assert (claims["iss"], claims["sub"], claims["aal"]) == (f"{URL}/auth/v1", answer.user.id, "aal1")
    assert claims["is_anonymous"] is False
    assert claims["amr"][0]["method"] == "password"
    assert claims["app_metadata"] == {"provider": "email", "providers": ["email"]}
    assert claims["user_metadata"]["display_name"] == "Ada"


@feature("auth: log-in, and who gets in wrongly")
async def log_in() -> None:
    _, session = await member()
    client = await connect()
    email = session.user.email
    assert (await client.auth.sign_in_with_password({"email": email, "password": PASSWORD})).session
    await refused(client.auth.sign_in_with_password({"email": email, "password": "wrong"}), "invalid_credentials")
    await refused(client.auth.sign_up({"email": email, "password": PASSWORD}), "user_already_exists")
    await refused(client.auth.sign_up({"email": "ü@exämple.com", "password": PASSWORD}), "validation_failed")
    await refused(client.auth.sign_up({"email": new_address(), "password": "short"}), "weak_password")


@feature("auth: refresh, and a refresh token that is used again")
async def refresh() -> None:
    client, first = await member()
    second = (await client.auth.refresh_session(first.refresh_token)).session
    again = (await client.auth.refresh_session(first.refresh_token)).session
    assert again.refresh_token == second.refresh_token != first.refresh_token
    many = await asyncio.gather(*(client.auth.refresh_session(second.refresh_token) for _ in range(4)))
    assert len({answer.session.refresh_token for answer in many}) == 1
    await refused(client.auth.refresh_session("no-token-at-all"), "refresh_token_not_found")


@feature("auth: one-time codes")
async def one_time() -> None:
    client, session = await member()
    email = session.user.email
    await client.auth.sign_in_with_otp({"email": email, "options": {"should_create_user": False}})
    code = mail_to(email)["code"]
    wrong = "111111" if code == "000000" else "000000"
    await refused(client.auth.verify_otp({"email": email, "token": wrong, "type": "email"}), "otp_expired")
    assert (await client.auth.verify_otp({"email": email, "token": code, "type": "email"})).session
    await refused(client.auth.verify_otp({"email": email, "token": code, "type": "email"}), "otp_expired")


@feature("auth: a change of the account, and log-outs of each scope")
async def changes() -> None:
    client, session = await member()
    changed = await client.auth.update_user({"data": {"display_name": "Grace"}})
    assert changed.user.user_metadata["display_name"] == "Grace"
    await refused(client.auth.update_user({"password": PASSWORD}), "same_password")
    other = await connect()
    email = session.user.email
    token = (await other.auth.sign_in_with_password({"email": email, "password": PASSWORD})).session.access_token
    await client.auth.sign_out({"scope": "others"})
    await refused(other.auth.get_user(token), "session_not_found")
    assert await client.auth.get_user()
    await client.auth.sign_out()
    await refused(other.auth.get_user(session.access_token), "session_not_found")


@feature("auth: what is not part of it says so")
async def missing() -> None:
    client, _ = await member()
    await refused(client.auth.mfa.enroll({"factor_type": "totp"}), "mfa_totp_enroll_not_enabled")
    await refused(client.auth.sign_in_anonymously(), "anonymous_provider_disabled")
    await refused((await connect()).auth.sign_in_with_otp({"phone": "+4912345678"}), "phone_provider_disabled")
    administrator = await connect(SETTINGS["SUPABASE_SECRET_KEY"])
    await refused(administrator.auth.admin.list_users(), "not_implemented")
    client, _ = await member()
    assert (await client.auth.mfa.list_factors()).all == []
    assert (await client.auth.mfa.get_authenticator_assurance_level()).current_level == "aal1"


@feature("rest: rows, filters on what is inside of JSON, and counts")
async def rows() -> None:
    client, session = await member()
    made = await client.table("sessions").insert([{"name": "true"}, {"name": "1.0"}]).execute()
    assert made.data[0]["user_id"] == session.user.id
    for name in ("true", "1.0"):
        found = await client.table("sessions").select("name", count="exact").eq("name", name).execute()
        assert (found.count, found.data) == (1, [{"name": name}])
    preferences = {"name": "x", "digest": {"hour": 7, "day": "mo"}, "mentions": True}
    changed = client.table("user_settings").update({"notification_preferences": preferences})
    await changed.eq("user_id", session.user.id).execute()
    for key, value in (
        ("->>name", "x"),
        ("->digest->>day", "mo"),
        ("->digest->>hour", "7"),
        ("->>mentions", "true"),
    ):
        asked = client.table("user_settings").select("theme").eq(f"notification_preferences{key}", value)
        assert len((await asked.execute()).data) == 1, key


@feature("rest: operations, and how they refuse")
async def operations() -> None:
    client, session = await member()
    me = await client.schema("api").rpc("get_me", {"args": {}}).execute()
    assert session.user.id in json.dumps(me.data)
    calls: dict[str, Any] = {
        "PGRST202": client.schema("api").rpc("no_such_operation", {"args": {}}),
        "PGRST205": client.table("no_such_table").select("*"),
        "42703": client.table("sessions").select("no_such_column"),
        "22P02": client.table("sessions").select("id").eq("id", "no-uuid"),
        "42501": client.table("sessions").insert({"name": "x", "user_id": str(uuid4())}),
    }
    for code, call in calls.items():
        assert (await error_of(call.execute(), APIError)).code == code


async def refused_file(call: Any, status: str) -> Any:
    """Check that storage refuses with this status, and return the error."""
    error = await error_of(call, StorageApiError)
    assert str(error.status) == status, f"{error.status}: {error.message}"
    return error


@feature("storage: files are kept, listed, read, signed, copied and removed")
async def files() -> None:
    administrator = await connect(SETTINGS["SUPABASE_SECRET_KEY"])
    await administrator.storage.create_bucket(BUCKET, options={"public": False, "file_size_limit": 100_000})
    bucket = administrator.storage.from_(BUCKET)
    text = {"content-type": "text/plain", "cache-control": "60"}
    for name in ("a/b/one.txt", "a/two.txt", "root.txt"):
        await bucket.upload(name, TEXT, text)  # type: ignore[arg-type]
    await refused_file(bucket.upload("root.txt", TEXT), "409")
    assert [(entry["name"], entry["id"] is None) for entry in await bucket.list()] == [("a", True), ("root.txt", False)]
    assert [entry["name"] for entry in await bucket.list("a")] == ["b", "two.txt"]
    assert await bucket.download("a/b/one.txt") == TEXT
    info = await bucket.info("a/b/one.txt")
    assert (info["size"], info["content_type"]) == (10, "text/plain")
    assert await bucket.exists("root.txt")
    signed = await bucket.create_signed_url("root.txt", 60, {"download": "mine.txt"})
    async with httpx.AsyncClient() as http:
        part = await http.get(signed["signedURL"], headers={"range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["content-disposition"].startswith("attachment; filename=mine.txt")
    upload = await bucket.create_signed_upload_url("signed.txt")
    await (await connect()).storage.from_(BUCKET).upload_to_signed_url("signed.txt", upload["token"], TEXT)
    assert (await bucket.copy("root.txt", "copied.txt"))["Key"] == f"{BUCKET}/copied.txt"
    await bucket.move("copied.txt", "moved.txt")
    assert [entry["name"] for entry in await bucket.remove(["moved.txt", "none"])] == ["moved.txt"]


@feature("storage: what is not there or too large says so")
async def refusals() -> None:
    bucket = (await connect(SETTINGS["SUPABASE_SECRET_KEY"])).storage.from_(BUCKET)
    for call in (bucket.download("none"), bucket.info("none"), bucket.move("none", "there")):
        assert (await refused_file(call, "404")).message == "Object not found"
    for size in (100_001, 80 * 1024 * 1024):
        error = await refused_file(bucket.upload(f"large-{size}", bytes(size)), "413")
        assert error.message == "The object exceeded the maximum allowed size"


if __name__ == "__main__":
    run()
