"""How files are listed, read and refused, as on a hosted project."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from supabase import AsyncClient

from local.tests.conftest import close_client, new_client, new_member
from tests.support.suites import RunningStack

TEXT = b"0123456789"
LIMIT_BYTES = 100_000


async def token_of(client: AsyncClient) -> str:
    session = await client.auth.get_session()
    assert session is not None
    return session.access_token


async def id_of(client: AsyncClient) -> str:
    session = await client.auth.get_session()
    assert session is not None
    return session.user.id


@pytest.fixture(scope="module")
async def shelf(embedded: RunningStack, bucket: str) -> AsyncIterator[Any]:
    """A bucket that takes 100 kB, as an administrator sees it, with some files in folders."""
    administrator = await new_client(embedded, key=embedded.secret_key)
    name = f"shelf-{uuid.uuid4().hex[:8]}"
    await administrator.storage.create_bucket(name, options={"public": False, "file_size_limit": LIMIT_BYTES})
    files = administrator.storage.from_(name)
    for path in ("a/b/one.txt", "a/two.txt", "a/Three.txt", "a/ü🏔/four.txt", "a/b/c/deep.txt", "root.txt", "a_b/x.txt"):
        await files.upload(path, TEXT, {"content-type": "text/plain", "cache-control": "60"})
    yield files
    await administrator.storage.empty_bucket(name)
    await administrator.storage.delete_bucket(name)
    await close_client(administrator)


def administering(stack: RunningStack) -> httpx.AsyncClient:
    headers = {"apikey": stack.secret_key, "authorization": f"Bearer {stack.secret_key}"}
    return httpx.AsyncClient(base_url=f"{stack.supabase_url}/storage/v1", headers=headers, timeout=120)


async def names(files: Any, prefix: str, **options: Any) -> list[str]:
    return [entry["name"] for entry in await files.list(prefix, options)]


async def test_lists_show_folders_and_names_within_them(shelf: Any) -> None:
    root = await shelf.list()
    assert [(entry["name"], entry["id"] is None) for entry in root] == [("a", True), ("a_b", True), ("root.txt", False)]
    assert root[0].keys() == {"name", "id", "updated_at", "created_at", "last_accessed_at", "metadata"}
    assert root[0]["metadata"] is None
    assert (root[2]["metadata"]["size"], root[2]["metadata"]["mimetype"]) == (10, "text/plain")
    everything = ["b", "Three.txt", "two.txt", "ü🏔"]
    assert await names(shelf, "a") == await names(shelf, "a/") == await names(shelf, "A") == everything
    assert await names(shelf, "a/b") == ["c", "one.txt"]
    assert await names(shelf, "a/ü🏔") == ["four.txt"]
    assert await names(shelf, "a%") == await names(shelf, "nothing") == []
    assert await names(shelf, "a", sortBy={"column": "name", "order": "desc"}) == everything[::-1]
    by_time = await names(shelf, "a", sortBy={"column": "created_at", "order": "asc"})
    assert by_time == ["b", "ü🏔", "two.txt", "Three.txt"]
    assert await names(shelf, "a", limit=2, offset=1) == everything[1:3]
    assert await names(shelf, "a", search="t") == ["Three.txt", "two.txt"]
    assert await names(shelf, "", search="a/") == ["a/b", "a/Three.txt", "a/two.txt", "a/ü🏔"]


async def test_lists_hold_what_the_caller_may_see(
    embedded: RunningStack, member: AsyncClient, anonymous: AsyncClient, bucket: str, shelf: Any
) -> None:
    other = await new_member(embedded)
    for client in (member, other):
        await client.storage.from_(bucket).upload(f"{await id_of(client)}/mine.txt", TEXT)
    files = member.storage.from_(bucket)
    assert await names(files, "") == [await id_of(member)]
    assert await names(files, await id_of(other)) == []
    assert await names(files, await id_of(member)) == ["mine.txt"]
    assert await names(anonymous.storage.from_(bucket), "") == []
    assert await names(member.storage.from_(shelf.id), "a") == []
    assert await names(member.storage.from_("no-such-bucket"), "") == []
    for client in (member, other):
        await client.storage.from_(bucket).remove([f"{await id_of(client)}/mine.txt"])
    await close_client(other)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"prefix": 1},
        {"prefix": "", "limit": 0},
        {"prefix": "", "limit": "1"},
        {"prefix": "", "offset": -1},
        {"prefix": "", "search": ["a"]},
        {"prefix": "", "sortBy": {"column": "id"}},
        {"prefix": "", "sortBy": {"column": "name", "order": "sideways"}},
        [],
        "text",
        None,
    ],
)
async def test_a_list_that_is_asked_for_wrongly_is_refused(embedded: RunningStack, shelf: Any, body: Any) -> None:
    async with administering(embedded) as client:
        answer = await client.post(f"/object/list/{shelf.id}", json=body)
    assert (answer.status_code, answer.json()["statusCode"]) == (400, "400")
    assert answer.json()["message"].startswith("body")


@pytest.mark.parametrize(
    ("wanted", "status", "content", "part"),
    [
        ("bytes=2-4", 206, TEXT[2:5], "bytes 2-4/10"),
        ("bytes=7-", 206, TEXT[7:], "bytes 7-9/10"),
        ("bytes=-2", 206, TEXT[-2:], "bytes 8-9/10"),
        ("bytes=-99", 206, TEXT, "bytes 0-9/10"),
        ("bytes=8-99", 206, TEXT[8:], "bytes 8-9/10"),
        ("bytes=0-0", 206, TEXT[:1], "bytes 0-0/10"),
        ("bytes=4-2", 200, TEXT, None),
        ("bytes=0-1,3-4", 200, TEXT, None),
        ("bytes=-", 200, TEXT, None),
        ("lines=0-1", 200, TEXT, None),
    ],
)
async def test_parts_of_files(
    embedded: RunningStack, shelf: Any, wanted: str, status: int, content: bytes, part: str | None
) -> None:
    signed = await shelf.create_signed_url("root.txt", 60)
    async with administering(embedded) as client:
        for address in (
            f"/object/{shelf.id}/root.txt",
            f"/object/authenticated/{shelf.id}/root.txt",
            signed["signedURL"],
        ):
            answer = await client.get(address, headers={"range": wanted})
            assert (answer.status_code, answer.content, answer.headers.get("content-range")) == (status, content, part)
            assert answer.headers["content-length"] == str(len(content))


async def test_a_part_behind_the_end_is_refused(embedded: RunningStack, shelf: Any) -> None:
    await shelf.upload("empty.txt", b"", {"content-type": "text/plain"})
    async with administering(embedded) as client:
        for name, wanted in (("root.txt", "bytes=10-"), ("root.txt", "bytes=-0"), ("empty.txt", "bytes=0-")):
            answer = await client.get(f"/object/{shelf.id}/{name}", headers={"range": wanted})
            assert (answer.status_code, answer.json()["statusCode"]) == (400, "416"), (name, wanted)
        whole = await client.get(f"/object/{shelf.id}/empty.txt")
        assert (whole.status_code, whole.content) == (200, b"")


async def test_a_file_that_the_caller_has_is_not_sent_again(embedded: RunningStack, shelf: Any) -> None:
    async with administering(embedded) as client:
        address = f"/object/{shelf.id}/root.txt"
        whole = await client.get(address)
        for headers in (
            {"if-none-match": whole.headers["etag"]},
            {"if-none-match": f'"other", W/{whole.headers["etag"]}'},
            {"if-modified-since": whole.headers["last-modified"]},
        ):
            answer = await client.get(address, headers=headers)
            assert (answer.status_code, answer.content) == (304, b""), headers
            assert answer.headers["etag"] == whole.headers["etag"]
        changed = await client.get(address, headers={"if-none-match": '"other"'})
        assert (changed.status_code, changed.content) == (200, TEXT)


async def test_downloads_are_named_as_asked(embedded: RunningStack, shelf: Any) -> None:
    async with administering(embedded) as client:
        address = f"/object/{shelf.id}/root.txt"
        assert "content-disposition" not in (await client.get(address)).headers
        assert (await client.get(f"{address}?download")).headers["content-disposition"] == "attachment;"
        named = await client.get(address, params={"download": "ü x\r\n.txt"})
    encoded = "%C3%BC%20x%0D%0A.txt"
    assert named.headers["content-disposition"] == f"attachment; filename={encoded}; filename*=UTF-8''{encoded}"


async def test_what_is_known_of_a_file(embedded: RunningStack, shelf: Any) -> None:
    async with administering(embedded) as client:
        form = {"": ("x.txt", TEXT, "text/plain")}
        made = await client.post(f"/object/{shelf.id}/told.txt", data={"metadata": '{"made": "hère"}'}, files=form)
        assert made.is_success, made.text
        head = await client.head(f"/object/{shelf.id}/told.txt")
        missing = await client.head(f"/object/{shelf.id}/none.txt")
        public = await client.get(f"/object/info/public/{shelf.id}/told.txt")
    info = await shelf.info("told.txt")
    assert info.keys() == {
        *("id", "name", "version", "bucket_id", "size", "content_type", "cache_control", "etag", "metadata"),
        *("last_modified", "created_at"),
    }
    assert (info["name"], info["size"], info["content_type"]) == ("told.txt", 10, "text/plain")
    assert info["metadata"] == {"made": "hère"}
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")
    assert (missing.status_code, missing.content) == (400, b"")
    assert (public.status_code, public.json()["code"]) == (400, "NoSuchBucket")
    await shelf.remove(["told.txt"])


async def test_copies_and_moves_are_named_with_their_bucket(embedded: RunningStack, shelf: Any) -> None:
    copy = {"bucketId": shelf.id, "sourceKey": "root.txt", "destinationKey": "copied.txt"}
    move = {"bucketId": shelf.id, "sourceKey": "copied.txt", "destinationKey": "moved.txt"}
    async with administering(embedded) as client:
        copied = (await client.post("/object/copy", json=copy)).json()
        assert (copied["Key"], copied["name"], copied["Id"]) == (f"{shelf.id}/copied.txt", "copied.txt", copied["id"])
        moved = (await client.post("/object/move", json=move)).json()
        assert (moved["message"], moved["Key"]) == ("Successfully moved", f"{shelf.id}/moved.txt")
        assert moved["Id"] == copied["Id"]
    await shelf.remove(["moved.txt"])


async def test_refusals_have_codes(embedded: RunningStack, shelf: Any, anonymous: AsyncClient) -> None:
    async with administering(embedded) as client:
        for method, path, body, status, code in (
            ("GET", f"/object/{shelf.id}/none", None, "404", "NoSuchKey"),
            ("GET", f"/object/info/{shelf.id}/none", None, "404", "NoSuchKey"),
            ("POST", f"/object/sign/{shelf.id}/none", {"expiresIn": 60}, "404", "NoSuchKey"),
            ("GET", "/object/no-such-bucket/none", None, "404", "NoSuchBucket"),
            ("GET", f"/object/public/{shelf.id}/root.txt", None, "404", "NoSuchBucket"),
            ("POST", f"/object/{shelf.id}/root.txt", {"a": 1}, "409", "KeyAlreadyExists"),
        ):
            answer = await client.request(method, path, json=body)
            body = answer.json()
            assert (answer.status_code, body["statusCode"], body["code"]) == (400, status, code), (method, path, body)
        gone = await client.post("/upload/resumable", content=b"")
        assert (gone.status_code, gone.json()["code"]) == (501, "NotSupported")
    async with httpx.AsyncClient(headers={"apikey": embedded.publishable_key}) as stranger:
        address = f"{embedded.supabase_url}/storage/v1/object/{shelf.id}/new.txt"
        refused = await stranger.post(address, content=TEXT)
    assert (refused.status_code, refused.json()["code"]) == (400, "AccessDenied")


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *((kind, size) for kind in ("form", "plain", "signed") for size in (LIMIT_BYTES + 1, 8_000_000)),
        ("form", 60 * 1024 * 1024),  # more than any bucket takes
    ],
)
async def test_what_is_too_large_is_refused_in_words(embedded: RunningStack, shelf: Any, kind: str, size: int) -> None:
    content = bytes(size)
    name = f"large-{kind}-{size}"
    async with administering(embedded) as client:
        if kind == "form":
            answer = await client.post(f"/object/{shelf.id}/{name}", files={"": ("x", content, "text/plain")})
        elif kind == "plain":
            answer = await client.post(f"/object/{shelf.id}/{name}", content=content)
        else:
            upload = await shelf.create_signed_upload_url(name)
            answer = await client.put(
                f"/object/upload/sign/{shelf.id}/{name}", params={"token": upload["token"]}, content=content
            )
    body = answer.json()
    assert (answer.status_code, body["statusCode"], body["code"]) == (400, "413", "EntityTooLarge"), body
    assert body["message"] == "The object exceeded the maximum allowed size"
    assert await shelf.list("", {"search": "large"}) == []


async def test_a_large_file_that_nobody_may_store_is_refused_in_words(embedded: RunningStack, shelf: Any) -> None:
    headers = {"apikey": embedded.publishable_key}
    async with httpx.AsyncClient(headers=headers, timeout=120) as stranger:
        address = f"{embedded.supabase_url}/storage/v1/object/{shelf.id}/new.bin"
        answer = await stranger.post(address, content=bytes(30_000_000))
    assert (answer.status_code, answer.json()["statusCode"]) == (400, "413")


async def test_an_address_for_an_upload_ends_with_the_sign_in_that_it_was_signed_for(
    embedded: RunningStack, bucket: str
) -> None:
    person = await new_member(embedded)
    folder = await id_of(person)
    files = person.storage.from_(bucket)
    kept, late = [await files.create_signed_upload_url(f"{folder}/{name}.txt") for name in ("kept", "late")]
    stranger = await new_client(embedded)
    others = stranger.storage.from_(bucket)
    await others.upload_to_signed_url(f"{folder}/kept.txt", kept["token"], TEXT)
    assert await files.download(f"{folder}/kept.txt") == TEXT
    await files.remove([f"{folder}/kept.txt"])
    await person.auth.sign_out()
    with pytest.raises(Exception, match="has ended"):
        await others.upload_to_signed_url(f"{folder}/late.txt", late["token"], TEXT)
    connection = await asyncpg.connect(embedded.admin_db_url)
    stored = await connection.fetchval("select count(*) from storage.objects where name like $1", f"{folder}/%")
    await connection.close()
    assert stored == 0
    for client in (person, stranger):
        await close_client(client)


@pytest.mark.parametrize("route", ["upl%6fad/sign", "upload/si%67n", "%75pload/sign"])
async def test_an_address_for_an_upload_ends_however_it_is_spelt(
    embedded: RunningStack, bucket: str, route: str
) -> None:
    person = await new_member(embedded)
    path = f"{await id_of(person)}/late.txt"
    signed = await person.storage.from_(bucket).create_signed_upload_url(path)
    await person.auth.sign_out()
    raw = f"/storage/v1/object/{route}/{bucket}/{path}?token={signed['token']}".encode()
    async with httpx.AsyncClient(headers={"apikey": embedded.publishable_key}) as stranger:
        answer = await stranger.put(httpx.URL(embedded.supabase_url).copy_with(raw_path=raw), content=TEXT)
    assert (answer.status_code, answer.json()["statusCode"]) == (400, "403")
    await close_client(person)


async def test_signed_addresses_make_no_room_for_more_files_than_policies_allow(embedded: RunningStack) -> None:
    person = await new_member(embedded)
    folder = await id_of(person)
    files = person.storage.from_("avatars")
    png = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000049454e44ae426082")
    admin = await asyncpg.connect(embedded.admin_db_url)
    most = await admin.fetchval("select files_per_user from private.limits")
    await admin.close()
    signed = [
        (f"{folder}/{number}.png", await files.create_signed_upload_url(f"{folder}/{number}.png"))
        for number in range(most + 1)
    ]
    for path, address in signed[:-1]:
        await files.upload_to_signed_url(path, address["token"], png, {"content-type": "image/png"})
    path, address = signed[-1]
    with pytest.raises(Exception, match="row-level security"):
        await files.upload_to_signed_url(path, address["token"], png, {"content-type": "image/png"})
    assert len(await files.list(folder)) == most
    await close_client(person)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("object/copy", {"bucketId": "folders", "sourceKey": "a\0b", "destinationKey": "c"}),
        ("object/move", {"bucketId": "folders", "sourceKey": "a", "destinationKey": "b\0c"}),
        ("object/sign/folders", {"paths": ["../../../../../auth/v1/settings"], "expiresIn": 60}),
        ("object/sign/folders", {"paths": ["\ud800"], "expiresIn": 60}),
        ("object/sign/folders", None),
        ("object/list/folders", {"prefix": "a\0"}),
        ("object/list/folders", {"prefix": "", "offset": 2**63}),
        ("bucket/a%00b/empty", {}),
        (f"object/folders/{'x' * 1025}", "text"),
    ],
)
async def test_names_that_no_file_can_have_are_refused(
    embedded: RunningStack, member: AsyncClient, bucket: str, path: str, body: Any
) -> None:
    headers = {"apikey": embedded.publishable_key, "authorization": f"Bearer {await token_of(member)}"}
    name = f"{await id_of(member)}/"
    address = f"{embedded.supabase_url}/storage/v1/{path.replace('xxx', name, 1)}"
    async with httpx.AsyncClient(headers=headers) as client:
        answer = await client.post(address, content=json.dumps(body), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["statusCode"]) == (400, "400")


async def test_a_list_without_an_order_is_by_name(shelf: Any, embedded: RunningStack) -> None:
    async with administering(embedded) as client:
        answer = await client.post(f"/object/list/{shelf.id}", json={"prefix": "", "sortBy": None})
    assert answer.is_success
