"""Attacks on accounts and on what costs money: guessing, locking out, forged tokens, a user's word about prices."""

import asyncio
import json
from collections import Counter
from typing import Any
from uuid import uuid4

import grpc
import httpx
import jwt
from concerto.sessions.v1 import runs_pb2, runs_pb2_grpc, turns_pb2

from servicekit.rpc.channel import SERVICE_KEY_HEADER
from tests.attacks.frame import MB, Attack, Outcome, Target
from tests.attacks.sockets import ATTACKER
from tests.support.api import PASSWORD, Person, ok

AS_DEPLOYED = {
    "GATEWAY_LOGIN_LIMIT_PER_EMAIL": "10/minute",
    "GATEWAY_LOGIN_LIMIT_PER_ACCOUNT": "100/hour",
    "GATEWAY_LOGIN_LIMIT_PER_ADDRESS": "60/minute",
}
"""The limits that a test run lifts otherwise."""


def _stranger(target: Target, address: str = ATTACKER) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=target.stack.gateway_url, transport=transport, timeout=120)


async def guessed_passwords(target: Target) -> Outcome:
    """600 wrong passwords for one account; its owner then signs in, from a known browser and from a new one."""
    email = f"juergen-{uuid4()}@bücher.example"
    outcome = Outcome()
    async with httpx.AsyncClient(base_url=target.stack.gateway_url, timeout=120) as browser:
        await Person.sign_up(browser, email=email)
        for address in ("127.0.0.2", "127.0.0.3", "127.0.0.4"):
            async with _stranger(target, address) as stranger:
                for number in range(200):
                    body = {"email": email.upper() if number % 2 else email, "password": f"guess-{number}"}
                    answer = await stranger.post("/auth/login", json=body)
                    outcome.counts[str(answer.status_code)] += 1
        replicas = target.stack.replicas
        outcome.expect(outcome.counts["401"] <= 60 * replicas, "more guesses were looked at than the limits allow")
        outcome.expect(outcome.counts["200"] == 0, "a wrong password was taken")
        own = {"email": email, "password": PASSWORD}
        for _ in range(2):
            answer = await browser.post("/auth/login", json=own)
            outcome.counts[f"owner, known browser {answer.status_code}"] += 1
            outcome.expect(answer.is_success, "a stranger locked the owner out of a known browser")
        async with _stranger(target, "127.0.0.5") as new:
            answer = await new.post("/auth/login", json=own)
            outcome.counts[f"owner, new browser {answer.status_code}"] += 1
            outcome.expect(answer.is_success, "a stranger locked the owner out of a new browser")
    return outcome


async def unknown_accounts(target: Target) -> Outcome:
    """Log-ins and resets with 2,000 addresses of nobody: what is counted for each must not pile up without end."""
    outcome = Outcome()
    async with _stranger(target) as stranger:

        async def ask(number: int) -> None:
            path = "/auth/login" if number % 2 else "/auth/password/reset"
            body = {"email": f"{uuid4()}@example.com", "password": "wrong"}
            answer = await stranger.post(path, json=body if number % 2 else {"email": body["email"]})
            outcome.counts[f"{'log-in' if number % 2 else 'reset'} {answer.status_code}"] += 1

        for batch in range(40):
            await asyncio.gather(*(ask(batch * 50 + number) for number in range(50)))
    # A reset is answered alike for everybody.
    unexpected = set(outcome.counts) - {"log-in 401", "log-in 429", "reset 200", "reset 429"}
    outcome.expect(not unexpected, f"met {unexpected}")
    return outcome


async def forged_tokens(target: Target) -> Outcome:
    """4,000 tokens signed by nobody, each with a key id and a sign-in of its own."""
    person = await target.person()
    claims = jwt.decode(person.tokens["access_token"], options={"verify_signature": False})
    outcome = Outcome()
    async with _stranger(target) as stranger:

        async def ask(_: int) -> None:
            forged = jwt.encode(
                {**claims, "session_id": str(uuid4()), "sub": str(uuid4())},
                "not the secret of anybody, yet long enough",
                algorithm="HS256",
                headers={"kid": str(uuid4())},
            )
            answer = await stranger.get("/sessions", headers={"Authorization": f"Bearer {forged}"})
            outcome.counts[str(answer.status_code)] += 1

        for _ in range(80):
            await asyncio.gather(*(ask(number) for number in range(50)))
    outcome.expect(set(outcome.counts) <= {"401"}, f"met {set(outcome.counts)}")
    return outcome


async def own_prices(target: Target) -> Outcome:
    """A user's token where a service's word is due: runs over gRPC and over Supabase's REST interface."""
    person = await target.person()
    session = (await person.create_session())["id"]
    token = person.tokens["access_token"]
    lease = runs_pb2.Lease(run_id=str(uuid4()), token=uuid4().hex * 2)
    end = runs_pb2.FinishRunRequest(lease=lease, next_seq=2, state=runs_pb2.RUN_STATE_SUCCEEDED)
    outcome = Outcome()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.stack.env['SESSIONS_PORT']}") as channel:
        stub = runs_pb2_grpc.RunsServiceStub(channel)
        start = runs_pb2.StartRunRequest(session_id=session, turn=turns_pb2.Turn(content="x", model="the dearest"))
        for metadata in (
            (("authorization", f"Bearer {token}"),),
            (("authorization", f"Bearer {token}"), (SERVICE_KEY_HEADER, "guess")),
            ((SERVICE_KEY_HEADER, "guess"),),
        ):
            for method, message in ((stub.StartRun, start), (stub.FinishRun, end)):
                outcome.counts[await _code(method, message, metadata)] += 1
    headers = {
        "apikey": target.stack.publishable_key,
        "Authorization": f"Bearer {token}",
        "Content-Profile": "api",
    }
    async with httpx.AsyncClient(base_url=target.stack.supabase_url, timeout=60) as supabase:
        for operation in ("start_run", "start_model_call", "finish_run", "append_run_events", "interrupt_runs"):
            args = {"session_id": session, "turn": {"content": "x"}, "prices": {"prompt": 0}, "lease_seconds": 3600}
            answer = await supabase.post(
                f"/rest/v1/rpc/{operation}", content=json.dumps({"args": args}), headers=headers
            )
            outcome.counts[f"rest {answer.status_code}"] += 1
            outcome.expect(answer.is_client_error, f"{operation}: {answer.status_code}")
    outcome.expect("OK" not in outcome.counts, "a user's token was enough")
    outcome.expect(not ok(await person.call("GET", "/runs"))["runs"], "a run was made")
    return outcome


async def _code(
    method: grpc.aio.UnaryUnaryMultiCallable[Any, Any], message: object, metadata: tuple[tuple[str, str], ...]
) -> str:
    try:
        await method(message, metadata=metadata, timeout=60)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


async def model_calls(target: Target) -> Outcome:
    """Calls of OpenAI's API that would cost more than they say: many at once, many answers, unknown parameters."""
    person = await target.person()
    models = ok(await person.call("GET", "/v1/models"))["data"]
    usual = {"model": models[0]["id"], "messages": [{"role": "user", "content": "hello"}]}
    kinds: list[dict[str, object]] = [
        {},
        {"n": 1000},
        {"max_tokens": 10**12},
        {"max_completion_tokens": 2**63},
        {"model": "the-dearest-of-all"},
        {"service_tier": "priority"},
        {"web_search_options": {}},
        {"tools": [{"type": "web_search"}]},
        {"prediction": {"type": "content", "content": "x" * 1000}},
    ]
    outcome = Outcome()

    async def ask(kind: dict[str, object]) -> None:
        answer = await person.call("POST", "/v1/chat/completions", {**usual, **kind})
        outcome.counts[str(answer.status_code)] += 1
        named: Counter[str] = Counter(kind)
        outcome.expect(not named or answer.is_client_error, f"{sorted(named)}: {answer.status_code}")

    for _ in range(5):
        await asyncio.gather(*(ask(kind) for kind in kinds * 4))
    outcome.expect(not [status for status in outcome.counts if status.startswith("5")], "a call made a server fail")
    return outcome


ATTACKS = (
    Attack("guessed_passwords", guessed_passwords, most_growth_bytes=60 * MB, settings=AS_DEPLOYED),
    Attack("unknown_accounts", unknown_accounts, most_growth_bytes=60 * MB, settings=AS_DEPLOYED),
    Attack("forged_tokens", forged_tokens, most_growth_bytes=60 * MB),
    Attack("own_prices", own_prices, most_growth_bytes=60 * MB),
    Attack("model_calls", model_calls, most_growth_bytes=60 * MB),
)
