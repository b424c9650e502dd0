import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest

from local.suite.processes import node_program
from tests.support.database import acting_as, add_user
from tests.support.suites import RunningStack

MEBIBYTE = 1024 * 1024
FOUND, EMPTY, REFUSED = "found", "empty", "refused"
STATEMENTS = {
    "select": "select id from storage.objects where bucket_id = 'avatars' and name = $1",
    "insert": "insert into storage.objects (bucket_id, name) values ('avatars', $1 || '.2') returning id",
    "update": "update storage.objects set metadata = '{}' where bucket_id = 'avatars' and name = $1 returning id",
    "delete": "delete from storage.objects where bucket_id = 'avatars' and name = $1 returning id",
}
OUTCOMES = {
    "owner": {"select": FOUND, "insert": FOUND, "update": FOUND, "delete": FOUND},
    "stranger": {"select": EMPTY, "insert": REFUSED, "update": EMPTY, "delete": EMPTY},
    "anon": {"select": EMPTY, "insert": REFUSED, "update": EMPTY, "delete": EMPTY},
}


@dataclass(frozen=True)
class Gallery:
    """Two people, one of whom has a picture, and a connection that can become either."""

    login: asyncpg.Connection
    people: dict[str, str | None]
    picture: str

    async def outcome(self, actor: str, statement: str, *args: object) -> str:
        async with acting_as(self.login, self.people[actor]) as connection:
            try:
                rows = await connection.fetch(statement, *args)
            except asyncpg.InsufficientPrivilegeError:
                return REFUSED
            return FOUND if rows else EMPTY


@pytest.fixture
async def gallery(stack: RunningStack) -> AsyncIterator[Gallery]:
    admin = await asyncpg.connect(stack.admin_db_url)
    owner, stranger = await add_user(admin), await add_user(admin)
    picture = f"{owner}/picture.webp"
    await admin.execute("insert into storage.objects (bucket_id, name) values ('avatars', $1)", picture)
    login = await asyncpg.connect(stack.db_url)
    yield Gallery(login, {"owner": owner, "stranger": stranger, "anon": None}, picture)
    await login.close()
    await admin.close()


@pytest.mark.parametrize("actor", OUTCOMES)
@pytest.mark.parametrize("verb", STATEMENTS)
async def test_only_the_owner_finds_adds_replaces_and_deletes(gallery: Gallery, actor: str, verb: str) -> None:
    assert await gallery.outcome(actor, STATEMENTS[verb], gallery.picture) == OUTCOMES[actor][verb]


async def test_nobody_puts_a_file_into_somebody_elses_folder_or_beside_the_folders(gallery: Gallery) -> None:
    owner, stranger = gallery.people["owner"], gallery.people["stranger"]
    add = "insert into storage.objects (bucket_id, name) values ($1, $2) returning id"
    for name in (
        f"{stranger}/a.webp",
        f"x/{owner}/a.webp",
        f"{owner}",
        "a.webp",
        f"/{owner}/a.webp",
        f"{owner}x/a.webp",
    ):
        assert await gallery.outcome("owner", add, "avatars", name) == REFUSED, name
    move = "update storage.objects set name = $2 where bucket_id = 'avatars' and name = $1 returning id"
    assert await gallery.outcome("owner", move, gallery.picture, f"{stranger}/moved.webp") == REFUSED
    assert await gallery.outcome("owner", move, gallery.picture, f"{owner}/moved.webp") == FOUND


async def test_the_folder_counts_in_no_other_bucket(gallery: Gallery, stack: RunningStack) -> None:
    admin = await asyncpg.connect(stack.admin_db_url)
    await admin.execute("insert into storage.buckets (id, name) values ('other', 'other') on conflict do nothing")
    try:
        add = "insert into storage.objects (bucket_id, name) values ('other', $1) returning id"
        assert await gallery.outcome("owner", add, gallery.picture) == REFUSED
    finally:
        await admin.execute("delete from storage.buckets where id = 'other'")
        await admin.close()


async def test_the_bucket_takes_small_pictures_only(stack: RunningStack) -> None:
    admin = await asyncpg.connect(stack.admin_db_url)
    row = await admin.fetchrow("select * from storage.buckets where id = 'avatars'")
    await admin.close()
    assert (row["public"], row["file_size_limit"]) == (True, MEBIBYTE)
    assert set(row["allowed_mime_types"]) == {"image/webp", "image/png", "image/jpeg"}


class Uploader:
    """supabase-js at work for two people, as in the web app."""

    def __init__(self, stack: RunningStack, tokens: dict[str, str | None], owner: str) -> None:
        self._stack = stack
        self.tokens = tokens
        self.path = f"{owner}/{uuid4().hex}.webp"

    def run(self, *steps: dict[str, Any]) -> list[dict[str, Any]]:
        """Do the steps and return {data, error} of each. `by` names who does it."""
        own = [{"path": self.path, **step, "token": self.tokens[step["by"]]} for step in steps]
        task = {"url": self._stack.supabase_url, "key": self._stack.publishable_key, "steps": own}
        done = subprocess.run(
            [str(node_program()), str(Path(__file__).with_name("avatars.mjs"))],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        results: list[dict[str, Any]] = json.loads(done.stdout)
        return results


@pytest.fixture
async def uploader(stack: RunningStack) -> Uploader:
    tokens: dict[str, str | None] = {"anon": None}
    ids = {}
    head = {"apikey": stack.publishable_key}
    async with httpx.AsyncClient(base_url=f"{stack.supabase_url}/auth/v1", headers=head) as auth:
        for name in ("owner", "stranger"):
            body = {"email": f"{name}-{uuid4()}@example.com", "password": "a long enough password"}
            answer = (await auth.post("/signup", json=body)).json()
            tokens[name], ids[name] = answer["access_token"], answer["user"]["id"]
    return Uploader(stack, tokens, ids["owner"])


def upload(by: str, **fields: Any) -> dict[str, Any]:
    return {"by": by, "verb": "upload", "type": "image/webp", "bytes": 2000, **fields}


def test_a_picture_is_uploaded_seen_by_anyone_replaced_and_deleted_by_its_owner(uploader: Uploader) -> None:
    folder = uploader.path.split("/")[0]
    added, seen, listed, replaced, seen_again, removed, gone = uploader.run(
        upload("owner"),
        {"by": "anon", "verb": "see"},
        {"by": "owner", "verb": "list", "folder": folder},
        upload("owner", bytes=3000, type="image/png", upsert=True),
        {"by": "anon", "verb": "see"},
        {"by": "owner", "verb": "remove"},
        {"by": "anon", "verb": "see"},
    )
    assert added["error"] is None
    assert added["data"]["path"] == uploader.path
    assert seen["data"] == {"status": 200, "type": "image/webp", "bytes": 2000}
    # A hosted project leaves the folder out of the names that it lists, the embedded one does not.
    assert [file["name"].split("/")[-1] for file in listed["data"]] == [uploader.path.split("/")[1]]
    assert replaced["error"] is None
    assert seen_again["data"] == {"status": 200, "type": "image/png", "bytes": 3000}
    assert removed["error"] is None
    assert gone["data"]["status"] in (400, 404)


def test_nobody_else_lists_replaces_moves_or_deletes_it_or_adds_beside_it(uploader: Uploader) -> None:
    folder = uploader.path.split("/")[0]
    beside = f"{folder}/other.webp"
    others = ("stranger", "anon")
    assert uploader.run(upload("owner"))[0]["error"] is None
    for by in others:
        listed, added, replaced, moved, _, seen, nothing = uploader.run(
            {"by": by, "verb": "list", "folder": folder},
            upload(by, path=beside),
            upload(by, bytes=1, upsert=True),
            {"by": by, "verb": "move", "to": f"{folder}/moved.webp"},
            {"by": by, "verb": "remove"},
            {"by": by, "verb": "see"},
            {"by": by, "verb": "see", "path": beside},
        )
        assert listed["data"] in ([], None), by
        assert added["error"]["status"] in (400, 401, 403), by
        assert replaced["error"]["status"] in (400, 401, 403), by
        assert moved["error"] is not None, by
        assert seen["data"] == {"status": 200, "type": "image/webp", "bytes": 2000}, by
        assert nothing["data"]["status"] in (400, 404), by


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "text/html"},
        {"type": "image/svg+xml"},
        {"type": "application/octet-stream"},
        {"bytes": MEBIBYTE + 1},
        {"type": "text/html", "claims": "image/png"},
        {"type": "image/jpeg", "claims": "image/webp"},
    ],
    ids=str,
)
def test_what_is_no_small_picture_is_refused(uploader: Uploader, fields: dict[str, Any]) -> None:
    refused, seen = uploader.run(upload("owner", **fields), {"by": "anon", "verb": "see"})
    assert refused["error"]["status"] in (400, 413, 415, 422), refused
    assert seen["data"]["status"] in (400, 404)


async def test_a_file_of_unknown_length_is_refused(stack: RunningStack, uploader: Uploader) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(65536)

    head = {"apikey": stack.publishable_key, "authorization": f"Bearer {uploader.tokens['owner']}"}
    async with httpx.AsyncClient(base_url=stack.supabase_url, headers=head) as client:
        answer = await client.post(
            f"/storage/v1/object/avatars/{uploader.path}", content=chunks(), headers={"content-type": "image/webp"}
        )
    assert (answer.status_code, answer.json()["code"]) == (400, "MissingContentLength")
    assert uploader.run({"by": "anon", "verb": "see"})[0]["data"]["status"] in (400, 404)


def test_a_picture_of_the_largest_size_is_taken(uploader: Uploader) -> None:
    assert uploader.run(upload("owner", bytes=MEBIBYTE))[0]["error"] is None


@asynccontextmanager
async def limited(stack: RunningStack, *, files: int = 20, size: int = 20 * MEBIBYTE) -> AsyncIterator[None]:
    """Let everybody keep so much and no more."""
    change = "update private.limits set files_per_user = $1, file_bytes_per_user = $2"
    admin = await asyncpg.connect(stack.admin_db_url)
    before = await admin.fetchrow("select files_per_user, file_bytes_per_user from private.limits")
    await admin.execute(change, files, size)
    try:
        yield
    finally:
        await admin.execute(change, *before)
        await admin.close()


async def test_one_keeps_so_many_files_and_no_more(gallery: Gallery, stack: RunningStack) -> None:
    add = "insert into storage.objects (bucket_id, name) values ('avatars', $1) returning id"
    rename = "update storage.objects set name = $2 where bucket_id = 'avatars' and name = $1 returning id"
    for files, expected in ((0, REFUSED), (1, REFUSED), (2, FOUND)):
        async with limited(stack, files=files):
            assert await gallery.outcome("owner", add, f"{gallery.people['owner']}/second.webp") == expected
    async with limited(stack, files=1):
        # What is replaced or renamed needs no more room, and others have room of their own.
        assert await gallery.outcome("owner", STATEMENTS["update"], gallery.picture) == FOUND
        assert await gallery.outcome("owner", rename, gallery.picture, f"{gallery.people['owner']}/b.webp") == FOUND
        assert await gallery.outcome("owner", STATEMENTS["delete"], gallery.picture) == FOUND
        assert await gallery.outcome("stranger", add, f"{gallery.people['stranger']}/first.webp") == FOUND


async def test_uploads_stop_where_files_are_as_many_as_allowed(uploader: Uploader, stack: RunningStack) -> None:
    folder = uploader.path.split("/")[0]
    names = [f"{folder}/{number}.webp" for number in range(3)]
    async with limited(stack, files=2):
        first, second, third, replaced, _, after = await asyncio.to_thread(
            uploader.run,
            *(upload("owner", path=name) for name in names),
            upload("owner", path=names[1], upsert=True),
            {"by": "owner", "verb": "remove", "path": names[0]},
            upload("owner", path=names[2]),
        )
    assert [step["error"] for step in (first, second, replaced, after)] == [None] * 4
    assert third["error"]["status"] in (400, 403)


async def test_uploads_stop_where_files_are_as_large_as_allowed(uploader: Uploader, stack: RunningStack) -> None:
    folder = uploader.path.split("/")[0]
    async with limited(stack, size=2 * MEBIBYTE):
        small, first, second = await asyncio.to_thread(
            uploader.run,
            upload("owner", path=f"{folder}/0.webp", bytes=1000),
            # The largest that the bucket takes must fit, as a policy does not know how large this one is.
            upload("owner", path=f"{folder}/1.webp", bytes=MEBIBYTE - 1000),
            upload("owner", path=f"{folder}/2.webp", bytes=1000),
        )
    assert (small["error"], first["error"], second["error"]) == (None, None, None)
    async with limited(stack, size=2 * MEBIBYTE - 1):
        (refused,) = await asyncio.to_thread(uploader.run, upload("owner", path=f"{folder}/3.webp", bytes=1000))
    assert refused["error"]["status"] in (400, 403)
