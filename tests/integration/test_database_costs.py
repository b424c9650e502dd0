"""What costs money is counted within bounds, and is our services' word alone."""

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import pytest
from supabase import AsyncClientOptions, acreate_client

from tests.support.database import add_user, call
from tests.support.runs import ERROR, RunsWorld, forged, refused, start_args
from tests.support.suites import RunningStack

LARGEST = 2**63 - 1
MOST = 10**12
PRICES = {"prompt": 1_000_000, "completion": 4_000_000, "cached": 500_000}


def model_call(**fields: Any) -> dict[str, Any]:
    """Return the arguments of start_model_call."""
    given = {"request_id": str(uuid4()), "model": "m", "source": "chat_completions", "lease_token": uuid4().hex}
    return {**given, **fields}


@pytest.mark.parametrize("operation", ["start_run", "start_model_call"])
async def test_a_users_token_says_no_prices_and_no_limits_over_rest(
    world: RunsWorld, stack: RunningStack, operation: str
) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        options = AsyncClientOptions(httpx_client=http, persist_session=False, auto_refresh_token=False)
        client: Any = await acreate_client(stack.supabase_url, stack.publishable_key, options)
        await client.auth.sign_up({"email": f"{uuid4()}@example.net", "password": f"pw-{uuid4()}"})
        token = (await client.auth.get_session()).access_token
        [session] = (await client.table("sessions").insert({"name": "mine"}).execute()).data
        terms = {"prices": {}, "max_user_runs": 0, "lease_seconds": 3600, "source": "free", "lease_token": "t" * 32}
        args = {
            "start_run": start_args(session["id"], content="Hello", model="the dearest", **terms),
            "start_model_call": model_call(session_id=session["id"], **terms),
        }[operation]
        # As a user may send it, past every client.
        answer = await http.post(
            f"{stack.supabase_url}/rest/v1/rpc/{operation}",
            json={"args": args},
            headers={
                "apikey": stack.publishable_key, "Authorization": f"Bearer {token}", "Content-Profile": "api",
            },
        )  # fmt: skip
        assert (answer.status_code, answer.json()["message"]) == (403, "PERMISSION_DENIED")
        assert "only our services" in answer.json()["hint"]
        assert (await client.table("runs").select("id").execute()).data == []
        assert (await client.table("messages").select("id").execute()).data == []
    assert await world.admin.fetchval("select count(*) from private.model_calls where source = 'free'") == 0


async def test_counts_that_no_number_holds_are_kept_within_bounds(world: RunsWorld) -> None:
    started = await world.start(prices={"prompt": LARGEST, "completion": LARGEST, "cached": -5})
    usage = {"prompt_tokens": LARGEST, "completion_tokens": LARGEST, "cached_tokens": -1, "model": "m" * 5000}
    done = await world.finish(started["lease"], usage=usage)
    kept = done["run"]["usage"]
    assert (kept["prompt_tokens"], kept["completion_tokens"], kept["cached_tokens"]) == (MOST, MOST, 0)
    assert (kept["cost_micro_usd"], len(kept["model"])) == (2 * MOST * MOST // 1_000_000, 200)
    negative = await world.start(prices={"prompt": -1, "completion": -1})
    done = await world.finish(negative["lease"], usage={"prompt_tokens": -7, "completion_tokens": 5})
    assert (done["run"]["usage"]["prompt_tokens"], done["run"]["usage"]["cost_micro_usd"]) == (0, 0)


async def test_sums_stay_within_what_the_contract_holds(world: RunsWorld) -> None:
    for model in ("a", "a", "b"):
        await world.admin.execute(
            "insert into public.api_usage (user_id, model, source, prompt_tokens, completion_tokens, cached_tokens,"
            " cost_micro_usd) values ($1, $2, 'turn', $3, $3, $3, $3)",
            world.user,
            model,
            LARGEST,
        )
    answer = await world.call("list_usage", group_by="model")
    for entry in (*answer["entries"], answer["total"]):
        amounts = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_micro_usd")
        assert [entry[name] for name in amounts] == [LARGEST] * 4
    assert answer["total"]["runs"] == 3


async def test_a_lease_lasts_a_second_at_least_and_an_hour_at_most(world: RunsWorld) -> None:
    for asked, kept in ((-5, 1), (2**31 - 1, 3600)):
        run_id = (await world.start(lease_seconds=asked))["run"]["id"]
        assert await world.admin.fetchval("select lease_seconds from public.runs where id = $1", run_id) == kept


async def test_a_call_of_a_model_outside_of_runs_is_in_the_ledger_when_it_ends(world: RunsWorld) -> None:
    args = model_call(prices=PRICES, prompt_tokens=9)
    lease = (await world.call("start_model_call", **args))["lease"]
    assert lease == {"run_id": args["request_id"], "token": args["lease_token"]}
    assert (await world.call("start_model_call", **args))["lease"] == lease, "a repetition is the same call"
    assert await world.ledger() == []
    await refused("PT409", "LEASE_LOST", world.system("finish_model_call", lease=forged(lease)))
    usage = {"model": "m-2", "prompt_tokens": 11, "completion_tokens": 5, "cached_tokens": 4, "cost_micro_usd": 0}
    await world.system("finish_model_call", lease=lease, usage=usage)
    [row] = await world.ledger()
    assert (row["model"], row["source"], row["cost_micro_usd"], row["session_id"]) == (
        "m-2",
        "chat_completions",
        29,
        None,
    )
    assert (str(row["run_id"]), row["is_estimated"]) == (args["request_id"], False)
    await refused("PT409", "LEASE_LOST", world.system("finish_model_call", lease=lease, usage=usage))
    assert len(await world.ledger()) == 1


async def test_a_model_that_was_not_asked_leaves_nothing(world: RunsWorld) -> None:
    lease = (await world.call("start_model_call", **model_call(prompt_tokens=9)))["lease"]
    await world.system("finish_model_call", lease=lease)
    assert await world.ledger() == []


async def test_calls_and_runs_are_limited_together_and_titles_are_not(world: RunsWorld) -> None:
    first = await world.start(max_user_runs=3)
    answers = await asyncio.gather(
        *(world.call("start_model_call", **model_call(max_user_runs=3)) for _ in range(5)), return_exceptions=True
    )
    leases = [answer["lease"] for answer in answers if isinstance(answer, dict)]
    assert len(leases) == 2
    for attempt in (world.start(max_user_runs=3), world.call("start_model_call", **model_call(max_user_runs=3))):
        assert (await refused("PT429", "TOO_MANY_RUNS", attempt))["retry_after_seconds"] == "2"
    title = await world.call("start_model_call", **model_call(source="title"))
    await world.system("finish_model_call", lease=leases[0], usage={"prompt_tokens": 1})
    # The title's call is open, and takes nobody's place.
    await world.call("start_model_call", **model_call(max_user_runs=3))
    await world.finish(first["lease"])
    await world.system("finish_model_call", lease=title["lease"], usage={"prompt_tokens": 2})
    total = (await world.call("list_usage"))["total"]
    assert (total["runs"], total["prompt_tokens"]) == (2, 3)


async def test_the_death_of_its_process_ends_a_call_with_an_estimate(world: RunsWorld) -> None:
    lost = (await world.call("start_model_call", **model_call(prices=PRICES, prompt_tokens=9, max_user_runs=2)))[
        "lease"
    ]
    alive = (await world.call("start_model_call", **model_call(max_user_runs=2)))["lease"]
    other = {**alive, "run_id": str(uuid4())}
    answer = await world.system("renew_leases", leases=[lost, alive, other], lease_seconds=60)
    assert answer == {"lost_run_ids": [other["run_id"]], "cancelled_run_ids": []}
    await world.admin.execute(
        "update private.model_calls set lease_expires_at = now() - interval '1 second' where id = $1", lost["run_id"]
    )
    await world.system("interrupt_expired_runs", limit=1, error=ERROR)
    [row] = await world.ledger()
    assert (str(row["run_id"]), row["prompt_tokens"], row["completion_tokens"]) == (lost["run_id"], 9, 0)
    assert (row["is_estimated"], row["cost_micro_usd"]) == (True, 9)
    answer = await world.system("renew_leases", leases=[lost, alive])
    assert answer["lost_run_ids"] == [lost["run_id"]]
    await refused("PT409", "LEASE_LOST", world.system("finish_model_call", lease=lost, usage={"prompt_tokens": 50}))
    assert len(await world.ledger()) == 1
    await world.call("start_model_call", **model_call(max_user_runs=2))


async def test_calls_go_with_their_user_and_are_nobody_elses(world: RunsWorld) -> None:
    lease = (await world.call("start_model_call", **model_call(max_user_runs=1)))["lease"]
    stranger = await add_user(world.admin)
    await call(world.pool, stranger, "start_model_call", **model_call(max_user_runs=1))
    await world.admin.execute("delete from auth.users where id = $1", world.user)
    await refused("PT409", "LEASE_LOST", world.system("finish_model_call", lease=lease, usage={"prompt_tokens": 1}))
    # With the token, which is good for a little longer.
    await refused("PT404", "ACCOUNT_NOT_FOUND", world.call("start_model_call", **model_call()))
    assert await world.ledger() == []
