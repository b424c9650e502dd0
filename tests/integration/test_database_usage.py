from typing import Any

import asyncpg
import pytest

from tests.support.database import acting_as, add_user
from tests.support.runs import RunsWorld, refused

AMOUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_micro_usd")


async def used(world: RunsWorld, created_at: str, model: str, session_id: str | None, *amounts: int) -> None:
    await world.admin.execute(
        "insert into public.api_usage (user_id, session_id, model, source, prompt_tokens, completion_tokens,"
        " cached_tokens, cost_micro_usd, created_at)"
        " values ($1, $2, $3, 'turn', $4, $5, $6, $7, $8::text::timestamptz)",
        world.user,
        session_id,
        model,
        *amounts,
        created_at,
    )


def sums(entry: dict[str, Any]) -> tuple[Any, ...]:
    return (entry["key"], entry["runs"], *(entry[name] for name in AMOUNTS))


@pytest.fixture
async def ledger(world: RunsWorld) -> RunsWorld:
    """A user who used something on two days (UTC), with two models, in a session and in none."""
    session_id = await world.new_session()
    await used(world, "2026-05-01T23:59:59.999999Z", "a", session_id, 1, 2, 0, 10)
    await used(world, "2026-05-02T01:59:59+02:00", "b", session_id, 10, 20, 5, 100)
    await used(world, "2026-05-02T00:00:00Z", "a", None, 100, 200, 50, 1000)
    return world


MAY = {"from": "2026-05-01T00:00:00Z", "to": "2026-06-01T00:00:00Z"}
TOTAL = ("", 3, 111, 222, 55, 1110)


async def test_usage_is_summed_by_day_in_utc(ledger: RunsWorld) -> None:
    answer = await ledger.call("list_usage", **MAY)
    assert [sums(entry) for entry in answer["entries"]] == [
        ("2026-05-01", 2, 11, 22, 5, 110),
        ("2026-05-02", 1, 100, 200, 50, 1000),
    ]
    assert sums(answer["total"]) == TOTAL


async def test_usage_is_summed_by_model_and_by_session(ledger: RunsWorld) -> None:
    answer = await ledger.call("list_usage", group_by="model", **MAY)
    assert [sums(entry)[:3] for entry in answer["entries"]] == [("a", 2, 101), ("b", 1, 10)]
    answer = await ledger.call("list_usage", group_by="session", **MAY)
    assert [entry["runs"] for entry in answer["entries"]] == [1, 2]
    assert answer["entries"][0]["key"] == ""
    assert sums(answer["total"]) == TOTAL


async def test_the_end_of_the_time_is_not_part_of_it(ledger: RunsWorld) -> None:
    answer = await ledger.call("list_usage", **{"from": "2026-05-02T00:00:00Z", "to": "2026-05-03T00:00:00Z"})
    assert sums(answer["total"])[:3] == ("", 1, 100)
    answer = await ledger.call("list_usage", **{"from": "2026-05-01T00:00:00Z", "to": "2026-05-02T00:00:00Z"})
    assert sums(answer["total"])[:3] == ("", 2, 11)


async def test_without_bounds_the_last_thirty_days_count(ledger: RunsWorld) -> None:
    await ledger.admin.execute(
        "insert into public.api_usage (user_id, model, source, created_at) select $1, 'a', 'turn', now() - days"
        " from unnest(array[interval '0', interval '29 days', interval '31 days']) as d (days)",
        ledger.user,
    )
    assert (await ledger.call("list_usage"))["total"]["runs"] == 2
    assert (await ledger.call("list_usage", to=MAY["to"]))["total"]["runs"] == 1


async def test_pages_are_complete_and_each_has_the_whole_total(ledger: RunsWorld) -> None:
    for day in range(1, 8):
        await used(ledger, f"2026-05-{day:02}T12:00:00Z", "c", None, 0, 0, 0, 0)
    seen: list[str] = []
    after: dict[str, str] = {}
    while True:
        page = await ledger.call("list_usage", page_size=3, **MAY, **after)
        assert page["total"]["runs"] == 10
        seen += [entry["key"] for entry in page["entries"]]
        if not page["has_more"]:
            break
        after = {"after_key": seen[-1]}
    assert seen == [f"2026-05-{day:02}" for day in range(1, 8)]


async def test_deleting_a_session_changes_no_total(world: RunsWorld) -> None:
    session_id = await world.new_session()
    started = await world.start(session_id, model="m", prices={"prompt": 1_000_000})
    await world.finish(started["lease"], usage={"prompt_tokens": 7})
    before = await world.call("list_usage", group_by="session")
    await world.call("delete_session", session_id=session_id)
    after = await world.call("list_usage", group_by="session")
    assert (before["entries"], before["total"]) == (after["entries"], after["total"])
    assert sums(after["total"]) == ("", 1, 7, 0, 0, 7)
    assert after["entries"][0]["key"] == session_id


async def test_nobody_who_used_nothing_has_entries(world: RunsWorld, ledger: RunsWorld) -> None:
    answer = await world.call("list_usage", **{"from": "2020-01-01T00:00:00Z", "to": "2020-01-02T00:00:00Z"})
    assert (answer["entries"], sums(answer["total"])) == ([], ("", 0, 0, 0, 0, 0))


@pytest.mark.parametrize(
    ("args", "field"),
    [({"group_by": "hour"}, "group_by"), ({"from": MAY["to"], "to": MAY["from"]}, "from")],
)
async def test_a_wrong_argument_is_named(world: RunsWorld, args: dict[str, str], field: str) -> None:
    assert (await refused("PT400", "INVALID_FIELD", world.call("list_usage", **args)))["field"] == field


async def test_the_ledger_tells_all_tokens_of_a_run_as_one_number(ledger: RunsWorld) -> None:
    largest = 2**63 - 1
    # More than the number holds: the row must be written nevertheless, or the run could never end.
    await used(ledger, "2026-05-03T00:00:00Z", "a", None, largest, 1, 0, 0)
    rows = await ledger.admin.fetch(
        "select prompt_tokens, completion_tokens, tokens_used from public.api_usage where user_id = $1"
        " order by prompt_tokens",
        ledger.user,
    )
    assert [tuple(row) for row in rows] == [(1, 2, 3), (10, 20, 30), (100, 200, 300), (largest, 1, largest)]


async def test_tokens_used_is_read_by_its_owner_and_written_by_nobody(ledger: RunsWorld) -> None:
    other = await add_user(ledger.admin)
    async with ledger.pool.acquire() as login:
        for user, total in ((ledger.user, 333), (other, None)):
            async with acting_as(login, user) as caller:
                assert await caller.fetchval("select sum(tokens_used) from public.api_usage") == total
    with pytest.raises(asyncpg.GeneratedAlwaysError):
        await ledger.admin.execute("update public.api_usage set tokens_used = 0")
