"""Attacks on connections: heads, bodies, connections and readers that never end, and tokens of any kind."""

import asyncio
import json
import time
from collections.abc import Awaitable
from uuid import uuid4

import jwt

from tests.attacks.frame import MB, Attack, Outcome, Target
from tests.attacks.sockets import connect, ended, head, json_head, outcome_of, send
from tests.support.api import Person, ok

PIECE = b"X: a\r\n" * 10_000


async def _all_of(work: list[Awaitable[str]], *, expected: set[str]) -> Outcome:
    outcome = Outcome()
    outcome.counts.update(await asyncio.gather(*work))
    unexpected = set(outcome.counts) - expected
    outcome.expect(not unexpected, f"met {unexpected}, expected {expected}")
    return outcome


async def endless_heads(target: Target) -> Outcome:
    """100 MB of headers, over eight connections."""
    begin = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    work = [ended(target, begin, *[PIECE] * 200) for _ in range(8)]
    return await _all_of(list(work), expected={"431", "cut"})


async def half_heads(target: Target) -> Outcome:
    """400 connections with half a head each."""
    work = [ended(target, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 30_000) for _ in range(400)]
    return await _all_of(list(work), expected={"408"})


async def half_log_ins(target: Target) -> Outcome:
    """60 log-ins whose bodies of 8 MB never end, and 60 of a size that is taken."""
    large = [ended(target, json_head("/auth/login", 8 * MB), b" " * 7_500_000) for _ in range(60)]
    small = [ended(target, json_head("/auth/login", 16_000), b" " * 15_000) for _ in range(60)]
    return await _all_of([*large, *small], expected={"408", "413", "429", "cut"})


async def half_prompts(target: Target) -> Outcome:
    """200 prompts of 4 MB of one account that never end."""
    token = (await target.person()).tokens["access_token"]
    begin = json_head("/v1/chat/completions", 4 * MB, token=token)
    work = [ended(target, begin, b" " * 3_500_000) for _ in range(200)]
    return await _all_of(list(work), expected={"408", "429", "cut"})


async def endless_chunks(target: Target) -> Outcome:
    """Chunked bodies without an end: extensions, trailers, small chunks."""
    token = (await target.person()).tokens["access_token"]
    begin = head("POST", "/sessions", "Content-Type: application/json", "Transfer-Encoding: chunked", token=token)
    kinds = [b"1;" + b"a" * 5 * MB, b"0\r\n" + PIECE * 50, b"1\r\n \r\n" * MB]
    work = [ended(target, begin, kind) for kind in kinds * 10]
    return await _all_of(list(work), expected={"400", "413", "cut"})


async def many_connections(target: Target) -> Outcome:
    """2,000 connections from one address."""
    made = [await connect(target) for _ in range(2000)]
    began = time.monotonic()
    outcome = Outcome()
    outcome.counts.update(await asyncio.gather(*(outcome_of(one, seconds=5) for one in made)))
    outcome.expect(outcome.counts["429"] > 0, "nobody was told that there are too many")
    replicas = target.stack.replicas
    outcome.expect(outcome.counts["open still"] <= 512 * replicas, "more than 512 were let in")
    outcome.expect(time.monotonic() - began < 60, "the ends were not seen")
    return outcome


async def pipelining(target: Target) -> Outcome:
    """100,000 requests at once on each of twenty connections, whose answers nobody reads for a while."""
    flood = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 100_000
    work = [ended(target, flood) for _ in range(20)]
    return await _all_of(list(work), expected={"200", "cut"})


async def _fill(target: Target) -> tuple[Person, str]:
    """Return somebody with a session whose page is some megabytes long."""
    person = await target.person()
    session = (await person.create_session())["id"]
    messages = [{"role": "user", "content": "x" * 700_000} for _ in range(10)]
    ok(await person.call("POST", f"/sessions/{session}/messages", {"messages": messages}))
    return person, session


async def unread_pages(target: Target) -> Outcome:
    """Pages of 7 MB, asked for over sixty connections and never read."""
    person, session = await _fill(target)
    ask = head("GET", f"/sessions/{session}/messages?page_size=50", token=person.tokens["access_token"])
    made = [await connect(target) for _ in range(60)]
    await asyncio.gather(*(send(one, ask * 20) for one in made))
    # Longer than a reader may read nothing, and than it takes until the last of the answers has begun.
    await asyncio.sleep(75)  # nothing tells a client that does not read
    outcome = Outcome()
    outcome.counts.update(await asyncio.gather(*(outcome_of(one, seconds=20) for one in made)))
    outcome.expect(outcome.counts["200 open still"] == 0, "an answer that nobody reads was waiting still")
    return outcome


async def unread_streams(target: Target) -> Outcome:
    """Answers of the model over a hundred connections that nobody reads; the runs go on."""
    person = await target.person()
    sessions = [(await person.create_session())["id"] for _ in range(100)]
    body = json.dumps({"content": "word " * 2000}).encode()
    made = [await connect(target) for _ in sessions]
    for one, session in zip(made, sessions, strict=True):
        begin = json_head(f"/sessions/{session}/turns", len(body), token=person.tokens["access_token"])
        await send(one, begin + body)
    outcome = Outcome()
    outcome.counts.update(await asyncio.gather(*(outcome_of(one, seconds=60) for one in made)))
    return outcome


async def costly_heads(target: Target) -> Outcome:
    """Heads just within the limit that are made to take long to understand, ten times each."""
    token = (await target.person()).tokens["access_token"]
    size = 60_000
    kinds = [
        head("GET", "/auth/callback?code=a&st=b", f'Cookie: a="{chr(92) * size}"'),
        head("GET", "/auth/callback?code=a&st=b", f"Cookie: {'a=b;' * (size // 4)}"),
        head("GET", "/", f"Accept: {',' * size}", "Accept-Encoding: gzip"),
        head("GET", "/", f"Accept-Encoding: {'a;' * (size // 2)}"),
        head("GET", "/", f"If-None-Match: {',' * size}"),
        head("GET", "/", f"Range: bytes={'0-0,' * (size // 4)}"),
        head("GET", f"/sessions?{'&' * size}", token=token),
        head("GET", f"/sessions?page_token={'%25' * (size // 3)}", token=token),
        head("GET", "/" + "/" * size),
        head("GET", "/v1/models/" + "a/" * (size // 2), token=token),
        head("GET", "/sessions", f"Authorization: Bearer {'a.' * (size // 2)}"),
        head("GET", "/sessions", f"Authorization: {' ' * size}"),
        head("GET", "/sessions", f"Traceparent: {'0' * size}", f"X-Request-Id: {'a' * 10}", token=token),
        head("POST", "/sessions", f"Content-Type: {'a;' * (size // 2)}", "Content-Length: 2", token=token) + b"{}",
    ]
    work = [ended(target, kind.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)) for kind in kinds * 10]
    return await _all_of(list(work), expected={"200", "303", "400", "401", "404", "415"})


def _tokens(target: Target, person: Person) -> list[str]:
    claims = jwt.decode(person.tokens["access_token"], options={"verify_signature": False})
    odd: list[object] = [10**400, float("inf"), "\0", "\ud800", {"\0": ["\ud800"]}, 2**70, [[[]]], None]
    return [target.stack.sign({**claims, name: value}) for value in odd for name in (*claims, "more")]


async def odd_tokens(target: Target) -> Outcome:
    """Signed tokens whose claims are of any kind."""
    person = await target.person()
    outcome = Outcome()
    for token in _tokens(target, person):
        for path in ("/sessions", "/auth/me", "/v1/models", f"/sessions/{uuid4()}"):
            response = await target.client.get(path, headers={"Authorization": f"Bearer {token}"})
            outcome.counts[str(response.status_code)] += 1
    outcome.expect(not [one for one in outcome.counts if one.startswith("5")], "a token made the gateway fail")
    return outcome


ATTACKS = (
    Attack("endless_heads", endless_heads, most_growth_bytes=60 * MB),
    Attack("half_heads", half_heads, most_growth_bytes=80 * MB),
    Attack("half_log_ins", half_log_ins, most_growth_bytes=80 * MB),
    Attack("half_prompts", half_prompts),
    Attack("endless_chunks", endless_chunks, most_growth_bytes=60 * MB),
    Attack("many_connections", many_connections, most_growth_bytes=60 * MB),
    Attack("pipelining", pipelining, most_growth_bytes=60 * MB),
    Attack("costly_heads", costly_heads, most_growth_bytes=60 * MB),
    Attack("unread_pages", unread_pages, most_growth_bytes=400 * MB),
    Attack("unread_streams", unread_streams),
    Attack("odd_tokens", odd_tokens, most_growth_bytes=60 * MB),
)
