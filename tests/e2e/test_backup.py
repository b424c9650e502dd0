"""Backup, wipe, restore: people log in to what they had, to the letter and to the byte."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import jwt
import pytest

from local.backup import fingerprint
from local.backup.fingerprint import Fingerprint
from tests.e2e.conftest import Start
from tests.support.api import Event, Person, ok, read_events, reason, text_of
from tests.support.measured import Note
from tests.support.model_server import Behaviour, ModelServer
from tests.support.suites import RunningStack, stop_stack

NAME = "Jörg Müller-Lüdenscheidt"
PICTURE = b"RIFF\x10\0\0\0WEBPVP8 " + os.urandom(50_000)


@asynccontextmanager
async def client_of(suite: RunningStack) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=suite.gateway_url, timeout=30) as client:
        yield client


async def content_of(suite: RunningStack) -> Fingerprint:
    connection = await asyncpg.connect(suite.admin_db_url)
    try:
        async with connection.transaction(readonly=True):
            return await fingerprint.take(connection)
    finally:
        await connection.close()


async def picture_address(suite: RunningStack, person: Person) -> str:
    """Upload a picture as the web app does, and return its public path."""
    path = f"/avatars/{person.user['id']}/{uuid4().hex}.webp"
    head = {"apikey": suite.publishable_key, **person.headers, "content-type": "image/webp"}
    async with httpx.AsyncClient(base_url=f"{suite.supabase_url}/storage/v1", headers=head) as storage:
        ok(await storage.post(f"/object{path}", content=PICTURE))
    return f"/storage/v1/object/public{path}"


async def seen(person: Person) -> dict[str, Any]:
    """Everything that a person finds in their account, by the path that they find it under."""
    found = {path: ok(await person.call("GET", path)) for path in ("/auth/me", "/sessions", "/runs", "/usage")}
    for session in found["/sessions"]["sessions"]:
        messages = f"/sessions/{session['id']}/messages"
        for path in (messages, f"{messages}?include_inactive=true"):
            found[path] = ok(await person.call("GET", path))
    for run in found["/runs"]["runs"]:
        found[f"/runs/{run['id']}/events"] = await events_of(person, run["id"])
    found["/auth/me"].pop("last_login_at")
    found["/auth/me"].pop("updated_at")
    return found


def changed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {
        path: (before.get(path), after.get(path))
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path)
    }


async def events_of(person: Person, run_id: str) -> list[Event]:
    async with person.client.stream("GET", f"/runs/{run_id}/events", headers=person.headers) as response:
        assert response.status_code == httpx.codes.OK
        return [event async for event in read_events(response)]


async def talk(person: Person, model: ModelServer, *, index: int) -> None:
    """Two turns, an edited question, an answer made again, and one that fails."""
    session = await person.create_session(name=f"Gespräch {index}")
    for text in ("Wer schrieb die Kinderszenen? \U0001f3bc", "Und wann?"):
        model.script(Behaviour(text=f"Antwort auf: {text}"))
        events = [event async for event in person.turn(session["id"], text)]
        assert text_of(events) == f"Antwort auf: {text}"
    first, *_ = await person.messages(session["id"])
    edited = person.turn(session["id"], "Wer schrieb sie wirklich?", edit_message_id=first["id"])
    assert [event async for event in edited][-1].data == {"state": "SUCCEEDED"}
    question, *_ = await person.messages(session["id"])
    again = await person.call("POST", f"/sessions/{session['id']}/runs", {"regenerate_message_id": question["id"]})
    assert (await events_of(person, ok(again)["id"]))[-1].data == {"state": "SUCCEEDED"}
    model.script(Behaviour(tokens=20, fault="cut"))
    assert [event async for event in person.turn(session["id"], "Zähle!")]


@pytest.mark.long
async def test_people_find_everything_again_after_backup_wipe_and_restore(
    start: Start, model: ModelServer, tmp_path: Path, note: Note
) -> None:
    suite = await start()
    async with client_of(suite) as client:
        people = [await Person.sign_up(client, display_name=name) for name in (NAME, "Zoë", "Nobody in particular")]
        for index, person in enumerate(people[:2]):
            await talk(person, model, index=index)
        picture = await picture_address(suite, people[0])
        before = [await seen(person) for person in people]
    # As it will be: running, with nobody at work.
    made = await asyncio.to_thread(suite.command, "backup", str(tmp_path / "all.tar"))
    assert made.returncode == 0, made.stderr
    keyed = await asyncio.to_thread(suite.command, "backup", str(tmp_path / "keys.tar"), "--with-secrets")
    assert keyed.returncode == 0, keyed.stderr
    wanted = await content_of(suite)
    await asyncio.to_thread(stop_stack, suite)

    shutil.rmtree(suite.home)
    done = await asyncio.to_thread(suite.command, "restore", str(tmp_path / "all.tar"))
    assert done.returncode == 0, done.stderr
    suite = await start()
    found = await content_of(suite)
    note(f"{'table':<40} {'rows before':>11} {'after':>6}  hash before       after")
    for name, table in wanted.tables.items():
        other = found.tables[name]
        note(f"{name:<40} {table.rows:>11} {other.rows:>6}  {table.sha256[:16]}  {other.sha256[:16]}")
    assert found.tables.keys() == wanted.tables.keys()
    assert {name: table for name, table in found.tables.items() if table != wanted.tables[name]} == {}
    assert found.definitions == wanted.definitions

    async with client_of(suite) as client:
        # The keys are new here: an old access token is refused, and what renews it is in the database.
        refused = await client.get("/auth/me", headers=people[0].headers)
        assert (refused.status_code, reason(refused)) == (401, "TOKEN_INVALID")
        renewed = ok(await client.post("/auth/refresh", json={"refresh_token": people[1].tokens["refresh_token"]}))
        assert (
            jwt.decode(renewed["session"]["access_token"], options={"verify_signature": False})["sub"]
            == (people[1].user["id"])
        )
        again = [await Person.log_in(client, person.user["email"]) for person in people]
        for person, had in zip(again, before, strict=True):
            assert changed(had, await seen(person)) == {}
        assert again[0].user["display_name"] == NAME
        answer = await client.get(suite.supabase_url + picture)
        assert (answer.content, answer.headers["content-type"]) == (PICTURE, "image/webp")

        # Somebody else still finds none of it.
        mine = before[0]["/sessions"]["sessions"][0]["id"]
        denied = await again[2].call("GET", f"/sessions/{mine}")
        assert (denied.status_code, reason(denied)) == (404, "SESSION_NOT_FOUND")
        assert ok(await again[2].call("GET", "/sessions"))["sessions"] == []

        # And it goes on.
        model.script(Behaviour(text="Weiter geht es."))
        assert text_of([event async for event in again[0].turn(mine, "Weiter!")]) == "Weiter geht es."
    await asyncio.to_thread(stop_stack, suite)

    # With the keys in the backup, and over data that is there, the old access tokens are good as well.
    done = await asyncio.to_thread(suite.command, "restore", str(tmp_path / "keys.tar"), "--yes")
    assert done.returncode == 0, done.stderr
    suite = await start()
    async with client_of(suite) as client:
        for person, had in zip(people, before, strict=True):
            person.client = client
            assert changed(had, await seen(person)) == {}
