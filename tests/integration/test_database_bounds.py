"""What one call reads is bounded, whatever its caller has stored, and an answer that was cut says so."""

import asyncpg
import pytest

from tests.support.runs import RunsWorld, refused


@pytest.fixture
async def names(world: RunsWorld) -> RunsWorld:
    """Somebody with 5001 sessions, the oldest of which are called otherwise."""
    await world.admin.execute(
        "insert into public.sessions (user_id, name, updated_at)"
        " select $1::text::uuid, case when n < 3 then 'Straw' else 'Hay' end, now() - make_interval(secs => 6000 - n)"
        " from generate_series(1, 5002) as n",
        world.user,
    )
    return world


async def test_a_filter_looks_at_so_many_names_and_the_list_goes_on_behind_them(names: RunsWorld) -> None:
    first = await names.call("list_sessions", query="straw")
    assert (first["sessions"], first["has_more"]) == ([], True)
    behind = {"before_updated_at": first["next_updated_at"], "before_id": first["next_id"]}
    second = await names.call("list_sessions", query="straw", **behind)
    assert [session["name"] for session in second["sessions"]] == ["Straw", "Straw"]
    assert second["has_more"] is False


async def test_pages_of_a_filtered_list_hold_every_session_once(names: RunsWorld) -> None:
    seen: list[str] = []
    behind: dict[str, str] = {}
    while True:
        page = await names.call("list_sessions", query="ha", page_size=100, **behind)
        seen += [session["id"] for session in page["sessions"]]
        assert len(page["sessions"]) == 100 or not page["has_more"]
        if not page["has_more"]:
            break
        behind = {"before_updated_at": page["next_updated_at"], "before_id": page["next_id"]}
    assert len(seen) == len(set(seen)) == 5000


async def test_a_filter_past_the_contracts_limit_is_refused_whichever_way_it_comes(world: RunsWorld) -> None:
    await refused("PT400", "FIELD_TOO_LARGE", world.call("list_sessions", query="x" * 201))


async def test_sums_of_very_many_runs_ask_for_a_shorter_time(world: RunsWorld) -> None:
    async with world.admin.transaction():
        await world.admin.execute("set local session_replication_role = replica")  # no keys to check
        await world.admin.execute(
            "insert into public.api_usage (user_id, model, source, created_at)"
            " select $1::text::uuid, 'm', 'turn', now() - make_interval(secs => n)"
            " from generate_series(1, 200001) as n",
            world.user,
        )
    await refused("PT400", "INVALID_FIELD", world.call("list_usage"))
    a_day = await world.admin.fetchval("select now() - interval '1 day'")
    day = await world.call("list_usage", **{"from": a_day.isoformat()})
    assert 86_000 < day["total"]["runs"] <= 86_400


async def test_appended_messages_are_bounded_in_sum(world: RunsWorld) -> None:
    session_id = await world.new_session()
    messages = [{"role": "user", "content": "x" * 1_000_000}] * 17
    await refused("PT400", "FIELD_TOO_LARGE", world.call("append_messages", session_id=session_id, messages=messages))


async def test_words_of_a_message_are_kept_of_its_beginning(world: RunsWorld) -> None:
    session_id = await world.new_session()
    words = " ".join(f"word{number}" for number in range(100_000))
    await world.call("append_messages", session_id=session_id, messages=[{"role": "user", "content": words}])
    kept = await world.admin.fetchval(
        "select length(search) from public.messages where session_id = $1::text::uuid", session_id
    )
    assert kept == 1 + len(words[:50_000].split())


async def test_a_session_is_shortened_from_its_end(world: RunsWorld) -> None:
    session_id = await world.new_session()
    await world.admin.execute(
        "insert into public.messages (session_id, role, content)"
        " select $1::text::uuid, 'user', n::text from generate_series(1, 5003) as n",
        session_id,
    )
    assert await world.call("delete_session", session_id=session_id, in_steps=True) == {"is_deleted": False}
    assert await world.contents(session_id) == ["1", "2", "3"]
    assert (await world.call("get_session", session_id=session_id))["session"]["message_count"] == 3
    # What is written meanwhile goes on where it ends now.
    [message] = (
        await world.call("append_messages", session_id=session_id, messages=[{"role": "user", "content": "4"}])
    )["messages"]
    assert message["order"] == 4
    assert await world.call("delete_session", session_id=session_id, in_steps=True) == {"is_deleted": True}
    await refused("PT404", "SESSION_NOT_FOUND", world.call("delete_session", session_id=session_id, in_steps=True))


async def test_a_strangers_session_is_not_shortened(world: RunsWorld) -> None:
    session_id = await world.new_session()
    await world.call("append_messages", session_id=session_id, messages=[{"role": "user", "content": "mine"}])
    stranger = RunsWorld(world.admin, world.pool, str(await world.admin.fetchval("select gen_random_uuid()")))
    with pytest.raises(asyncpg.PostgresError):
        await stranger.call("delete_session", session_id=session_id, in_steps=True)
    assert await world.contents(session_id) == ["mine"]
