import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from tests.support.database import add_user, call
from tests.support.suites import RunningStack


@dataclass(frozen=True)
class World:
    """Connections as the superuser and as the services have them."""

    admin: asyncpg.Connection
    login: asyncpg.Connection

    async def me(self, user_id: str) -> dict[str, Any]:
        return dict((await call(self.login, user_id, "get_me"))["user"])

    async def update(self, user_id: str, **changes: Any) -> dict[str, Any]:
        return dict((await call(self.login, user_id, "update_me", **changes))["user"])

    async def refusal(self, user_id: str, **changes: Any) -> tuple[str, str, dict[str, str]]:
        with pytest.raises(asyncpg.PostgresError) as refusal:
            await self.update(user_id, **changes)
        return refusal.value.sqlstate, refusal.value.message, json.loads(refusal.value.detail)


@pytest.fixture
async def world(stack: RunningStack) -> AsyncIterator[World]:
    admin, login = await asyncpg.connect(stack.admin_db_url), await asyncpg.connect(stack.db_url)
    yield World(admin, login)
    await login.close()
    await admin.close()


def unique(name: str) -> str:
    return f"{name}-{uuid4().hex[:12]}"


@pytest.mark.parametrize(
    ("metadata_json", "display_name"),
    [
        ('{"display_name": "Ada Lovelace"}', "Ada Lovelace"),
        ('{"display_name": "  Ada \\t\\n"}', "Ada"),
        (json.dumps({"display_name": "x" * 99 + " yz"}), "x" * 99),
        (json.dumps({"display_name": "🎼" * 300}), "🎼" * 100),
        ('{"display_name": ""}', "local.part"),
        ('{"display_name": " \\n "}', "local.part"),
        ('{"display_name": null}', "local.part"),
        ('{"display_name": 7}', "local.part"),
        ('{"display_name": {"first": "Ada"}}', "local.part"),
        ('{"display_name": ["Ada"]}', "local.part"),
        ('{"Display_Name": "Ada"}', "local.part"),
        ('{"role": "admin", "id": "x"}', "local.part"),
        ("{}", "local.part"),
        ("[]", "local.part"),
        ("null", "local.part"),
        ('"text"', "local.part"),
        ('"{\\"display_name\\": \\"Ada\\"}"', "local.part"),
        ("17", "local.part"),
    ],
)
async def test_a_sign_up_with_odd_metadata_makes_an_account(
    world: World, metadata_json: str, display_name: str
) -> None:
    email = f"local.part@{uuid4()}.example.net"
    user_id = await add_user(world.admin, email=email, metadata_json=metadata_json)
    user = await world.me(user_id)
    assert (user["id"], user["email"], user["display_name"], user["role"]) == (user_id, email, display_name, "user")
    assert user["profile"] == {
        "username": "",
        "full_name": "",
        "avatar_url": "",
        "status_text": "",
        "status_emoji": "",
        "status_expires_at": None,
    }
    assert user["settings"] == {"theme": "system", "notification_preferences": {}}
    assert user["last_login_at"] is None


@pytest.mark.parametrize(
    ("email", "display_name"),
    [(None, "user"), ("@example.net", "user"), ("no-at-sign", "no-at-sign"), ("y" * 150 + "@example.net", "y" * 100)],
)
async def test_a_sign_up_with_an_odd_address_makes_an_account(
    world: World, email: str | None, display_name: str
) -> None:
    await world.admin.execute("delete from auth.users where email = $1", email)
    user_id = await add_user(world.admin, email=email)
    user = await world.me(user_id)
    assert (user["email"], user["display_name"]) == (email or "", display_name)


async def test_a_sign_up_without_metadata_makes_an_account(world: World) -> None:
    user_id = str(uuid4())
    await world.admin.execute(
        "insert into auth.users (id, email, raw_user_meta_data) values ($1, $2, null)", user_id, f"a@{user_id}.net"
    )
    assert (await world.me(user_id))["display_name"] == "a"


async def test_email_and_last_sign_in_follow_the_auth_server(world: World) -> None:
    user_id = await add_user(world.admin)
    before = await world.me(user_id)
    await world.admin.execute("update auth.users set last_sign_in_at = '2026-05-01T12:00:00Z' where id = $1", user_id)
    after = await world.me(user_id)
    assert after == before | {"last_login_at": "2026-05-01T12:00:00+00:00"}
    email = f"new-{user_id}@example.net"
    await world.admin.execute("update auth.users set email = $2 where id = $1", user_id, email)
    changed = await world.me(user_id)
    assert changed == after | {"email": email, "updated_at": changed["updated_at"]}
    assert changed["updated_at"] > after["updated_at"]


async def test_absent_values_stay_as_they_are(world: World) -> None:
    user_id = await add_user(world.admin)
    everything = {
        "display_name": "Ada",
        "profile": {
            "username": unique("ada"),
            "full_name": "Ada Lovelace",
            "avatar_url": "https://example.net/ada.png",
            "status_text": "computing",
            "status_emoji": "🧮",
            "status_expires_at": "2027-01-01T00:00:00+00:00",
        },
        "settings": {"theme": "dark", "notification_preferences": {"mail": {"weekly": True}}},
    }
    before = await world.update(user_id, **everything)
    assert {key: before[key] for key in everything} == everything
    nothing: tuple[dict[str, Any], ...] = (
        {},
        {"profile": {}, "settings": {}},
        {"display_name": None, "profile": None, "settings": None},
        {"profile": dict.fromkeys(everything["profile"]), "settings": {"theme": None}},
    )
    for changes in nothing:
        assert await world.update(user_id, **changes) == before


async def test_an_empty_text_removes_a_value(world: World) -> None:
    user_id = await add_user(world.admin)
    profile = {"username": unique("ada"), "full_name": "A", "avatar_url": "http://a.net", "status_emoji": "x"}
    await world.update(user_id, profile=profile)
    user = await world.update(user_id, profile=dict.fromkeys(profile, ""))
    assert {key: user["profile"][key] for key in profile} == dict.fromkeys(profile, "")


async def test_an_empty_display_name_is_the_addresss_local_part_again(world: World) -> None:
    user_id = await add_user(world.admin)
    await world.update(user_id, display_name="Ada")
    assert (await world.update(user_id, display_name="  "))["display_name"] == user_id


async def test_a_new_status_without_an_end_stays(world: World) -> None:
    user_id = await add_user(world.admin)
    end = "2027-01-01T00:00:00+00:00"
    assert (await world.update(user_id, profile={"status_text": "a", "status_expires_at": end}))["profile"][
        "status_expires_at"
    ] == end
    assert (await world.update(user_id, profile={"status_emoji": "x"}))["profile"]["status_expires_at"] == end
    assert (await world.update(user_id, profile={"status_text": "b"}))["profile"]["status_expires_at"] is None


async def test_notification_preferences_are_replaced_as_a_whole(world: World) -> None:
    user_id = await add_user(world.admin)
    await world.update(user_id, settings={"notification_preferences": {"a": 1, "b": 2}})
    user = await world.update(user_id, settings={"notification_preferences": {"c": 3}})
    assert user["settings"] == {"theme": "system", "notification_preferences": {"c": 3}}


async def test_a_username_is_one_persons_whatever_its_case(world: World) -> None:
    first, second = await add_user(world.admin), await add_user(world.admin)
    name = unique("ada")
    assert (await world.update(first, profile={"username": f" {name.upper()}"}))["profile"]["username"] == name
    refusal = await world.refusal(second, display_name="changed", profile={"username": name.title()})
    assert refusal == ("PT409", "USERNAME_TAKEN", {"username": name})
    assert (await world.me(second))["display_name"] != "changed"
    assert (await world.update(first, profile={"username": name}))["profile"]["username"] == name


@pytest.mark.parametrize("username", ["ab", "x" * 33, "a b c", "äöü", "ada!", "ada\nb", "..\u200b."])
async def test_a_username_of_another_pattern_is_refused(world: World, username: str) -> None:
    user_id = await add_user(world.admin)
    refusal = await world.refusal(user_id, profile={"username": username})
    assert refusal == ("PT400", "INVALID_USERNAME", {"username": username})


async def test_preferences_that_grow_in_the_database_name_the_field(world: World) -> None:
    user_id = await add_user(world.admin)
    sqlstate, reason, detail = await world.refusal(
        user_id, settings={"notification_preferences": {"x": [1e300] * 1000}}
    )
    assert (sqlstate, reason, detail["field"]) == ("PT400", "FIELD_TOO_LARGE", "settings.notification_preferences")
