"""Nobody learns from the embedded auth server who has an account: a log-in costs a hash for every address."""

import time
import uuid
from collections.abc import Callable

import httpx

from local.tests.conftest import PASSWORD, mails_to
from tests.support.suites import RunningStack

HASH = "11"  # takes so long that nothing else matters beside it; other tests' hashes are cheap


async def test_a_log_in_costs_a_hash_for_every_address_and_tells_nothing_of_it(
    launch: Callable[..., RunningStack],
) -> None:
    stack = launch(only="postgres,supabase", CONCERTO_CONFIRM_EMAIL="true", CONCERTO_BCRYPT_COST=HASH)
    emails = {name: f"{name}-{uuid.uuid4().hex[:12]}@example.com" for name in ("confirmed", "waiting", "unknown")}
    seconds: dict[str, list[float]] = {name: [] for name in emails}
    address = f"{stack.supabase_url}/auth/v1"
    async with httpx.AsyncClient(base_url=address, headers={"apikey": stack.publishable_key}, timeout=60) as client:
        for name in ("confirmed", "waiting"):
            assert (await client.post("/signup", json={"email": emails[name], "password": PASSWORD})).is_success
        (mail,) = mails_to(stack, emails["confirmed"])
        proof = {"type": "signup", "email": emails["confirmed"], "token": mail.code}
        assert (await client.post("/verify", json=proof)).is_success
        for _ in range(3):
            for name, email in emails.items():
                body = {"email": email.upper(), "password": f"not {PASSWORD}"}
                begun = time.perf_counter()
                answer = await client.post("/token?grant_type=password", json=body)
                seconds[name].append(time.perf_counter() - begun)
                assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_credentials")
        for name, expected in (("confirmed", None), ("waiting", "email_not_confirmed")):
            body = {"email": emails[name], "password": PASSWORD}
            answer = await client.post("/token?grant_type=password", json=body)
            assert answer.json().get("error_code") == expected
    least = {name: min(measured) for name, measured in seconds.items()}
    assert min(least.values()) > max(least.values()) / 2, least
